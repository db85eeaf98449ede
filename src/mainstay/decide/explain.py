"""Why a workload waits and what would let it start; what a submission would do. By the scheduler's own cycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mainstay.decide import admission, billing, nomination
from mainstay.decide.alternatives import CHOICES_TRIED, Alternative, alternatives, with_another_turn
from mainstay.decide.cycle import Cycle
from mainstay.decide.expected import ExpectedStart, expected_start, submitted
from mainstay.decide.holding import Holding, holding
from mainstay.decide.offers import NOBODY_KNOWS
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES
from mainstay.decide.placement.sets import Parts, nodes_by_part
from mainstay.decide.places import placed
from mainstay.decide.preemption.outlook import outlook
from mainstay.decide.preemption.rules import wish_of
from mainstay.decide.schedule import slot_resources
from mainstay.decide.shapes import Shape, shape_of
from mainstay.decide.submitters import turn_words
from mainstay.decide.why import NO_HEAD, Look, held_back
from mainstay.domain.errors import NotFound
from mainstay.domain.quantity import Money, Resources
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
    holdings: tuple[Holding, ...] = ()
    """Who holds what it waits for; of several choices, of each for itself. Empty where nobody does."""
    head: int = NO_HEAD
    """Key of the head of its strict queue, which holds it up, whoever's that is; NO_HEAD: nobody does so."""

    @property
    def holding(self) -> Holding | None:
        """That of its first choice of which there is one."""
        return next(iter(self.holdings), None)


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
    holdings: tuple[Holding, ...] = ()
    """All as of an explanation."""

    @property
    def holding(self) -> Holding | None:
        """That of its first choice of which there is one."""
        return next(iter(self.holdings), None)


def explain(
    snapshot: Snapshot,
    workload_key: int,
    *,
    tenant: str = "",
    project: str = "",
    priorities: Mapping[str, int] = BUILT_IN_PRIORITIES,
) -> Explanation:
    """Why, and what would help. Runs are named to their own `tenant` alone; `priorities` are all that have a name. Costs a few
    scheduling cycles, and some for each change that would help. Raises NotFound for a workload that is final or unknown.
    """
    row = int(np.searchsorted(snapshot.workloads.key, workload_key))
    if row >= snapshot.workloads.key.size or snapshot.workloads.key[row] != workload_key:
        msg = f"no workload waits or runs under this key: {workload_key}"
        raise NotFound(msg)
    phase = Phase(int(snapshot.workloads.phase[row]))
    held = held_back(snapshot, row, may_start=admission.may_start(snapshot))
    if held:
        return Explanation(workload_key=workload_key, phase=phase, reason=held, position=0, alternatives=())
    reserved = nomination.reserved(snapshot)
    shape = shape_of(reserved, row)
    who = _Asker(tenant=tenant, project=project, priorities=priorities)
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
        holdings=answer.holdings,
        head=answer.head,
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
    project: str = "",
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
    shape, who = shape_of(world, row), _Asker(tenant=tenant, project=project, priorities=priorities)
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
        holdings=answer.holdings,
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
    holdings: tuple[Holding, ...] = ()
    head: int = NO_HEAD


def _as_asked(spec: WorkloadSpec) -> tuple[tuple[int, Resources], ...]:
    """As `_Answer.parts`, of one that has no place."""
    return tuple((one.nodes, one.resources) for one in spec.sets) or ((spec.nodes, spec.choices[0]),)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asker:
    """Who asks, and which priorities they know by name."""

    tenant: str
    project: str
    priorities: Mapping[str, int]


def _answer(snapshot: Snapshot, shape: Shape, *, row: int, most: int, who: _Asker) -> _Answer:
    """What a cycle does with the workload in this row. `most`: so many ranks it may ever have."""
    look, queue = Look(snapshot), int(snapshot.workloads.queue[row])
    ahead = look.ahead(row)
    others, turn = np.delete(look.order, ahead), turn_words(snapshot, look.order[:ahead], row)
    if found := look.place(row):
        return _starts(snapshot, *found, shape=shape, most=most, ahead=ahead)
    reason = look.reason(row, shape)
    cycle = Cycle(snapshot, look.policy, order=others)
    for _ in cycle.placements(ahead=ahead):
        pass  # Only what it leaves is of interest.
    return _Answer(
        reason=reason,
        position=ahead + 1,
        turn=turn,
        alternatives=(
            *alternatives(snapshot, shape, cycle, row=row, queue=queue),
            *with_another_turn(
                snapshot,
                row,
                shape,
                cycle=cycle,
                alone=look.alone,
                classes=who.priorities,
                owner=(who.tenant, who.project),
            ),
        ),
        holdings=_holdings(look, shape, row=row, reason=reason, tenant=who.tenant),
        head=look.head(row),
    )


def _holdings(look: Look, shape: Shape, *, row: int, reason: Reason, tenant: str) -> tuple[Holding, ...]:
    """As of an explanation."""
    queue = int(look.world.workloads.queue[row])

    def held(one: Shape, why: Reason) -> Holding | None:
        return holding(
            look.world, one, queue=queue, reason=why, alone=look.alone, cycle=look.whole, row=row, tenant=tenant
        )

    if reason.code not in _SHORT or len(shape.choices) == 1 or shape.sets:
        found = held(shape, reason)
        return (found,) if found else ()
    each = [(one, held(one, look.short_of(one, queue))) for one in shape.apart[:CHOICES_TRIED]]
    return tuple(replace(found, choice=one.choices[0].gpu_words or "no GPU") for one, found in each if found)


_SHORT = frozenset({Code.WAITS_FOR_CAPACITY, Code.WAITS_FOR_QUOTA, Code.WAITS_FOR_VOLUME})
"""Each choice is short of something of its own."""


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


def _cost_max(hourly: Money, seconds: int) -> Money | None:
    return replace(hourly, micros=-(-hourly.micros * seconds // 3_600)) if seconds else None
