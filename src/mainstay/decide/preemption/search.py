"""Who yields for one workload, and where it is placed then: the fewest, whose lost work is worth the least.

1. By each rule who may yield, and on which nodes it would fit without them (`rules`, `steps`).
2. Step by step they are taken, each only if the rules allow it now that those before have yielded, until all pods fit.
3. Where the quota is still short, others of the same tree, wherever they run.
4. In reverse order everybody is put back without whom it fits as well, and the rules are checked anew.
5. The places are chosen as for any other workload.

If any of this fails, everything is as it was before. Nobody yields for a workload that then would not fit, or that would delay a
start which is reserved before its turn.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mainstay.decide import admission
from mainstay.decide.allowance import Allowance
from mainstay.decide.columns import Headroom
from mainstay.decide.nomination import reserved, spoken_for
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES, policies_of
from mainstay.decide.placement.apart import bound_of, room_apart
from mainstay.decide.placement.fit import Free, Request, feasible, room
from mainstay.decide.placement.gang import room_together, together
from mainstay.decide.placement.headroom import headroom_of, unbound
from mainstay.decide.placement.sets import (
    Part,
    Parts,
    hardest_first,
    leaving_headroom,
    place_parts,
    take_parts,
    with_late,
    within,
)
from mainstay.decide.preemption.balance import Balance, Cells
from mainstay.decide.preemption.holders import Holders, holders_of
from mainstay.decide.preemption.rules import Load, Loads, Rules, Wish
from mainstay.decide.preemption.starts import goes_first, reserved_starts
from mainstay.decide.preemption.steps import dips, eagerness, freed_by, ranked, steps_of
from mainstay.decide.shapes import Shape, shape_numbers
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.preemption import Borrow, FairShare, PreemptionPolicy, Reclaim, Rule, WithinQueue
from mainstay.domain.quantity import is_shape
from mainstay.domain.snapshot import NO_LIMIT, PODS, AllocationTable, Snapshot

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


class Search:
    """The world without those who are leaving it in time. What is found is taken at once, so that nobody yields twice."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.holders: Holders = holders_of(snapshot)
        stay = np.ones(snapshot.allocations.key.size, dtype=np.bool_)
        stay[self.holders.pod[self.holders.leaving]] = False
        staying = reserved(snapshot if stay.all() else _with_allocations(snapshot, stay))
        self.balance = Balance(staying)
        self._staying, self._allowance = staying, Allowance(staying)
        self._loads = Loads(self.holders, self.balance)
        self.free = _free(snapshot, self.holders)
        self._slices = tuple(model if is_shape(model) else "" for model in snapshot.gpu_models)
        self._policy = POLICIES[DEFAULT_POLICY]
        self._policies = policies_of(snapshot.queues, self._policy)
        self._starts = reserved_starts(reserved(snapshot), self._policy)
        self._late = np.zeros(self.holders.pod.size, dtype=np.int64)
        """[pods] Bits, by number in `_starts`: it still runs then, so that what is left then is more without it."""
        for number, start in enumerate(self._starts):
            self.free = self.free.keep(start.beside, rows=start.nodes)
            self._late |= start.outlasted[self.holders.pod] << number
        self._gone: set[int] = set()
        """Keys of those that have found a place since, and need none that is reserved."""
        self._freed: tuple[Request, list[tuple[Ints, int]]] | None = None
        """Of the last request; those of one workload are asked again and again."""

    def displace(self, wish: Wish, shape: Shape) -> Displacement | None:
        """Who yields for it, and where it is placed; then all of that is so. None: nobody may, or it would not fit.

        Of offers that are equals that is taken for which the least is lost, and of those the one of the least expected cost.
        """
        self._policy = self._policies[wish.queue]
        asked = [(at, parts, load) for at, parts, load in self._asked(wish, shape)]
        for tier in sorted(set(shape.tiers)):
            equals = [
                [(parts, load) for number, parts, load in asked if number == at]
                for at, of in enumerate(shape.tiers)
                if of == tier
            ]
            attempts = (self._attempts(wish, one) for one in equals)
            if len(equals) == 1:
                found = next(filter(None, (attempt.made() for attempt in next(attempts))), None)
            else:
                found = self._least_lost(attempts)
            if found is not None:
                return found
        return None

    def _attempts(self, wish: Wish, asked: Sequence[tuple[Parts, Load]]) -> Iterator[_Attempt]:
        """In the order in which they are made, until one succeeds."""
        return (
            _Attempt(self, rules, self._beside_gpus(parts))
            for parts, load in asked
            for rules in self._rules(wish, load)
        )

    def _least_lost(self, offers: Iterable[Iterator[_Attempt]]) -> Displacement | None:
        """Of the first attempt of each offer that succeeds, the one that costs the least. What is found out is undone before the
        next one is tried.
        """
        best: tuple[int, _Attempt] | None = None
        for attempts in offers:
            for attempt in attempts:
                cost = attempt.cost()
                if cost is not None:
                    if best is None or cost < best[0]:
                        best = cost, attempt
                    break
            if best is not None and not best[0]:
                break
        return best[1].made() if best is not None else None

    def _rules(self, wish: Wish, load: Load) -> Iterator[Rules]:
        """In the order in which they are tried: as in Kueue, its own comes before what it borrows, its own work yielding, too."""
        policy, sides = self.snapshot.queues.policies[wish.queue], self.balance.sides(wish.queue)
        balance, cells = self.balance, load.cells
        with_own = balance.under(wish.queue, cells) and not balance.within(wish.queue, wish.queue, cells)
        for allowed in stages(policy):
            for each in (True, False) if with_own and {Rule.WITHIN_QUEUE, Rule.RECLAIM} <= allowed else (False,):
                yield Rules(
                    balance=balance, policy=policy, wish=wish, load=load, allowed=allowed, sides=sides, with_own=each
                )

    def _asked(self, wish: Wish, shape: Shape) -> Iterator[tuple[int, Parts, Load]]:
        """The ways to ask for it, each with its number in the shape and what it counts, bound by the starts that are reserved
        before its turn: their places are not for what still runs then, and their quota is used. Whoever displaces counts as such:
        nobody knows when it will have started.
        """
        binding, promised = self.binding(wish, shape), list[tuple[int, Cells]]()
        for number in binding:
            start = self._starts[number]
            load = self.load(start.wish.queue, start.parts)
            if load is not None:
                promised.append((start.wish.queue, load.cells))
        self.balance.promise(promised)
        late = sum(1 << number for number in binding)
        for at, way in enumerate(shape.ways):
            for parts in self._allowance.flavors_of(wish.queue, with_late(way, late)):
                load = self.load(wish.queue, parts)
                if load is not None:
                    yield at, parts, load

    def binding(self, wish: Wish, shape: Shape) -> list[int]:
        """The numbers of the starts that are reserved before its turn."""
        others = ((number, start) for number, start in enumerate(self._starts) if start.wish.key not in self._gone)
        return [
            number
            for number, start in others
            if start.wish.key != wish.key and not goes_first(self.balance, wish, shape.amounts, start)
        ]

    def places_now(self, wish: Wish, shape: Shape) -> bool:
        """Whether it fits without anybody who would not leave anyway."""
        self._policy = self._policies[wish.queue]
        for _, parts, load in self._asked(wish, shape):
            if self.balance.allows(wish.queue, load.cells) and self._has_place(parts):
                return True
        return False

    def _has_place(self, parts: Parts) -> bool:
        """By the rules of a cycle: work without GPUs leaves what is kept for these."""
        asked = leaving_headroom(parts)
        free = self.free.beside_gpus(self._headroom) if asked is not parts else self.free
        return place_parts(free, asked, policy=self._policy) is not None

    def _beside_gpus(self, parts: Parts) -> Parts:
        """Nobody yields for work without GPUs where something may be kept for these."""
        if leaving_headroom(parts) is parts or not self._headroom.source.size:
            return parts
        return within(parts, unbound(self._headroom))

    @functools.cached_property
    def _headroom(self) -> Headroom:
        rows = admission.order(self._staying)
        numbers = shape_numbers(self._staying, rows)
        return headroom_of(self._staying, self.free, self._allowance, rows=rows, numbers=numbers, later=True)

    def places_without_stuck(self, shape: Shape) -> bool:
        """Whether there would be room if those had ended that were told to stop and have not in time."""
        holders = self.holders
        pods = np.flatnonzero(holders.stuck & (holders.node >= 0)).tolist()
        if not pods:
            return False
        free = self.free.copy()
        for pod in pods:
            free.give_back(int(holders.node[pod]), self.holds(pod))
        return any(place_parts(free, way, policy=self._policy) is not None for way in shape.ways)

    def load(self, queue: int, parts: Parts) -> Load | None:
        """What all its pods count against the queue; None if it has no quota for such pods."""
        cells = self._allowance.cells_of(queue, parts)
        if cells is None:
            return None
        return Load(
            cells={column: amount for column, amount in cells.items() if amount},
            amounts=(
                sum(part.ranks * part.request.cpu_milli for part in parts),
                sum(part.ranks * part.request.memory_bytes for part in parts),
                sum(part.ranks * part.request.gpus for part in parts),
            ),
        )

    def of_unit(self, unit: int) -> Load:
        """What a holder counts against its queue."""
        return self._loads.of(unit)

    def rules_of(self, rules: Rules) -> Ints:
        """[units] By which rule each may yield for this wish; 0: not at all."""
        by_unit = rules.by_unit(self.holders, len(self.snapshot.queues.names))
        if rules.wish.displacers:
            keys = self.snapshot.workloads.key[self.holders.row]
            by_unit = np.where(np.isin(keys, np.array(sorted(rules.wish.displacers))), 0, by_unit)
        return by_unit

    def move(self, unit: int, *, sign: int) -> None:
        """Let a unit go (-1), or put it back (1)."""
        holders, load = self.holders, self.of_unit(unit)
        self.balance.hold(int(holders.queue[unit]), load.cells, load.amounts, sign=sign)
        pods, move = holders.pods_of(unit), self.free.take_again if sign > 0 else self.free.give_back
        for pod in range(pods.start, pods.stop):
            if holders.node[pod] >= 0:
                move(int(holders.node[pod]), self.holds(pod))

    def freed(self, request: Request) -> list[tuple[Ints, int]]:
        """As `steps.freed_by`."""
        asked = replace(request, cluster=0)
        if self._freed is None or self._freed[0] != asked:
            self._freed = asked, freed_by(self.holders, self.free, request, self._slices, late=self._late)
        return self._freed[1]

    def places(self, parts: Parts) -> Ints | None:
        """Node row of each rank in what is free now."""
        return place_parts(self.free, parts, policy=self._policy)

    def take(self, wish: Wish, load: Load, parts: Parts, nodes: Ints) -> None:
        """The workload holds its places from now on."""
        take_parts(self.free, nodes, with_late(parts, (1 << len(self._starts)) - 1))
        self.balance.hold(wish.queue, load.cells, load.amounts)
        self._gone.add(wish.key)

    def holds(self, pod: int) -> Request:
        """What a pod that is there holds."""
        holders = self.holders
        model = int(holders.gpu_model[pod])
        return Request(
            cpu_milli=int(holders.cpu_milli[pod]),
            memory_bytes=int(holders.memory_bytes[pod]),
            gpus=int(holders.gpus[pod]),
            gpu_model=model,
            shape=self._slices[model],
            late=int(self._late[pod]),
        )


class _Attempt:
    """One way to ask under one set of rules. Whoever is taken is let go in the world of the search, and put back if it fails."""

    def __init__(self, search: Search, rules: Rules, parts: Parts) -> None:
        self._search, self._rules, self._asked, self._parts = search, rules, parts, parts
        self._request, self._ranks = parts[0].request, parts[0].ranks
        """Of the part for which room is looked for."""
        self._taken: list[tuple[int, Rule]] = []
        self._dips: Bools = np.zeros(0, dtype=np.bool_)

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
        by_unit, self._parts = self._search.rules_of(self._rules), self._asked
        search, cells = self._search, self._rules.load.cells
        self._dips = dips(search.snapshot, search.holders, search.balance, cells, by_unit)
        for parts in self._ways(by_unit):
            self._parts = parts
            if self._find_room_for_all(by_unit) and self._find_quota(by_unit) and self._minimised():
                nodes = self._search.places(parts)
                if nodes is not None:
                    return nodes
            self._put_back()
        return None

    def _lost(self) -> int:
        """Of the work of those taken, in millionths of a currency."""
        holders, units = self._search.holders, [unit for unit, _ in self._taken]
        return sum(
            int(holders.cost[unit]) for unit in units if holders.whole[unit] not in units or holders.whole[unit] == unit
        )

    def _found(self, nodes: Ints) -> Displacement:
        search, holders = self._search, self._search.holders
        units = [unit for unit, _ in self._taken]
        search.take(self._rules.wish, self._rules.load, self._parts, nodes)
        # One that yields some of its ranks is left alone until that has been committed.
        holders.may_yield[np.isin(holders.row, holders.row[units])] = False
        return Displacement(units=tuple(self._taken), nodes=nodes, parts=self._parts, cost=self._lost())

    def _ways(self, by_unit: Ints) -> list[Parts]:
        """The parts where they would fit if all yielded that may: as they are, or, of a gang, in each cluster (or domain that
        must hold it), the best first.
        """
        search, parts = self._search, self._parts
        where, holds, here = together(search.free, parts[0].request), list[Bools](), list[Ints]()
        for part in parts:
            could = _with_all(search, part.request, by_unit > 0)
            rows = np.flatnonzero(feasible(could, part.request))
            if not rows.size:
                return []
            if len(parts) == 1 and part.ranks == 1:
                return [parts]
            most = room_together(could, part.request, rows)
            now = room_together(search.free, part.request, np.flatnonzero(feasible(search.free, part.request)))
            holds.append(most >= part.ranks)
            here.append(np.minimum(now, part.ranks))
        found = np.flatnonzero(np.logical_and.reduce(holds))
        # Where most of it fits already, the fewest have to yield.
        order = found[np.lexsort((found, -np.sum(here, axis=0)[found]))][:DOMAINS_MAX]
        return [tuple(self._inside(part, where == number) for part in parts) for number in order.tolist()]

    def _inside(self, part: Part, domain: Bools) -> Part:
        """Its ranks lie on these nodes only, as far as they may."""
        free, request = self._search.free, part.request
        bound = bound_of(free, request)
        reach = free.usable(request) & domain
        return replace(part, request=replace(request, reach=reach & bound.known if bound else reach))

    def _find_room_for_all(self, by_unit: Ints) -> bool:
        """Part by part, the hardest to place first; each holds its places while room for the next one is looked for."""
        search, held = self._search, list[tuple[Part, Ints]]()
        found = True
        for at in hardest_first(search.free, self._parts) if len(self._parts) > 1 else (0,):
            part = self._parts[at]
            self._request, self._ranks = part.request, part.ranks
            found = self._find_room(by_unit)
            if not found or len(self._parts) == 1:
                break
            nodes = search.places((part,))
            assert nodes is not None, "room was found for it"
            take_parts(search.free, nodes, (part,))
            held.append((part, nodes))
        for part, nodes in held:
            for node in nodes.tolist():
                search.free.give_back(node, part.request)
        return found

    def _find_room(self, by_unit: Ints) -> bool:
        """First among those who yield most readily of all with whom it would fit: the mildest step is one of theirs."""
        if self._fits():
            return True
        may_yield, before = by_unit > 0, len(self._taken)
        may_yield[[unit for unit, _ in self._taken]] = False  # What they held is free already.
        if not may_yield.any():
            return False
        mild = self._mildest(may_yield)
        if self._walk(by_unit, mild):
            return True
        self._put_back(before)
        return not np.array_equal(mild, may_yield) and self._walk(by_unit, may_yield)

    def _mildest(self, may_yield: Bools) -> Bools:
        """[units] Of those that may yield, the ones of the lowest priorities that suffice, other queues first. By bisection."""
        kinds = ranked(self._search.holders, self._rules.wish.queue, self._dips)
        found = np.flatnonzero(np.bincount(kinds[may_yield]))
        low, high = 0, found.size - 1
        while low < high:
            middle = (low + high) // 2
            enough = self._would_fit(may_yield & (kinds <= found[middle]))
            low, high = (low, middle) if enough else (middle + 1, high)
        mildest: Bools = may_yield & (kinds <= found[low])
        return mildest

    def _would_fit(self, may_yield: Bools) -> bool:
        return self._holds(_with_all(self._search, self._request, may_yield))

    def _walk(self, by_unit: Ints, may_yield: Bools) -> bool:
        """Step by step, until it fits."""
        search, request = self._search, self._request
        could = _with_all(search, request, may_yield)
        steps = steps_of(
            search.free,
            request,
            search.holders,
            search.freed(request),
            may_yield=may_yield,
            nodes=room(could, request) >= (self._ranks if request.one_node else 1),
            eager=eagerness(search.holders, self._rules.wish.queue, self._dips),
            ranks=self._ranks,
        )
        gained = _Gained(search.free, request, self._ranks)
        for step in range(min(steps.node.size, STEPS_MAX * self._ranks)):
            node = int(steps.node[step])
            if gained.is_full(node) or not self._take_all(steps.units(step), by_unit):
                continue
            if gained.with_room(node, int(steps.pods[step])) >= self._ranks and self._fits():
                return True
        return False

    def _find_quota(self, by_unit: Ints) -> bool:
        """Where the quota is short, or the queue borrows and may not, others yield, wherever they run."""
        rules, search = self._rules, self._search
        cells, queue = rules.load.cells, rules.wish.queue
        if search.balance.allows(queue, cells) and not rules.beyond(self._queues_taken()):
            return True
        units = np.flatnonzero(by_unit)
        taken = {unit for unit, _ in self._taken}
        eager = eagerness(search.holders, queue, self._dips)[units]
        tried = 0
        for unit in units[np.lexsort((-search.holders.submitted_at[units], eager))].tolist():
            short, beyond = search.balance.short(queue, cells), rules.beyond(self._queues_taken())
            if not (short or beyond):
                return True
            helps = short | beyond if search.holders.queue[unit] == queue else short
            if unit in taken or helps.isdisjoint(search.of_unit(unit).cells):
                continue
            tried += 1
            if tried > FOR_QUOTA_MAX:
                break
            self._take_all([unit], by_unit)
        return search.balance.allows(queue, cells) and not rules.beyond(self._queues_taken())

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
        before, whole = len(self._taken), self._search.holders.whole
        for unit, rule in self._taken[::-1]:
            if whole[unit] != unit and any(other == whole[unit] for other, _ in self._taken):
                continue  # The rest of its workload yields, and no rank is left behind.
            self._search.move(unit, sign=1)
            self._taken.remove((unit, rule))
            if not (
                self._fits_all() and self._search.balance.allows(self._rules.wish.queue, self._rules.load.cells)
            ) or (not self._lawful()):
                self._search.move(unit, sign=-1)
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
            queue = int(self._search.holders.queue[unit])
            if not self._rules.may_take(queue, rule, self._search.of_unit(unit)):
                self._put_back(before)
                return False
            self._search.move(unit, sign=-1)
            self._taken.append((unit, rule))
        return True

    def _with_surplus(self, units: list[int], by_unit: Ints) -> Iterator[tuple[int, Rule]]:
        """Before the rest of a workload yields, its surplus ranks do: all that have not been told to already."""
        holders = self._search.holders
        for unit in units:
            rule = Rule(int(by_unit[unit]))
            for other in holders.surplus(unit):
                pods = holders.pods_of(other)
                if not (holders.leaving[pods].any() or holders.stuck[pods].any()):
                    yield other, rule
            yield unit, rule

    def _put_back(self, but: int = 0) -> None:
        for unit, _ in self._taken[but:]:
            self._search.move(unit, sign=1)
        del self._taken[but:]

    def _fits(self) -> bool:
        return self._holds(self._search.free)

    def _fits_all(self) -> bool:
        return self._fits() if len(self._parts) == 1 else self._search.places(self._parts) is not None

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
        queue = self._search.holders.queue
        return [(int(queue[unit]), rule) for unit, rule in self._taken]


class _Gained:
    """How many ranks find room while step by step more is free; it may be fewer, for what is free is not added up anew."""

    def __init__(self, free: Free, request: Request, ranks: int) -> None:
        self._there = np.minimum(room(free, request), ranks)
        self._one_node, bound = request.one_node, bound_of(free, request)
        self._at_most = bound.at_most if bound else NO_LIMIT
        self._domain = bound.number if bound else np.zeros_like(self._there)
        in_domain = np.zeros(int(self._domain.max(initial=0)) + 1, dtype=np.int64)
        (np.maximum if request.one_node else np.add).at(in_domain, self._domain, self._there)
        self._in_domain = in_domain
        bounded = np.minimum(in_domain, self._at_most)
        self._found = int(bounded.max() if request.one_node else bounded.sum())

    def is_full(self, node: int) -> bool:
        """Whether no more ranks may lie in its domain than have room there already."""
        return bool(self._in_domain[self._domain[node]] >= self._at_most)

    def with_room(self, node: int, pods: int) -> int:
        """How many find room now that so many do on this node."""
        domain, more = self._domain[node], max(0, pods - int(self._there[node]))
        self._there[node] += more
        before = int(self._in_domain[domain])
        after = max(before, int(self._there[node])) if self._one_node else before + more
        self._in_domain[domain] = after
        bounded = min(after, self._at_most)
        self._found = (
            max(self._found, bounded) if self._one_node else self._found + bounded - min(before, self._at_most)
        )
        return self._found


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


def _free(snapshot: Snapshot, holders: Holders) -> Free:
    """What is free once all have ended that have been told to and still may in time, less what is kept for others."""
    nodes, kept = snapshot.nodes, spoken_for(snapshot)
    leaves = holders.leaving & (holders.node >= 0)
    where, models = holders.node[leaves], holders.gpu_model[leaves]

    def left(capacity: Ints, used: Ints, gone: Ints, name: str) -> Ints:
        found = capacity - used
        np.add.at(found, where, gone)
        return found - kept[name] if name in kept else found

    names = np.array(snapshot.gpu_models)
    whole = np.array([not is_shape(name) for name in snapshot.gpu_models], dtype=np.bool_)[models]
    return Free.of(
        nodes,
        cpu_milli=left(nodes.cpu_milli, nodes.used_cpu_milli, holders.cpu_milli[leaves], "cpu_milli"),
        memory_bytes=left(nodes.memory_bytes, nodes.used_memory_bytes, holders.memory_bytes[leaves], "memory_bytes"),
        gpus=left(nodes.gpus, nodes.used_gpus, holders.gpus[leaves] * whole, "gpus"),
        shapes={
            shape: left(count, nodes.used_shapes[shape], holders.gpus[leaves] * (names[models] == shape), shape)
            for shape, count in nodes.shapes.items()
        },
        others={
            name: left(count, nodes.used_others[name], np.full(where.size, int(name == PODS)), name)
            for name, count in nodes.others.items()
        },
        open_=nodes.ready,
    )


def _with_all(search: Search, request: Request, may_yield: Bools) -> Free:
    """What would be free of what is asked for, if all yielded that may. Of nothing else it says anything."""
    before, holders = search.free, search.holders
    free = before.copy().opened(before.open_, admits=before.admits, sound=before.sound)
    pods = np.flatnonzero(may_yield[holders.unit] & (holders.node >= 0))
    where = holders.node[pods]
    for (column, _), (gives, _) in zip(free.asked(request), search.freed(request), strict=True):
        # A double holds every sum of what one node has exactly.
        more = np.bincount(where, weights=gives[pods], minlength=column.size)
        np.add(column, more.astype(np.int64), out=column)
    return free


def _with_allocations(snapshot: Snapshot, rows: Bools) -> Snapshot:
    table = snapshot.allocations
    columns = {name: getattr(table, name)[rows] for name in AllocationTable.__dataclass_fields__}
    return replace(snapshot, allocations=AllocationTable(**columns))
