"""On which node whom would have to yield: all nodes at once, by running sums.

On each node those who may yield are put in the order in which they do: surplus ranks first, then those of other queues, then the
less urgent, then those who leave their queue what is its own, then those whose work is worth less, then the newer. The first
place in that order at which a pod fits (or one more pod) is a step; the steps of all nodes, the mildest first, are what the
search goes through.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mainstay.decide.allowance import cell_of
from mainstay.decide.kernel import CPU, GPUS, MEMORY
from mainstay.decide.placement.fit import Free, Request, room
from mainstay.decide.preemption.balance import Balance, Cells
from mainstay.decide.preemption.holders import COST_MAX, Holders
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.preemption import Rule
from mainstay.domain.queue import Resource
from mainstay.domain.snapshot import PODS, Snapshot

PRIORITIES = 128
"""More than there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """[steps] In the order in which they are tried."""

    node: Ints
    begin: Ints
    """Where those of its node begin, in `unit`."""
    end: Ints
    """Just behind the last of them who must yield."""
    pods: Ints
    """So many pods of the request find room on its node then."""
    unit: Ints
    """[pods that may yield] By node, in the order in which they do."""

    def units(self, step: int) -> list[int]:
        """Who must yield, in that order."""
        return list(dict.fromkeys(self.unit[self.begin[step] : self.end[step]].tolist()))


def dips(snapshot: Snapshot, holders: Holders, balance: Balance, cells: Cells, by_unit: Ints) -> Bools:
    """[units] Who yields what was borrowed, by `by_unit` [units], and holds more of one of these cells than its queue has beyond
    its own: as things are before anybody has yielded.
    """
    found = np.zeros(by_unit.size, dtype=np.bool_)
    lent = (by_unit == int(Rule.RECLAIM)) | (by_unit == int(Rule.BORROW))
    if not lent.any():
        return found
    pods = np.flatnonzero(lent[holders.unit])
    unit = holders.unit[pods]
    amounts = {
        Resource.CPU: holders.cpu_milli,
        Resource.MEMORY: holders.memory_bytes,
        Resource.GPU: holders.gpus,
        Resource.PODS: np.ones_like(holders.gpus),
    }
    for column in cells:
        resource = Resource(snapshot.queues.cells[column][1])
        cell = cell_of(snapshot, resource)[holders.queue[unit], holders.flavor[pods]]
        # A double holds every sum of what is held exactly.
        held = np.bincount(unit, weights=np.where(cell == column, amounts[resource][pods], 0), minlength=lent.size)
        found |= held > np.maximum(0, balance.beyond_own(column))[holders.queue]
    below: Bools = found & lent
    return below


def ranked(holders: Holders, queue: int, below: Bools) -> Ints:
    """[units] Surplus ranks before whole runs, other queues before this one, then the less urgent, then those with whom their
    queue does not go below its own (`below`: it does): who is ranked lower yields sooner, whatever it costs.
    """
    whole = holders.whole == np.arange(holders.whole.size)
    kinds: Ints = (2 * whole + (holders.queue == queue)) * np.int64(PRIORITIES) + holders.priority
    return 2 * kinds + below


def in_order(holders: Holders, ranked_units: Ints, units: Ints) -> Ints:
    """These units in the order in which they yield: as they are `ranked`, then those whose work is worth less, then the newer."""
    eager = ranked_units[units] * (COST_MAX + 1) + holders.cost[units]
    return units[np.lexsort((-holders.submitted_at[units], eager))]


def freed_by(
    holders: Holders, free: Free, request: Request, slice_shapes: tuple[str, ...], *, late: Ints
) -> list[tuple[Ints, int]]:
    """[pods] What each makes free of what the request asks for, in the order of `Free.asked`, and how much is asked.

    `slice_shapes` [models]: its name where a model is the shape of a slice, else empty. `late` [pods]: bits, by number in
    `Free.kept`: it still runs when that is needed, so that more is left then without it. What else pods hold, beside
    that they are pods, is not on record, so nothing of it is counted on.
    """
    alike = np.array([shape == request.shape for shape in slice_shapes], dtype=np.bool_)
    devices, nothing = holders.gpus * alike[holders.gpu_model], np.zeros_like(holders.gpus)
    gives = {CPU: holders.cpu_milli, MEMORY: holders.memory_bytes, free.shapes.get(request.shape, GPUS): devices}
    if PODS in free.others:
        gives[free.others[PODS]] = np.ones_like(holders.gpus)
    found = [
        (devices, request.gpus),
        (holders.cpu_milli, request.cpu_milli),
        (holders.memory_bytes, request.memory_bytes),
    ]
    found += [
        (gives[column] if column == free.others.get(PODS) else nothing, amount)
        for column, amount in free.asked_of_others(request)
    ]
    found += [
        (gives.get(column, nothing) * (late >> number & 1), amount)
        for number, column, _, amount in free.asked_later(request)
    ]
    return [(column, amount) for column, amount in found if amount]


def steps_of(
    free: Free,
    request: Request,
    holders: Holders,
    freed: list[tuple[Ints, int]],
    *,
    may_yield: Bools,
    nodes: Bools,
    ranked_units: Ints,
    ranks: int,
) -> Steps:
    """`may_yield` [units], `ranked_units` [units] as by `ranked`, `nodes` [nodes] those to look at; so many `ranks` want a place.

    O(n log n) in the pods that may yield.
    """
    pods = np.flatnonzero(may_yield[holders.unit] & (holders.node >= 0))
    pods = pods[nodes[holders.node[pods]]]
    units = np.flatnonzero(may_yield)
    rank = np.zeros(may_yield.size, dtype=np.int64)
    rank[in_order(holders, ranked_units, units)] = np.arange(units.size)
    pods = pods[np.argsort(holders.node[pods] * np.int64(units.size + 1) + rank[holders.unit[pods]], kind="stable")]
    node, unit = holders.node[pods], holders.unit[pods]
    begin = _begins(node)
    fits, before = _room_after(free, request, [(gives[pods], amount) for gives, amount in freed], node, most=ranks)
    total = np.cumsum(_costs(holders, node, unit, whole=ranks == 1))
    cost = total - np.append(0, total)[begin]
    at = np.flatnonzero(fits > before)
    if ranks == 1:
        at = at[np.flatnonzero(np.diff(node[at], prepend=-1))]
    gain = fits[at] - room(free, request)[node[at]]
    order = np.lexsort((node[at], cost[at] // np.maximum(gain, 1), ranked_units[unit[at]]))
    at = at[order]
    return Steps(node=node[at], begin=begin[at], end=at + 1, pods=fits[at], unit=unit)


def _costs(holders: Holders, node: Ints, unit: Ints, *, whole: bool) -> Ints:
    """[pods] A gang that yields is lost as a whole; where many places are wanted, each of its pods counts as its part."""
    if not whole:
        pods = np.diff(holders.first)
        return holders.cost[unit] // pods[unit]
    again = (np.diff(unit, prepend=-1) == 0) & (np.diff(node, prepend=-1) == 0)
    return np.where(again, 0, holders.cost[unit])


def _room_after(
    free: Free, request: Request, freed: list[tuple[Ints, int]], node: Ints, *, most: int
) -> tuple[Ints, Ints]:
    """[pods] How many of the request find room on its node once it and those before it have yielded; and without itself."""
    begin = _begins(node)
    fits = np.full(node.size, most, dtype=np.int64)
    for (column, _), (gives, amount) in zip(free.asked(request), freed, strict=True):
        total = np.cumsum(gives)
        left = column[node] + total - np.append(0, total)[begin]
        if most == 1:
            fits &= left >= amount
        else:
            np.minimum(fits, np.maximum(left, 0) // amount, out=fits)
    before = np.append(0, fits[:-1])
    firsts = np.flatnonzero(begin == np.arange(begin.size))
    before[firsts] = np.minimum(room(free, request)[node[firsts]], most)
    return fits, before


def _begins(node: Ints) -> Ints:
    """[pods] Where the pods of the same node begin."""
    firsts = np.flatnonzero(np.diff(node, prepend=-1))
    return np.repeat(firsts, np.diff(firsts, append=node.size))
