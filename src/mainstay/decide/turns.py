"""Whose turn it is: the order in which queues take what is free, by weighted dominant-resource fairness.

Every queue has an order of its own: higher priority first, then the older. Between queues, whoever holds the least for
its weight is next, counting what it would hold *with* its next workload (Ghodsi et al., Dominant Resource Fairness, NSDI
2011; hierarchical as in scheduling.md rows 11 and 14). What a queue has as its own does not count, only what it borrows.

Nothing here walks workload by workload: the share that a queue reaches with each of its workloads is a running sum, and
sorting by it merges all queues at once, level by level of the tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mainstay.domain.arrays import Floats, Ints
from mainstay.domain.queue import QueueTree

LOOKAHEAD = 4
"""So many times its equal part of a window is looked at of each queue, before more of it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What counts towards the share of each queue and cohort; arrays are [queues, resources].

    All of it in whole numbers: sums do not depend on their order, so equal shares are equal.
    """

    tree: QueueTree
    own: Ints
    """What it has as its own: no share is counted below that."""
    lendable: Ints
    """What it could have at most; all shares are parts of it."""
    held: Ints
    """What its workloads hold now. Grows as a cycle places more."""

    def hold(self, queue: Ints, amounts: Ints) -> None:
        """So much more for each workload of these queues, and for all cohorts above them."""
        at = queue
        while at.size:
            np.add.at(self.held, at, amounts)
            above = self.tree.parent[at]
            inner = above >= 0
            at, amounts = above[inner], amounts[inner]

    def shares(self, queue: Ints, held: Ints) -> Floats:
        """The weighted dominant share of these queues, would they hold so much: [n] for [n] and [n, resources]."""
        borrowed = np.maximum(0, held - self.own[queue])
        ratio = (borrowed / self.lendable[queue]).max(axis=1)
        weight = self.tree.weight[queue]
        share: Floats = np.divide(ratio, weight, out=np.where(ratio > 0, np.inf, 0.0), where=weight > 0)
        return share


def merged(ledger: Ledger, queue: Ints, rank: Ints, amounts: Ints) -> Ints:
    """Positions of these workloads in the order of their turns.

    They are given by queue and in the order of each; `rank` [n] decides between equal shares (the lower first), and
    `amounts` [n, resources] is what each asks for. O(depth × n log n).
    """
    owner, place, rank = queue.copy(), np.arange(queue.size), rank.copy()
    for depth in range(int(ledger.tree.depth[queue].max(initial=0)), -1, -1):
        mine = np.flatnonzero((owner >= 0) & (ledger.tree.depth[owner] == depth))
        mine = mine[np.lexsort((place[mine], owner[mine]))]
        at = owner[mine]
        first = np.flatnonzero(np.diff(at, prepend=-1))
        total = np.cumsum(amounts[mine], axis=0)
        before = (total[first] - amounts[mine][first]).repeat(np.diff(first, append=at.size), axis=0)
        share = ledger.shares(at, ledger.held[at] + total - before)
        # No workload overtakes an earlier one of its own queue: of equals, the worst rank so far counts.
        worst = _running_max(rank[mine], first)
        parent = ledger.tree.parent[at]
        ranking = np.lexsort((worst, share, parent))
        place[mine[ranking]], owner[mine], rank[mine] = np.arange(mine.size), parent, worst
    return place.argsort(kind="stable")


def _running_max(values: Ints, first: Ints) -> Ints:
    """The largest so far within each segment, whose positions `first` begin them."""
    lift = np.zeros(values.size, dtype=np.int64)
    lift[first] = 1
    lift = lift.cumsum() * (int(values.max(initial=0)) + 1)
    return np.maximum.accumulate(values + lift) - lift


class Line:
    """Those who wait and may have their turn: by queue, and in the order of each. Those who leave are only marked."""

    def __init__(self, ledger: Ledger, rows: Ints, *, queue: Ints, amounts: Ints, numbers: Ints) -> None:
        """`rows` of workloads in the order of all; of each its queue, its amounts [n, resources], and its shape's number."""
        by_queue = queue.argsort(kind="stable")
        self.rows = rows[by_queue]
        self.waiting = rows.size
        """How many have not left."""
        self._ledger = ledger
        self._queue = queue[by_queue]
        self._rank = by_queue
        self._amounts = amounts[by_queue]
        self._gone = np.zeros(rows.size, dtype=np.bool_)
        self._next = np.flatnonzero(np.diff(self._queue, prepend=-1))
        """The first of each queue that has not left, or its end."""
        self._end = np.append(self._next[1:], rows.size)
        self.numbers = numbers[by_queue]
        self._by_shape = self.numbers.argsort(kind="stable")
        most = int(numbers.max(initial=-1))
        self._shape_begins = np.searchsorted(self.numbers[self._by_shape], np.arange(most + 2))

    def upcoming(self, count: int) -> Ints:
        """Positions in `rows` of those whose turn comes next, in order: at most `count`, and one at least if any waits."""
        self._go_on()
        open_ = self._next < self._end
        first, end = self._next[open_], self._end[open_]
        ahead = -(-LOOKAHEAD * count // max(1, first.size)) if first.size > 1 else count
        while True:
            known = np.minimum(end - first, ahead)
            owner = np.repeat(np.arange(first.size), known)
            seen: Ints = np.arange(owner.size) + (first - np.cumsum(known) + known)[owner]
            stay = ~self._gone[seen]
            seen, owner = seen[stay], owner[stay]
            if first.size <= 1:
                return seen
            turns = merged(self._ledger, self._queue[seen], self._rank[seen], self._amounts[seen])
            # Beyond the last known of a queue that has more, its next one is missing from the order.
            ends = ((np.diff(owner, append=-1) != 0) & (first + known < end)[owner])[turns]
            sure = int(ends.argmax()) + 1 if ends.any() else turns.size
            if sure >= min(count, first.size) or sure == turns.size:
                return seen[turns[: min(sure, count)]]
            ahead *= LOOKAHEAD

    def take(self, turns: Ints) -> None:
        """Those at these positions have their place, and hold it."""
        if self._next.size > 1:
            self._ledger.hold(self._queue[turns], self._amounts[turns])
        self._leave(turns)

    def drop(self, number: int, queue: int) -> None:
        """Those of this shape wait no longer: of one queue, or if it is negative of all."""
        alike = self._by_shape[self._shape_begins[number] : self._shape_begins[number + 1]]
        self._leave(alike if queue < 0 else alike[self._queue[alike] == queue])

    def _leave(self, positions: Ints) -> None:
        self.waiting -= positions.size - int(np.count_nonzero(self._gone[positions]))
        self._gone[positions] = True

    def _go_on(self) -> None:
        """Set `_next` to the first of each queue that is still there."""
        at = np.minimum(self._next, self._gone.size - 1)
        for queue in np.flatnonzero(self._gone[at] & (self._next < self._end)).tolist():
            rest = self._gone[self._next[queue] : self._end[queue]]
            step = int(rest.argmin())
            self._next[queue] += rest.size if rest[step] else step
