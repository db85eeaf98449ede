"""`apply -f` and `plan -f` of Kueue's objects: show what would change of queues and priorities, ask, set it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from mainstay.cli.exits import Exit
from mainstay.cli.queues import preemption_words
from mainstay.cli.show import MEMORY_UNITS, figure, print_json, print_table, say

if TYPE_CHECKING:
    from mainstay.sdk.client import Client
    from mainstay.wire.kueue import Import, LocalQueue
    from mainstay.wire.requests import LocalQueueRequest, NamedFlavorRequest, NamedQueueRequest, QuotaRequest
    from mainstay.wire.views import PriorityClassView, QueueView, QuotaView

UNITS = {"cores": 1_000}
"""How many of a request's units one of a view's is, where that is not 1."""
Limits = tuple[float, float | None, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of one object."""

    kind: str
    name: str
    change: str
    """new, changed, same, or none: nothing is made of it."""
    detail: tuple[str, ...] = ()


def preview(content: bytes, *, source: str, cluster: str, as_json: bool) -> None:
    """Show what setting it would change. Its LocalQueues are of this cluster, or of every one."""
    from mainstay.sdk.client import Client

    wanted = _parsed(content, source)
    with Client() as client:
        changes = _changes(client, wanted, cluster=cluster)
    if as_json:
        print_json({"changes": [asdict(change) for change in changes]})
    else:
        _print(changes)


def set_all(content: bytes, *, source: str, cluster: str, yes: bool, as_json: bool) -> int:
    """Show what changes, ask, and set it: all queues together, or none. Its LocalQueues are of this cluster, or of every one."""
    from mainstay.sdk.client import Client

    wanted = _parsed(content, source)
    with Client() as client:
        changes = _changes(client, wanted, cluster=cluster)
        if not as_json:
            _print(changes)
        changed = {(one.kind, one.name) for one in changes if one.change in {"new", "changed"}}
        if changed and not as_json and not yes and not _confirmed():
            say("nothing was set")
            return Exit.INTERRUPTED
        queues = [one for one in wanted.queues if (_kind(one), one.name) in changed]
        with _at_its_line(source, wanted):
            if any(kind == "ResourceFlavor" for kind, _ in changed):
                client.set_flavors(_in_order(wanted.flavors))
            made = client.set_queues(queues) if queues else []
        for name, number in wanted.priorities:
            if ("WorkloadPriorityClass", name) in changed:
                client.set_priority(name, number)
        if local := [one for one in wanted.local_queues if ("LocalQueue", f"{one.namespace}/{one.name}") in changed]:
            client.set_local_queues(_requests(local, cluster))
    if as_json:
        views = [view.model_dump(mode="json") for view in made]
        print_json({"changes": [asdict(change) for change in changes], "queues": views})
        return Exit.OK
    say(f"✓ {len(changed)} set" if changed else "nothing to change: all is there as the file says", colour="green")
    for view in made:
        for warning in view.warnings:
            say(f"  warning: {view.name}: {warning}")
    say("  next: mainstay queue list")
    return Exit.OK


def _parsed(content: bytes, source: str) -> Import:
    from mainstay.wire.jobfile import JobFileError
    from mainstay.wire.kueue import parse

    try:
        return parse(content, source=source)
    except JobFileError as error:
        for fault in error.faults:
            say(fault.sentence(error.source))
        raise click.exceptions.Exit(Exit.USAGE) from None


def _changes(client: Client, wanted: Import, *, cluster: str) -> list[Change]:
    queues = {one.name: one for one in client.queues()}
    priorities = {one.name: one for one in client.priorities()}
    cohorts = {one.name: one.cohort for one in queues.values()} | {one.name: one.cohort for one in wanted.queues}
    names = {name for name, cohort in cohorts.items() if not cohort}
    found = [*_flavor_changes(client, wanted.flavors)]
    found += [_queue_change(one, queues.get(one.name)) for one in wanted.queues]
    found += [_priority_change(name, number, priorities.get(name)) for name, number in wanted.priorities]
    found += _local_changes(client, wanted.local_queues, cluster=cluster, there=names)
    return found


def _local_changes(
    client: Client, wanted: Sequence[LocalQueue], *, cluster: str, there: Collection[str]
) -> Iterator[Change]:
    """`there`: the queues that there are then."""
    before = {}
    if wanted:
        before = {(one.namespace, one.name): one.queue for one in client.local_queues() if one.cluster == cluster}
    for one in wanted:
        name, known = f"{one.namespace}/{one.name}", before.get((one.namespace, one.name))
        if one.queue not in there:
            words = f"not set: there is no queue {one.queue}"
            yield Change(kind="LocalQueue", name=name, change="none", detail=(words,))
        elif known is None:
            yield Change(kind="LocalQueue", name=name, change="new", detail=(f"queue {one.queue}",))
        else:
            detail = () if known == one.queue else (f"queue {known} -> {one.queue}",)
            yield Change(kind="LocalQueue", name=name, change="changed" if detail else "same", detail=detail)


def _requests(local: Sequence[LocalQueue], cluster: str) -> list[LocalQueueRequest]:
    from mainstay.wire.requests import LocalQueueRequest

    return [
        LocalQueueRequest(cluster=cluster, namespace=one.namespace, name=one.name, queue=one.queue) for one in local
    ]


def _flavor_changes(client: Client, wanted: Sequence[NamedFlavorRequest]) -> Iterator[Change]:
    """Of flavors of nodes; those that are no more than a model of GPUs are not set."""
    if not wanted:
        return
    known = {one.name: one for one in client.flavors()}
    names = [one.name for one in wanted]
    order = [name for name in known if name in names]
    for one in wanted:
        words = f"nodes with {', '.join(one.node_labels or ())}"
        before = known.get(one.name)
        if before is None:
            yield Change(kind="ResourceFlavor", name=one.name, change="new", detail=(words,))
            continue
        detail = [] if sorted(before.node_labels) == sorted(one.node_labels or ()) else [words]
        if order != [name for name in names if name in known]:
            detail.append(f"order {', '.join(names)}")
        yield Change(kind="ResourceFlavor", name=one.name, change="changed" if detail else "same", detail=tuple(detail))


def _in_order(flavors: Sequence[NamedFlavorRequest]) -> list[NamedFlavorRequest]:
    """The last one first, each before the one that follows it."""
    following = ["", *(one.name for one in flavors[::-1])]
    return [one.model_copy(update={"before": before}) for one, before in zip(flavors[::-1], following, strict=False)]


def _queue_change(wanted: NamedQueueRequest, known: QueueView | None) -> Change:
    kind = _kind(wanted)
    if known is None or known.set_at is None:
        return Change(kind=kind, name=wanted.name, change="new", detail=tuple(_all_of(wanted)))
    detail = []
    if known.cohort != wanted.cohort:
        detail.append("becomes a cohort" if wanted.cohort else "becomes a queue")
    if known.parent != wanted.parent:
        detail.append(f"parent {known.parent or 'none'} -> {wanted.parent or 'none'}")
    if known.weight != wanted.weight:
        detail.append(f"weight {known.weight:g} -> {wanted.weight or 0:g}")
    if (old := preemption_words(known.preemption)) != (new := preemption_words(wanted.preemption or known.preemption)):
        detail.append(f"preempts {old or 'nothing'} -> {new or 'nothing'}")
    before: dict[tuple[str, str], Limits] = {(one.resource, one.flavor): _viewed(one) for one in known.quotas}
    after: dict[tuple[str, str], Limits] = {(one.resource, one.flavor): _asked(one) for one in wanted.quotas or ()}
    for cell in sorted(before.keys() | after.keys()):
        if before.get(cell) != after.get(cell):
            resource, flavor = cell
            name = resource if flavor == "default" else f"{resource} {flavor}"
            detail.append(f"{name} {_words(resource, before.get(cell))} -> {_words(resource, after.get(cell))}")
    return Change(kind=kind, name=wanted.name, change="changed" if detail else "same", detail=tuple(detail))


def _priority_change(name: str, number: int, known: PriorityClassView | None) -> Change:
    kind = "WorkloadPriorityClass"
    if known is None:
        return Change(kind=kind, name=name, change="new", detail=(f"priority {number}",))
    if (known.priority, known.preemptible) == (number, True):
        return Change(kind=kind, name=name, change="same")
    words = f"priority {known.priority} -> {number}" + ("" if known.preemptible else ", preemptible")
    return Change(kind=kind, name=name, change="changed", detail=(words,))


def _kind(wanted: NamedQueueRequest) -> str:
    return "Cohort" if wanted.cohort else "ClusterQueue"


def _all_of(wanted: NamedQueueRequest) -> Iterator[str]:
    if wanted.parent:
        yield f"parent {wanted.parent}"
    if wanted.weight != 1:
        yield f"weight {wanted.weight:g}"
    if wanted.preemption and (words := preemption_words(wanted.preemption)):
        yield f"preempts {words}"
    for one in wanted.quotas or ():
        name = one.resource if one.flavor == "default" else f"{one.resource} {one.flavor}"
        yield f"{name} {_words(one.resource, _asked(one))}"


def _asked(quota: QuotaRequest) -> Limits:
    from mainstay.wire import quantities

    def read(text: str | None) -> float | None:
        return None if text is None else quantities.amount(quota.resource, text)

    return read(quota.nominal) or 0, read(quota.borrowing_limit), read(quota.lending_limit)


def _viewed(quota: QuotaView) -> Limits:
    scale = UNITS.get(quota.unit, 1)

    def read(amount: float | None) -> float | None:
        return None if amount is None else round(amount * scale)

    return read(quota.nominal) or 0, read(quota.borrowing_limit), read(quota.lending_limit)


def _words(resource: str, limits: Limits | None) -> str:
    if limits is None:
        return "none"
    nominal, borrowing, lending = limits
    words = _amount(resource, nominal)
    if borrowing is not None:
        words += f", borrows {_amount(resource, borrowing)}"
    return words if lending is None else f"{words}, lends {_amount(resource, lending)}"


def _amount(resource: str, amount: float) -> str:
    if resource == "cpu":
        return figure(amount / 1_000)
    if resource != "memory":
        return figure(amount)
    whole = int(amount)
    unit, size = next(((unit, size) for unit, size in MEMORY_UNITS if whole and whole % size == 0), ("GB", 10**9))
    return f"{figure(whole / size)} {unit}"


def _print(changes: Sequence[Change]) -> None:
    rows = ((one.kind, one.name, one.change, "; ".join(one.detail)) for one in changes)
    print_table(("KIND", "NAME", "CHANGE", "WHAT"), rows)


def _confirmed() -> bool:
    from mainstay.cli.submit import confirmed

    return confirmed("Set them?", instead="add -y to set them without asking")


@contextmanager
def _at_its_line(source: str, wanted: Import) -> Iterator[None]:
    """What the platform refuses of the tree is told at the line of the queue that it names."""
    from mainstay.sdk.errors import ApiError

    try:
        yield
    except ApiError as error:
        said = [error.problem.object, *re.findall(r"[a-z0-9-]+", error.message)]
        place = next((wanted.places[name] for name in said if name in wanted.places), None)
        if place is None:
            raise
        detail = f"{source}:{place[0]}:{place[1]}: {error.message}"
        raise ApiError(error.problem.model_copy(update={"detail": detail})) from error
