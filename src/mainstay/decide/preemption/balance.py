"""What the queues hold and may use, kept current as work is displaced, put back and placed: the questions of the rules.

Quotas are counted by cell as `quota.usage` does, shares by resource as `turns.Ledger` does: what a queue may not take, and what
is its turn, is the same for the scheduler and for who displaces.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from mainstay.decide import quota
from mainstay.decide.allowance import cell_of, held_by_queue
from mainstay.decide.turns import ledger_of
from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.queue import NO_LIMIT, Resource
from mainstay.domain.snapshot import Snapshot

ROOTS = -1
"""Instead of a cohort: above all roots."""
Cells = Mapping[int, int]
"""Column of a cell -> how much of it."""
Change = Mapping[int, int]
"""Row of a queue -> how much more it would use of a cell; negative: so much less."""
Amounts = tuple[int, int, int]
"""CPU, memory and GPUs, slices of them too: the resources of a share."""
Share = tuple[float, float]
"""The weighted dominant share, and of equal ones the sum of all ratios: it grows with everything that is borrowed."""
CLIPS_MAX = 6
"""Of so many rows with a lending limit every choice is tried: 64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Where a queue and each other one meet: in the lowest cohort that both are in, or above all roots. Arrays are [queues]."""

    ours: Ints
    """The row just below that on the side of the one queue."""
    theirs: Ints
    """And on that of the other."""


class Balance:
    """Of all queues and cohorts. Rows are those of the tree."""

    def __init__(self, snapshot: Snapshot) -> None:
        tree = snapshot.queues
        quotas, ledger = quota.quotas_of(tree), ledger_of(snapshot)
        self.parent: list[int] = tree.parent.tolist()
        self._cells = {one: cell_of(snapshot, one).tolist() for one in Resource}
        self._resource_of = [resource for _, resource in tree.cells]
        self._defined: list[list[bool]] = tree.defined.tolist()
        self._used: list[list[int]] = quota.usage(quotas, held_by_queue(snapshot)).tolist()
        self._counted: list[list[int]] = self._used
        """The same, and what is promised."""
        self._subtree: list[list[int]] = quotas.subtree.tolist()
        self._local: list[list[int]] = quotas.local.tolist()
        self._borrowing: list[list[int]] = tree.borrowing_limit.tolist()
        self._tree, self._ledger, self._levels = tree, ledger, quotas.levels
        self._held: list[list[int]] = ledger.held.tolist()
        self._kept: list[list[int]] = ledger.kept.tolist()
        self._own: list[list[int]] = ledger.own.tolist()
        self._past: list[list[float]] = ledger.past.tolist()
        self._lendable: list[list[int]] = ledger.lendable.tolist()
        self._weight: list[float] = tree.weight.tolist()
        self._limited = {
            resource: [self._is_limited(row, resource) for row in range(len(tree.names))]
            for resource in dict.fromkeys(self._resource_of)
        }

    def cells(self, queue: int, flavor: int, asked: Mapping[Resource, int]) -> dict[int, int]:
        """What so much counts against the quotas of the queue. `flavor`: the number of node and model as in flavors.py."""
        found: dict[int, int] = {}
        for resource, amount in asked.items():
            cell = self._cells[resource][queue][flavor]
            if cell >= 0 and amount:
                found[cell] = found.get(cell, 0) + amount
        return found

    def hold(self, queue: int, cells: Cells, amounts: Amounts, *, sign: int = 1) -> None:
        """So much more is held in this queue, or with `sign` -1 so much less."""
        self._count(self._used, queue, cells, sign=sign)
        if self._counted is not self._used:
            self._count(self._counted, queue, cells, sign=sign)
        for number, amount in enumerate(amounts):
            at, more = queue, sign * amount
            while at >= 0 and more:
                beyond = self._beyond_kept(at, number, more)
                self._held[at][number] += more
                at, more = self.parent[at], beyond

    def promise(self, promised: Sequence[tuple[int, Cells]]) -> None:
        """So much is promised, each to a queue, in place of what was before: nobody may use it. It is not held yet, so it counts
        neither in what a queue has borrowed nor in its share.
        """
        self._counted = [row.copy() for row in self._used] if promised else self._used
        for queue, cells in promised:
            self._count(self._counted, queue, cells, sign=1)

    def _count(self, used: list[list[int]], queue: int, cells: Cells, *, sign: int) -> None:
        for column, amount in cells.items():
            at, more = queue, sign * amount
            while at >= 0 and more:
                local = self._local[at][column]
                before = max(0, used[at][column] - local)
                used[at][column] += more
                more = max(0, used[at][column] - local) - before
                at = self.parent[at]

    def allows(self, queue: int, cells: Cells) -> bool:
        """Whether the queue may use so much more, borrowing what it may, beside what is promised."""
        return not self.short(queue, cells)

    def short(self, queue: int, cells: Cells) -> frozenset[int]:
        """Columns of the cells of which it may not use so much more."""
        return frozenset(column for column, amount in cells.items() if self._available(queue, column) < amount)

    def might_be_over(self, queue: int, changes: Mapping[int, Sequence[Change]]) -> bool:
        """Whether the queue or a cohort above it might use more than it may, if any of these changes came about, or all of them.

        `changes`: by column of a cell. What the queue is to use is counted already. Where none of them can make it worse: no.
        """
        path = self.up_to(queue, ROOTS)[:-1]
        for column, of_cell in changes.items():
            most = [(row, self.most_used(row, column, of_cell)) for row in path]
            if any(used > self._counted[row][column] for row, used in most) and any(
                used > self._may_use(row, column) for row, used in most
            ):
                return True
        return False

    def most_used(self, row: int, column: int, changes: Sequence[Change]) -> int:
        """The most that the row would use of a cell with some of these changes, whichever they are; what is promised counts.

        A row passes on to its cohort what it uses beyond `local`, or nothing if that is more. So its use is the most of plain
        sums, one for each choice of who passes nothing on, and in each of them a change comes about where it adds: exact.
        To add up what each adds by itself as things were when it was found would be too little: of a queue that lends none of
        its 10 and uses 9, one takes 5 away and so nothing that was passed on; with the 6 that the next one adds, it would be 5.
        Beyond CLIPS_MAX who may choose, all that is added counts, and nothing that is taken away: too much, never too little.
        """
        below = {
            queue: path[: path.index(row)]
            for queue in sorted({queue for change in changes for queue in change})
            if row in (path := self.up_to(queue, ROOTS))
        }
        amounts = np.array([[change.get(queue, 0) for queue in below] for change in changes], dtype=np.int64)
        clips = sorted({one for path in below.values() for one in path if self._local[one][column] > 0})
        if len(clips) > CLIPS_MAX:
            return self._counted[row][column] + int(np.maximum(0, amounts).sum())
        found = []
        for choice in product((False, True), repeat=len(clips)):
            stops = {one for one, stop in zip(clips, choice, strict=True) if stop}
            reaches = np.array([stops.isdisjoint(path) for path in below.values()], dtype=np.bool_)
            more = np.maximum(0, amounts[:, reaches].sum(axis=1)).sum()
            found.append(self._used_where(row, column, below.values(), stops) + int(more))
        return max(found)

    def _used_where(self, row: int, column: int, below: Iterable[Sequence[int]], stops: Container[int]) -> int:
        """What the row uses where of these below it some pass nothing on, and all others what they use less `local`."""
        rows = sorted({one for path in below for one in path}, reverse=True)  # Children come after their parents.
        used = {one: self._counted[one][column] for one in (row, *rows)}
        for one in rows:
            local = self._local[one][column]
            passes = 0 if one in stops else used[one] - local
            used[self.parent[one]] += passes - max(0, self._counted[one][column] - local)
        return used[row]

    def _may_use(self, row: int, column: int) -> int:
        """The most, with what others store in its cohort."""
        own, limit = self._subtree[row][column], self._borrowing[row][column]
        if self.parent[row] < 0:
            return own
        return own + limit if limit < NO_LIMIT else NO_LIMIT

    def within(self, row: int, queue: int, cells: Cells) -> bool:
        """Whether with so much more in the queue, it or this cohort above it uses no more than is its own.

        Without any quota: no.
        """
        for column, amount in cells.items():
            at, more = queue, amount
            while at != row:
                used, local = self._used[at][column], self._local[at][column]
                more = max(0, used + more - local) - max(0, used - local)
                at = self.parent[at]
            if self._used[row][column] + more > self._subtree[row][column]:
                return False
        return bool(cells)

    def beyond(self, queue: int, cells: Cells) -> frozenset[int]:
        """Columns of the cells of which the queue itself would use more than its own with so much more."""
        used, own = self._used[queue], self._subtree[queue]
        return frozenset(column for column, amount in cells.items() if used[column] + amount > own[column])

    def beyond_own(self, column: int) -> Ints:
        """[queues] How much more than its own each uses of a cell; negative: so much less."""
        return np.array(
            [used[column] - own[column] for used, own in zip(self._used, self._subtree, strict=True)], dtype=np.int64
        )

    def under(self, queue: int, cells: Cells) -> bool:
        """Whether the queue itself uses less than its own of all of these. Without any quota: no."""
        used, own = self._used[queue], self._subtree[queue]
        return bool(cells) and all(used[column] < own[column] for column in cells)

    def over(self, row: int, cells: Cells) -> bool:
        """Whether it uses more than is its own of any of these, or has no quota of one of their resources at all."""
        return any(
            self._used[row][column] > self._subtree[row][column] or self._unlimited(row, self._resource_of[column])
            for column in cells
        )

    def lends(self, row: int, cells: Cells, yields: Cells) -> bool:
        """Whether what yields holds some of what this queue has borrowed, out of these."""
        return any(
            (column in yields and self._used[row][column] > self._subtree[row][column])
            or self._unlimited(row, self._resource_of[column])
            for column in cells
        )

    def _beyond_kept(self, row: int, number: int, more: int) -> int:
        """How much of so much more of a resource counts above the row, as in `kernel`; of less, how much less."""
        held = self._held[row][number] - self._kept[row][number]
        return max(0, held + more) - max(0, held)

    def share(self, row: int, more: Amounts = (0, 0, 0), *, below: int | None = None) -> Share:
        """With so much more, held in the queue `below` it or in itself: what it would hold of what it could borrow, and has
        borrowed lately, divided by its weight.
        """
        weight, ratios, borrows = self._weight[row], [], False
        for number, amount in enumerate(more):
            at = row if below is None else below
            while at != row:
                at, amount = self.parent[at], self._beyond_kept(at, number, amount)  # noqa: PLW2901 what is left of it
            borrowed = max(0, self._held[row][number] + amount - self._own[row][number])
            borrows = borrows or borrowed > 0
            ratios.append((borrowed + self._past[row][number]) / self._lendable[row][number])
        if not borrows:
            return (0.0, 0.0)
        total = sum(ratios)
        if weight <= 0:
            return (float("inf"), total) if total > 0 else (0.0, 0.0)
        return max(ratios) / weight, total / weight

    def shares(self) -> Floats:
        """[queues] The first part of `share`, of all at once."""
        rows = np.arange(len(self._held))
        return self._ledger.shares(rows, np.array(self._held, dtype=np.int64).reshape(rows.size, -1))

    def over_up_to(self, sides: Sides, cells: Cells) -> Bools:
        """[queues] Whether each row, with all above it on its side, is `over`."""
        found = np.array([self.over(row, cells) for row in range(len(self.parent))], dtype=np.bool_)
        for level in self._levels[1:]:
            below = sides.theirs[level] != np.arange(level.start, level.stop)
            found[level] &= found[self._tree.parent[level]] | ~below
        return found

    def sides(self, queue: int) -> Sides:
        """Of this queue and every other."""
        parent, rows = self._tree.parent, np.arange(len(self.parent))
        path = [queue]
        while self.parent[path[-1]] != ROOTS:
            path.append(self.parent[path[-1]])
        on_path = np.isin(rows, path)
        theirs = rows.copy()
        for level in self._levels[1:]:
            theirs[level] = np.where(on_path[parent[level]], rows[level], theirs[parent[level]])
        side = np.zeros(rows.size + 1, dtype=np.int64)
        for row in path:
            side[self.parent[row]] = row  # ROOTS is the last
        return Sides(ours=side[parent[theirs]], theirs=theirs)

    def up_to(self, row: int, top: int) -> list[int]:
        """The row and all above it up to `top`."""
        found = [row]
        while found[-1] != top:
            found.append(self.parent[found[-1]])
        return found

    def _unlimited(self, row: int, resource: str) -> bool:
        return not self._limited[resource][row]

    def _is_limited(self, row: int, resource: str) -> bool:
        return any(
            one == resource and (defined or own)
            for one, defined, own in zip(self._resource_of, self._defined[row], self._subtree[row], strict=True)
        )

    def _available(self, queue: int, column: int) -> int:
        """As `quota.available`, of one cell."""
        left = self._subtree[queue][column] - self._counted[queue][column]
        parent = self.parent[queue]
        if parent < 0:
            return left
        local = self._local[queue][column]
        above = self._available(parent, column)
        if (limit := self._borrowing[queue][column]) < NO_LIMIT:
            taken = max(0, self._counted[queue][column] - local)
            above = min(above, self._subtree[queue][column] - local - taken + limit)
        return max(0, local - self._counted[queue][column]) + above
