"""The working state of one scheduling cycle: who waits, what is left on the nodes, and what has been given away.

Whoever's turn it is takes the best place that its predecessors left (kernel.py). A shape of which one did not fit is not
tried again, since capacity only shrinks in a cycle, and the cycle ends with its last shape. But for work without GPUs beside
idle ones: each GPU that is taken frees what was kept for it, so that what found no place is looked at again (kernel.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mainstay.decide import admission, kernel
from mainstay.decide.allowance import Allowance
from mainstay.decide.asked import AskedColumns
from mainstay.decide.columns import Found, Ledger, Waiting
from mainstay.decide.compiled import kernel_for
from mainstay.decide.kernel import BLOCK, NONE
from mainstay.decide.placement import policies_of
from mainstay.decide.placement.fill import Policy, rankings_of
from mainstay.decide.placement.fit import Request, free_of
from mainstay.decide.placement.gang import place
from mainstay.decide.placement.headroom import headroom_of, unbound
from mainstay.decide.placement.images import heeded, worth_of_images
from mainstay.decide.placement.reach import Users, users_of
from mainstay.decide.placement.sets import (
    Part,
    Parts,
    leaving_headroom,
    place_parts,
    take_parts,
    with_late,
    within,
)
from mainstay.decide.reservation import NEVER, TRIES_MAX, Releases, Reservation, waited_long
from mainstay.decide.shapes import Shape, shape_numbers, shape_of
from mainstay.decide.strict import not_held_up, strict_queues
from mainstay.decide.submitters import lines_of, with_lines
from mainstay.decide.turns import asked_by, ledger_of, waiting_of
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.snapshot import Snapshot

AT_ONCE = 1 << 16
"""So many workloads and so many of their pods are found before they are read."""
ANY_QUEUE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Workloads of one shape that found a place."""

    rows: Ints
    """[workloads] Of the workload table, in the order of their turns."""
    nodes: Ints
    """[workloads, ranks] The node row of each rank."""
    parts: Parts
    """What the ranks ask for: the choice that fitted, or the pod sets."""


class Cycle:
    """One cycle over a snapshot. `free` is lowered and the queues' shares are raised as workloads are placed."""

    def __init__(
        self, snapshot: Snapshot, policy: Policy, *, tries_max: int = TRIES_MAX, order: Ints | None = None
    ) -> None:
        """`tries_max`: a start is tried to be reserved for so many. `order`: of admission; None: by `admission.order`."""
        self.snapshot, self._tries_max = snapshot, tries_max
        self.order = not_held_up(snapshot, admission.order(snapshot) if order is None else order)
        self._policies = policies_of(snapshot.queues, policy)
        in_use = dict.fromkeys(
            self._policies[queue] for queue in np.unique(snapshot.workloads.queue[self.order]).tolist()
        )
        compiled = [one for one in in_use if one.sign]
        heeds = any(one.heeds for one in (policy, *in_use))
        self.free = free_of(snapshot, rankings=rankings_of(compiled), heeds=heeds)
        self.reserved: dict[int, Reservation] = {}
        """By row of the workload table: starts that are reserved for those that have waited long and found no place."""
        self.unreserved: set[int] = set()
        """Those of which nobody knows when there will be room."""
        self._long = waited_long(snapshot, self.order)
        self._releases = Releases(snapshot) if tries_max and self._long.any() else None
        self._placed: list[Placed] = []
        """What was placed since a start was reserved last."""
        self.free = self.free.with_images(worth_of_images(snapshot, self.order))
        beside = list[Ints]()
        if self.free.images:
            beside.append(heeded(snapshot, self.free, self.order))
        if len(in_use) > 1:
            numbers = {one: number for number, one in enumerate(in_use)}
            of_queue = np.array([numbers.get(one, NONE) for one in self._policies], dtype=np.int64)
            beside.append(of_queue[snapshot.workloads.queue[self.order]])
        self.numbers = shape_numbers(snapshot, self.order, timed=self._releases is not None, beside=beside)
        self.allowance = Allowance(snapshot)
        headroom = headroom_of(
            snapshot,
            self.free,
            self.allowance,
            rows=self.order,
            numbers=self.numbers,
            later=self._releases is not None,
        )
        self.free = self.free.beside_gpus(headroom)
        self.started = np.zeros(snapshot.workloads.key.size, dtype=np.bool_)
        """[workloads] Those that have been placed."""
        self._policy, self._kernel = policy, kernel
        self._asked = AskedColumns(
            snapshot,
            self.free,
            self.allowance,
            rows=self.order,
            numbers=self.numbers,
            policy=np.array(
                [compiled.index(one) if one in compiled else NONE for one in self._policies], dtype=np.int64
            ),
        )
        self._waiting: Waiting | None = None
        self._shapes: dict[int, Shape] = {}
        self._number_of: Ints | None = None
        """By row of the workload table; None until somebody needs it."""
        self._users: Users | None = None
        """Of volumes; None until somebody needs them."""

    @property
    def failed(self) -> set[tuple[int, int]]:
        """(queue, number) of what was given up: shapes of which one did not fit, of ANY_QUEUE or over the quota of one."""
        if self._waiting is None:
            return set()
        waiting, failed = (
            self._waiting,
            {(ANY_QUEUE, number) for number in np.flatnonzero(self._waiting.shape_failed).tolist()},
        )
        if waiting.kind_failed.any():
            _, first = np.unique(waiting.kind, return_index=True)
            at = first[waiting.kind_failed]
            failed |= set(zip(waiting.queue[at].tolist(), waiting.shape[at].tolist(), strict=True))
        return failed

    def placements(self, *, ahead: int | None = None, limit: int | None = None) -> Iterator[Placed]:
        """What finds a place: of the first `ahead` in the order of admission, or of all; at most `limit` workloads."""
        rows, numbers = self.order[:ahead], self.numbers[:ahead]
        lines = lines_of(self.snapshot, rows)
        ledger = with_lines(ledger_of(self.snapshot), self.snapshot, lines)
        waiting = self._waiting = waiting_of(
            self.snapshot.queues,
            rows,
            queue=self.snapshot.workloads.queue[rows],
            asked=asked_by(self.snapshot, rows),
            shape=numbers,
            long=self._long[:ahead],
            priority=self.snapshot.workloads.priority[rows],
            line=lines.of,
            lines=lines.queue,
            strict=strict_queues(self.snapshot.queues),
        )
        compiled = self._kernel = kernel_for(rows.size * (self.free.nodes.changes.size + BLOCK))
        compiled.look_up_all(ledger, waiting)
        left = rows.size if limit is None else limit
        found = _nothing_found(min(left, AT_ONCE), clusters=int(self.free.cluster.max(initial=-1)) + 1)
        while left:
            status = compiled.go_on(
                ledger,
                waiting,
                self.allowance.quota,
                self.free.nodes,
                self._asked.requests,
                found,
                min(left, found.at.size),
            )
            left -= int(found.size[0])
            yield from self._read(waiting, found)
            if status == kernel.DONE:
                return
            at = int(waiting.head[-1])
            row, number = int(waiting.row[at]), int(waiting.shape[at])
            if status == kernel.UNKNOWN:
                self._asked.learn(number, self._timed(self.shape(row, number)))
            elif status == kernel.CROWDED:
                self._reserve_or_give_up(ledger, waiting, at, self.shape(row, number))
            elif status == kernel.ASKS and left:
                placed = self._place_alone(ledger, waiting, at, self.shape(row, number))
                if placed:
                    left -= 1
                    yield placed

    def _policy_of(self, queue: int) -> Policy:
        return self._policy if queue == ANY_QUEUE else self._policies[queue]

    def place(
        self, shape: Shape, queue: int = ANY_QUEUE, *, delays: bool = False, spends: bool = False
    ) -> tuple[tuple[int, ...], Parts] | None:
        """Node row of each rank for the first choice that fits what is left, or None. Changes nothing.

        With a queue, only what it may use of its quotas counts. `delays`: starts that are reserved do not. `spends`: what is kept
        for GPUs does not.
        """
        ways = self._ways(shape, delays=delays, spends=spends)
        if shape.sets:
            return self._place_sets(ways, queue)
        for choice in (way[0].request for way in ways):
            for request in (choice,) if queue == ANY_QUEUE else self.allowance.flavors(queue, choice):
                most = shape.nodes if queue == ANY_QUEUE else self.allowance.most_pods(queue, request, shape.nodes)
                if most < shape.least:
                    continue
                rows = place(self.free, request, count=most, least=shape.least, policy=self._policy_of(queue))
                if rows is not None:
                    return tuple(rows.tolist()), (Part(ranks=rows.size, request=request),)
        return None

    def _place_sets(self, ways: tuple[Parts, ...], queue: int) -> tuple[tuple[int, ...], Parts] | None:
        for way in ways:
            for parts in (way,) if queue == ANY_QUEUE else self.allowance.flavors_of(queue, way):
                if queue != ANY_QUEUE and not self.allowance.may_use_parts(queue, parts):
                    continue
                rows = place_parts(self.free, parts, policy=self._policy_of(queue))
                if rows is not None:
                    return tuple(rows.tolist()), parts
        return None

    def delayed_by(self, shape: Shape) -> int:
        """The first of the reserved starts that it might delay if it started now; 0 if there is none."""
        return min((self.reserved[row].starts_at for row in self.binding(shape)), default=0)

    def binding(self, shape: Shape) -> tuple[int, ...]:
        """Rows of the workloads whose reserved starts those are."""
        return tuple(row for row, one in self.reserved.items() if self._delays(shape.seconds, one))

    def shape(self, row: int, number: int) -> Shape:
        """The shape with this number, which the workload in this row has, with what its own runs take. Where its volumes let it
        run may change in a cycle.
        """
        shape = self._shapes.get(number)
        if shape is None or shape.one_node:
            if self._users is None and self.snapshot.workloads.volumes[row]:
                self._users = users_of(self.snapshot)
            shape = self._shapes[number] = shape_of(self.snapshot, row, users=self._users)
        table = self.snapshot.workloads
        return shape.timed(dict(table.typical_on.get(int(table.key[row]), ()))) if table.typical_on else shape

    def chosen_words(self, row: int, parts: Parts) -> str:
        """Which of its choices the workload in this row was placed with, and why; empty where it had none."""
        if int(self.snapshot.workloads.key[row]) not in self.snapshot.workloads.choices:
            return ""
        if self._number_of is None:
            self._number_of = np.empty(self.snapshot.workloads.key.size, dtype=np.int64)
            self._number_of[self.order] = self.numbers
        return self.shape(row, int(self._number_of[row])).chosen_words(parts)

    def _read(self, waiting: Waiting, found: Found) -> Iterator[Placed]:
        """What has been found, request by request."""
        found_now = int(found.size[0])
        found.size[:] = 0
        request, model, end = found.request[:found_now], found.model[:found_now], found.end[:found_now]
        begin, rows = np.append(0, end)[:found_now], waiting.row[found.at[:found_now]]
        self.started[rows] = True
        ranking, count = np.lexsort((model, request)), end - begin
        alike = (np.diff(column[ranking]) == 0 for column in (request, model, count))
        splits = np.flatnonzero(~np.logical_and.reduce(tuple(alike))) + 1
        for group in np.split(ranking, splits) if found_now else ():
            first = int(group[0])
            ranks = np.arange(count[first])
            yield self._started(
                Placed(
                    rows=rows[group],
                    nodes=found.node[begin[group, np.newaxis] + ranks],
                    parts=(
                        Part(
                            ranks=ranks.size, request=self._asked.request(int(request[first]), model=int(model[first]))
                        ),
                    ),
                )
            )

    def _started(self, placed: Placed) -> Placed:
        """What has its places now holds the nodes for those for whom a start is reserved later."""
        if self._releases is not None:
            self._placed.append(placed)
        return placed

    def _place_alone(self, ledger: Ledger, waiting: Waiting, at: int, shape: Shape) -> Placed | None:
        """The turn of one workload whose nodes are not found by what is left on them alone."""
        queue = int(waiting.queue[at])
        found = self.place(shape, queue)
        if found is None:
            self._reserve_or_give_up(ledger, waiting, at, shape)
            return None
        nodes, parts = found
        take_parts(self.free, np.array(nodes, dtype=np.int64), parts)
        self.allowance.use_parts(queue, parts)
        self.started[waiting.row[at]] = True
        if shape.one_node and shape.volumes is not None and self._users is not None:
            self._users.add(shape.volumes, nodes[0])
        self._kernel.leave(ledger, waiting, at, len(nodes), shape.nodes)
        placed = Placed(rows=waiting.row[at : at + 1], nodes=np.array([nodes], dtype=np.int64), parts=parts)
        return self._started(placed)

    def _timed(self, shape: Shape) -> tuple[Request, ...]:
        """Its requests, with what binds them: which of the reserved starts they would delay if they used their places, and
        whether something is kept from them for GPUs.
        """
        return tuple(way[0].request for way in self._ways(shape))

    def _ways(self, shape: Shape, *, delays: bool = False, spends: bool = False) -> tuple[Parts, ...]:
        """The same of all that it may ask for together."""
        late = 0 if delays else self._late_for(shape)
        ways = tuple(with_late(way, late) for way in shape.ways) if late else shape.ways
        return ways if spends or not self.free.headroom else tuple(leaving_headroom(way) for way in ways)

    def _late_for(self, shape: Shape) -> int:
        late = 0
        for number, one in enumerate(self.reserved.values()):
            late |= self._delays(shape.seconds, one) << number
        return late

    def _delays(self, seconds: int, reservation: Reservation) -> bool:
        """Whether what may take so long would still run then."""
        return not seconds or self.snapshot.now + seconds * MICROSECONDS_PER_SECOND > reservation.starts_at

    def _reserve_or_give_up(self, ledger: Ledger, waiting: Waiting, at: int, shape: Shape) -> None:
        """The turn of one for whom there is no place now. One that has waited long gets one later, and holds it from here on: an
        elastic one for as many ranks as it needs to start.
        """
        queue, row = int(waiting.queue[at]), int(waiting.row[at])
        ways = self._ways(shape)
        choices = [one for way in ways for one in self.allowance.flavors_of(queue, way)]
        usable = [one for one in choices if self.allowance.may_use_parts(queue, one)]
        found = None
        if usable and waiting.long[at] and self._releases is not None:
            for placed in self._placed:
                self._releases.started(self._ends_at(placed.rows), placed.nodes, placed.parts)
            self._placed.clear()
            asked = [self._unbound(with_late(one, 0)) for one in usable]
            found = self._releases.reserve(self.free, asked, policy=self._policy_of(queue))
            if found is None:
                self.unreserved.add(row)
            if len(self.reserved) + len(self.unreserved) + (found is not None) >= self._tries_max:
                waiting.long[:] = False
        if found is None:
            # Nodes that this queue tells apart, others may have for a gang together.
            of_all = shape.least == 1 or tuple(choices) == ways
            self._kernel.give_up(ledger, waiting, at, of_all and len(usable) == len(choices))
            return
        self.reserved[row] = found
        self.free = self.free.keep(found.beside, rows=found.nodes)
        self._asked.keep(self.free, self._late(found))
        self.allowance.use_parts(queue, found.parts)
        self._kernel.leave(ledger, waiting, at, shape.least, shape.nodes)
        if waiting.strict[queue]:
            self._kernel.close(ledger, waiting, queue)

    def _unbound(self, parts: Parts) -> Parts:
        """Work without GPUs gets no start reserved where something may be kept for them."""
        if not self.free.headroom or not parts[0].request.leaves_headroom:
            return parts
        return within(parts, unbound(self.free.nodes.headroom))

    def _late(self, reservation: Reservation) -> Bools:
        """[shapes] Which would delay it."""
        _, first = np.unique(self.numbers, return_index=True)
        late: Bools = self._ends_at(self.order[first]) > reservation.starts_at
        return late

    def _ends_at(self, rows: Ints) -> Ints:
        """When each of these workloads would have ended by its limit if it started now."""
        table = self.snapshot.workloads
        limit, grace = table.max_duration_seconds[rows], table.stop_grace_seconds[rows]
        return np.where(limit > 0, self.snapshot.now + (limit + grace) * MICROSECONDS_PER_SECOND, NEVER)


def _nothing_found(count: int, *, clusters: int) -> Found:
    """Room for so many workloads."""
    at, request, model, end = np.zeros((4, count), dtype=np.int64)
    return Found(
        at=at,
        request=request,
        model=model,
        end=end,
        node=np.zeros(AT_ONCE, dtype=np.int64),
        size=np.zeros(2, dtype=np.int64),
        room_of=np.zeros(clusters, dtype=np.int64),
    )
