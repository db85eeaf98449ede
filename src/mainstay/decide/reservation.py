"""Starts that are reserved: when, and where, there will be room for a workload that has waited long and finds none now.

What holds the nodes ends by its time limit at the latest, so the first instant is known at which all ranks fit. From then on
the places are the workload's: whoever has their turn after it may use them only if their own limit ends them before (EASY
backfill: Lifka, "The ANL/IBM SP Scheduling System", 1995; a cycle reserves a few starts, not one). Nothing of that is stored,
every cycle finds it anew: what was started after its turn is not there any more at that instant, or is beside it.

What has neither a limit nor a history of runs never ends as far as anybody knows, and neither does what should have ended and
has not, or is not heard of. Others start before a reserved start by their own limit alone: a history is no promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mainstay.decide.placement.fill import Policy
from mainstay.decide.placement.fit import CPU, GPUS, MEMORY, Free, Request
from mainstay.decide.placement.gang import place
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, is_shape
from mainstay.domain.snapshot import PODS, Snapshot

RESERVED_AFTER_SECONDS = 600
"""So long something waits before a start is reserved for it: where most waits are shorter, nothing is kept idle for them."""
AHEAD_SECONDS_MAX = 7 * 86_400
"""No start is reserved that is farther ahead: places would lie idle for it that long. Slurm's bf_window, widened to a week."""
TRIES_MAX = 4
"""So many workloads get a reservation in one cycle, or are found to get none."""
OVERDUE_SECONDS_MAX = 300
"""What has not ended so long after its limit counts as never ending."""
NEVER = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The start of one workload."""

    starts_at: int
    """UTC microseconds: at the latest, as far as limits are kept to."""
    nodes: Ints
    """[ranks] Node row of each."""
    request: Request
    beside: dict[int, Ints]
    """Column of `Free` -> [nodes] how much of it is left then for what still runs; more than there is where nothing is kept."""


class Releases:
    """When what is held on the nodes will be free again, and what is kept for those for whom a start is reserved."""

    def __init__(self, snapshot: Snapshot) -> None:
        held = snapshot.allocations
        ends_at = ends_of(snapshot)
        self._until = snapshot.now + AHEAD_SECONDS_MAX * MICROSECONDS_PER_SECOND
        known = np.flatnonzero(ends_at <= self._until)
        slices = np.array([is_shape(model) for model in snapshot.gpu_models], dtype=np.bool_)
        self._models = snapshot.gpu_models
        model = np.where(slices[held.gpu_model[known]], held.gpu_model[known], 0)
        node = np.searchsorted(snapshot.nodes.key, held.node_key[known])
        pods = ends_at[known], node, held.cpu_milli[known], held.memory_bytes[known], held.gpus[known], model
        self._pods: list[tuple[Ints, ...]] = [pods]
        """[pods] each: end, node row, CPU, memory, GPUs or slices, the number of the shape of slices or 0."""
        self._in_order = False
        self._kept: list[Reservation] = []

    def started(self, ends_at: Ints, nodes: Ints, request: Request) -> None:
        """Workloads [workloads] that were given their places [workloads, ranks] just now."""
        known = ends_at <= self._until
        end, node = np.repeat(ends_at[known], nodes.shape[1]), nodes[known].reshape(-1)
        shape = self._models.index(request.shape) if request.shape else 0
        each = request.cpu_milli, request.memory_bytes, request.gpus, shape
        self._in_order = False
        self._pods.append((end, node, *(np.full(end.size, amount, dtype=np.int64) for amount in each)))

    def reserve(self, free: Free, requests: Sequence[Request], *, ranks: int, policy: Policy) -> Reservation | None:
        """The first start of the requests, of equals that of the first; then it is kept. None: nobody knows of any."""
        if not self._in_order:
            self._put_in_order()
        found = [one for request in requests if (one := self._first(free, request, ranks=ranks, policy=policy))]
        if not found:
            return None
        first = min(found, key=lambda one: one.starts_at)
        self._kept.append(first)
        return first

    def _put_in_order(self) -> None:
        """By their ends, so that what has ended by an instant is the first part."""
        columns = [np.concatenate(parts) for parts in zip(*self._pods, strict=True)]
        order = columns[0].argsort(kind="stable")
        self._pods, self._in_order = [tuple(column[order] for column in columns)], True

    def _first(self, free: Free, request: Request, *, ranks: int, policy: Policy) -> Reservation | None:
        """By bisection: the more has ended, the more is free."""
        ends_at = self._pods[0][0]
        instants = ends_at[np.flatnonzero(np.diff(ends_at, prepend=-1))]
        low, high = 0, instants.size

        def placed(index: int) -> Ints | None:
            return place(self._at(free, int(instants[index])), request, count=ranks, policy=policy)

        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if placed(middle) is not None else (middle + 1, high)
        if low == instants.size:
            return None
        then, nodes = self._at(free, int(instants[low])), placed(low)
        assert nodes is not None, "bisection ends at an instant at which it was placed"
        rows, pods = np.unique(nodes, return_counts=True)
        then.take(rows, pods, request)
        beside = {}
        for column in np.flatnonzero(free.amounts(request)[: free.own]).tolist():
            beside[column] = np.full(free.key.size, NEVER)
            beside[column][rows] = then.nodes.free[column, rows]
        return Reservation(starts_at=int(instants[low]), nodes=nodes, request=request, beside=beside)

    def _at(self, free: Free, instant: int) -> Free:
        """What will be free then, beside what is kept by then or later; nothing of what others make of the time between."""
        count = int(np.searchsorted(self._pods[0][0], instant, side="right"))
        node, cpu_milli, memory_bytes, gpus, model = (column[:count] for column in self._pods[0][1:])
        columns, nodes = free.nodes.free[: free.own].copy(), free.key.size
        for column, amount in ((CPU, cpu_milli), (MEMORY, memory_bytes), (GPUS, np.where(model > 0, 0, gpus))):
            columns[column] += _summed(node, amount, nodes)
        for shape, column in free.shapes.items():
            if shape in self._models:
                of_shape = model == self._models.index(shape)
                columns[column] += _summed(node[of_shape], gpus[of_shape], nodes)
        if PODS in free.others:
            columns[free.others[PODS]] += _summed(node, np.ones_like(node), nodes)
        for kept in self._kept:
            rows, pods = np.unique(kept.nodes, return_counts=True)
            columns[:, rows] -= np.outer(free.amounts(kept.request)[: free.own], pods)
        return free.with_columns(columns)


def ends_of(snapshot: Snapshot) -> Ints:
    """[allocations] When each will have ended, by the limit of its workload, else by its history, and its last words.

    NEVER if nobody knows.
    """
    held, table = snapshot.allocations, snapshot.workloads
    if not table.key.size:
        return np.full(held.key.size, NEVER)
    row = np.minimum(np.searchsorted(table.key, held.workload_key), table.key.size - 1)
    grace = table.stop_grace_seconds[row] * MICROSECONDS_PER_SECOND
    seconds = np.where(table.max_duration_seconds > 0, table.max_duration_seconds, table.usual_seconds)
    limit = seconds[row] * MICROSECONDS_PER_SECOND
    started = np.where(held.started_at > 0, held.started_at, snapshot.now)
    ends_at = np.where(limit > 0, started + limit + grace, NEVER)
    told = held.stop & (held.stop_asked_at > 0)
    ends_at = np.where(told, np.minimum(ends_at, held.stop_asked_at + grace), ends_at)
    late = snapshot.now - ends_at
    ends_at = np.where(late > OVERDUE_SECONDS_MAX * MICROSECONDS_PER_SECOND, NEVER, np.maximum(ends_at, snapshot.now))
    return np.where(_is_countable(snapshot, row), ends_at, NEVER)


def _is_countable(snapshot: Snapshot, row: Ints) -> Bools:
    """[allocations] Whether what it holds is free once it ends. What is displaced makes room for whom that is kept for."""
    held, table = snapshot.allocations, snapshot.workloads
    there: Bools = (held.seen != Seen.ENDED) & (held.seen != Seen.UNKNOWN) & (held.preempted == 0)
    there &= table.key[row] == held.workload_key
    there &= np.isin(held.node_key, snapshot.nodes.key)
    if snapshot.nominations:
        there &= ~np.isin(held.workload_key, np.fromiter(snapshot.nominations, dtype=np.int64))
    return there


def _summed(node: Ints, amount: Ints, nodes: int) -> Ints:
    """[nodes] Exact: what a node has of anything is far below 2⁵³."""
    return np.bincount(node, weights=amount, minlength=nodes).astype(np.int64)
