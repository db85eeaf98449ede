"""Queues and cohorts: set, remove, see how each stands; and whether the queue that a job names is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from mainstay.decide import standing
from mainstay.decide.ordering import ORDERS
from mainstay.decide.placement import POLICIES
from mainstay.decide.standing import Standing
from mainstay.domain.access import Permission
from mainstay.domain.errors import Conflict, Invalid, NotFound
from mainstay.domain.history import HALF_LIFE_SECONDS_MAX, HistoryPolicy, HistoryRecord
from mainstay.domain.plan import Plan, RemoveQueue, RowVersion, SetQueue, SetQueueHistory
from mainstay.domain.preemption import PreemptionPolicy
from mainstay.domain.queue import DEFAULT_QUEUE, OTHER_FLAVOR, Cell, QueueRecord, QueueSpec, Quota, Resource, tree_of
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot
from mainstay.operations.principal import Done, Principal, RequestKey, replayed
from mainstay.ports import Store

QUEUE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
MIN_RUNTIME_SECONDS_MAX = 30 * 86_400
RESERVED_AFTER_SECONDS_MAX = 30 * 86_400
FLAVOR_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9./_-]{0,62}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChange:
    """What is to be different of a queue or cohort, new or not. None: as it is, or as it is by default."""

    name: str
    parent: str | None = None
    """Empty: no cohort."""
    cohort: bool | None = None
    weight: float | None = None
    quotas: Mapping[Cell, Quota] | None = None
    """All of them."""
    preemption: PreemptionPolicy | None = None
    """All of it."""
    reserved_after_seconds: int | None = None
    placement: str | None = None
    """Empty: as for everybody."""
    order: str | None = None
    """A name of decide/ordering."""
    default_max_duration_seconds: int | None = None
    """0: none."""

    def of(self, known: QueueSpec | None) -> QueueSpec:
        """The queue as it is to be."""
        queue = known or QueueSpec(name=self.name)
        return QueueSpec(
            name=self.name,
            parent=queue.parent if self.parent is None else self.parent,
            cohort=queue.cohort if self.cohort is None else self.cohort,
            weight=queue.weight if self.weight is None else self.weight,
            quotas=queue.quotas if self.quotas is None else self.quotas,
            preemption=queue.preemption if self.preemption is None else self.preemption,
            reserved_after_seconds=(
                queue.reserved_after_seconds if self.reserved_after_seconds is None else self.reserved_after_seconds
            ),
            placement=queue.placement if self.placement is None else self.placement,
            order=queue.order if self.order is None else self.order,
            default_max_duration_seconds=(
                queue.default_max_duration_seconds
                if self.default_max_duration_seconds is None
                else self.default_max_duration_seconds
            ),
        )


HISTORY_WEIGHT_MAX = 1_000.0
HALF_LIFE_SECONDS_MIN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """A queue or cohort, and how it stands. Of other tenants' use an administrator alone is told."""

    queue: QueueSpec
    record: QueueRecord | None
    """None for the default queue and for cohorts that nobody has set."""
    standing: Standing
    everybody: bool
    """Whether what is used, and how many wait and run, is that of all tenants, or that of the caller's own."""
    waiting: int
    running: int
    warnings: tuple[str, ...]


def put(store: Store, principal: Principal, changes: Iterable[QueueChange], *, now: int) -> None:
    """Set queues and cohorts, all of them or none. Raises Invalid in the words of the tree, Conflict if one is in use."""
    principal.require(Permission.MANAGE)
    records = {row.queue.name: row for row in store.queues()}
    wanted: dict[str, QueueSpec] = {name: row.queue for name, row in records.items()}
    actions = []
    for change in changes:
        queue = change.of(wanted.get(change.name))
        _check(queue)
        wanted[queue.name] = queue
        read = records[queue.name].version if queue.name in records else 0
        actions.append(
            SetQueue(
                queue=queue,
                guards=(RowVersion(kind="queue", key=queue.name, version=read),),
                reason=Reason(code=Code.QUEUE_SET, object=queue.name, numbers={"by": principal.name}),
            )
        )
    tree_of(wanted.values())
    # What is above comes first, so that the tree is one after each of them.
    actions.sort(key=lambda action: not action.queue.cohort)
    try:
        store.commit(Plan(actor=principal.name, now=now, actions=tuple(actions), atomic=True))
    except Conflict as error:
        hint = "look at it again, and say again what is to change: mainstay queue list"
        raise Conflict(error.message, object_=error.object, hint=hint, numbers=error.numbers) from error


def gpu_models(store: Store, *, now: int) -> tuple[str, ...]:
    """Models of GPUs, and shapes of slices, that the platform has heard of."""
    return store.snapshot(now=now, seed=0).gpu_models


def remove(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> Done:
    """Forget a queue or cohort. Raises NotFound, and Conflict while it is in use."""
    principal.require(Permission.MANAGE)
    if done := replayed(store, principal, request):
        return done
    here = [row.queue.name for row in store.queues()]
    if name not in here:
        msg = f"no such queue: {name}"
        near = get_close_matches(name, here, n=1)
        hint = (
            f"did you mean {near[0]}?" if near else "nobody has set it; list those that there are: mainstay queue list"
        )
        raise NotFound(msg, object_=name, hint=hint)
    reason = Reason(code=Code.QUEUE_REMOVED, object=name, numbers={"by": principal.name})
    kept = request.with_reply("", principal) if request else None
    action = RemoveQueue(queue=name, reason=reason)
    try:
        store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True, idempotency=kept))
    except Conflict as error:
        hint = "let what is in it end, or stop it; set another parent for what is below it"
        raise Conflict(error.message, object_=name, hint=hint, numbers=error.numbers) from error
    return Done(reply="", replayed=False)


def history(store: Store, principal: Principal) -> HistoryRecord:
    """Whether what queues used lately counts, and how."""
    principal.require(Permission.READ)
    return store.history_policy()


def set_history(store: Store, principal: Principal, policy: HistoryPolicy, *, now: int) -> HistoryRecord:
    """Say it anew, all of it. What is on record fades on by the new half-life; off forgets it. Raises Invalid."""
    principal.require(Permission.MANAGE)
    _check_history(policy)
    numbers: dict[str, int | float | str] = {"by": principal.name, "detail": history_words(policy)}
    action = SetQueueHistory(policy=policy, reason=Reason(code=Code.QUEUE_HISTORY_SET, numbers=numbers))
    store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True))
    return store.history_policy()


def history_words(policy: HistoryPolicy) -> str:
    """All that it says, in figures."""
    if not policy.on:
        return "off"
    return f"half-life {policy.half_life_seconds} s, weight {policy.weight:g}, entry {policy.entry_seconds} s"


def _check_history(policy: HistoryPolicy) -> None:
    seconds = policy.half_life_seconds
    if seconds and not HALF_LIFE_SECONDS_MIN <= seconds <= HALF_LIFE_SECONDS_MAX:
        msg = f"half_life: {seconds} s is not allowed"
        raise Invalid(msg, object_="half_life", hint="1m to 366d, e.g. 7d; 0 turns the history off")
    if not 0 <= policy.weight <= HISTORY_WEIGHT_MAX:
        msg = f"weight: {policy.weight:g} is not allowed"
        hint = "0 to 1,000: 1 counts what was used lately like what is held now, 0 only shows it"
        raise Invalid(msg, object_="weight", hint=hint)
    if not 0 <= policy.entry_seconds <= seconds:
        msg = f"entry: {policy.entry_seconds} s is not allowed"
        hint = f"at most the half-life, {seconds} s" if seconds else "without a half-life there is nothing to enter"
        raise Invalid(msg, object_="entry", hint=hint)


def states(store: Store, principal: Principal, *, now: int) -> tuple[QueueState, ...]:
    """Every queue and cohort, parents before their children."""
    principal.require_somewhere(Permission.READ)
    everybody = principal.may(Permission.MANAGE)
    snapshot = store.snapshot(now=now, seed=0)
    counts = _counts(snapshot, store.queue_counts(tenant="" if everybody else principal.tenant))
    records = {row.queue.name: row for row in store.queues()}
    models = _flavors(snapshot)
    found = []
    for row, stands in enumerate(standing.standings(snapshot, tenant=None if everybody else principal.tenant)):
        name = snapshot.queues.names[row]
        record = records.get(name)
        queue = record.queue if record else QueueSpec(name=name, cohort=bool(snapshot.queues.cohort[row]))
        waiting, running = counts[row]
        found.append(
            QueueState(
                queue=queue,
                record=record,
                standing=stands,
                everybody=everybody,
                waiting=waiting,
                running=running,
                warnings=tuple(_warnings(queue, models)),
            )
        )
    return tuple(found)


def state(store: Store, principal: Principal, name: str, *, now: int) -> QueueState:
    """One of them. Raises NotFound."""
    all_ = {one.queue.name: one for one in states(store, principal, now=now)}
    if name not in all_:
        msg = f"no such queue: {name}"
        near = get_close_matches(name, all_, n=1)
        hint = f"did you mean {near[0]}?" if near else "list them with: mainstay queue list"
        raise NotFound(msg, object_=name, hint=hint)
    return all_[name]


def require_known(store: Store, names: Iterable[str]) -> None:
    """Raises Invalid for a queue that nobody has set, naming those that there are, the nearest spelling first."""
    asked = sorted(set(names) - {DEFAULT_QUEUE})
    if not asked:
        return
    tree = tree_of(row.queue for row in store.queues())
    known = [name for name, cohort in zip(tree.names, tree.cohort.tolist(), strict=True) if not cohort]
    for name in asked:
        if name not in known:
            near = get_close_matches(name, known, n=len(known), cutoff=0.0)
            cohort = name in tree.names
            msg = (
                f"queue: {name} is a cohort, which takes no workloads"
                if cohort
                else f"queue: there is no queue {name!r}"
            )
            raise Invalid(msg, object_="queue", hint=f"the queues are: {', '.join(near)}")


def _check(queue: QueueSpec) -> None:
    for field, name in (("name", queue.name), ("parent", queue.parent)):
        if not QUEUE_NAME.match(name) and (name or field == "name"):
            msg = f"{field}: {name!r} is not allowed"
            hint = "allowed: lower-case letters, digits and dashes, 1 to 40, a letter or digit first and last"
            raise Invalid(msg, object_=field, hint=hint)
    if queue.name == DEFAULT_QUEUE and queue.cohort:
        msg = f"{DEFAULT_QUEUE} is where workloads wait that name no queue; it cannot be a cohort"
        raise Invalid(msg, object_="cohort", hint="give the cohort another name")
    if queue.preemption.min_runtime_seconds > MIN_RUNTIME_SECONDS_MAX:
        msg = f"min_runtime: {queue.preemption.min_runtime_seconds} s is too long"
        raise Invalid(msg, object_="min_runtime", hint="at most 30 days; a class that is not preemptible never yields")
    if queue.reserved_after_seconds > RESERVED_AFTER_SECONDS_MAX:
        msg = f"reserved_after: {queue.reserved_after_seconds} s is too long"
        raise Invalid(msg, object_="reserved_after", hint="at most 30 days; what nobody waits for is never reserved")
    for field, name, known in (("placement", queue.placement, ("", *POLICIES)), ("order", queue.order, tuple(ORDERS))):
        if name not in known:
            msg = f"{field}: there is no {'policy' if field == 'placement' else 'order'} {name!r}"
            raise Invalid(msg, object_=field, hint=f"there are: {', '.join(filter(None, known))}")
    _check_quotas(queue)


def _check_quotas(queue: QueueSpec) -> None:
    for (flavor, resource), quota in queue.quotas.items():
        if queue.cohort and not queue.parent and (quota.borrowing_limit, quota.lending_limit) != (None, None):
            msg = f"quotas: {resource} of {flavor} in {queue.name} has a limit to borrow or lend"
            raise Invalid(
                msg, object_="quotas", hint=f"{queue.name} is in no cohort to do so: leave it out, or set a parent"
            )
        if resource not in set(Resource):
            msg = f"quotas: there is no resource {resource!r}"
            raise Invalid(msg, object_="quotas", hint=f"there are: {', '.join(Resource)}")
        if not FLAVOR_NAME.match(flavor):
            msg = f"quotas: {flavor!r} is not the name of a flavor"
            raise Invalid(
                msg, object_="quotas", hint=f"a flavor of nodes, a model of GPUs such as H100, or {OTHER_FLAVOR}"
            )


def _counts(snapshot: Snapshot, by_name: Mapping[str, tuple[int, int]]) -> list[tuple[int, int]]:
    """By row of the tree: a cohort has those of all below it, and the default queue those of queues nobody has set."""
    tree = snapshot.queues
    row_of = {name: row for row, name in enumerate(tree.names) if not tree.cohort[row]}
    counts = np.zeros((len(tree.names), 2), dtype=np.int64)
    for name, pair in by_name.items():
        at = row_of.get(name, row_of[DEFAULT_QUEUE])
        while at >= 0:
            counts[at] += pair
            at = int(tree.parent[at])
    return [(int(waiting), int(running)) for waiting, running in counts]


def _flavors(snapshot: Snapshot) -> frozenset[str]:
    """Models and shapes that nodes have, and flavors that nodes are of."""
    nodes = snapshot.nodes
    models = {snapshot.gpu_models[model] for model in np.unique(nodes.gpu_model).tolist()}
    numbers = [] if nodes.flavor is None else np.unique(nodes.flavor).tolist()
    flavors = {snapshot.flavors[number] for number in numbers}
    return frozenset(models | nodes.shapes.keys() | flavors) - {""}


def _warnings(queue: QueueSpec, models: frozenset[str]) -> Iterable[str]:
    for flavor in sorted({flavor for flavor, _ in queue.quotas} - models - {OTHER_FLAVOR}):
        lower = next((model for model in models if model.lower() == flavor.lower()), "")
        near = [lower] if lower else get_close_matches(flavor, models, n=1)
        yield f"no node has {flavor} now" + (f"; did you mean {near[0]}?" if near else "")
