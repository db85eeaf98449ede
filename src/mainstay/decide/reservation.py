"""Starts that are reserved: when, and where, there will be room for a workload that has waited long and finds none now.

What holds the nodes ends by its time limit at the latest, so the first instant is known at which all ranks fit. From then on
the places are the workload's: whoever has their turn after it may use them only if their own limit ends them before (EASY
backfill: Lifka, "The ANL/IBM SP Scheduling System", 1995; a cycle reserves a few starts, not one). Nothing of that is stored,
every cycle finds it anew: what was started after its turn is not there any more at that instant, or is beside it.

What has neither a limit nor a history of runs never ends as far as anybody knows, and neither does what should have ended and
has not, or is not heard of. Others start before a reserved start by their own limit alone: a history is no promise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mainstay.decide.kernel import CPU, GPUS, MEMORY, ROOM_MAX
from mainstay.decide.nomination import left_over
from mainstay.decide.placement.apart import Bound, bound_of
from mainstay.decide.placement.fill import Policy
from mainstay.decide.placement.fit import Free, Request
from mainstay.decide.placement.gang import domains
from mainstay.decide.placement.sets import Parts, nodes_by_part, place_parts
from mainstay.decide.rows import rows_by_key
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, is_shape
from mainstay.domain.snapshot import PODS, Snapshot

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
    parts: Parts
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
        frees = np.stack((held.cpu_milli, held.memory_bytes, held.gpus, np.ones_like(held.gpus)))
        for pod, left in left_over(snapshot).items():
            frees[:, pod] = left
        pods = ends_at[known], node, *frees[:, known], model
        self._pods: list[tuple[Ints, ...]] = [pods]
        """[pods] each: end, node row, CPU, memory, GPUs or slices, pods, the number of the shape of slices or 0."""
        self._ends: _Ends | None = None
        self._kept: list[Reservation] = []

    def started(self, ends_at: Ints, nodes: Ints, parts: Parts) -> None:
        """Workloads [workloads] that were given their places [workloads, ranks] just now."""
        known = ends_at <= self._until
        self._ends = None
        for part, here in nodes_by_part(nodes[known], parts):
            request, end, node = part.request, np.repeat(ends_at[known], part.ranks), here.reshape(-1)
            shape = self._models.index(request.shape) if request.shape else 0
            each = request.cpu_milli, request.memory_bytes, request.gpus, 1, shape
            self._pods.append((end, node, *(np.full(end.size, amount, dtype=np.int64) for amount in each)))

    def reserve(self, free: Free, ways: Sequence[Parts], *, policy: Policy) -> Reservation | None:
        """The first start of all ways to ask, of equals that of the first; then it is kept. None: nobody knows of any."""
        if self._ends is None:
            self._ends = self._by_node(free)
        found = [one for parts in ways if (one := self._first(free, parts, policy=policy))]
        if not found:
            return None
        first = min(found, key=lambda one: one.starts_at)
        self._kept.append(first)
        return first

    def _by_node(self, free: Free) -> _Ends:
        """What is free again after each end."""
        columns = [np.concatenate(parts) for parts in zip(*self._pods, strict=True)]
        self._pods = [tuple(columns)]
        order = np.lexsort(columns[:2])
        end, node, cpu_milli, memory_bytes, gpus, pods, model = (column[order] for column in columns)
        each = {CPU: cpu_milli, MEMORY: memory_bytes, GPUS: np.where(model > 0, 0, gpus)}
        for shape, column in free.shapes.items():
            if shape in self._models:
                each[column] = np.where(model == self._models.index(shape), gpus, 0)
        if PODS in free.others:
            each[free.others[PODS]] = pods
        first = np.diff(node, prepend=-1) > 0
        return _Ends(
            at=end,
            node=node,
            first=first,
            order=end.argsort(kind="stable"),
            released={column: _running_sums(amounts, first) for column, amounts in each.items()},
        )

    def _first(self, free: Free, parts: Parts, *, policy: Policy) -> Reservation | None:
        """The instant at which a domain that must hold all ranks first has room for them; then the places within it."""
        assert self._ends is not None, "put in order by whoever asks"
        now = self._beside_kept(free)
        if len(parts) == 1:
            starts_at = self._ends.first_room(free, now, parts[0].request, parts[0].ranks)
        else:
            starts_at = self._first_of_sets(free, now, parts, policy)
        if starts_at is None:
            return None
        then = self._ends.released_by(starts_at, now)
        nodes = place_parts(free.with_columns(then), parts, policy=policy)
        assert nodes is not None, "there is room in one of the domains that must hold it"
        held, rows, beside = _held(free, nodes, parts), np.unique(nodes), dict[int, Ints]()
        for column in np.flatnonzero(held.any(axis=1)).tolist():
            beside[column] = np.full(free.key.size, NEVER)
            beside[column][rows] = then[column, rows] - held[column, rows]
        return Reservation(starts_at=starts_at, nodes=nodes, parts=parts, beside=beside)

    def _first_of_sets(self, free: Free, now: Ints, parts: Parts, policy: Policy) -> int | None:
        """By bisection over the ends: sums of room do not tell whether pods of several sizes fit together."""
        assert self._ends is not None, "put in order by whoever asks"
        ends = np.unique(self._ends.at)
        low, high = 0, ends.size - 1
        if high < 0 or not self._places(free, now, parts, int(ends[high]), policy):
            return None
        while low < high:
            middle = (low + high) // 2
            places = self._places(free, now, parts, int(ends[middle]), policy)
            low, high = (low, middle) if places else (middle + 1, high)
        return int(ends[high])

    def _places(self, free: Free, now: Ints, parts: Parts, instant: int, policy: Policy) -> bool:
        assert self._ends is not None, "put in order by whoever asks"
        return place_parts(free.with_columns(self._ends.released_by(instant, now)), parts, policy=policy) is not None

    def _beside_kept(self, free: Free) -> Ints:
        """[resources, nodes] What is free now beside all that is kept, be it kept for later."""
        columns = free.nodes.free[: free.own].copy()
        for kept in self._kept:
            columns -= _held(free, kept.nodes, kept.parts)
        return columns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """The ends of pods by node, and those of a node in the order in which they come. Arrays are [pods]."""

    at: Ints
    node: Ints
    """Row of it."""
    first: Bools
    """The first of its node."""
    order: Ints
    """Positions, the earliest end first."""
    released: dict[int, Ints]
    """Column of `Free` -> what is free again on the node once this pod has ended, those before it included."""

    def first_room(self, free: Free, now: Ints, request: Request, ranks: int) -> int | None:
        """When all ranks first fit, by ends alone: so much is free now [resources, nodes]. None: they never do.

        Room only grows. So that of each domain is summed up over the ends in it, and the first at which it is enough counts.
        Where no more than so many lie in one narrower domain, what is more there is no room.
        """
        amounts = free.amounts(request)[: free.own]
        domain, usable = domains(free, request)
        usable &= free.allowed(request)
        bound = bound_of(free, request)
        if bound is not None:
            usable &= bound.known
        room_now = np.where(usable, _room(dict(enumerate(now)), amounts), 0)
        room_now_of = np.bincount(domain, weights=_bounded(room_now, bound)).astype(np.int64)
        if (room_now_of >= ranks).any():
            return int(self.at.min(initial=NEVER)) if self.at.size else None
        inside = np.flatnonzero(usable[self.node])
        node, first = self.node[inside], self.first[inside]
        room = _room({column: self._left(column, now, inside) for column in range(free.own)}, amounts)
        grown = np.zeros(self.at.size, dtype=np.int64)
        grown[inside] = room - np.where(first, room_now[node], np.append(0, room)[:-1])
        if bound is not None:
            self._bind(grown, bound, room_now)
        pods = self.order[grown[self.order] > 0]
        pods = pods[np.argsort(domain[self.node[pods]], kind="stable")]
        of = domain[self.node[pods]]
        enough = room_now_of[of] + _running_sums(grown[pods], np.diff(of, prepend=-1) != 0) >= ranks
        return int(self.at[pods[enough]].min()) if enough.any() else None

    def _bind(self, grown: Ints, bound: Bound, room_now: Ints) -> None:
        """[pods] By how much the room of its domain grows with each end, as far as that has no more than it may."""
        pods = self.order[grown[self.order] > 0]
        pods = pods[np.argsort(bound.number[self.node[pods]], kind="stable")]
        of = bound.number[self.node[pods]]
        after = np.bincount(bound.number, weights=room_now).astype(np.int64)[of]
        after += _running_sums(grown[pods], np.diff(of, prepend=-1) != 0)
        before = after - grown[pods]
        grown[pods] = np.minimum(after, bound.at_most) - np.minimum(before, bound.at_most)

    def _left(self, column: int, now: Ints, pods: Ints) -> Ints:
        """What is left on the node of each of these pods once it has ended."""
        left: Ints = now[column, self.node[pods]]
        return left + self.released[column][pods] if column in self.released else left

    def released_by(self, instant: int, now: Ints) -> Ints:
        """[resources, nodes] What is free then."""
        columns = now.copy()
        ended = np.flatnonzero(self.at <= instant)
        last = ended[np.diff(self.node[ended], append=-1) != 0]
        for column, amounts in self.released.items():
            columns[column, self.node[last]] += amounts[last]
        return columns


def _held(free: Free, nodes: Ints, parts: Parts) -> Ints:
    """[resources, nodes] What they hold there, all together."""
    held = np.zeros((free.own, free.key.size), dtype=np.int64)
    for part, here in nodes_by_part(nodes, parts):
        rows, pods = np.unique(here, return_counts=True)
        held[:, rows] += np.outer(free.amounts(part.request)[: free.own], pods)
    return held


def _room(left: Mapping[int, Ints], amounts: Ints) -> Ints:
    """How many pods fit where so much of each column is left, of those that it is asked of. Where a node shrank: none."""
    room = np.full(left[CPU].size, ROOM_MAX, dtype=np.int64)
    for column in np.flatnonzero(amounts).tolist():
        np.minimum(room, left[column] // amounts[column], out=room)
    room[(left[CPU] < 0) | (left[MEMORY] < 0)] = 0
    return np.maximum(room, 0, out=room)


def _bounded(room: Ints, bound: Bound | None) -> Ints:
    """[nodes] Room that adds up over any wider domain to what a gang may use: that of each narrow one is on one of its nodes."""
    if bound is None:
        return room
    _, first, number = np.unique(bound.number, return_index=True, return_inverse=True)
    bounded = np.zeros_like(room)
    bounded[first] = np.minimum(np.bincount(number, weights=room).astype(np.int64), bound.at_most)
    return bounded


def _running_sums(amounts: Ints, first: Bools) -> Ints:
    """They begin anew at each `first`."""
    sums = np.cumsum(amounts)
    begins = np.flatnonzero(first)
    before = np.append(0, sums)[begins]
    summed: Ints = sums - np.repeat(before, np.diff(np.append(begins, amounts.size)))
    return summed


def waited_long(snapshot: Snapshot, rows: Ints) -> Bools:
    """[rows] Whether these workloads have waited so long that a start is reserved for them, by what their queues say."""
    table = snapshot.workloads
    after = snapshot.queues.reserved_after_seconds[table.queue[rows]] * MICROSECONDS_PER_SECOND
    long: Bools = snapshot.now - table.submitted_at[rows] >= after
    return long


def ends_of(snapshot: Snapshot) -> Ints:
    """[allocations] When each will have ended, by the limit of its workload, else by its history, and its last words.

    NEVER if nobody knows.
    """
    held, table = snapshot.allocations, snapshot.workloads
    if not table.key.size:
        return np.full(held.key.size, NEVER)
    row = rows_by_key(table.key, held.workload_key)
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
    """[allocations] Whether what it holds, or what is left over of that, is free once it ends. What is kept for others never is:
    nobody knows when those it is kept for will have started.
    """
    held = snapshot.allocations
    there: Bools = (held.seen != Seen.ENDED) & (held.seen != Seen.UNKNOWN)
    there &= row >= 0
    there &= np.isin(held.node_key, snapshot.nodes.key)
    if snapshot.nominations:
        there &= ~np.isin(held.workload_key, np.fromiter(snapshot.nominations, dtype=np.int64))
    return there
