"""Flavors of nodes: set, put in order, remove, see which nodes are of which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from mainstay.domain.access import Permission
from mainstay.domain.affinity import Requirement
from mainstay.domain.errors import Conflict, Invalid, NotFound
from mainstay.domain.flavor import NODE_FLAVORS_MAX, NodeFlavor, NodeFlavorRecord, placed_before
from mainstay.domain.plan import Plan, RemoveNodeFlavor, SetNodeFlavor
from mainstay.domain.queue import OTHER_FLAVOR
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot
from mainstay.operations.principal import Done, Principal, RequestKey, replayed
from mainstay.ports import Store

FLAVOR_NAME = re.compile(r"(?=[^a-z]*[a-z])[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
"""With a lower-case letter and without a dot: no model of GPUs and no slice has such a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlavorChange:
    """What is to be different of a flavor, new or not."""

    name: str
    requirements: tuple[Requirement, ...] | None = None
    """All of them; None: as they are."""
    before: str = ""
    """The flavor that it is to come just before; empty: it stays where it is, and a new one comes last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlavorState:
    """A flavor, and what its nodes that take work have."""

    record: NodeFlavorRecord
    nodes: int
    cpu_milli: int
    memory_bytes: int
    gpus: int
    """Whole ones."""
    queues: tuple[str, ...]
    """Queues and cohorts with a quota of it."""


def put(store: Store, principal: Principal, changes: Iterable[FlavorChange], *, now: int) -> None:
    """Set flavors, all of them or none, one after the other. Raises Invalid, and NotFound for one to come before that is not."""
    principal.require(Permission.MANAGE)
    wanted = [row.flavor for row in store.node_flavors()]
    models = store.snapshot(now=now, seed=0).gpu_models
    actions = []
    for change in changes:
        known = {one.name: one for one in wanted}
        flavor = _flavor(change, known.get(change.name), models=models)
        if change.before and change.before not in known.keys() - {change.name}:
            raise _not_found(change.before, sorted(known.keys() - {change.name}))
        wanted = placed_before(wanted, flavor, change.before)
        numbers: dict[str, int | float | str] = {"by": principal.name, "detail": flavor.words}
        reason = Reason(code=Code.NODE_FLAVOR_SET, object=flavor.name, numbers=numbers)
        actions.append(SetNodeFlavor(flavor=flavor, before=change.before, reason=reason))
    if len(wanted) > NODE_FLAVORS_MAX:
        msg = f"there would be {len(wanted)} flavors of nodes"
        hint = f"at most {NODE_FLAVORS_MAX}; remove those of which no queue has a quota"
        raise Invalid(msg, object_="name", hint=hint)
    store.commit(Plan(actor=principal.name, now=now, actions=tuple(actions), atomic=True))


def remove(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> Done:
    """Forget a flavor. Raises NotFound, and Conflict while a queue has a quota of it."""
    principal.require(Permission.MANAGE)
    if done := replayed(store, principal, request):
        return done
    here = names(store)
    if name not in here:
        raise _not_found(name, here)
    reason = Reason(code=Code.NODE_FLAVOR_REMOVED, object=name, numbers={"by": principal.name})
    kept = request.with_reply("", principal) if request else None
    action = RemoveNodeFlavor(name=name, reason=reason)
    try:
        store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True, idempotency=kept))
    except Conflict as error:
        hint = "set the quotas of these queues without it first: mainstay queue set QUEUE --quota ..."
        raise Conflict(error.message, object_=name, hint=hint, numbers=error.numbers) from error
    return Done(reply="", replayed=False)


def states(store: Store, principal: Principal, *, now: int) -> tuple[FlavorState, ...]:
    """Every flavor, in their order."""
    principal.require_somewhere(Permission.READ)
    snapshot, users = store.snapshot(now=now, seed=0), store.queues()
    return tuple(
        _state(
            snapshot,
            record,
            queues=tuple(
                row.queue.name for row in users if any(flavor == record.flavor.name for flavor, _ in row.queue.quotas)
            ),
        )
        for record in store.node_flavors()
    )


def names(store: Store) -> tuple[str, ...]:
    """In their order."""
    return tuple(row.flavor.name for row in store.node_flavors())


def _state(snapshot: Snapshot, record: NodeFlavorRecord, *, queues: tuple[str, ...]) -> FlavorState:
    nodes = snapshot.nodes
    here = np.zeros(nodes.key.size, dtype=np.bool_)
    # What was set in the same moment is not in the columns yet.
    if nodes.flavor is not None and record.flavor.name in snapshot.flavors:
        here = nodes.sound & (nodes.flavor == snapshot.flavors.index(record.flavor.name))
    return FlavorState(
        record=record,
        nodes=int(here.sum()),
        cpu_milli=int(nodes.cpu_milli[here].sum()),
        memory_bytes=int(nodes.memory_bytes[here].sum()),
        gpus=int(nodes.gpus[here].sum()),
        queues=queues,
    )


def _flavor(change: FlavorChange, known: NodeFlavor | None, *, models: Sequence[str]) -> NodeFlavor:
    """As it is to be. Raises Invalid."""
    name, requirements = change.name, change.requirements
    if not FLAVOR_NAME.match(name) or name == OTHER_FLAVOR:
        msg = f"name: {name!r} is not allowed"
        hint = f"allowed: lower-case letters, digits and dashes, 1 to 63, a letter among them; not {OTHER_FLAVOR}"
        raise Invalid(msg, object_="name", hint=hint)
    if name.upper() in {model.upper() for model in models}:
        msg = f"name: {name} is how GPUs are called"
        hint = "quotas of a model of GPUs need no flavor of nodes; give it another name"
        raise Invalid(msg, object_="name", hint=hint)
    if requirements is None and known is not None:
        requirements = known.requirements
    if not requirements:
        msg = f"node_labels: it says of no label what it is on the nodes of {name}"
        raise Invalid(msg, object_="node_labels", hint="say it as disk=ssd; nodes of no flavor need none")
    return NodeFlavor(name=name, requirements=tuple(sorted(set(requirements))))


def _not_found(name: str, known: Sequence[str]) -> NotFound:
    msg = f"no such flavor of nodes: {name}"
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "list those that there are: mainstay flavor list"
    return NotFound(msg, object_=name, hint=hint)
