"""The working state of one scheduling cycle: who waits, what is left on the nodes, and what has been given away.

Simple meaning: whoever's turn it is takes the best place that its predecessors left. The shortcut: workloads that ask
for the same are placed together, a window of turns at a time. Where all of a window fit, it does not matter who came
first; where one does not, the window is undone and a quarter of it tried, down to a single turn. A shape of which one did
not fit is not tried again, since capacity only shrinks in a cycle, and the cycle ends with its last shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mainstay.decide import admission
from mainstay.decide.placement.fill import Policy, fill
from mainstay.decide.placement.fit import Request, feasible, free_of
from mainstay.decide.placement.gang import place
from mainstay.decide.shapes import Shape, shape_numbers, shape_of
from mainstay.decide.turns import Ledger, Line
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Floats, Ints
from mainstay.domain.snapshot import Snapshot

WINDOW = 1 << 16
"""So many turns at once at most."""
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


class Cycle:
    """One cycle over a snapshot. `free` is lowered and the queues' shares are raised as workloads are placed."""

    def __init__(self, snapshot: Snapshot, policy: Policy, *, exact: int = 1) -> None:
        """`exact`: windows of so few turns are not undone; within them a higher priority goes first, then the larger."""
        self.snapshot = snapshot
        self.free = free_of(snapshot)
        self.order = admission.order(snapshot)
        self.numbers = shape_numbers(snapshot, self.order)
        self.failed: set[int] = set()
        """Numbers of the shapes of which one did not fit."""
        self._policy = policy
        self._exact = exact
        self._misses = MISSES if exact > 1 else 0.0
        self._shapes: dict[int, Shape] = {}

    def placements(self, *, ahead: int | None = None, limit: int | None = None) -> Iterator[Placed]:
        """What finds a place: of the first `ahead` in the order of admission, or of all; at most `limit` workloads."""
        rows, numbers = self.order[:ahead], self.numbers[:ahead]
        asked = asked_by(self.snapshot, rows)
        queue = self.snapshot.workloads.queue[rows]
        line = Line(ledger_of(self.snapshot), rows, queue=queue, amounts=asked, numbers=numbers)
        number_of = np.empty(self.snapshot.workloads.key.size, dtype=np.int64)
        number_of[rows] = numbers
        size = np.zeros(int(numbers.max(initial=-1)) + 1)
        size[numbers] = asked.max(axis=1, initial=0.0)
        started = np.zeros(number_of.size, dtype=np.bool_)
        window, left = WINDOW, rows.size if limit is None else limit
        while line.waiting and left:
            turns = line.upcoming(min(window, left))
            saved = self.free.copies() if turns.size > 1 else ()
            placed, failed = self._place(line.rows[turns], number_of, size)
            count = sum(batch.rows.size for batch in placed)
            if turns.size > self._exact and turns.size - count > self._misses * turns.size:
                self.free.restore(saved)
                window = max(self._exact, turns.size // 4)
                continue
            if count < turns.size > 1:
                self.free.restore(saved)
                placed, failed = self._place(line.rows[turns], number_of, size, urgent_first=True)
                count = sum(batch.rows.size for batch in placed)
            yield from placed
            for batch in placed:
                started[batch.rows] = True
            line.take(turns[started[line.rows[turns]]])
            for number in failed:
                line.drop(number)
            self.failed |= failed
            left -= count
            window = min(WINDOW, 2 * window) if count == turns.size else window

    def place(self, shape: Shape) -> tuple[tuple[int, ...], Request] | None:
        """Node row of each rank for the first choice that fits what is left, or None. Changes nothing."""
        for request in shape.requests:
            rows = place(self.free, request, count=shape.nodes, policy=self._policy)
            if rows is not None:
                return tuple(rows.tolist()), request
        return None

    def shape(self, row: int, number: int) -> Shape:
        """The shape with this number, which the workload in this row has."""
        if number not in self._shapes:
            self._shapes[number] = shape_of(self.snapshot, row)
        return self._shapes[number]

    def _place(
        self, rows: Ints, number_of: Ints, size: Floats, *, urgent_first: bool = False
    ) -> tuple[list[Placed], set[int]]:
        """What of a window finds a place, and the numbers of the shapes of which some did not."""
        numbers = number_of[rows]
        priority = self.snapshot.workloads.priority[rows] * urgent_first
        ranking = np.lexsort((numbers, -size[numbers], -priority))
        rows, numbers, priority = rows[ranking], numbers[ranking], priority[ranking]
        begins = np.flatnonzero((np.diff(numbers, prepend=-1) != 0) | (np.diff(priority, prepend=priority[0]) != 0))
        placed: list[Placed] = []
        failed: set[int] = set()
        for number, group in zip(numbers[begins].tolist(), np.split(rows, begins[1:]), strict=True):
            if number in failed:
                continue
            shape, found = self.shape(int(group[0]), number), 0
            for batch in self._gangs(shape, group) if shape.nodes > 1 else self._singles(shape, group):
                placed.append(batch)
                found += batch.rows.size
            if found < group.size:
                failed.add(number)
        return placed, failed

    def _singles(self, shape: Shape, rows: Ints) -> Iterator[Placed]:
        for request in shape.requests:
            nodes, pods = fill(
                self.free, request, self._policy, np.flatnonzero(feasible(self.free, request)), rows.size
            )
            if nodes.size:
                self.free.take(nodes, pods, request)
                where = np.repeat(nodes, pods)
                yield Placed(rows=rows[: where.size], nodes=where[:, np.newaxis], request=request)
                rows = rows[where.size :]
            if not rows.size:
                return

    def _gangs(self, shape: Shape, rows: Ints) -> Iterator[Placed]:
        for row in range(rows.size):
            found = self.place(shape)
            if found is None:
                return
            nodes, request = found
            where, pods = np.unique(nodes, return_counts=True)
            self.free.take(where, pods, request)
            yield Placed(rows=rows[row : row + 1], nodes=np.array([nodes]), request=request)


def asked_by(snapshot: Snapshot, rows: Ints) -> Floats:
    """What each of these workloads asks for, all its pods together, in the resources of a ledger."""
    table = snapshot.workloads
    pods = table.nodes[rows]
    return np.stack([column[rows] * pods for column in (table.cpu_milli, table.memory_bytes, table.gpus)], axis=1) * 1.0


def ledger_of(snapshot: Snapshot) -> Ledger:
    """The queues with what their workloads hold now."""
    nodes, held, tree = snapshot.nodes, snapshot.allocations, snapshot.queues
    whole = np.array([column.sum() for column in (nodes.cpu_milli, nodes.memory_bytes, nodes.gpus)], dtype=np.float64)
    shape = len(tree.names), whole.size
    ledger = Ledger(
        tree=tree,
        own=np.zeros(shape),
        lendable=np.broadcast_to(np.maximum(whole, 1.0), shape),
        held=np.zeros(shape),
    )
    if tree.parent.size > 1 and snapshot.workloads.key.size:
        rows = np.minimum(np.searchsorted(snapshot.workloads.key, held.workload_key), snapshot.workloads.key.size - 1)
        lives = (held.seen != Seen.ENDED) & (snapshot.workloads.key[rows] == held.workload_key)
        amounts = np.stack([held.cpu_milli, held.memory_bytes, held.gpus], axis=1)[lives] * 1.0
        ledger.hold(snapshot.workloads.queue[rows[lives]], amounts)
    return ledger
