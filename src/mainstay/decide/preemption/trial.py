"""One try to make room: who yields for one way to ask under one set of rules, and where it is placed then.

1. By each rule who may yield, and on which nodes it would fit without them (`rules`, `steps`).
2. Step by step they are taken, each only if the rules allow it now that those before have yielded, until all pods fit.
3. Where the quota is still short, others of the same tree, wherever they run.
4. In reverse order everybody is put back without whom it fits as well, and the rules are checked anew.
5. The places are chosen as for any other workload.

If any of this fails, everything is as it was before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mainstay.decide.placement.apart import bound_of, room_apart
from mainstay.decide.placement.fit import Free, feasible, room
from mainstay.decide.placement.gang import room_together, together
from mainstay.decide.placement.sets import Part, Parts, hardest_first, take_parts
from mainstay.decide.preemption.gained import Gained
from mainstay.decide.preemption.rules import Rules
from mainstay.decide.preemption.staying import Staying
from mainstay.decide.preemption.steps import dips, in_order, ranked, steps_of
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.preemption import Rule

STEPS_MAX = 4_096
"""So many nodes are tried at most for one workload."""
DOMAINS_MAX = 32
"""So many clusters, or domains that must hold a gang, are tried for it at most, the best first."""
FOR_QUOTA_MAX = 2_048
"""So many of other nodes are tried at most where the quota is short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Displacement:
    """What is to happen for one workload."""

    units: tuple[tuple[int, Rule], ...]
    """Who yields, by `Holders`; none: it fits once those have ended that have been told to."""
    nodes: Ints
    """[ranks] Node row of each."""
    parts: Parts
    cost: int
    """Of the work that is lost, in millionths of a currency."""


class Trial:
    """One way to ask under one set of rules. Whoever is taken is let go, and put back if it fails."""

    def __init__(self, staying: Staying, rules: Rules, parts: Parts) -> None:
        self._staying, self._rules, self._asked, self._parts = staying, rules, parts, parts
        self._request, self._ranks = parts[0].request, parts[0].ranks
        """Of the part for which room is looked for."""
        self._taken: list[tuple[int, Rule]] = []
        self._ranked: Ints = np.zeros(0, dtype=np.int64)
        """[units] As `steps.ranked` has it, as things were before anybody had yielded."""

    def made(self) -> Displacement | None:
        """Who yields and where it is placed; None, and all as it was before."""
        nodes = self._sought()
        return None if nodes is None else self._found(nodes)

    def cost(self) -> int | None:
        """As of a displacement, if one were made; None if it would fail. All is as it was before."""
        found = self._sought()
        cost = None if found is None else self._lost()
        self._put_back()
        return cost

    def _sought(self) -> Ints | None:
        """Node row of each rank, once all have been taken that must yield; None, and all as it was before."""
        by_unit, self._parts = self._staying.rules_of(self._rules), self._asked
        staying, rules, ways = self._staying, self._rules, self._ways(by_unit)
        if ways:
            below = dips(staying.snapshot, staying.holders, staying.balance, rules.load.cells, by_unit)
            self._ranked = ranked(staying.holders, rules.wish.queue, below)
        for parts in ways:
            self._parts = parts
            if self._find_room_for_all(by_unit) and self._find_quota(by_unit) and self._minimised():
                nodes = staying.places(rules.wish.queue, parts)
                if nodes is not None:
                    return nodes
            self._put_back()
        return None

    def _lost(self) -> int:
        """Of the work of those taken, in millionths of a currency."""
        holders, units = self._staying.holders, [unit for unit, _ in self._taken]
        return sum(
            int(holders.cost[unit]) for unit in units if holders.whole[unit] not in units or holders.whole[unit] == unit
        )

    def _found(self, nodes: Ints) -> Displacement:
        staying, holders = self._staying, self._staying.holders
        units = [unit for unit, _ in self._taken]
        staying.take(self._rules.wish, self._rules.load, self._parts, nodes)
        for whole in holders.whole[units].tolist():
            # One that yields some of its ranks is left alone until that has been committed.
            holders.may_yield[whole : holders.surplus(whole).stop] = False
        return Displacement(units=tuple(self._taken), nodes=nodes, parts=self._parts, cost=self._lost())

    def _ways(self, by_unit: Ints) -> list[Parts]:
        """The parts where they would fit if all yielded that may: as they are, or, of a gang, in each cluster (or domain that
        must hold it), the best first.
        """
        staying, parts = self._staying, self._parts
        where, holds, here = together(staying.free, parts[0].request), list[Bools](), list[Ints]()
        for part in parts:
            could = staying.without(part.request, (by_unit > 0)[staying.holders.unit])
            rows = np.flatnonzero(feasible(could, part.request))
            if not rows.size:
                return []
            if len(parts) == 1 and part.ranks == 1:
                return [parts]
            most = room_together(could, part.request, rows)
            now = room_together(staying.free, part.request, np.flatnonzero(feasible(staying.free, part.request)))
            holds.append(most >= part.ranks)
            here.append(np.minimum(now, part.ranks))
        found = np.flatnonzero(np.logical_and.reduce(holds))
        # Where most of it fits already, the fewest have to yield.
        order = found[np.lexsort((found, -np.sum(here, axis=0)[found]))][:DOMAINS_MAX]
        return [tuple(self._inside(part, where == number) for part in parts) for number in order.tolist()]

    def _inside(self, part: Part, domain: Bools) -> Part:
        """Its ranks lie on these nodes only, as far as they may."""
        free, request = self._staying.free, part.request
        bound = bound_of(free, request)
        reach = free.usable(request) & domain
        return replace(part, request=replace(request, reach=reach & bound.known if bound else reach))

    def _find_room_for_all(self, by_unit: Ints) -> bool:
        """Part by part, the hardest to place first; each holds its places while room for the next one is looked for."""
        staying, held = self._staying, list[tuple[Part, Ints]]()
        found = True
        for at in hardest_first(staying.free, self._parts) if len(self._parts) > 1 else (0,):
            part = self._parts[at]
            self._request, self._ranks = part.request, part.ranks
            found = self._find_room(by_unit)
            if not found or len(self._parts) == 1:
                break
            nodes = staying.places(self._rules.wish.queue, (part,))
            assert nodes is not None, "room was found for it"
            take_parts(staying.free, nodes, (part,))
            held.append((part, nodes))
        for part, nodes in held:
            for node in nodes.tolist():
                staying.free.give_back(node, part.request)
        return found

    def _find_room(self, by_unit: Ints) -> bool:
        """First among those who yield most readily of all with whom it would fit: the mildest step is one of theirs."""
        if self._fits():
            return True
        may_yield, before = by_unit > 0, len(self._taken)
        may_yield[[unit for unit, _ in self._taken]] = False  # What they held is free already.
        if not may_yield.any():
            return False
        mild, could = self._mildest(may_yield)
        if self._walk(by_unit, mild, could):
            return True
        self._put_back(before)
        if np.array_equal(mild, may_yield):
            return False
        could = self._staying.without(self._request, may_yield[self._staying.holders.unit])
        return self._walk(by_unit, may_yield, could)

    def _mildest(self, may_yield: Bools) -> tuple[Bools, Free]:
        """[units] Of those that may yield, the ones of the lowest ranks that suffice; and what would be free without them. By
        bisection.
        """
        staying, request = self._staying, self._request
        ranks = np.flatnonzero(np.bincount(self._ranked[may_yield]))
        rank_of, yields = self._ranked[staying.holders.unit], may_yield[staying.holders.unit]
        low, high, could = 0, ranks.size - 1, None
        while low < high:
            middle = (low + high) // 2
            without = staying.without(request, yields & (rank_of <= ranks[middle]))
            if self._holds(without):
                high, could = middle, without
            else:
                low = middle + 1
        mildest: Bools = may_yield & (self._ranked <= ranks[low])
        return mildest, could or staying.without(request, yields)

    def _walk(self, by_unit: Ints, may_yield: Bools, could: Free) -> bool:
        """Step by step, until it fits. `could`: what would be free if all yielded that may."""
        staying, request = self._staying, self._request
        steps = steps_of(
            staying.free,
            request,
            staying.holders,
            staying.freed(request),
            may_yield=may_yield,
            nodes=room(could, request) >= (self._ranks if request.one_node else 1),
            ranked_units=self._ranked,
            ranks=self._ranks,
        )
        gained = Gained(staying.free, request, self._ranks)
        for step in range(min(steps.node.size, STEPS_MAX * self._ranks)):
            node = int(steps.node[step])
            if gained.is_full(node) or not self._take_all(steps.units(step), by_unit):
                continue
            if gained.with_room(node, int(steps.pods[step])) >= self._ranks and self._fits():
                return True
        return False

    def _find_quota(self, by_unit: Ints) -> bool:
        """Where the quota is short, or the queue borrows and may not, others yield, wherever they run.

        Other queues are asked before its own work yields. Once that has, its share is less, so that others may have to yield
        to it that had not to before: they are asked then.
        """
        staying, left = self._staying, FOR_QUOTA_MAX
        while not self._has_quota() and left > 0:
            before = len(self._taken)
            units = in_order(staying.holders, self._ranked, np.flatnonzero(by_unit))
            left -= self._take_for_quota(units.tolist(), by_unit, most=left)
            if len(self._taken) == before:
                break
            if Rule.FAIR_SHARE in self._rules.allowed:
                by_unit = np.where(by_unit > 0, by_unit, staying.rules_of(self._rules))
        return self._has_quota()

    def _has_quota(self) -> bool:
        rules = self._rules
        return self._staying.balance.allows(rules.wish.queue, rules.load.cells) and not rules.beyond(
            self._queues_taken()
        )

    def _take_for_quota(self, units: list[int], by_unit: Ints, *, most: int) -> int:
        """One after the other that helps, until there is enough. How many were tried, at most so many."""
        rules, staying = self._rules, self._staying
        cells, queue = rules.load.cells, rules.wish.queue
        taken = {unit for unit, _ in self._taken}
        tried = 0
        for unit in units:
            short, beyond = staying.balance.short(queue, cells), rules.beyond(self._queues_taken())
            if tried == most or not (short or beyond):
                break
            helps = short | beyond if staying.holders.queue[unit] == queue else short
            if unit not in taken and not helps.isdisjoint(staying.of_unit(unit).cells):
                tried += 1
                self._take_all([unit], by_unit)
        return tried

    def _minimised(self) -> bool:
        """Put back everybody without whom it fits as well, the last one first. Whether the rules still hold at the end."""
        if not self._lawful():
            return False
        # Whether several sizes fit is no matter of sums: with more room left over another one may be put back.
        while self._put_back_whom_it_can() and len(self._parts) > 1:
            pass
        return True

    def _put_back_whom_it_can(self) -> bool:
        """Whether anybody was."""
        before, whole = len(self._taken), self._staying.holders.whole
        for unit, rule in self._taken[::-1]:
            if whole[unit] != unit and any(other == whole[unit] for other, _ in self._taken):
                continue  # The rest of its workload yields, and no rank is left behind.
            self._staying.move(unit, sign=1)
            self._taken.remove((unit, rule))
            if not (
                self._fits_all() and self._staying.balance.allows(self._rules.wish.queue, self._rules.load.cells)
            ) or (not self._lawful()):
                self._staying.move(unit, sign=-1)
                self._taken.append((unit, rule))
        return len(self._taken) < before

    def _take_all(self, units: list[int], by_unit: Ints) -> bool:
        """All of them that have not been taken yet, each with what yields with it, or none."""
        taken = {unit for unit, _ in self._taken}
        before = len(self._taken)
        for unit, rule in self._with_surplus(units, by_unit):
            if unit in taken:
                continue
            taken.add(unit)
            queue = int(self._staying.holders.queue[unit])
            if not self._rules.may_take(queue, rule, self._staying.of_unit(unit)):
                self._put_back(before)
                return False
            self._staying.move(unit, sign=-1)
            self._taken.append((unit, rule))
        return True

    def _with_surplus(self, units: list[int], by_unit: Ints) -> Iterator[tuple[int, Rule]]:
        """Before the rest of a workload yields, its surplus ranks do: all that have not been told to already."""
        holders = self._staying.holders
        for unit in units:
            rule = Rule(int(by_unit[unit]))
            for other in holders.surplus(unit):
                pods = holders.pods_of(other)
                if not (holders.leaving[pods].any() or holders.stuck[pods].any()):
                    yield other, rule
            yield unit, rule

    def _put_back(self, but: int = 0) -> None:
        for unit, _ in self._taken[but:]:
            self._staying.move(unit, sign=1)
        del self._taken[but:]

    def _fits(self) -> bool:
        return self._holds(self._staying.free)

    def _fits_all(self) -> bool:
        return (
            self._fits()
            if len(self._parts) == 1
            else self._staying.places(self._rules.wish.queue, self._parts) is not None
        )

    def _holds(self, free: Free) -> bool:
        """Whether all ranks find room: on one node, where they share a volume that cannot be on two."""
        request = self._request
        rows = np.flatnonzero(feasible(free, request))
        if self._ranks == 1 or not rows.size:
            return bool(rows.size)
        most = room_apart(free, request, rows)
        return int(most.max() if request.one_node else most.sum()) >= self._ranks

    def _lawful(self) -> bool:
        return self._rules.lawful(self._queues_taken())

    def _queues_taken(self) -> list[tuple[int, Rule]]:
        """(queue, rule) of each that yields."""
        queue = self._staying.holders.queue
        return [(int(queue[unit]), rule) for unit, rule in self._taken]
