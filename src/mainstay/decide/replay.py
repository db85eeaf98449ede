"""Play what runs to its end, draw by draw, with the scheduler's own cycle, until one workload starts.

What ends frees its places; then a cycle decides, on the snapshot as it would be at that instant, who starts, and what starts runs
as long as is drawn for it. A cycle is the dear part, so there is none where nothing that waits could use what has been freed,
and later in a play several ends are taken together: the fourth part of what has ended already. What starts among them is taken to
have started as evenly as they ended, and when the workload itself does is found by bisection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mainstay.decide import admission
from mainstay.decide.cycle import Cycle, Placed
from mainstay.decide.placement.fill import Policy
from mainstay.decide.reservation import NEVER, OVERDUE_SECONDS_MAX, TRIES_MAX
from mainstay.decide.rows import rows_of_sets, with_allocations
from mainstay.decide.run_times import seconds_left
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, Resources, is_shape
from mainstay.domain.snapshot import PODS, NodeTable, Snapshot, WorkloadTable
from mainstay.domain.workload import Phase

TOGETHER, CYCLES_FEW = 4, 8
"""One of so many of what has ended is taken at once; as many as have ended where a play has fewer cycles than that."""
APART = 512
"""Of all that runs, one of so many ends at once in any case: at its pace that is no time."""
NODES_FEW = 64
"""On more, a start is reserved for the first in line only: reservations are the dear part of a cycle there."""
PAIRS_MAX = 1 << 16
"""Nodes times shapes that are looked at before a cycle; of more, the cycle itself is as quick."""
NONE = -1


class Start(NamedTuple):
    """How a play went out."""

    at: int
    """UTC microseconds; NEVER: it has no place when all has ended that is known to end."""
    seen: bool
    """Otherwise the play was broken off then: it starts later."""
    cycles: int
    """So many did it take."""


class Replay:
    """A world that can be played again and again."""

    def __init__(
        self, snapshot: Snapshot, row: int, policy: Policy, *, until: int = NEVER, within: float = 0.0
    ) -> None:
        """`snapshot` as `nomination.reserved` has it: whoever has places kept for it holds them. It is played no farther than
        `until`; a start is told by so much of the wait too late at most as `within` says.
        """
        self._row, self._policy, self._until, self._within = row, policy, until, within
        waits = int(np.count_nonzero(admission.waiting(snapshot)))
        few = snapshot.nodes.key.size <= NODES_FEW
        self._tries_max = 0 if waits == 1 else TRIES_MAX if few else 1
        world = replace(snapshot, nominations={}, displaced_by={})
        self._runs = Runs.of(world)
        self._asked = _Demand.of(world)
        self._stage = _Stage.first(world, self._runs)
        self._cycle = self._cycle_of(self._stage)
        self._placed = list(self._cycle.placements())
        """What starts now, in every play."""

    def play(self, part: Floats, *, cycles_max: int) -> Start:
        """One draw, by `part` [workloads] as of `seconds_left`. A few more cycles than `cycles_max` at most: a bisection's."""
        snapshot = self._stage.snapshot
        table, now = snapshot.workloads, snapshot.now
        if self._starts(self._placed):
            return Start(now, seen=True, cycles=0)
        takes = seconds_left(table, np.arange(table.key.size), ran_seconds=np.zeros(table.key.size), part=part)
        stage = replace(self._stage, ends_at=self._runs.drawn(table, now, part)).with_started(
            self._placed, np.array([now]), takes
        )
        cycle, cycles, ended = self._cycle, 0, 0
        together = TOGETHER if cycles_max >= CYCLES_FEW else 1
        while (
            instants := stage.next_ends(1 + max(ended // together, self._runs.row.size // APART), before=self._until)
        ).size:
            ended += instants.size
            later = stage.at(int(instants[-1]))
            if not (cycle.reserved or self._asked.may_start(later)):
                stage = later
                continue
            if cycles >= cycles_max:
                return Start(stage.snapshot.now, seen=False, cycles=cycles)
            cycle, cycles = self._cycle_of(later), cycles + 1
            placed = list(cycle.placements())
            if self._starts(placed):
                return self._first(stage, instants, cycles)
            stage = later.with_started(placed, instants, takes)
        return Start(self._until, seen=self._until == NEVER, cycles=cycles)

    def _first(self, stage: _Stage, instants: Ints, cycles: int) -> Start:
        """The first of the instants at which it starts, if so many have ended, or one soon after; it does at the last."""
        low, high, now = 0, instants.size - 1, self._stage.snapshot.now
        while low < high and instants[high] - instants[low] > self._within * (instants[low] - now):
            middle, cycles = (low + high) // 2, cycles + 1
            placed = self._cycle_of(stage.at(int(instants[middle]))).placements()
            low, high = (low, middle) if self._starts(placed) else (middle + 1, high)
        return Start(int(instants[high]), seen=True, cycles=cycles)

    def _cycle_of(self, stage: _Stage) -> Cycle:
        return Cycle(stage.snapshot, self._policy, tries_max=self._tries_max)

    def _starts(self, placed: Iterable[Placed]) -> bool:
        return any((one.rows == self._row).any() for one in placed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What holds places, a workload each."""

    of_pod: Ints
    """[allocations] The run whose end frees what it holds; NONE: no end is known to."""
    row: Ints
    """[runs] Of the workload table."""
    since: Ints
    """[runs] When its last pod started."""
    until: Ints
    """[runs] When it has ended at the latest, if it was told to stop; else NEVER."""
    overdue: Bools
    """[runs] It should have ended and has not: nobody knows when it will."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> Runs:
        """O(n log n) in the allocations."""
        held, table, now = snapshot.allocations, snapshot.workloads, snapshot.now
        if not table.key.size:
            nothing = np.zeros(0, dtype=np.int64)
            none = np.full(held.key.size, NONE, dtype=np.int64)
            return cls(of_pod=none, row=nothing, since=nothing, until=nothing, overdue=nothing > 0)
        row = np.minimum(np.searchsorted(table.key, held.workload_key), table.key.size - 1)
        frees = (held.seen != Seen.ENDED) & (held.seen != Seen.UNKNOWN) & (held.preempted == 0)
        frees &= (table.key[row] == held.workload_key) & np.isin(held.node_key, snapshot.nodes.key)
        pods = np.flatnonzero(frees)
        rows, run = np.unique(row[pods], return_inverse=True)
        of_pod = np.full(held.key.size, NONE, dtype=np.int64)
        of_pod[pods] = run
        grace = table.stop_grace_seconds[rows] * MICROSECONDS_PER_SECOND
        since, asked = np.zeros(rows.size, dtype=np.int64), np.zeros(rows.size, dtype=np.int64)
        np.maximum.at(since, run, np.where(held.started_at[pods] > 0, np.minimum(held.started_at[pods], now), now))
        np.maximum.at(asked, run, np.where(held.stop[pods], held.stop_asked_at[pods], 0))
        limit = table.max_duration_seconds[rows] * MICROSECONDS_PER_SECOND
        until = np.where(asked > 0, asked + grace, NEVER)
        latest = np.minimum(until, np.where(limit > 0, since + limit + grace, NEVER))
        overdue = now - latest > OVERDUE_SECONDS_MAX * MICROSECONDS_PER_SECOND
        return cls(of_pod=of_pod, row=rows, since=since, until=until, overdue=overdue)

    def drawn(self, table: WorkloadTable, now: int, part: Floats) -> Ints:
        """[runs] When each ends; NEVER where nobody knows."""
        ran = (now - self.since) / MICROSECONDS_PER_SECOND
        ends_at = _after(
            np.full_like(self.row, now), seconds_left(table, self.row, ran_seconds=ran, part=part[self.row])
        )
        return np.where(self.overdue, NEVER, np.minimum(ends_at, np.maximum(self.until, now)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """The world at one instant of a play."""

    snapshot: Snapshot
    run: Ints
    """[allocations] As `Runs.of_pod`."""
    ends_at: Ints
    """[runs] NEVER of what has ended, too."""
    others: Mapping[str, Ints]
    """Name of what else nodes have -> how much each allocation holds of it."""
    touched: Bools
    """[nodes] Something has ended there since the last cycle."""

    @classmethod
    def first(cls, snapshot: Snapshot, runs: Runs) -> _Stage:
        held, table = snapshot.allocations, snapshot.workloads
        row = runs.row[runs.of_pod] if runs.row.size else np.zeros_like(held.key)
        others = {
            name: np.ones_like(row) if name == PODS else table.others.get(name, np.zeros_like(table.key))[row]
            for name in snapshot.nodes.used_others
        }
        return cls(
            snapshot=snapshot,
            run=runs.of_pod,
            ends_at=np.full(runs.row.size, NEVER),
            others=others,
            touched=np.zeros(snapshot.nodes.key.size, dtype=np.bool_),
        )

    def next_ends(self, count: int, *, before: int) -> Ints:
        """The instants of the next so many ends, in their order; fewer if fewer are known before that instant."""
        known = self.ends_at[self.ends_at < before]
        if known.size > count:
            known = np.partition(known, count - 1)[:count]
        return np.maximum(np.sort(known), self.snapshot.now)

    def at(self, instant: int) -> _Stage:
        """Everything has ended that does by then, and nothing has started."""
        world, ends = self.snapshot, self.ends_at <= instant
        pods = np.flatnonzero((self.run != NONE) & ends[self.run])
        held, at = world.allocations, np.searchsorted(world.nodes.key, world.allocations.node_key[pods])
        seen, touched = held.seen.copy(), self.touched.copy()
        seen[pods], touched[at] = Seen.ENDED, True
        run = self.run.copy()
        run[pods] = NONE
        slots = _Slots(
            node=at,
            cpu_milli=held.cpu_milli[pods],
            memory_bytes=held.memory_bytes[pods],
            gpus=held.gpus[pods],
            gpu_model=held.gpu_model[pods],
            others={name: amount[pods] for name, amount in self.others.items()},
        )
        nodes = slots.used_on(world.nodes, world.gpu_models, sign=-1)
        return replace(
            self,
            snapshot=replace(world, now=instant, nodes=nodes, allocations=replace(held, seen=seen)),
            run=run,
            ends_at=np.where(ends, NEVER, self.ends_at),
            touched=touched,
        )

    def with_started(self, placed: Sequence[Placed], instants: Ints, takes: Floats) -> _Stage:
        """What a cycle has placed runs now. `instants`: those of what has ended since the last one; `takes` as long as drawn."""
        fresh = replace(self, touched=np.zeros_like(self.touched))
        if not placed:
            return fresh
        world, rows = self.snapshot, np.concatenate([one.rows for one in placed])
        turn, sizes = np.arange(1, rows.size + 1), [one.nodes.shape for one in placed]
        started_at = instants[-(-turn * instants.size // rows.size) - 1]
        of = np.repeat(turn - 1, np.concatenate([np.full(count, ranks) for count, ranks in sizes]))
        rank = np.concatenate([np.tile(np.arange(ranks), count) for count, ranks in sizes])
        slots = _Slots.joined([_Slots.of(world, one, self.others) for one in placed])
        columns = {
            "workload_key": world.workloads.key[rows[of]],
            "attempt": world.workloads.attempt[rows[of]],
            "rank": rank,
            "node_key": world.nodes.key[slots.node],
            "cpu_milli": slots.cpu_milli,
            "memory_bytes": slots.memory_bytes,
            "gpus": slots.gpus,
            "gpu_model": slots.gpu_model,
            "seen": np.full(of.size, int(Seen.RUNNING)),
            "created_at": started_at[of],
            "started_at": started_at[of],
        }
        phase = world.workloads.phase.copy()
        phase[rows] = Phase.RUNNING
        return replace(
            fresh,
            snapshot=replace(
                world,
                nodes=slots.used_on(world.nodes, world.gpu_models, sign=1),
                workloads=replace(world.workloads, phase=phase),
                allocations=with_allocations(world.allocations, columns, count=of.size),
            ),
            run=np.concatenate((self.run, self.ends_at.size + of)),
            ends_at=np.concatenate((self.ends_at, _after(started_at, takes[rows]))),
            others={name: np.concatenate((amount, slots.others[name])) for name, amount in self.others.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slots:
    """What pods hold: columns [pods]."""

    node: Ints
    """Row of its node."""
    cpu_milli: Ints
    memory_bytes: Ints
    gpus: Ints
    gpu_model: Ints
    others: Mapping[str, Ints]

    @classmethod
    def of(cls, snapshot: Snapshot, placed: Placed, others: Iterable[str]) -> _Slots:
        """Of one shape, workload by workload."""
        node, requests = placed.nodes.reshape(-1), [part.request for part in placed.parts]
        ranks = [part.ranks for part in placed.parts]

        def each(amounts: Sequence[int]) -> Ints:
            return np.tile(np.repeat(np.array(amounts, dtype=np.int64), ranks), placed.rows.size)

        models = [snapshot.gpu_models.index(one.shape) if one.shape else NONE for one in requests]
        gpus, model = each([one.gpus for one in requests]), each(models)
        whole = np.where(gpus > 0, snapshot.nodes.gpu_model[node], 0)
        return cls(
            node=node,
            cpu_milli=each([one.cpu_milli for one in requests]),
            memory_bytes=each([one.memory_bytes for one in requests]),
            gpus=gpus,
            gpu_model=np.where(model != NONE, model, whole),
            others={
                name: each([1 if name == PODS else dict(one.others).get(name, 0) for one in requests])
                for name in others
            },
        )

    @classmethod
    def joined(cls, parts: Sequence[_Slots]) -> _Slots:
        """All of them, one after the other."""
        return cls(
            node=np.concatenate([part.node for part in parts]),
            cpu_milli=np.concatenate([part.cpu_milli for part in parts]),
            memory_bytes=np.concatenate([part.memory_bytes for part in parts]),
            gpus=np.concatenate([part.gpus for part in parts]),
            gpu_model=np.concatenate([part.gpu_model for part in parts]),
            others={name: np.concatenate([part.others[name] for part in parts]) for name in parts[0].others},
        )

    def used_on(self, nodes: NodeTable, gpu_models: tuple[str, ...], *, sign: int) -> NodeTable:
        """The nodes, on which so much more is used, or less."""

        def used(before: Ints, amount: Ints, which: Bools | None = None) -> Ints:
            after = before.copy()
            at, much = (self.node, amount) if which is None else (self.node[which], amount[which])
            np.add.at(after, at, sign * much)
            return np.maximum(after, 0)

        slices = np.array([is_shape(model) for model in gpu_models], dtype=np.bool_)
        return replace(
            nodes,
            used_cpu_milli=used(nodes.used_cpu_milli, self.cpu_milli),
            used_memory_bytes=used(nodes.used_memory_bytes, self.memory_bytes),
            used_gpus=used(nodes.used_gpus, self.gpus, ~slices[self.gpu_model]),
            used_shapes={
                shape: used(before, self.gpus, self.gpu_model == gpu_models.index(shape))
                if shape in gpu_models
                else before
                for shape, before in nodes.used_shapes.items()
            },
            used_others={name: used(before, self.others[name]) for name, before in nodes.used_others.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demand:
    """What those who wait ask for, to see without a cycle that none of them can start."""

    rows: Ints
    """Of those who wait."""
    shape: Ints
    """[rows] The number of what one pod asks for."""
    amounts: Ints
    """[shapes, CPU, memory and GPUs] Of each the least of its choices."""
    by_room: bool
    """Room on nodes is all that they wait for."""

    @classmethod
    def of(cls, snapshot: Snapshot) -> _Demand:
        table = snapshot.workloads
        rows = np.flatnonzero(admission.waiting(snapshot))
        amounts = np.stack((table.cpu_milli[rows], table.memory_bytes[rows], table.gpus[rows]), axis=1)
        for at in np.flatnonzero(np.isin(table.key[rows], np.fromiter(table.choices, np.int64, len(table.choices)))):
            choices = table.choices[int(table.key[rows[at]])]
            amounts[at] = _least(choices)
        for at in rows_of_sets(table, rows).tolist():
            # Any of its sets may be all that it lacks.
            amounts[at] = _least([one.resources for one in table.sets[int(table.key[rows[at]])]])
        amounts, shape = np.unique(amounts, axis=0, return_inverse=True)
        by_room = not snapshot.queues.cells and not table.volumes[rows].any()
        return cls(rows=rows, shape=shape.reshape(-1), amounts=amounts, by_room=by_room)

    def may_start(self, stage: _Stage) -> bool:
        """Whether what has ended since the last cycle might let anything start; if in doubt, yes.

        What found no place then needs some of the room that has been made since.
        """
        world, at = stage.snapshot, np.flatnonzero(stage.touched)
        waits = np.unique(self.shape[admission.waiting(world)[self.rows]])
        if not self.by_room or at.size * waits.size > PAIRS_MAX:
            return True
        nodes = world.nodes
        slices = sum((nodes.shapes[name][at] - nodes.used_shapes[name][at] for name in nodes.shapes), start=0 * at)
        cpu_milli, memory_bytes = (
            nodes.cpu_milli[at] - nodes.used_cpu_milli[at],
            nodes.memory_bytes[at] - nodes.used_memory_bytes[at],
        )
        free = np.stack((cpu_milli, memory_bytes, nodes.gpus[at] - nodes.used_gpus[at] + slices), axis=1)
        return bool((free[:, np.newaxis, :] >= self.amounts[waits]).all(axis=2).any())


def _least(asked: Sequence[Resources]) -> Ints:
    """[CPU, memory and GPUs] Of each the least."""
    least: Ints = np.min([(one.cpu_milli, one.memory_bytes, one.gpus) for one in asked], axis=0)
    return least


def _after(instants: Ints, seconds: Floats) -> Ints:
    """So long after each of them; NEVER for an infinite time."""
    known = np.isfinite(seconds)
    later = np.ceil(np.where(known, seconds, 0.0) * MICROSECONDS_PER_SECOND).astype(np.int64)
    return np.where(known, instants + later, NEVER)
