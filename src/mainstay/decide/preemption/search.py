"""For one workload who yields: each way to ask for it, under each set of rules, until a trial succeeds.

The fewest yield, whose lost work is worth the least (`trial`). Nobody yields for a workload that then would not fit, or that
would delay a start which is reserved before its turn (`starts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mainstay.decide.placement.sets import Parts
from mainstay.decide.preemption.rules import Load, Rules, Wish
from mainstay.decide.preemption.staying import Staying
from mainstay.decide.preemption.trial import Displacement, Trial
from mainstay.decide.shapes import Shape
from mainstay.domain.preemption import Borrow, FairShare, PreemptionPolicy, Reclaim, Rule, WithinQueue
from mainstay.domain.snapshot import Snapshot


class Search:
    """What is found for one is taken at once, so that the next one is searched for in the world after it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.staying = Staying(snapshot)

    def displace(self, wish: Wish, shape: Shape) -> Displacement | None:
        """Who yields for it, and where it is placed; then all of that is so. None: nobody may, or it would not fit.

        Of offers that are equals that is taken for which the least is lost, and of those the one of the least expected cost.
        """
        asked = [(at, parts, load) for at, parts, load in self.staying.ways(wish, shape)]
        for tier in sorted(set(shape.tiers)):
            equals = [
                [(parts, load) for number, parts, load in asked if number == at]
                for at, of in enumerate(shape.tiers)
                if of == tier
            ]
            trials = (self._trials(wish, one) for one in equals)
            if len(equals) == 1:
                found = next(filter(None, (trial.made() for trial in next(trials))), None)
            else:
                found = self._least_lost(trials)
            if found is not None:
                return found
        return None

    def places_now(self, wish: Wish, shape: Shape) -> bool:
        """Whether it fits without anybody who would not leave anyway."""
        for _, parts, load in self.staying.ways(wish, shape):
            if self.staying.balance.allows(wish.queue, load.cells) and self.staying.has_place(wish.queue, parts):
                return True
        return False

    def _trials(self, wish: Wish, asked: Sequence[tuple[Parts, Load]]) -> Iterator[Trial]:
        """In the order in which they are made, until one succeeds."""
        return (
            Trial(self.staying, rules, self.staying.beside_gpus(parts))
            for parts, load in asked
            for rules in self._rules(wish, load)
        )

    def _least_lost(self, offers: Iterable[Iterator[Trial]]) -> Displacement | None:
        """Of the first trial of each offer that succeeds, the one that costs the least. What is found out is undone before the
        next one is tried.
        """
        best: tuple[int, Trial] | None = None
        for trials in offers:
            for trial in trials:
                cost = trial.cost()
                if cost is not None:
                    if best is None or cost < best[0]:
                        best = cost, trial
                    break
            if best is not None and not best[0]:
                break
        return best[1].made() if best is not None else None

    def _rules(self, wish: Wish, load: Load) -> Iterator[Rules]:
        """In the order in which they are tried: as in Kueue, its own comes before what it borrows, its own work yielding, too."""
        policy, sides = self.staying.snapshot.queues.policies[wish.queue], self.staying.balance.sides(wish.queue)
        balance, cells = self.staying.balance, load.cells
        with_own = balance.under(wish.queue, cells) and not balance.within(wish.queue, wish.queue, cells)
        for allowed in stages(policy):
            for each in (True, False) if with_own and {Rule.WITHIN_QUEUE, Rule.RECLAIM} <= allowed else (False,):
                yield Rules(
                    balance=balance, policy=policy, wish=wish, load=load, allowed=allowed, sides=sides, with_own=each
                )


def stages(policy: PreemptionPolicy) -> list[frozenset[Rule]]:
    """The rules that are tried together: first what is the queue's own, then also what it would borrow."""
    first = {Rule.WITHIN_QUEUE} if policy.within_queue is not WithinQueue.NEVER else set()
    if policy.reclaim is not Reclaim.NEVER:
        first.add(Rule.RECLAIM)
    more = {Rule.BORROW} if policy.borrow is not Borrow.NEVER else set()
    if policy.fair_share is not FairShare.NEVER:
        more.add(Rule.FAIR_SHARE)
    found = [frozenset(first)] if first else []
    return [*found, frozenset(first | more)] if more else found
