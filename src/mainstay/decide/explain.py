"""Why a workload waits and what would let it start; what a submission would do. By the scheduler's own cycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mainstay.decide import admission, billing, nomination
from mainstay.decide.alternatives import Alternative, alternatives, place_of, with_another_turn
from mainstay.decide.cycle import ANY_QUEUE, Cycle
from mainstay.decide.expected import ExpectedStart, expected_start, submitted
from mainstay.decide.holding import Holding, holding
from mainstay.decide.offers import NOBODY_KNOWS
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES
from mainstay.decide.placement.sets import Parts, nodes_by_part
from mainstay.decide.places import node_names, placed
from mainstay.decide.preemption.outlook import outlook
from mainstay.decide.preemption.rules import wish_of
from mainstay.decide.schedule import (
    in_strict_queue,
    kept_for_gpus,
    quota_refusal,
    refusal,
    slot_resources,
    start_reserved,
    would_delay,
)
from mainstay.decide.shapes import Shape, shape_of
from mainstay.decide.strict import held_up_by
from mainstay.decide.submitters import turn_words
from mainstay.decide.turn_order import turn_order
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Ints
from mainstay.domain.errors import NotFound
from mainstay.domain.preemption import Nomination
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, Money, Resources
from mainstay.domain.queue import BUILT_IN_PRIORITIES, DEFAULT_QUEUE
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import NOBODY, Snapshot
from mainstay.domain.volume import VolumeNeed
from mainstay.domain.workload import Phase, WorkloadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a workload is where it is, now."""

    workload_key: int
    phase: Phase
    reason: Reason
    position: int
    """Place in the order of turns of what may start, if all found room, from 1; 0: not in it."""
    alternatives: tuple[Alternative, ...]
    turn: str = ""
    """How its queue orders what is as urgent, where that is not by age alone, in words."""
    preemption: str = ""
    """Whom it could displace, or why nobody yields for it, in words; empty where that is not the question."""
    expected: ExpectedStart | None = None
    """When it starts, if nobody yields for it; None where time alone brings no start, or it has one."""
    placement: str = ""
    """The policy by which its nodes are chosen, where its queue has one of its own."""
    holding: Holding | None = None
    """Who holds what it waits for; None where nobody does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a submission would do at this instant. Nothing is promised: others may come first."""

    starts_now: bool
    starts_never: bool = False
    """It is more than all nodes of this fleet together could give, however long it waits."""
    nodes: tuple[str, ...]
    """Node of each rank, of as many as it would start with; empty if it would wait."""
    resources: Resources
    """What each pod would hold: of the choice that fits, else of the first; of several pod sets, each pod of the first."""
    sets: tuple[Resources, ...] = ()
    """What each pod of each set would hold."""
    price_per_hour: Money
    """Of all its pods together."""
    cost_max: Money | None
    """At `max_duration`; None without one."""
    reason: Reason
    position: int
    alternatives: tuple[Alternative, ...]
    turn: str = ""
    preemption: str = ""
    expected: ExpectedStart | None = None
    holding: Holding | None = None
    """All as of an explanation."""


def explain(
    snapshot: Snapshot, workload_key: int, *, tenant: str = "", priorities: Mapping[str, int] = BUILT_IN_PRIORITIES
) -> Explanation:
    """Why, and what would help. Runs are named to their own `tenant` alone; `priorities` are all that have a name. Costs a few
    scheduling cycles, and some for each change that would help. Raises NotFound for a workload that is final or unknown.
    """
    row = int(np.searchsorted(snapshot.workloads.key, workload_key))
    if row >= snapshot.workloads.key.size or snapshot.workloads.key[row] != workload_key:
        msg = f"no workload waits or runs under this key: {workload_key}"
        raise NotFound(msg)
    phase = Phase(int(snapshot.workloads.phase[row]))
    held = _held_back(snapshot, row, phase)
    if held:
        return Explanation(workload_key=workload_key, phase=phase, reason=held, position=0, alternatives=())
    reserved = nomination.reserved(snapshot)
    shape = shape_of(reserved, row)
    who = _Asker(tenant=tenant, priorities=priorities)
    answer = _answer(reserved, shape, row=row, most=int(reserved.workloads.nodes_max[row]), who=who)
    waits = not answer.node_rows
    return Explanation(
        workload_key=workload_key,
        phase=phase,
        reason=answer.reason,
        position=answer.position,
        alternatives=answer.alternatives,
        turn=answer.turn,
        preemption=outlook(snapshot, wish_of(snapshot, row), shape) if waits else "",
        expected=_expected(reserved, row, answer),
        placement=snapshot.queues.placements[int(snapshot.workloads.queue[row])],
        holding=answer.holding,
    )


def preview(
    snapshot: Snapshot,
    *,
    spec: WorkloadSpec,
    priority: int,
    queue: str = DEFAULT_QUEUE,
    submitter: str = NOBODY,
    volumes: VolumeNeed | None = None,
    seconds_on: Mapping[str, int] = NOBODY_KNOWS,
    tenant: str = "",
    priorities: Mapping[str, int] = BUILT_IN_PRIORITIES,
) -> Preview:
    """What submitting this now would do, with its price. `submitter`: as `workload.submitter_of`; `seconds_on` as of `offers_of`;
    `tenant`, `priorities` and costs as of `explain`; changes nothing.
    """
    reserved = nomination.reserved(snapshot)
    at = snapshot.queues.names.index(queue)
    world, row = submitted(
        reserved,
        spec=spec,
        priority=priority,
        queue=at,
        submitter=submitter,
        volumes=volumes,
        seconds_on=seconds_on,
    )
    shape, who = shape_of(world, row), _Asker(tenant=tenant, priorities=priorities)
    answer = _answer(world, shape, row=row, most=spec.nodes_max, who=who)
    wish = replace(wish_of(world, row), key=_NOBODY)
    parts = answer.parts or _as_asked(spec)
    prices = [(count, billing.price_per_hour(held, snapshot.now, snapshot.prices)) for count, held in parts]
    hourly = replace(prices[0][1], micros=sum(count * price.micros for count, price in prices))
    return Preview(
        starts_now=bool(answer.node_rows),
        starts_never=answer.reason.code in {Code.NEVER_FITS, Code.NO_SUCH_NODES} and snapshot.nodes.key.size > 0,
        nodes=tuple(snapshot.nodes.names[row] for row in answer.node_rows),
        resources=parts[0][1],
        sets=tuple(held for _, held in parts) if spec.sets else (),
        price_per_hour=hourly,
        cost_max=_cost_max(hourly, spec.max_duration_seconds),
        reason=answer.reason,
        position=answer.position,
        alternatives=answer.alternatives,
        turn=answer.turn,
        preemption="" if answer.node_rows else outlook(snapshot, wish, shape),
        expected=_expected(world, row, answer),
        holding=answer.holding,
    )


_NOBODY = 1 << 62
"""The key of no workload: that of one that is submitted after all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    reason: Reason
    position: int
    node_rows: tuple[int, ...] = ()
    turn: str = ""
    parts: tuple[tuple[int, Resources], ...] = ()
    """So many ranks, and what each holds."""
    alternatives: tuple[Alternative, ...] = ()
    holding: Holding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _InOrder:
    """Where a workload stands in the order of turns."""

    others: Ints
    """Rows of all others, in their order."""
    ahead: int
    """So many of them go before it."""
    words: str
    """How its queue orders what is as urgent."""

    @classmethod
    def of(cls, world: Snapshot, row: int) -> _InOrder:
        order = turn_order(world)
        ahead = int(np.argmax(order == row))
        return cls(others=np.delete(order, ahead), ahead=ahead, words=turn_words(world, order[:ahead], row))


def _as_asked(spec: WorkloadSpec) -> tuple[tuple[int, Resources], ...]:
    """As `_Answer.parts`, of one that has no place."""
    return tuple((one.nodes, one.resources) for one in spec.sets) or ((spec.nodes, spec.choices[0]),)


def _held_back(snapshot: Snapshot, row: int, phase: Phase) -> Reason | None:
    """Why it is not in the order at all, if it is not."""
    table = snapshot.workloads
    if table.stop_requested[row]:
        return Reason(code=Code.STOPPING)
    if not admission.waiting(snapshot)[row]:
        codes = {Phase.RUNNING: Code.POD_RUNNING, Phase.UNKNOWN: Code.POD_LOST}
        return Reason(code=codes.get(phase, Code.POD_STARTING), numbers=_ranks(snapshot, row))
    if table.held[row]:
        return Reason(code=Code.HELD)
    if not admission.due(snapshot)[row]:
        wait_us = int(table.not_before[row]) - snapshot.now
        numbers = {"attempt": int(table.attempt[row]), "seconds": -(-wait_us // MICROSECONDS_PER_SECOND)}
        return Reason(code=Code.BACKING_OFF, numbers=numbers)
    if (kept := snapshot.nominations.get(int(table.key[row]))) is not None:
        return _keeps(snapshot, int(table.key[row]), kept)
    if row not in admission.order(snapshot):
        return Reason(code=Code.POD_LOST, numbers={"detail": "a pod of an earlier attempt is not proven dead"})
    return None


def _ranks(snapshot: Snapshot, row: int) -> dict[str, int | float | str]:
    """Of an elastic one, how many of how many its attempt has."""
    table, held = snapshot.workloads, snapshot.allocations
    least, most = int(table.nodes_min[row]), int(table.nodes_max[row])
    if least == most:
        return {}
    mine = (held.workload_key == table.key[row]) & (held.attempt == table.attempt[row]) & ~held.surplus
    return {"detail": f"{np.count_nonzero(mine)} nodes of {least} to {most}"}


def _keeps(snapshot: Snapshot, key: int, kept: Nomination) -> Reason:
    """It waits for those who were displaced for it, whose places are kept for it."""
    held = snapshot.allocations
    pods = (held.yields_to == key) & held.stop & (held.seen != Seen.ENDED)
    runs = int(np.unique(held.workload_key[pods]).size)
    nodes = node_names(snapshot, nomination.node_rows(snapshot, kept))
    numbers: dict[str, int | float | str] = {"pods": int(pods.sum()), "runs": runs, "nodes": nodes}
    return Reason(code=Code.PREEMPTS, numbers=numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asker:
    """Who asks, and which priorities they know by name."""

    tenant: str
    priorities: Mapping[str, int]


def _answer(snapshot: Snapshot, shape: Shape, *, row: int, most: int, who: _Asker) -> _Answer:
    """What a cycle does with the workload in this row. `most`: so many ranks it may ever have."""
    policy, stands = POLICIES[DEFAULT_POLICY], _InOrder.of(snapshot, row)
    ahead, queue = stands.ahead, int(snapshot.workloads.queue[row])
    first = Cycle(snapshot, policy)
    if found := place_of(first, row):
        return _starts(snapshot, *found, shape=shape, most=most, ahead=ahead)
    later = start_reserved(first, row, shape) if row in first.reserved else None
    cycle = Cycle(snapshot, policy, order=stands.others)
    for _ in cycle.placements(ahead=ahead):
        pass  # Only what it leaves is of interest.
    alone = Cycle(snapshot, policy)
    reason = later or _held_up(first, row, who.tenant)
    reason = reason or would_delay(cycle, shape, queue) or kept_for_gpus(cycle, shape, queue)
    reason = reason or _waits(alone, shape, queue=queue, ahead=ahead)
    if row in first.unreserved and reason.code is Code.WAITS_FOR_CAPACITY:
        reason = replace(reason, numbers={**reason.numbers, "detail": _NO_START})
    return _Answer(
        reason=reason,
        position=ahead + 1,
        turn=stands.words,
        alternatives=(
            *alternatives(snapshot, shape, cycle, row=row, queue=queue),
            *with_another_turn(snapshot, row, shape, cycle=cycle, alone=alone, classes=who.priorities),
        ),
        holding=holding(
            snapshot,
            shape,
            queue=queue,
            reason=reason,
            alone=alone,
            cycle=first if later else cycle,
            row=row,
            tenant=who.tenant,
        ),
    )


_NO_START = "no start can be reserved for it: of what holds its places not enough is known to end within a week"


_TIME_DOES_NOT_HELP = frozenset(
    {Code.NEVER_FITS, Code.NO_QUOTA, Code.NO_NODES, Code.NO_NODE_ADMITS, Code.NO_SUCH_NODES}
)


def _expected(snapshot: Snapshot, row: int, answer: _Answer) -> ExpectedStart | None:
    """When the workload in this row starts."""
    if answer.node_rows:
        return ExpectedStart(asked_at=snapshot.now, p50=snapshot.now, p90=snapshot.now)
    if answer.reason.code in _TIME_DOES_NOT_HELP:
        return None
    return expected_start(snapshot, row, POLICIES[DEFAULT_POLICY])


def _starts(
    snapshot: Snapshot, node_rows: tuple[int, ...], parts: Parts, *, shape: Shape, most: int, ahead: int
) -> _Answer:
    reason = placed(snapshot, node_rows, least=shape.least, most=most, why=shape.chosen_words(parts))
    names = ", ".join(dict.fromkeys(snapshot.nodes.names[row] for row in node_rows))
    by_part = nodes_by_part(np.array(node_rows, dtype=np.int64), parts)
    return _Answer(
        reason=replace(reason, numbers={**reason.numbers, "nodes": names}),
        position=ahead + 1,
        node_rows=node_rows,
        parts=tuple((part.ranks, slot_resources(snapshot, int(rows[0]), part.request)) for part, rows in by_part),
    )


def _held_up(cycle: Cycle, row: int, tenant: str) -> Reason | None:
    """Which run is the head of its strict queue, by name if it is of the `tenant`; None where nobody holds it up so."""
    snapshot = cycle.snapshot
    head = held_up_by(snapshot, cycle.order, cycle.started, row)
    if head is None:
        return None
    owner, _, name = snapshot.owners.get(int(snapshot.workloads.key[head]), ("", "", ""))
    return in_strict_queue(snapshot, row, name) if tenant and owner == tenant else in_strict_queue(snapshot, row)


def _waits(alone: Cycle, shape: Shape, *, queue: int, ahead: int) -> Reason:
    if alone.place(shape, queue):
        return Reason(code=Code.WAITS_BEHIND, numbers={"ahead": ahead, "needs": shape.words})
    reason = refusal(alone.snapshot, shape, alone.free)
    if reason.code is not Code.NEVER_FITS and _is_short_of_quota(alone, shape, queue):
        reason = quota_refusal(alone, shape, queue)
    return replace(reason, numbers={**reason.numbers, "ahead": ahead})


def _is_short_of_quota(cycle: Cycle, shape: Shape, queue: int) -> bool:
    """Whether the queue may not have it, be there room or not: a cycle looks at that first."""
    choices = (one for way in shape.ways for one in cycle.allowance.flavors_of(queue, way))
    may = any(cycle.allowance.may_use_parts(queue, one) for one in choices)
    return not may or cycle.place(shape, ANY_QUEUE) is not None


def _cost_max(hourly: Money, seconds: int) -> Money | None:
    return replace(hourly, micros=-(-hourly.micros * seconds // 3_600)) if seconds else None
