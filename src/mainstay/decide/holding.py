"""Who holds what a workload waits for: queues by name, and of its own tenant the runs.

Queues, cohorts and what they use altogether are known to everybody; whose work it is in a queue of others is not, and no run of
another tenant is named. Something is expected to end when half of such runs have (run_times.py): by the history of its name, else
by its limit; with neither, nobody knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mainstay.decide import quota
from mainstay.decide.allowance import held_by_queue, uses_of
from mainstay.decide.columns import Quota
from mainstay.decide.cycle import Cycle
from mainstay.decide.kernel import CPU, GPUS, MEMORY, NONE
from mainstay.decide.placement.fit import Request, feasible, whole_of
from mainstay.decide.replay import Runs
from mainstay.decide.reservation import NEVER, ends_of
from mainstay.decide.rows import rows_by_key
from mainstay.decide.shapes import Shape
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, counted, duration_words, is_shape
from mainstay.domain.queue import NO_LIMIT, Resource, amount_words
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot

QUEUES_NAMED = 3
"""The others are added up."""
RUNS_NAMED = 5
"""Of the tenant's own."""
NODES = "nodes"
"""What a reserved start keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A queue, or several together. Amounts in the unit of the resource; instants in UTC microseconds."""

    queue: str
    """Empty: all those that are not named."""
    queues: int = 1
    amount: int
    borrowed: int = 0
    """Of a quota, what it uses above its own."""
    runs: int
    first_end: int = 0
    """By then the first of its runs is expected to have ended, and all of them by `last_end`; 0: nobody knows."""
    last_end: int = 0
    endless: int = 0
    """So many of them have neither a time limit nor a history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRun:
    """A run of the tenant that asks."""

    run: str
    queue: str
    amount: int
    ends_at: int = 0
    """When it is expected to have ended; 0: nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What is short, and who holds it."""

    kind: Literal["quota", "capacity", "start", "headroom"]
    """What its queue may not use, what nodes have not, what is kept for starts that are reserved, or for GPU work that waits."""
    choice: str = ""
    """What of several choices it is about, in words; empty: all there are."""
    resource: str
    """Of which there is too little: one of `Resource`, the shape of slices, another resource by its name, or NODES."""
    flavor: str = ""
    """Of a quota."""
    nodes: int = 0
    """Of capacity: so many nodes would do, were they empty."""
    holders: tuple[Holder, ...]
    """Of a quota its own queue first; else those with the most."""
    own: tuple[HeldRun, ...] = ()
    """Runs of the tenant among them, those with the most first."""
    own_more: int = 0
    asked_at: int
    like: int = 0
    """Memory is told in the kind of units of this amount, which is asked for."""

    @property
    def sentence(self) -> str:
        """Which queues, in words, without a full stop."""
        choice = f"for {self.choice}: " if self.choice else ""
        return f"{choice}{self._where}{'; '.join(map(self._words_of, self.holders))}"

    @property
    def own_sentence(self) -> str:
        """Which runs of the tenant, likewise; empty if there are none."""
        if not self.own:
            return ""
        runs = ", ".join(map(self._run_words, self.own))
        return f"of yours: {runs}" + (f", and {counted(self.own_more, 'more run')}" if self.own_more else "")

    def _words_of(self, one: Holder) -> str:
        who = f"queue {one.queue}" if one.queue else f"{counted(one.queues, 'other queue')} together"
        verb = {"quota": "uses", "capacity": "holds", "start": "keeps", "headroom": "waits for"}[self.kind]
        if self.kind == "headroom":
            verb = verb if one.queues == 1 else "wait for"
            return f"{who} {verb} {resource_words(self.resource, one.amount, like=self.like)} in {counted(one.runs, 'run')}"
        verb = verb if one.queues == 1 else verb.removesuffix("s")
        amount = resource_words(self.resource, one.amount, like=self.like)
        borrowed = f" ({resource_words(self.resource, one.borrowed, like=self.like)} borrowed)" if one.borrowed else ""
        if self.kind == "start":
            return f"{who} {verb} {amount} for {counted(one.runs, 'start')} {self._in(one.first_end)}"
        return f"{who} {verb} {amount}{borrowed} in {counted(one.runs, 'run')}, {self._ends(one)}"

    @property
    def _where(self) -> str:
        if self.kind == "quota":
            return f"of the quota of {self.resource} ({self.flavor}) "
        if self.kind == "headroom":
            return "it is kept for GPU work that may run there: "
        return f"on the {counted(self.nodes, 'node')} that would do, " if self.kind == "capacity" else ""

    def _ends(self, one: Holder) -> str:
        if not one.first_end:
            return "of which nobody knows when it ends" if one.runs == 1 else "of which nobody knows when one ends"
        if one.last_end and self._in(one.first_end) == self._in(one.last_end):
            return f"expected to end {self._in(one.first_end)}"
        first = f"the first expected to end {self._in(one.first_end)}"
        if one.last_end:
            return f"{first}, the last {self._in(one.last_end)}"
        return f"{first}; of {one.endless} nobody knows"

    def _run_words(self, one: HeldRun) -> str:
        ends = f"expected to end {self._in(one.ends_at)}" if one.ends_at else "nobody knows until when"
        return f"{one.run} ({resource_words(self.resource, one.amount, like=self.like)}, {ends})"

    def _in(self, instant: int) -> str:
        seconds = -(-(instant - self.asked_at) // MICROSECONDS_PER_SECOND)
        return "now" if seconds <= 0 else f"in {duration_words(seconds)}"


def resource_words(resource: str, amount: int, *, like: int = 0) -> str:
    """`8 GPUs`, `2.5 CPUs`, `16 GiB`, `3 pods`, `4 x mig-1g.10gb`. `like` as of `memory_words`."""
    nouns = {Resource.GPU.value: "GPU", Resource.PODS.value: "pod", NODES: "node"}
    if resource in nouns:
        return counted(amount, nouns[resource])
    return amount_words(resource, amount, like=like) if resource in set(Resource) else f"{amount} x {resource}"


def holding(
    snapshot: Snapshot, shape: Shape, *, queue: int, reason: Reason, alone: Cycle, cycle: Cycle, row: int, tenant: str
) -> Holding | None:
    """Who holds what `reason` says is short; None where that is nothing that anybody holds. O(allocations).

    `alone` is a cycle in which nobody has had a turn, `cycle` one in which those have who go first; `row` is that of the
    workload, or negative.
    """
    asked = _Question(snapshot=snapshot, shape=shape, queue=queue, reason=reason, alone=alone, tenant=tenant)
    found = _of(asked, cycle, row)
    return replace(found, like=shape.choices[0].memory_bytes) if found else None


def _of(asked: _Question, cycle: Cycle, row: int) -> Holding | None:
    snapshot, shape = asked.snapshot, asked.shape
    match asked.reason.code:
        case Code.WAITS_FOR_QUOTA:
            return _of_quota(asked)
        case Code.START_RESERVED:
            there = np.zeros(snapshot.nodes.key.size, dtype=np.bool_)
            there[cycle.reserved[row].nodes] = True
            return _of_capacity(asked, there=there)
        case Code.WAITS_FOR_CAPACITY | Code.WAITS_FOR_VOLUME:
            return _of_capacity(asked)
        case Code.WAITS_FOR_RESERVED:
            return _of_starts(snapshot, shape, cycle)
        case Code.KEPT_FOR_GPUS:
            return _of_headroom(snapshot, shape, cycle)
        case _:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What `holding` is asked about."""

    snapshot: Snapshot
    shape: Shape
    queue: int
    reason: Reason
    alone: Cycle
    tenant: str


def _of_quota(asked: _Question) -> Holding | None:
    """Queues that use the cell that is short, as far as that leaves less for this one."""
    snapshot, queue = asked.snapshot, asked.queue
    tree, allowance, numbers = snapshot.queues, asked.alone.allowance, asked.reason.numbers
    resource, flavor = str(numbers["resource"]), str(numbers["flavor"])
    column = tree.cells.index((flavor, resource))
    ways = allowance.flavors_of(queue, asked.shape.ways[0])
    needs = next(cells[column] for way in ways if column in (cells := allowance.cells_of(queue, way) or {}))
    users = _users(snapshot, allowance.quota, queue, column, needs)
    pods, amounts = uses_of(snapshot, column)
    held = _Held(snapshot, pods, amounts)
    inside = users[held.queue]
    used = np.zeros(len(tree.names), dtype=np.int64)
    np.add.at(used, held.queue, held.amount)
    borrowed = np.where(users, np.maximum(0, used - tree.nominal[:, column]), 0)
    by_queue = sorted(
        np.flatnonzero(users & (used > 0)).tolist(),
        key=lambda one: (one != queue, -borrowed[one], -used[one], tree.names[one]),
    )
    return _told(
        held.only(inside), by_queue, asked.tenant, kind="quota", resource=resource, flavor=flavor, borrowed=borrowed
    )


def _users(snapshot: Snapshot, state: Quota, queue: int, column: int, needs: int) -> Bools:
    """[queues] Those whose use of this cell leaves this queue less.

    All within the cohort whose idle quota, or whose borrowing limit, is what stops it; and within the one above that too, until
    there would be enough if none of them used anything. Not those that use no more than what is kept for them alone.
    """
    tree, quotas = snapshot.queues, quota.quotas_of(snapshot.queues)
    own = held_by_queue(snapshot)
    path = [queue]
    while tree.parent[path[-1]] >= 0:
        path.append(int(tree.parent[path[-1]]))
    limiting = _limiting(state, path, column)
    for number, top in enumerate(path):
        inside = _below(tree.parent, top)
        without = own.copy()
        without[inside, column] = 0
        left = quota.available(quotas, quota.usage(quotas, without))[queue, column]
        if number >= limiting and (left >= needs or top == path[-1]):
            break
    kept = (state.used[:, column] <= state.local[:, column]) & ~np.isin(np.arange(len(tree.names)), path)
    for at in range(len(tree.names)):  # Parents come before their children.
        if tree.parent[at] >= 0:
            kept[at] |= kept[tree.parent[at]]
    users: Bools = inside & ~kept & ~tree.cohort
    return users


def _limiting(state: Quota, path: Sequence[int], column: int) -> int:
    """How far up the path that lies which says what the queue may use: of `kernel.available` the least bound."""
    idle, least, found = 0, NO_LIMIT, len(path) - 1
    for number, at in enumerate(path):
        used, local, subtree = (int(one[at, column]) for one in (state.used, state.local, state.subtree))
        if number == len(path) - 1:
            return found if least <= idle + subtree - used else number
        borrowing = int(state.borrowing[at, column])
        bound = idle + max(0, local - used) + subtree - local - max(0, used - local) + borrowing
        if borrowing < NO_LIMIT and bound < least:
            least, found = bound, number
        idle += max(0, local - used)
    raise AssertionError


def _below(parent: Ints, top: int) -> Bools:
    """[queues] It, and all below it."""
    inside = np.zeros(parent.size, dtype=np.bool_)
    inside[top] = True
    for at in range(top + 1, parent.size):
        inside[at] = parent[at] >= 0 and inside[parent[at]]
    return inside


def _of_capacity(asked: _Question, *, there: Bools | None = None) -> Holding | None:
    """Queues that hold the nodes which would do if they were empty; `there`: of these nodes only."""
    snapshot, requests = asked.snapshot, _requests(asked)
    nodes = snapshot.nodes
    whole = whole_of(snapshot).opened(nodes.ready, admits=nodes.admits, sound=nodes.sound)
    masks = [feasible(whole, request) for request in requests]
    would_do = np.logical_or.reduce(masks) if there is None else there
    request = next((one for one, mask in zip(requests, masks, strict=True) if mask.any()), requests[0])
    if not would_do.any():
        return None
    resource = _scarcest(asked.alone, request, would_do)
    if not resource:
        return None
    held = snapshot.allocations
    row = rows_by_key(nodes.key, held.node_key)
    pods = np.flatnonzero((held.seen != Seen.ENDED) & (row >= 0) & would_do[np.maximum(row, 0)])
    found = _Held(snapshot, pods, _amounts(snapshot, resource, pods))
    used = np.zeros(len(snapshot.queues.names), dtype=np.int64)
    np.add.at(used, found.queue, found.amount)
    by_queue = sorted(np.flatnonzero(used > 0).tolist(), key=lambda one: (-used[one], snapshot.queues.names[one]))
    return _told(found, by_queue, asked.tenant, kind="capacity", resource=resource, nodes=int(would_do.sum()))


def _requests(asked: _Question) -> tuple[Request, ...]:
    """What asks for places, within the quotas: of several pod sets that which is short of them."""
    shape, queue, allowance = asked.shape, asked.queue, asked.alone.allowance
    at = next((at for at, one in enumerate(shape.sets) if one.name == asked.reason.numbers.get("set")), 0)
    tried = (one for way in shape.ways for one in allowance.flavors_of(queue, way))
    usable = [one[at].request for one in tried if allowance.may_use_parts(queue, one)]
    return tuple(usable) or tuple(way[at].request for way in shape.ways)


def _scarcest(alone: Cycle, request: Request, would_do: Bools) -> str:
    """The resource of which there is room for the fewest such pods on these nodes; of equals GPUs, then CPUs, then memory. Empty
    for a pod that asks for nothing.
    """
    free = alone.free
    names = {GPUS: Resource.GPU.value, CPU: Resource.CPU.value, MEMORY: Resource.MEMORY.value}
    names |= {column: name for name, column in free.shapes.items()}
    names |= {column: name for name, column in free.others.items()}
    amounts = free.amounts(request)
    asked = [column for column in names if amounts[column]]
    room = {column: int(np.maximum(0, free.nodes.free[column][would_do] // amounts[column]).sum()) for column in asked}
    return names[min(asked, key=lambda column: room[column])] if asked else ""


def _amounts(snapshot: Snapshot, resource: str, pods: Ints) -> Ints:
    """[pods] What each of these holds of it."""
    held, models = snapshot.allocations, snapshot.gpu_models
    match resource:
        case Resource.CPU:
            return held.cpu_milli[pods]
        case Resource.MEMORY:
            return held.memory_bytes[pods]
        case Resource.GPU:
            slices = np.array([is_shape(model) for model in models], dtype=np.bool_)
            return np.where(slices[held.gpu_model[pods]], 0, held.gpus[pods])
        case Resource.PODS:
            return np.ones_like(pods)
        case _ if resource in models:
            return np.where(held.gpu_model[pods] == models.index(resource), held.gpus[pods], 0)
        case _:
            table = snapshot.workloads
            row = rows_by_key(table.key, held.workload_key[pods])
            others = table.others.get(resource, np.zeros_like(table.key))
            return np.where(row >= 0, others[np.maximum(row, 0)], 0) if table.key.size else np.zeros_like(pods)


def _of_starts(snapshot: Snapshot, shape: Shape, cycle: Cycle) -> Holding | None:
    """Queues for whose work starts are reserved that it would delay."""
    bound = cycle.binding(shape)
    table, names = snapshot.workloads, snapshot.queues.names
    by_queue: dict[int, list[int]] = {}
    for row in sorted(bound, key=lambda one: cycle.reserved[one].starts_at):
        by_queue.setdefault(int(table.queue[row]), []).append(row)
    holders = []
    for queue, rows in by_queue.items():
        starts = [cycle.reserved[row] for row in rows]
        nodes = np.unique(np.concatenate([one.nodes for one in starts])).size
        first, last = starts[0].starts_at, starts[-1].starts_at
        holders.append(Holder(queue=names[queue], amount=nodes, runs=len(rows), first_end=first, last_end=last))
    return Holding(kind="start", resource=NODES, holders=tuple(holders), asked_at=snapshot.now) if holders else None


SHAPES_TRIED_MAX = 32
"""Of GPU work that waits, those of which most wait."""


def _of_headroom(snapshot: Snapshot, shape: Shape, cycle: Cycle) -> Holding | None:
    """Queues whose GPU work waits that could run, with quota, on the nodes with idle GPUs where this would have room."""
    there = np.logical_or.reduce([feasible(cycle.free, request) for request in shape.requests])
    whole = whole_of(snapshot).opened(snapshot.nodes.ready, admits=snapshot.nodes.admits, sound=snapshot.nodes.sound)
    table, waits = snapshot.workloads, ~cycle.started[cycle.order]
    groups, first, count = np.unique(
        np.stack((table.queue[cycle.order], cycle.numbers))[:, waits], axis=1, return_index=True, return_counts=True
    )
    rows = cycle.order[waits][first]
    amount, runs = Counter[int](), Counter[int]()
    for at in np.argsort(-count, kind="stable")[:SHAPES_TRIED_MAX].tolist():
        queue, number = groups[:, at].tolist()
        other = cycle.shape(int(rows[at]), number)
        tried = (way for each in other.ways for way in cycle.allowance.flavors_of(queue, each))
        may = [part.request for way in tried if cycle.allowance.may_use_parts(queue, way) for part in way]
        if any(request.gpus and (feasible(whole, request) & there).any() for request in may):
            amount[queue] += int(count[at]) * other.amounts[2]
            runs[queue] += int(count[at])
    names = snapshot.queues.names
    by_queue = sorted(amount, key=lambda one: (-amount[one], names[one]))
    holders = [Holder(queue=names[one], amount=amount[one], runs=runs[one]) for one in by_queue[:QUEUES_NAMED]]
    if rest := by_queue[QUEUES_NAMED:]:
        holders.append(
            Holder(
                queue="", queues=len(rest), amount=sum(amount[one] for one in rest), runs=sum(runs[one] for one in rest)
            )
        )
    gpus = Resource.GPU.value
    return Holding(kind="headroom", resource=gpus, holders=tuple(holders), asked_at=snapshot.now) if holders else None


class _Held:
    """Pods of workloads, with what each holds of the resource in question."""

    def __init__(self, snapshot: Snapshot, pods: Ints, amount: Ints) -> None:
        """[pods] Rows of the allocations, of which some hold nothing of it or belong to no workload here."""
        self.snapshot, table = snapshot, snapshot.workloads
        row = rows_by_key(table.key, snapshot.allocations.workload_key[pods])
        real = (row >= 0) & (amount > 0)
        self.pods, self.amount, self.row = pods[real], amount[real], row[real]
        self.queue: Ints = table.queue[self.row] if table.key.size else self.row

    def only(self, those: Bools) -> _Held:
        """Some of them."""
        return _Held(self.snapshot, self.pods[those], self.amount[those])

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Row of each workload, what it holds, and when the last of that has ended as is expected, or NEVER."""
        rows, run = np.unique(self.row, return_inverse=True)
        amounts, ends = np.zeros(rows.size, dtype=np.int64), np.zeros(rows.size, dtype=np.int64)
        np.add.at(amounts, run, self.amount)
        np.maximum.at(ends, run, _expected_ends(self.snapshot)[self.pods])
        yield from zip(rows.tolist(), amounts.tolist(), ends.tolist(), strict=True)


def _expected_ends(snapshot: Snapshot) -> Ints:
    """[allocations] By then half of such runs have ended; NEVER where nobody knows."""
    runs = Runs.of(snapshot)
    drawn = runs.drawn(snapshot.workloads, snapshot.now, np.full(snapshot.workloads.key.size, 0.5))
    of_run = drawn[np.maximum(runs.of_pod, 0)] if drawn.size else np.full(runs.of_pod.size, NEVER)
    return np.where(runs.of_pod == NONE, ends_of(snapshot), of_run)


def _told(
    held: _Held,
    by_queue: Sequence[int],
    tenant: str,
    *,
    kind: Literal["quota", "capacity"],
    resource: str,
    flavor: str = "",
    nodes: int = 0,
    borrowed: Ints | None = None,
) -> Holding | None:
    """Those queues in this order: the first by name, the others together."""
    if not by_queue:
        return None
    snapshot, runs = held.snapshot, list(held.runs())
    table, names = snapshot.workloads, snapshot.queues.names
    theirs: dict[int, list[tuple[int, int]]] = {queue: [] for queue in by_queue}
    for row, amount, end in runs:
        theirs[int(table.queue[row])].append((amount, end))
    above = dict.fromkeys(by_queue, 0) if borrowed is None else {one: int(borrowed[one]) for one in by_queue}
    # One more would be as long as its sum.
    named = by_queue if len(by_queue) == QUEUES_NAMED + 1 else by_queue[:QUEUES_NAMED]
    found = [_holder(names[one], theirs[one], borrowed=above[one]) for one in named]
    if rest := by_queue[len(named) :]:
        theirs_together = [run for one in rest for run in theirs[one]]
        together = _holder("", theirs_together, borrowed=sum(above[one] for one in rest))
        found.append(replace(together, queues=len(rest)))
    mine = [
        HeldRun(run=owner[2], queue=names[int(table.queue[row])], amount=amount, ends_at=0 if end == NEVER else end)
        for row, amount, end in sorted(runs, key=lambda one: (-one[1], one[0]))
        if tenant and (owner := snapshot.owners.get(int(table.key[row]), ("", "", "")))[0] == tenant
    ]
    return Holding(
        kind=kind,
        resource=resource,
        flavor=flavor,
        nodes=nodes,
        holders=tuple(found),
        own=tuple(mine[:RUNS_NAMED]),
        own_more=max(0, len(mine) - RUNS_NAMED),
        asked_at=snapshot.now,
    )


def _holder(name: str, runs: Sequence[tuple[int, int]], *, borrowed: int) -> Holder:
    known = [end for _, end in runs if end != NEVER]
    return Holder(
        queue=name,
        amount=sum(amount for amount, _ in runs),
        borrowed=borrowed,
        runs=len(runs),
        first_end=min(known, default=0),
        last_end=max(known) if len(known) == len(runs) else 0,
        endless=len(runs) - len(known),
    )
