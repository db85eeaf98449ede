"""The working state of one scheduling cycle: who waits, what is left on the nodes, and what has been given away.

Simple meaning: whoever's turn it is takes the best place that its predecessors left. The shortcut: workloads that ask
for the same are placed together, a window of turns at a time. Where all of a window fit, it does not matter who came
first; where one does not, the window is undone and tried up to that one. A shape of which one did not fit is not tried
again, since capacity only shrinks in a cycle, and the cycle ends with its last shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np

from mainstay.decide import admission, quota
from mainstay.decide.allowance import Allowance
from mainstay.decide.placement.fill import Policy, fill
from mainstay.decide.placement.fit import Request, feasible, free_of, room_on
from mainstay.decide.placement.gang import place
from mainstay.decide.placement.reach import Users, users_of
from mainstay.decide.shapes import Shape, shape_numbers, shape_of
from mainstay.decide.turns import Ledger, Line
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Ints
from mainstay.domain.queue import QueueTree, Resource
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.volume import Sharing, VolumeNeed

WINDOW = 1 << 16
"""So many turns at once at most."""
ANY_QUEUE = -1
MISSES = 0.02
"""Where windows need not be exact, one of which no larger part than this does not fit is not undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Workloads of one shape that found a place."""

    rows: Ints
    """[workloads] Of the workload table, in the order of admission."""
    nodes: Ints
    """[workloads, ranks] The node row of each rank."""
    request: Request
    """The choice that fitted."""


class Miss(Enum):
    """What a workload lacked."""

    CAPACITY = auto()
    QUOTA = auto()
    """Of one of its choices at least: other queues may still place the like."""


@dataclass(slots=True, kw_only=True)
class Window:
    """What has been tried with a window of turns."""

    free: tuple[Ints, ...]
    """As it was before."""
    missed: Ints
    """Rows of the workloads that found no place."""
    placed: list[Placed] = field(default_factory=list)
    used: list[tuple[int, Request, int]] = field(default_factory=list)
    """(queue, request, pods), in the order in which they were counted."""
    volumes: list[VolumeNeed] = field(default_factory=list)
    """In the order in which they got a user."""
    failed: set[tuple[int, int]] = field(default_factory=set)
    """(queue, number) of those of which some found no place: of that queue for its quota, or of any."""


class Cycle:
    """One cycle over a snapshot. `free` is lowered and the queues' shares are raised as workloads are placed."""

    def __init__(self, snapshot: Snapshot, policy: Policy, *, exact: int = 1) -> None:
        """`exact`: windows of so few turns are not undone; within them a higher priority goes first, then the larger."""
        self.snapshot = snapshot
        self.free = free_of(snapshot)
        self.order = admission.order(snapshot)
        self.numbers = shape_numbers(snapshot, self.order)
        self.allowance = Allowance(snapshot)
        self.failed: set[tuple[int, int]] = set()
        """(queue, number) of what was given up: shapes of which one did not fit, of ANY_QUEUE or over the quota of one."""
        self.started = np.zeros(snapshot.workloads.key.size, dtype=np.bool_)
        """[workloads] Those that have been placed."""
        self._policy = policy
        self._exact = exact
        self._misses = MISSES if exact > 1 else 0.0
        self._shapes: dict[int, Shape] = {}
        self._users: Users | None = None
        """Of volumes; None until somebody needs them."""

    def placements(self, *, ahead: int | None = None, limit: int | None = None) -> Iterator[Placed]:
        """What finds a place: of the first `ahead` in the order of admission, or of all; at most `limit` workloads."""
        line = self._line(self.order[:ahead], self.numbers[:ahead])
        window, later, left = WINDOW, 0, line.waiting if limit is None else limit
        while line.waiting and left:
            turns = line.upcoming(min(window, left))
            taken, found = self._place_prefix(line, turns)
            yield from found.placed
            self._close(line, taken, found)
            left -= taken.size - found.missed.size
            if taken.size < turns.size:
                window, later = self._exact, 2 * taken.size  # whoever found no place is next
            else:
                window, later = later or min(WINDOW, 2 * window), 0

    def _place_prefix(self, line: Line, turns: Ints) -> tuple[Ints, Window]:
        """So many of these turns as all find a place, or as need not be exact; what became of them."""
        while True:
            found = self._place(line, turns, urgent_first=False)
            if turns.size <= self._exact or found.missed.size <= self._misses * turns.size:
                break
            self._undo(found)
            first = int(np.isin(line.rows[turns], found.missed).argmax())
            turns = turns[: max(self._exact, min(first, turns.size - 1))]
        if found.missed.size and turns.size > 1:
            self._undo(found)
            found = self._place(line, turns, urgent_first=True)
        return turns, found

    def place(self, shape: Shape, queue: int = ANY_QUEUE) -> tuple[tuple[int, ...], Request] | None:
        """Node row of each rank for the first choice that fits what is left, or None. Changes nothing.

        With a queue, only what it may use of its quotas counts.
        """
        for choice in shape.requests:
            for request in (choice,) if queue == ANY_QUEUE else self.allowance.flavors(queue, choice):
                if queue != ANY_QUEUE and not self.allowance.most(queue, request, shape.nodes, times=1):
                    continue
                rows = place(self.free, request, count=shape.nodes, policy=self._policy)
                if rows is not None:
                    return tuple(rows.tolist()), request
        return None

    def shape(self, row: int, number: int) -> Shape:
        """The shape with this number, which the workload in this row has. Where its volumes let it run may change in a cycle."""
        shape = self._shapes.get(number)
        if shape is None or shape.one_node:
            if self._users is None and self.snapshot.workloads.volumes[row]:
                self._users = users_of(self.snapshot)
            shape = self._shapes[number] = shape_of(self.snapshot, row, users=self._users)
        return shape

    def _line(self, rows: Ints, numbers: Ints) -> Line:
        asked = asked_by(self.snapshot, rows)
        self._size = np.zeros(int(numbers.max(initial=-1)) + 1)
        self._size[numbers] = (asked / whole_fleet(self.snapshot)).max(axis=1, initial=0.0)
        queue = self.snapshot.workloads.queue[rows]
        return Line(ledger_of(self.snapshot), rows, queue=queue, amounts=asked, numbers=numbers)

    def _place(self, line: Line, turns: Ints, *, urgent_first: bool) -> Window:
        """Look for a place for each of a window, larger requests first, and take it."""
        rows, numbers = line.rows[turns], line.numbers[turns]
        priority = self.snapshot.workloads.priority[rows] * urgent_first
        ranking = np.lexsort((numbers, -self._size[numbers], -priority))
        rows, numbers, priority = rows[ranking], numbers[ranking], priority[ranking]
        begins = np.flatnonzero((np.diff(numbers, prepend=-1) != 0) | (np.diff(priority, prepend=priority[0]) != 0))
        window = Window(free=self.free.copies(), missed=rows[:0])
        missed: list[Ints] = []
        for number, group in zip(numbers[begins].tolist(), np.split(rows, begins[1:]), strict=True):
            for queue, part in self._by_queue(group):
                if (ANY_QUEUE, number) in window.failed or (queue, number) in window.failed:
                    missed.append(part)
                    continue
                miss, rest = self._place_alike(window, self.shape(int(part[0]), number), queue, part)
                if miss:
                    missed.append(rest)
                    window.failed.add((queue if miss is Miss.QUOTA else ANY_QUEUE, number))
        if missed:
            window.missed = np.concatenate(missed)
        return window

    def _by_queue(self, rows: Ints) -> Iterable[tuple[int, Ints]]:
        """Where there are quotas, the workloads of each queue by themselves."""
        if not self.allowance.limits:
            return ((0, rows),)
        queue = self.snapshot.workloads.queue[rows]
        return [(number, rows[queue == number]) for number in dict.fromkeys(queue.tolist())]

    def _place_alike(self, window: Window, shape: Shape, queue: int, rows: Ints) -> tuple[Miss | None, Ints]:
        """Place workloads of one shape and queue, in order; which of them lacked what."""
        miss = Miss.CAPACITY
        for choice in shape.requests:
            for request in self.allowance.flavors(queue, choice):
                allowed = self.allowance.most(queue, request, shape.nodes, times=rows.size)
                nodes = self._take(shape, request, allowed)
                self.allowance.use(queue, request, shape.nodes * len(nodes))
                if len(nodes):
                    window.placed.append(Placed(rows=rows[: len(nodes)], nodes=nodes, request=request))
                    window.used.append((queue, request, shape.nodes * len(nodes)))
                    self._share(window, shape, int(nodes[0, 0]))
                    rows = rows[len(nodes) :]
                if not rows.size:
                    return None, rows
                if len(nodes) == allowed:
                    miss = Miss.QUOTA
                if len(nodes) and request.one_node:
                    return miss, rows  # the rest may go where these are, and nowhere else
        return miss, rows

    def _take(self, shape: Shape, request: Request, count: int) -> Ints:
        """[workloads, ranks] Node rows for up to `count` workloads of one shape, lowered in what is left."""
        if request.one_node:
            return self._take_one(shape, request, count)
        if shape.nodes == 1:
            rows = np.flatnonzero(feasible(self.free, request)) if count else np.empty(0, dtype=np.int64)
            nodes, pods = fill(self.free, request, self._policy, rows, count)
            self.free.take(nodes, pods, request)
            return np.repeat(nodes, pods)[:, np.newaxis]
        gangs: list[Ints] = []
        while len(gangs) < count:
            found = place(self.free, request, count=shape.nodes, policy=self._policy)
            if found is None:
                break
            nodes, pods = np.unique(found, return_counts=True)
            self.free.take(nodes, pods, request)
            gangs.append(found)
        return np.array(gangs, dtype=np.int64).reshape(len(gangs), shape.nodes)

    def _take_one(self, shape: Shape, request: Request, count: int) -> Ints:
        """As `_take`, all of them on one node."""
        alone = shape.reach is not None and shape.reach.sharing is Sharing.POD
        found = place(self.free, request, count=shape.nodes, policy=self._policy) if count else None
        if found is None:
            return np.empty((0, shape.nodes), dtype=np.int64)
        node = found[:1]
        fits = 1 if alone else min(count, int(room_on(self.free, request, node)[0]) // shape.nodes)
        self.free.take(node, fits * shape.nodes, request)
        return np.full((fits, shape.nodes), node[0])

    def _share(self, window: Window, shape: Shape, node: int) -> None:
        """Its volumes are in use on this node from here on."""
        if shape.one_node and shape.volumes is not None and self._users is not None:
            self._users.add(shape.volumes, node)
            window.volumes.append(shape.volumes)

    def _undo(self, window: Window) -> None:
        self.free.restore(window.free)
        for need in window.volumes:
            assert self._users is not None
            self._users.take_back(need)
        for queue, request, pods in reversed(window.used):
            self.allowance.use(queue, request, -pods)

    def _close(self, line: Line, turns: Ints, window: Window) -> None:
        """Whoever has a place leaves the line, and whoever asks for what there is no more of."""
        for batch in window.placed:
            self.started[batch.rows] = True
        line.take(turns[self.started[line.rows[turns]]])
        for queue, number in window.failed:
            line.drop(number, queue)
        self.failed |= window.failed


def asked_by(snapshot: Snapshot, rows: Ints) -> Ints:
    """What each of these workloads asks for, all its pods together, in the resources of a ledger: [rows, resources]."""
    table = snapshot.workloads
    columns = table.cpu_milli, table.memory_bytes, table.gpus
    return np.stack([column[rows] * table.nodes[rows] for column in columns], axis=1)


def whole_fleet(snapshot: Snapshot) -> Ints:
    """All nodes together, in the resources of a ledger: CPU, memory, GPUs and slices of them. At least 1 of each."""
    nodes = snapshot.nodes
    columns = nodes.cpu_milli, nodes.memory_bytes, sum(nodes.shapes.values(), start=nodes.gpus)
    return np.maximum([column.sum() for column in columns], 1)


def ledger_of(snapshot: Snapshot) -> Ledger:
    """The queues with what is their own, and with what their workloads hold now."""
    held, tree, workloads, whole = snapshot.allocations, snapshot.queues, snapshot.workloads, whole_fleet(snapshot)
    own, lendable = _own_and_lendable(tree, whole)
    ledger = Ledger(tree=tree, own=own, lendable=lendable, held=np.zeros_like(own))
    if tree.parent.size > 1 and workloads.key.size:
        rows = np.minimum(np.searchsorted(workloads.key, held.workload_key), workloads.key.size - 1)
        lives = (held.seen != Seen.ENDED) & (workloads.key[rows] == held.workload_key)
        amounts = np.stack([held.cpu_milli, held.memory_bytes, held.gpus], axis=1)[lives]
        ledger.hold(workloads.queue[rows[lives]], amounts)
    return ledger


def _own_and_lendable(tree: QueueTree, whole: Ints) -> tuple[Ints, Ints]:
    """Of each queue and resource of a ledger, all flavors together: its quota, and the most that its cohort could have.

    Where there are no quotas of a resource, nothing is anybody's own, and all of the fleet could be had.
    """
    own = np.zeros((len(tree.names), whole.size), dtype=np.int64)
    lendable = np.broadcast_to(whole, own.shape).copy()
    if tree.cells:
        quotas, inner = quota.quotas_of(tree), tree.parent >= 0
        for column, resource in enumerate((Resource.CPU, Resource.MEMORY, Resource.GPU)):
            cells = [cell for cell, (_, one) in enumerate(tree.cells) if one == resource]
            own[:, column] = quotas.subtree[:, cells].sum(axis=1)
            cohort = np.where(inner, quotas.potential[:, cells].sum(axis=1)[tree.parent], 0)
            lendable[cohort > 0, column] = cohort[cohort > 0]
    return own, lendable
