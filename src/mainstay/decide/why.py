"""Why what waits does so now: one answer for lists, pages and explanations.

What is written down with a workload that waits is why it was queued. What keeps it waiting changes with the world, so it is
worked out where somebody asks, by one cycle for all that wait.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from mainstay.decide import admission, nomination
from mainstay.decide.cycle import ANY_QUEUE, Cycle
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES
from mainstay.decide.placement.sets import Parts
from mainstay.decide.places import node_names
from mainstay.decide.rows import rows_by_key
from mainstay.decide.schedule import in_strict_queue, kept_for_gpus, quota_refusal, refusal, start_reserved, would_delay
from mainstay.decide.shapes import Shape, shape_of
from mainstay.decide.strict import held_up_by
from mainstay.decide.turn_order import turn_order
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools
from mainstay.domain.preemption import Nomination
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase

NO_HEAD = -1
"""The key of no workload."""


class Look:
    """What a cycle makes of all that wait in a world as `nomination.reserved` has it. Costs a cycle, and for each shape that is
    asked about a look at all nodes.
    """

    def __init__(self, world: Snapshot) -> None:
        self.world, self.policy = world, POLICIES[DEFAULT_POLICY]
        self.order = turn_order(world)
        self.whole = Cycle(world, self.policy)
        """In which everybody has had their turn."""
        self._placed = list(self.whole.placements())
        self._reasons: dict[tuple[int, int], Reason] = {}
        """By queue and number of the shape."""
        self._numbers = dict(zip(self.whole.order.tolist(), self.whole.numbers.tolist(), strict=True))

    @cached_property
    def alone(self) -> Cycle:
        """A cycle in which nobody has had a turn."""
        return Cycle(self.world, self.policy)

    @cached_property
    def _place_in_line(self) -> dict[int, int]:
        return {row: place for place, row in enumerate(self.order.tolist())}

    def ahead(self, row: int) -> int:
        """How many go before the workload in this row, if all found room."""
        return self._place_in_line.get(row, 0)

    def place(self, row: int) -> tuple[tuple[int, ...], Parts] | None:
        """Node row of each rank, if it has its turn and finds room."""
        for found in self._placed if self.whole.started[row] else ():
            here = np.flatnonzero(found.rows == row)
            if here.size:
                return tuple(found.nodes[int(here[0])].tolist()), found.parts
        return None

    def reason(self, row: int, shape: Shape | None = None) -> Reason:
        """Why the workload in this row, which finds no place, waits. `shape`: its own, where that is known already."""
        group = int(self.world.workloads.queue[row]), self._numbers.get(row, -1)
        if row in self.whole.reserved:
            return start_reserved(self.whole, row, shape or shape_of(self.world, row))
        if self.head(row) != NO_HEAD:
            return in_strict_queue(self.world, row)
        if group not in self._reasons:
            self._reasons[group] = self._reason_of(shape or shape_of(self.world, row), group[0])
        reason = self._reasons[group]
        numbers = {**reason.numbers, "ahead": self.ahead(row)}
        if row in self.whole.unreserved and reason.code is Code.WAITS_FOR_CAPACITY:
            numbers["detail"] = _NO_START
        return replace(reason, numbers=numbers)

    def head(self, row: int) -> int:
        """Key of the head of the strict queue of this row, which holds it up; NO_HEAD if nobody does so."""
        head = held_up_by(self.world, self.whole.order, self.whole.started, row)
        return NO_HEAD if head is None else int(self.world.workloads.key[head])

    def _reason_of(self, shape: Shape, queue: int) -> Reason:
        """Of all in this queue that ask for this."""
        reason = would_delay(self.whole, shape, queue) or kept_for_gpus(self.whole, shape, queue)
        if reason:
            return reason
        if self.alone.place(shape, queue):
            return Reason(code=Code.WAITS_BEHIND, numbers={"needs": shape.words})
        return self.short_of(shape, queue)

    def short_of(self, shape: Shape, queue: int) -> Reason:
        """What this queue or the nodes have too little of for it, whoever has a turn before."""
        reason = refusal(self.world, shape, self.alone.free)
        if reason.code is not Code.NEVER_FITS and _is_short_of_quota(self.alone, shape, queue):
            return quota_refusal(self.alone, shape, queue)
        return reason


class Whys:
    """Why each of those that wait in a snapshot does so. Costs as `Look`, once anybody is asked about."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._may_start = admission.may_start(snapshot)

    @cached_property
    def _look(self) -> Look:
        return Look(nomination.reserved(self._snapshot))

    def of(self, workload_key: int, version: int) -> Reason | None:
        """None where the record says it: of what does not wait or is held, is about to start, or has changed since."""
        table = self._snapshot.workloads
        row = int(rows_by_key(table.key, np.array([workload_key]))[0])
        if row < 0 or table.version[row] != version or not admission.waiting(self._snapshot)[row] or table.held[row]:
            return None
        if held := held_back(self._snapshot, row, may_start=self._may_start):
            return held
        return None if self._look.whole.started[row] else self._look.reason(row)


def held_back(snapshot: Snapshot, row: int, *, may_start: Bools) -> Reason | None:
    """Why it is not in the order at all, if it is not. `may_start` as of `admission`."""
    table, phase = snapshot.workloads, Phase(int(snapshot.workloads.phase[row]))
    if table.stop_requested[row]:
        return Reason(code=Code.STOPPING)
    if not admission.waiting(snapshot)[row]:
        codes = {Phase.RUNNING: Code.POD_RUNNING, Phase.UNKNOWN: Code.POD_LOST}
        return Reason(code=codes.get(phase, Code.POD_STARTING), numbers=_has(snapshot, row))
    if table.held[row]:
        return Reason(code=Code.HELD)
    if not admission.due(snapshot)[row]:
        wait_us = int(table.not_before[row]) - snapshot.now
        numbers = {"attempt": int(table.attempt[row]), "seconds": -(-wait_us // MICROSECONDS_PER_SECOND)}
        return Reason(code=Code.BACKING_OFF, numbers=numbers)
    if (kept := snapshot.nominations.get(int(table.key[row]))) is not None:
        return _keeps(snapshot, int(table.key[row]), kept)
    if not may_start[row]:
        return Reason(code=Code.POD_LOST, numbers={"detail": "a pod of an earlier attempt is not proven dead"})
    return None


def _has(snapshot: Snapshot, row: int) -> dict[str, int | float | str]:
    """Of an elastic one, how many of how many nodes its attempt has; of one that had a choice, what it was given."""
    table, held = snapshot.workloads, snapshot.allocations
    least, most = int(table.nodes_min[row]), int(table.nodes_max[row])
    mine = (held.workload_key == table.key[row]) & (held.attempt == table.attempt[row]) & ~held.surplus
    said = [f"{np.count_nonzero(mine)} nodes of {least} to {most}"] if least < most else []
    if int(table.key[row]) in table.choices and mine.any():
        first = int(np.flatnonzero(mine)[0])
        model = snapshot.gpu_models[int(held.gpu_model[first])]
        said.append(f"with {Resources(gpus=int(held.gpus[first]), gpu_model=model).gpu_words or 'no GPU'}")
    return {"detail": ", ".join(said)} if said else {}


def _keeps(snapshot: Snapshot, key: int, kept: Nomination) -> Reason:
    """It waits for those who were displaced for it, whose places are kept for it."""
    held = snapshot.allocations
    pods = (held.yields_to == key) & held.stop & (held.seen != Seen.ENDED)
    runs = int(np.unique(held.workload_key[pods]).size)
    nodes = node_names(snapshot, nomination.node_rows(snapshot, kept))
    numbers: dict[str, int | float | str] = {"pods": int(pods.sum()), "runs": runs, "nodes": nodes}
    return Reason(code=Code.PREEMPTS, numbers=numbers)


def _is_short_of_quota(cycle: Cycle, shape: Shape, queue: int) -> bool:
    """Whether the queue may not have it, be there room or not: a cycle looks at that first."""
    choices = (one for way in shape.ways for one in cycle.allowance.flavors_of(queue, way))
    may = any(cycle.allowance.may_use_parts(queue, one) for one in choices)
    return not may or cycle.place(shape, ANY_QUEUE) is not None


_NO_START = (
    "no start can be reserved for it: of what holds its places not enough is known to end within a week;"
    " what would tell: a max_duration of those runs"
)
