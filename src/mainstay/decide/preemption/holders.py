"""Who holds a place now, as columns: workloads with their pods, and what displacing each would cost.

A workload yields whole or not at all, so it is the unit of everything here: a gang is never half displaced. But each surplus
rank of an elastic one (those beside the lowest `min` that live) is a unit of its own, since its attempt goes on without it.
Whoever takes what is left of it takes them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mainstay.decide import billing
from mainstay.decide.attempt import POD
from mainstay.decide.flavors import flavors_at
from mainstay.decide.rows import rows_by_key
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.billing import Price
from mainstay.domain.preemption import DISPLACED_MAX
from mainstay.domain.quantity import BYTES_PER_GIB, MICROSECONDS_PER_SECOND, Resources, is_shape
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import ACTIVE, Phase

COST_MAX = 1 << 50
"""Millionths of a currency; more than anybody's work is worth."""

PATIENCE_SECONDS = 300
"""So much longer than its grace a pod that was told to stop counts as one that ends, and so long are places kept for those
for whom others yield: for last words, and for a node that is slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holders:
    """Units are workloads that hold a place, by key, each with its surplus ranks behind it; pods are by unit."""

    row: Ints
    """[units] Of the workload table."""
    whole: Ints
    """[units] Of a surplus rank the unit that is all the rest of its workload; of any other that unit itself."""
    queue: Ints
    priority: Ints
    submitted_at: Ints
    submitter: Ints
    cost: Ints
    """[units] Millionths of a currency: what its pods have cost since it last saved its state, which is lost with them; of the
    rest of a workload with surplus ranks, theirs too.
    """
    may_yield: Bools
    """[units] Whoever asks: it may be displaced at all. Lowered in place as some are."""
    protected: Bools
    """[units] Only its minimum run time keeps it from yielding."""
    first: Ints
    """[units + 1] Where the pods of each begin."""
    pod: Ints
    """[pods] Of the allocation table."""
    unit: Ints
    node: Ints
    """[pods] Of the node table; -1: of none that is there."""
    cpu_milli: Ints
    memory_bytes: Ints
    gpus: Ints
    gpu_model: Ints
    flavor: Ints
    """[pods] The number of its node and its model, as quotas count it (flavors.py)."""
    leaving: Bools
    """[pods] It has been told to stop, and is still to end in time."""
    stuck: Bools
    """[pods] It has been told to stop and has not ended in time: nobody knows when it will."""

    def surplus(self, unit: int) -> range:
        """The units of its surplus ranks."""
        end = unit + 1
        while end < self.whole.size and self.whole[end] == unit:
            end += 1
        return range(unit + 1, end)

    def pods_of(self, unit: int) -> slice[int, int, None]:
        """Its part of the columns of pods."""
        return slice(int(self.first[unit]), int(self.first[unit + 1]))


def holders_of(snapshot: Snapshot) -> Holders:
    """O(allocations)."""
    held, workloads = snapshot.allocations, snapshot.workloads
    pod = np.flatnonzero(held.seen != Seen.ENDED)
    row = rows_by_key(workloads.key, held.workload_key[pod])
    pod, row = pod[row >= 0], row[row >= 0]
    if pod.size and bool((np.diff(row) < 0).any()):
        by_workload = np.argsort(row, kind="stable")
        pod, row = pod[by_workload], row[by_workload]
    begins, alone = np.diff(row, prepend=-1) != 0, _surplus(snapshot, pod, row)
    if alone.any():
        by_unit = np.lexsort((held.rank[pod], alone, row))
        pod, row, alone = pod[by_unit], row[by_unit], alone[by_unit]
        begins = (np.diff(row, prepend=-1) != 0) | alone
    first = np.flatnonzero(begins)
    units, unit = row[first], np.repeat(np.arange(first.size), np.diff(first, append=pod.size))
    whole = np.flatnonzero(np.diff(units, prepend=-1))
    whole = np.repeat(whole, np.diff(whole, append=units.size))
    first = np.append(first, pod.size)
    told = held.stop[pod]
    leaving = told & _in_time(snapshot, pod, row)
    cost = _cost(snapshot, pod, unit, units)
    if alone.any():
        surplus = np.flatnonzero(whole != np.arange(whole.size))
        np.add.at(cost, whole[surplus], cost[surplus])
    free_to_yield, protected = _may_yield(snapshot, pod=pod, first=first, units=units, told=told)
    return Holders(
        row=units,
        whole=whole,
        queue=workloads.queue[units],
        priority=workloads.priority[units],
        submitted_at=workloads.submitted_at[units],
        submitter=workloads.submitter[units],
        cost=cost,
        may_yield=free_to_yield & ~protected,
        protected=protected & free_to_yield,
        first=first,
        pod=pod,
        unit=unit,
        node=rows_by_key(snapshot.nodes.key, held.node_key[pod]),
        cpu_milli=held.cpu_milli[pod],
        memory_bytes=held.memory_bytes[pod],
        gpus=held.gpus[pod],
        gpu_model=held.gpu_model[pod],
        flavor=flavors_at(snapshot, held.node_key[pod]) * len(snapshot.gpu_models)
        + np.where(held.gpus[pod] > 0, held.gpu_model[pod], 0),
        leaving=leaving,
        stuck=told & ~leaving,
    )


def _surplus(snapshot: Snapshot, pod: Ints, row: Ints) -> Bools:
    """[pods] Whether the attempt goes on without it: it does already, or would. `row` [pods]: of the workload table, ascending.

    The lowest ranks stay. Of a workload that is being stopped, that waits for word of a rank, or whose last attempt still lives,
    none is.
    """
    held, workloads = snapshot.allocations, snapshot.workloads
    out: Bools = held.surplus[pod]
    elastic = (workloads.nodes_min < workloads.nodes_max)[row]
    if not elastic.any():
        return out
    found = out.copy()
    sound = ~held.stop[pod] & (held.seen[pod] != Seen.UNKNOWN) & (held.attempt[pod] == workloads.attempt[row])
    unsound = np.bincount(row[~sound & ~out], minlength=workloads.key.size) > 0
    candidates = np.flatnonzero(elastic & ~out & ~unsound[row])
    if candidates.size:
        candidates = candidates[np.lexsort((held.rank[pod[candidates]], row[candidates]))]
        begin = np.flatnonzero(np.diff(row[candidates], prepend=-1))
        place = np.arange(candidates.size) - np.repeat(begin, np.diff(begin, append=candidates.size))
        found[candidates[place >= workloads.nodes_min[row[candidates]]]] = True
    return found


def slices(snapshot: Snapshot) -> Bools:
    """[models] Whether that model is the shape of a slice of a GPU."""
    return np.array([is_shape(model) for model in snapshot.gpu_models], dtype=np.bool_)


def _in_time(snapshot: Snapshot, pod: Ints, row: Ints) -> Bools:
    """[pods] Whether what was told to stop may still take its time. `row` [pods]: of the workload table."""
    limit = (snapshot.workloads.stop_grace_seconds[row] + PATIENCE_SECONDS) * MICROSECONDS_PER_SECOND
    # A clock that was set back makes nothing wait for longer, and one that is a little behind another displaces nobody.
    in_time: Bools = np.abs(snapshot.now - snapshot.allocations.stop_asked_at[pod]) < limit
    return in_time


def _may_yield(snapshot: Snapshot, *, pod: Ints, first: Ints, units: Ints, told: Bools) -> tuple[Bools, Bools]:
    """Of each unit: whether it may be displaced at all, and whether its minimum run time is not over."""
    held, workloads = snapshot.allocations, snapshot.workloads
    phase = workloads.phase[units]
    active = np.isin(phase, [int(one) for one in ACTIVE if one is not Phase.UNKNOWN])
    fine = active & workloads.preemptible[units] & ~workloads.stop_requested[units]
    if not units.size:
        return fine, fine
    pods = np.diff(first)
    # A guest that has not been bound yet has nothing to evict: whoever made it would only lose its pod.
    unbound = np.repeat(workloads.kind[units] == POD, pods) & (held.seen[pod] == Seen.NOTHING)
    other = held.attempt[pod] != np.repeat(workloads.attempt[units], pods)
    bad = told | other | unbound | (held.seen[pod] == Seen.UNKNOWN)
    fine &= ~np.logical_or.reduceat(bad, first[:-1])
    often = [key for key, by in snapshot.displaced_by.items() if len(by) >= DISPLACED_MAX]
    if often:
        fine &= ~np.isin(workloads.key[units], np.array(often, dtype=np.int64))
    minimum = np.array([policy.min_runtime_seconds for policy in snapshot.queues.policies], dtype=np.int64)
    least = minimum[workloads.queue[units]] * MICROSECONDS_PER_SECOND
    age = snapshot.now - np.minimum.reduceat(held.created_at[pod], first[:-1])
    # Of what seems to have been placed in the future, the clock was set back: it is not protected for as long as that lasts.
    return fine, (age >= 0) & (age < least)


def _cost(snapshot: Snapshot, pod: Ints, unit: Ints, units: Ints) -> Ints:
    """Seconds since each saved its state last, as far as its own word goes, at the price of its pods."""
    held = snapshot.allocations
    if not units.size:
        return np.zeros(0, dtype=np.int64)
    price = _prices(snapshot.prices or billing.default_price_book(), snapshot)
    micros_per_hour = (
        held.cpu_milli[pod] * price.cpu // 1000
        + (held.memory_bytes[pod] >> 20) * price.memory // 1024
        + held.gpus[pod] * price.gpu[held.gpu_model[pod]]
    )
    started = held.started_at[pod]
    seconds = np.where(started > 0, np.maximum(0, snapshot.now - started), 0) // MICROSECONDS_PER_SECOND
    saves = snapshot.workloads.checkpoint_seconds[units][unit]
    lost = np.where(saves > 0, seconds % np.maximum(saves, 1), seconds)
    total = np.bincount(unit, weights=micros_per_hour * (lost / 3_600), minlength=units.size)
    return np.minimum(total, COST_MAX).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prices:
    """Millionths of a currency per core, GiB and GPU (by model), and hour."""

    cpu: int
    memory: int
    gpu: Ints


def _prices(book: Sequence[Price], snapshot: Snapshot) -> _Prices:
    def price(resources: Resources) -> int:
        return billing.price_per_hour(resources, snapshot.now, book).micros

    return _Prices(
        cpu=price(Resources(cpu_milli=1_000, memory_bytes=0)),
        memory=price(Resources(cpu_milli=0, memory_bytes=BYTES_PER_GIB)),
        gpu=np.array(
            [price(Resources(cpu_milli=0, memory_bytes=0, gpus=1, gpu_model=one)) for one in snapshot.gpu_models],
            dtype=np.int64,
        ),
    )
