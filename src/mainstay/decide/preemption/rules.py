"""By which rule whom may yield for whom. Source: Kueue, preemption and fair sharing; scheduling.md rows 7 to 12 and 18.

In this order, the first that allows it counts:
1. within the queue, by its policy: of a lower priority, or as urgent and newer, where age is what its order goes by;
2. reclaim: the one who waits asks for no more than is its queue's own, or its cohort's, against queues outside of that; or its
   queue uses less than its own of all that is asked for, and once all have yielded, its own work among them, no more. And
   the other queue, with all cohorts up to where both meet, holds more than its own of what is needed;
3. borrow: the other queue likewise, and its work is less urgent, also where the one who waits borrows itself;
4. fair share: the queue that waits then holds no more, for its weight, than the other one is left with. Who holds no more than
   their own yields to nobody's share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mainstay.decide.preemption.balance import Amounts, Balance, Cells, Share, Sides
from mainstay.decide.preemption.holders import Holders
from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.preemption import FairShare, PreemptionPolicy, Reclaim, Rule, WithinQueue
from mainstay.domain.queue import FAIR, FIFO, STRICT, Resource
from mainstay.domain.snapshot import Snapshot

NOTHING_BORROWED: Share = (0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Who wants a place."""

    key: int
    queue: int
    priority: int
    submitted_at: int
    submitter: int = 0
    order: str = FAIR
    """Of its queue."""
    displacers: frozenset[int] = frozenset()
    """Keys of those that it may not displace: who has displaced it, and whom those were displaced by in turn."""


def wish_of(snapshot: Snapshot, row: int) -> Wish:
    """Of the workload in this row."""
    table = snapshot.workloads
    return Wish(
        key=int(table.key[row]),
        queue=int(table.queue[row]),
        priority=int(table.priority[row]),
        submitted_at=int(table.submitted_at[row]),
        submitter=int(table.submitter[row]),
        order=snapshot.queues.orders[int(table.queue[row])],
        displacers=displacers(snapshot.displaced_by, int(table.key[row])),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What something counts against its queue."""

    cells: Cells
    amounts: Amounts


def displacers(displaced_by: Mapping[int, tuple[int, ...]], key: int) -> frozenset[int]:
    """All for whom this workload was displaced, directly or in turn. O(displacements)."""
    found: set[int] = set()
    left = [key]
    while left:
        for other in displaced_by.get(left.pop(), ()):
            if other not in found:
                found.add(other)
                left.append(other)
    return frozenset(found)


class Loads:
    """What each unit counts against its queue, worked out when it is asked for."""

    def __init__(self, holders: Holders, balance: Balance) -> None:
        self._holders, self._balance = holders, balance
        self._known: dict[int, Load] = {}

    def of(self, unit: int) -> Load:
        """Of all its pods together."""
        load = self._known.get(unit)
        if load is None:
            holders, pods = self._holders, self._holders.pods_of(unit)
            queue = int(holders.queue[unit])
            cells: dict[int, int] = {}
            columns = zip(
                holders.cpu_milli[pods].tolist(),
                holders.memory_bytes[pods].tolist(),
                holders.gpus[pods].tolist(),
                holders.flavor[pods].tolist(),
                strict=True,
            )
            totals = [0, 0, 0]
            for cpu, memory, gpus, flavor in columns:
                asked = {Resource.CPU: cpu, Resource.MEMORY: memory, Resource.GPU: gpus, Resource.PODS: 1}
                for column, amount in self._balance.cells(queue, flavor, asked).items():
                    cells[column] = cells.get(column, 0) + amount
                totals[0] += cpu
                totals[1] += memory
                totals[2] += gpus
            load = self._known[unit] = Load(cells=cells, amounts=(totals[0], totals[1], totals[2]))
        return load


@dataclass(slots=True, kw_only=True)
class Rules:
    """The rules for one wish and one request. `balance` is without the wish's own load."""

    balance: Balance
    policy: PreemptionPolicy
    wish: Wish
    load: Load
    """Of all its pods."""
    allowed: frozenset[Rule]
    sides: Sides
    with_own: bool = False
    """Its queue may also reclaim what is its own once its own work has yielded, if it then borrows nothing (Kueue:
    ReclaimWithoutBorrowing). Otherwise only what is its own as things are (HierarchicalReclaim), and then it may borrow, too.
    """
    _own: dict[int, bool] = field(default_factory=dict)
    """Row on our side -> whether it may be reclaimed for that as things were before anybody has yielded."""
    _seen: dict[int, Share] = field(default_factory=dict)
    """Row on the other side -> the least share that it had before a victim of it was taken."""

    def by_unit(self, holders: Holders, queues: int) -> Ints:
        """[units] The rule by which each may yield, as things are before anybody has; 0: none."""
        lower = holders.priority < self.wish.priority
        lent, fair = self._by_queue(queues)
        lent[self.wish.queue], fair[self.wish.queue] = 0, False
        found = np.zeros(lower.size, dtype=np.int64)
        # What counts is the first rule that allows it, so the last one goes first and is overwritten.
        if fair.any():
            np.copyto(found, int(Rule.FAIR_SHARE), where=fair[holders.queue])
        if Rule.BORROW in self.allowed and lent.any():
            most = self.wish.priority if self.policy.borrow_priority_max is None else self.policy.borrow_priority_max
            np.copyto(found, int(Rule.BORROW), where=(lent > 0)[holders.queue] & lower & (holders.priority <= most))
        if (own := lent == int(Rule.RECLAIM)).any():
            reclaims = own[holders.queue]
            np.copyto(
                found, int(Rule.RECLAIM), where=reclaims if self.policy.reclaim is Reclaim.ANY else reclaims & lower
            )
        if self.policy.within_queue is not WithinQueue.NEVER:
            np.copyto(found, int(Rule.WITHIN_QUEUE), where=self._within(holders, lower))
        return found * holders.may_yield

    def _within(self, holders: Holders, lower: Bools) -> Bools:
        """[units] Those of the queue of the wish that yield to it within their queue, if any do. `lower` [units]: less urgent."""
        here: Bools = holders.queue == self.wish.queue
        by_age = self.policy.within_queue is WithinQueue.LOWER_OR_NEWER_EQUAL_PRIORITY
        if not by_age or self.wish.order not in {FAIR, FIFO, STRICT}:
            return here & lower
        newer = (holders.priority == self.wish.priority) & (holders.submitted_at > self.wish.submitted_at)
        if self.wish.order == FAIR:  # Of others it is their turn that counts, and displacing would undo that.
            newer &= holders.submitter == self.wish.submitter
        here &= lower | newer
        return here

    def may_take(self, queue: int, rule: Rule, yields: Load) -> bool:
        """Whether it may yield now, others having yielded before it."""
        if rule is Rule.WITHIN_QUEUE:
            return True
        ours, theirs = int(self.sides.ours[queue]), int(self.sides.theirs[queue])
        if rule is Rule.FAIR_SHARE:
            share = self.balance.share(theirs)
            if share <= NOTHING_BORROWED:
                return False
            if self.policy.fair_share is FairShare.FINAL_SHARE:
                less = (-yields.amounts[0], -yields.amounts[1], -yields.amounts[2])
                fair = self._our_share(ours) <= self.balance.share(theirs, less, below=queue)
            else:
                fair = self._our_share(ours) < share
            if fair:
                self._seen[theirs] = min(share, self._seen.get(theirs, share))
            return fair
        if rule is Rule.RECLAIM and not (self.with_own or self.is_own(ours)):
            return False
        lent = all(self.balance.over(row, self.load.cells) for row in self.balance.up_to(queue, theirs))
        return lent and self.balance.lends(queue, self.load.cells, yields.cells)

    def lawful(self, taken: list[tuple[int, Rule]]) -> bool:
        """Whether all of this still holds once fewer yield than were taken: checked anew after the victims are minimised.

        Who is put back makes its own queue hold more: that breaks no rule by which others of it yield, but it may raise what
        the queue of the wish, or a cohort above it, holds. `taken`: (queue, rule) of those that yield.
        """
        for queue, rule in dict.fromkeys(taken):
            ours, theirs = int(self.sides.ours[queue]), int(self.sides.theirs[queue])
            if rule is Rule.RECLAIM and not self.is_own(ours) and self.beyond(taken):
                return False
            if rule is Rule.FAIR_SHARE:
                share = self._our_share(ours)
                if self.policy.fair_share is FairShare.FINAL_SHARE:
                    fair = share <= self.balance.share(theirs)
                else:
                    fair = share < self._seen.get(theirs, (float("inf"), 0.0))
                if not fair:
                    return False
        return True

    def is_own(self, ours: int) -> bool:
        """Whether the queue, or a cohort above it up to this one on our side, would use no more than its own with the wish.

        Asked before anybody yields, so that it holds for good.
        """
        if ours not in self._own:
            queue, balance = self.wish.queue, self.balance
            self._own[ours] = any(balance.within(row, queue, self.load.cells) for row in balance.up_to(queue, ours))
        return self._own[ours]

    def beyond(self, taken: list[tuple[int, Rule]]) -> frozenset[int]:
        """Columns of the cells of which the queue would borrow, though what it takes is its own only as long as it does not."""
        for queue, rule in dict.fromkeys(taken):
            if rule is Rule.RECLAIM and not self.is_own(int(self.sides.ours[queue])):
                return self.balance.beyond(self.wish.queue, self.load.cells)
        return frozenset()

    def _our_share(self, ours: int) -> Share:
        """Of the row on our side, with the wish."""
        return self.balance.share(ours, self.load.amounts, below=self.wish.queue)

    def _by_queue(self, queues: int) -> tuple[Ints, Bools]:
        """[queues] RECLAIM or BORROW where the queue has borrowed what is needed; whether fairness may take from it."""
        lent, fair = np.zeros(queues, dtype=np.int64), np.zeros(queues, dtype=np.bool_)
        if self.allowed & {Rule.RECLAIM, Rule.BORROW} and self.load.cells:
            over = self.balance.over_up_to(self.sides, self.load.cells)
            own = self._per_side(lambda ours: self.is_own(ours) or self.with_own)
            if Rule.BORROW in self.allowed:
                lent[over] = int(Rule.BORROW)
            if Rule.RECLAIM in self.allowed:
                lent[over & (own[self.sides.ours] > 0)] = int(Rule.RECLAIM)
        if Rule.FAIR_SHARE in self.allowed:
            share = self._per_side(lambda ours: self._our_share(ours)[0])
            # Of equal first parts of shares the rule itself decides, one by one.
            theirs = self.balance.shares()[self.sides.theirs]
            fair = (share[self.sides.ours] <= theirs) & (theirs > 0)
        return lent, fair

    def _per_side(self, answer: Callable[[int], float]) -> Floats:
        """[queues] The answer for each row that is on the side of the wish; of others nothing that matters."""
        found = np.zeros(len(self.balance.parent))
        for ours in np.unique(self.sides.ours).tolist():
            found[ours] = answer(ours)
        return found
