"""The world without those who are leaving it in time, as it changes while somebody is let go, put back or given a place.

Nothing here decides: it is what trials are made in, and what is found is taken in at once, so that nobody yields twice.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mainstay.decide import admission
from mainstay.decide.allowance import Allowance
from mainstay.decide.columns import Headroom
from mainstay.decide.nomination import reserved, spoken_for
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES, policies_of
from mainstay.decide.placement.fit import Free, Request
from mainstay.decide.placement.headroom import headroom_of, unbound
from mainstay.decide.placement.sets import Parts, leaving_headroom, place_parts, take_parts, with_late, within
from mainstay.decide.preemption.balance import Balance, Cells
from mainstay.decide.preemption.holders import Holders, holders_of
from mainstay.decide.preemption.rules import Load, Loads, Rules, Wish
from mainstay.decide.preemption.starts import goes_first, reserved_starts
from mainstay.decide.preemption.steps import freed_by
from mainstay.decide.rows import only_allocations
from mainstay.decide.shapes import Shape, shape_numbers
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.quantity import is_shape
from mainstay.domain.snapshot import PODS, Snapshot


class Staying:
    """Who holds what, what is free on the nodes, what the queues use, and the starts that are reserved."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.holders: Holders = holders_of(snapshot)
        stay = np.ones(snapshot.allocations.key.size, dtype=np.bool_)
        stay[self.holders.pod[self.holders.leaving]] = False
        without = (
            snapshot
            if stay.all()
            else replace(snapshot, allocations=only_allocations(snapshot.allocations, np.flatnonzero(stay)))
        )
        self._world = reserved(without)
        self.balance = Balance(self._world)
        self._allowance = Allowance(self._world)
        self._loads = Loads(self.holders, self.balance)
        self.free = _free(snapshot, self.holders)
        self._slices = tuple(model if is_shape(model) else "" for model in snapshot.gpu_models)
        policy = POLICIES[DEFAULT_POLICY]
        self._policies = policies_of(snapshot.queues, policy)
        self._starts = reserved_starts(reserved(snapshot), policy)
        self._late = np.zeros(self.holders.pod.size, dtype=np.int64)
        """[pods] Bits, by number in `_starts`: it still runs then, so that what is left then is more without it."""
        for number, start in enumerate(self._starts):
            self.free = self.free.keep(start.beside, rows=start.nodes)
            self._late |= start.outlasted[self.holders.pod] << number
        self._gone: set[int] = set()
        """Keys of those that have found a place since, and need none that is reserved."""
        self._freed: tuple[Request, list[tuple[Ints, int]]] | None = None
        """Of the last request; those of one workload are asked again and again."""

    def ways(self, wish: Wish, shape: Shape) -> Iterator[tuple[int, Parts, Load]]:
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

    def places(self, queue: int, parts: Parts) -> Ints | None:
        """Node row of each rank in what is free now, by the placement policy of the queue."""
        return place_parts(self.free, parts, policy=self._policies[queue])

    def has_place(self, queue: int, parts: Parts) -> bool:
        """By the rules of a cycle: work without GPUs leaves what is kept for these."""
        asked = leaving_headroom(parts)
        free = self.free.beside_gpus(self._headroom) if asked is not parts else self.free
        return place_parts(free, asked, policy=self._policies[queue]) is not None

    def places_without_stuck(self, queue: int, shape: Shape) -> bool:
        """Whether there would be room if those had ended that were told to stop and have not in time."""
        holders = self.holders
        pods = np.flatnonzero(holders.stuck & (holders.node >= 0)).tolist()
        if not pods:
            return False
        free = self.free.copy()
        for pod in pods:
            free.give_back(int(holders.node[pod]), self.holds(pod))
        return any(place_parts(free, way, policy=self._policies[queue]) is not None for way in shape.ways)

    def beside_gpus(self, parts: Parts) -> Parts:
        """Nobody yields for work without GPUs where something may be kept for these."""
        if leaving_headroom(parts) is parts or not self._headroom.source.size:
            return parts
        return within(parts, unbound(self._headroom))

    @functools.cached_property
    def _headroom(self) -> Headroom:
        rows = admission.order(self._world)
        numbers = shape_numbers(self._world, rows)
        return headroom_of(self._world, self.free, self._allowance, rows=rows, numbers=numbers, later=True)

    def without(self, request: Request, leaves: Bools) -> Free:
        """What would be free of what is asked for, if these [pods] ended, too. Of nothing else it says anything."""
        nodes, where = self.free.nodes, self.holders.node
        leaves = leaves & (where >= 0)
        if not leaves.any():
            return self.free
        found = replace(self.free, nodes=nodes._replace(free=nodes.free.copy()))
        for (column, _), (gives, _) in zip(found.asked(request), self.freed(request), strict=True):
            np.add.at(column, where, gives * leaves)  # Who stays adds nothing: faster than to pick out who leaves.
        return found

    def freed(self, request: Request) -> list[tuple[Ints, int]]:
        """As `steps.freed_by`."""
        asked = replace(request, cluster=0)
        if self._freed is None or self._freed[0] != asked:
            self._freed = asked, freed_by(self.holders, self.free, request, self._slices, late=self._late)
        return self._freed[1]

    def move(self, unit: int, *, sign: int) -> None:
        """Let a unit go (-1), or put it back (1)."""
        holders, load = self.holders, self.of_unit(unit)
        self.balance.hold(int(holders.queue[unit]), load.cells, load.amounts, sign=sign)
        pods, move = holders.pods_of(unit), self.free.take_again if sign > 0 else self.free.give_back
        for pod in range(pods.start, pods.stop):
            if holders.node[pod] >= 0:
                move(int(holders.node[pod]), self.holds(pod))

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
