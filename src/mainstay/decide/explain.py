"""Why a workload waits and what would let it start; what a submission would do. By the scheduler's own cycle."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mainstay.decide import admission, affinity, billing, nomination
from mainstay.decide.cycle import ANY_QUEUE, Cycle
from mainstay.decide.devices import memory_of_gpus, parts_there
from mainstay.decide.expected import ExpectedStart, expected_start, submitted
from mainstay.decide.holding import Holding, holding
from mainstay.decide.offers import NOBODY_KNOWS
from mainstay.decide.other_turns import higher_priority, other_queue
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES
from mainstay.decide.placement.sets import Parts, nodes_by_part
from mainstay.decide.places import node_names, placed
from mainstay.decide.preemption.outlook import outlook
from mainstay.decide.preemption.rules import wish_of
from mainstay.decide.schedule import kept_for_gpus, quota_refusal, refusal, slot_resources, start_reserved, would_delay
from mainstay.decide.shapes import Shape, longest, make_shape, shape_of
from mainstay.decide.submitters import turn_words
from mainstay.decide.turn_order import turn_order
from mainstay.domain.affinity import NodeNeed, Restriction, Traits
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Ints
from mainstay.domain.errors import NotFound
from mainstay.domain.preemption import Nomination
from mainstay.domain.quantity import BYTES_PER_GIB, MICROSECONDS_PER_SECOND, Money, Resources, figure, memory_words
from mainstay.domain.queue import BUILT_IN_PRIORITIES, DEFAULT_QUEUE
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import NOBODY, Snapshot
from mainstay.domain.topology import LEVELS, TopologyNeed
from mainstay.domain.volume import VolumeNeed
from mainstay.domain.workload import STOP_GRACE_SECONDS, Phase, PodSet, WorkloadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One change of the request, everything else the same, with which the workload could start at once."""

    change: str
    """What is relaxed: `max_duration` (with the grace of its stop it ends before a reserved start), `infra`, `node_labels`,
    `spot`, `tolerations`, `topology`, `spread`, `volumes`, `gpu_model`, `gpu_memory`, `gpus`, `nodes`, `cpus` or `memory`; of one
    of several pod sets with its name before it: `worker.gpus`; of a choice other than the first with its number: `choice2.gpus`.
    Or it has another turn: `queue`, `priority`.
    """
    before: str
    after: str


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
    shape = make_shape(
        reserved,
        nodes=spec.nodes,
        least=spec.nodes_min,
        choices=spec.choices,
        equals=spec.equals,
        seconds_on=seconds_on,
        sets=spec.sets,
        cluster=spec.cluster,
        restriction=spec.restricted_to,
        seconds=longest(spec.max_duration_seconds, spec.stop_grace_seconds),
        volumes=volumes,
        topology=spec.topology,
    )
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
    who, after = _Asker(tenant=tenant, priorities=priorities), _InOrder.of(world, row)
    answer = _answer(reserved, shape, priority=priority, queue=at, most=spec.nodes_max, who=who, after=after)
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

    world: Snapshot
    """In which it has a row, be it submitted or not."""
    row: int
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
        return cls(
            world=world,
            row=row,
            others=np.delete(order, ahead),
            ahead=ahead,
            words=turn_words(world, order[:ahead], row),
        )


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


def _answer(
    snapshot: Snapshot,
    shape: Shape,
    *,
    row: int = -1,
    priority: int = 0,
    queue: int = 0,
    most: int,
    who: _Asker,
    after: _InOrder | None = None,
) -> _Answer:
    """What a cycle does with the workload in this row; without one, with the shape where it would stand in the order.

    `most`: so many ranks it may ever have.
    """
    policy, later, unknown = POLICIES[DEFAULT_POLICY], None, False
    stands = after or _InOrder.of(snapshot, row)
    ahead = stands.ahead
    if row >= 0:
        cycle = first = Cycle(snapshot, policy)
        queue, priority = int(snapshot.workloads.queue[row]), int(snapshot.workloads.priority[row])
        if found := _placed(cycle, row):
            return _starts(snapshot, *found, shape=shape, most=most, ahead=ahead)
        later = start_reserved(cycle, row, shape) if row in cycle.reserved else None
        unknown = row in cycle.unreserved
    cycle = Cycle(snapshot, policy, order=stands.others)
    for _ in cycle.placements(ahead=ahead):
        pass  # Only what it leaves is of interest.
    if row < 0 and (found := cycle.place(shape, queue)):
        return _starts(snapshot, *found, shape=shape, most=most, ahead=ahead)
    alone = Cycle(snapshot, policy)
    reason = later or would_delay(cycle, shape, queue) or kept_for_gpus(cycle, shape, queue)
    reason = reason or _waits(alone, shape, queue=queue, ahead=ahead)
    if unknown and reason.code is Code.WAITS_FOR_CAPACITY:
        reason = replace(reason, numbers={**reason.numbers, "detail": _NO_START})
    return _Answer(
        reason=reason,
        position=ahead + 1,
        turn=stands.words,
        alternatives=(
            *alternatives(snapshot, shape, cycle, row=row, queue=queue),
            *_other_turns(cycle, alone, shape, stands, queue=queue, priority=priority, classes=who.priorities),
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


def _other_turns(
    cycle: Cycle, alone: Cycle, shape: Shape, stands: _InOrder, *, queue: int, priority: int, classes: Mapping[str, int]
) -> Iterator[Alternative]:
    """Another queue, or a higher priority where it would have room if it went first. Each is tried by a cycle of its own."""
    world, row = stands.world, stands.row

    def starts(**other: int) -> bool:
        return _placed(Cycle(_changed(world, row, shape, **other), POLICIES[DEFAULT_POLICY]), row) is not None

    def starts_in(other: int) -> bool:
        return starts(queue=other)

    def starts_with(other: int) -> bool:
        return starts(priority=other)

    found = [*other_queue(cycle, shape, queue, starts_in)]
    if alone.place(shape, queue) is not None:
        found += higher_priority(priority, classes, starts_with)
    for one in found:
        yield Alternative(change=one.field, before=one.before, after=one.after)


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


def _placed(cycle: Cycle, row: int) -> tuple[tuple[int, ...], Parts] | None:
    """Where the cycle places the workload in this row, if it does."""
    for found in cycle.placements():
        here = np.flatnonzero(found.rows == row)
        if here.size:
            return tuple(found.nodes[int(here[0])].tolist()), found.parts
    return None


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


def alternatives(snapshot: Snapshot, shape: Shape, cycle: Cycle, *, queue: int, row: int = -1) -> Iterator[Alternative]:
    """The request relaxed in one respect at a time, each as little as starts now; of several pod sets or choices one at a time.

    `cycle` is as those leave it who go first. For the workload in `row` it is tried once more what a cycle makes of the change.
    """

    def relaxed(
        resources: Resources | None = None,
        nodes: int = 0,
        *,
        at: int = 0,
        cluster: str = shape.cluster,
        restriction: Restriction = shape.restriction,
        topology: TopologyNeed | None = shape.topology,
        seconds: int | None = None,
        volumes: VolumeNeed | None = shape.volumes,
    ) -> Shape:
        sets = _sets_with(shape, at, nodes=nodes, resources=resources)
        return make_shape(
            snapshot,
            nodes=sum(one.nodes for one in sets) or nodes or shape.nodes,
            least=0 if sets else nodes or shape.least,
            choices=(sets[0].resources,) if sets else shape.choices if resources is None else (resources,),
            sets=sets,
            cluster=cluster,
            restriction=restriction,
            seconds=shape.seconds if seconds is None else seconds,
            volumes=volumes,
            topology=topology,
        )

    def starts(one: Shape) -> tuple[int, ...]:
        found = cycle.place(one, queue)
        if found and row >= 0:
            found = _placed(Cycle(_changed(snapshot, row, one), POLICIES[DEFAULT_POLICY]), row)
        return found[0] if found else ()

    def most(upto: int, with_: Callable[[int], Shape]) -> int:
        """The most that starts, less than what was asked for; 0 if nothing does."""
        found = _largest(upto, lambda n: cycle.place(with_(n), queue) is not None)
        return found if found and starts(with_(found)) else 0

    spare = (cycle.delayed_by(shape) - snapshot.now) // MICROSECONDS_PER_SECOND
    grace = _grace(snapshot, row)
    if spare > grace and starts(relaxed(seconds=spare)):
        before = f"{shape.seconds - grace} s" if shape.seconds else "none"
        yield Alternative(change="max_duration", before=before, after=f"{spare - grace} s")
    if shape.cluster and not _is_of_guests(shape) and (rows := starts(relaxed(cluster=""))):
        yield Alternative(change="infra", before=shape.cluster, after=snapshot.nodes.clusters[rows[0]])
    yield from _other_nodes(snapshot, shape, lambda need: starts(relaxed(restriction=need or "")))
    yield from _less_near(shape.topology, lambda need: starts(relaxed(topology=need)))
    yield from _less_apart(
        shape,
        fits=lambda need: cycle.place(relaxed(topology=need), queue) is not None,
        starts=lambda need: bool(starts(relaxed(topology=need))),
    )
    yield from _fewer_volumes(shape, lambda need: bool(starts(relaxed(volumes=need))))
    begin = 0
    for at, kind in enumerate(shape.sets or (shape,)):
        yield from _less_of(snapshot, kind, begin, starts=starts, most=most, change_to=partial(relaxed, at=at))
        begin += kind.nodes
    for number, choice in enumerate(shape.choices[1:CHOICES_TRIED], 2):
        kind = replace(shape, name=f"choice{number}", choices=(choice,))
        yield from _less_of(snapshot, kind, 0, starts=starts, most=most, change_to=relaxed)


CHOICES_TRIED, VOLUMES_TRIED = 4, 8
"""What is less of more choices, or without more volumes, is not tried."""


def _fewer_volumes(shape: Shape, starts: Callable[[VolumeNeed | None], bool]) -> Iterator[Alternative]:
    """One of them left out, where they keep it from any node."""
    need = shape.volumes
    if need is None or shape.reach is None or not shape.reach.volume:
        return
    for name in need.names[:VOLUMES_TRIED]:
        left = tuple(one for one in need.names if one != name)
        if starts(replace(need, names=left) if left else None):
            yield Alternative(change="volumes", before=", ".join(need.names), after=", ".join(left) or "none")


def _less_of(
    snapshot: Snapshot,
    kind: Shape,
    begin: int,
    *,
    starts: Callable[[Shape], tuple[int, ...]],
    most: Callable[[int, Callable[[int], Shape]], int],
    change_to: Callable[[Resources, int], Shape],
) -> Iterator[Alternative]:
    """What one kind of pods, whose first rank is `begin`, may ask for less of. `starts`: the node of each rank with a change."""
    asked, of = kind.choices[0], f"{kind.name}." if kind.name else ""
    if asked.gpus and asked.gpu_model and (rows := starts(change_to(replace(asked, gpu_model=""), 0))):
        model = snapshot.gpu_models[int(snapshot.nodes.gpu_model[rows[begin]])] or "any"
        yield Alternative(change=f"{of}gpu_model", before=asked.gpu_model, after=model)
    yield from _smaller_gpus(snapshot, asked, of, lambda changed: bool(starts(change_to(changed, 0))))
    for change, upto, with_, before, after in _less(asked, kind.least, change_to):
        if found := most(upto, with_):
            yield Alternative(change=f"{of}{change}", before=before, after=after.format(found))


def _smaller_gpus(
    snapshot: Snapshot, asked: Resources, of: str, starts: Callable[[Resources], bool]
) -> Iterator[Alternative]:
    """The largest memory below what is asked for with which it starts, and the largest part of a GPU."""
    if asked.gpu_memory_bytes:
        there = {size // BYTES_PER_GIB for size in memory_of_gpus(snapshot).tolist()}
        less = (size for size in sorted(there, reverse=True) if 0 < size * BYTES_PER_GIB < asked.gpu_memory_bytes)
        found = next((one for one in less if starts(replace(asked, gpu_memory_bytes=one * BYTES_PER_GIB))), 0)
        if found:
            before = memory_words(asked.gpu_memory_bytes).replace(" ", "")
            yield Alternative(change=f"{of}gpu_memory", before=before, after=f"{found}GiB")
    if asked.gpu_part_permille:
        smaller = (part for part in parts_there(snapshot, asked.gpu_model) if part < asked.gpu_part_permille)
        part = next((one for one in smaller if starts(replace(asked, gpu_part_permille=one))), 0)
        if part:
            before = figure(asked.gpu_part_permille / 1_000)
            yield Alternative(change=f"{of}gpus", before=before, after=figure(part / 1_000))


def _less(
    asked: Resources, ranks: int, change_to: Callable[[Resources, int], Shape]
) -> Iterator[tuple[str, int, Callable[[int], Shape], str, str]]:
    """What may be less: its name, the most that is less, the shape with so much, and both in words."""
    cores, gib = (asked.cpu_milli - 1) // 1000, (asked.memory_bytes - 1) // BYTES_PER_GIB
    yield "gpus", asked.gpus - 1, lambda n: change_to(replace(asked, gpus=n), 0), str(asked.gpus), "{}"
    yield "nodes", ranks - 1, lambda n: change_to(asked, n), str(ranks), "{}"
    cpus = figure(asked.cpu_milli / 1_000)
    yield "cpus", cores, lambda n: change_to(replace(asked, cpu_milli=n * 1000), 0), cpus, "{}"
    yield "memory", gib, lambda n: change_to(replace(asked, memory_bytes=n << 30), 0), _memory_words(asked), "{}GiB"


def _sets_with(shape: Shape, at: int, *, nodes: int, resources: Resources | None) -> tuple[PodSet, ...]:
    """The pod sets, the one with this number with other resources, unless None, or so many nodes, unless 0."""
    sets = [PodSet(name=one.name, nodes=one.nodes, resources=one.choices[0]) for one in shape.sets]
    if sets:
        sets[at] = replace(sets[at], resources=resources or sets[at].resources, nodes=nodes or sets[at].nodes)
    return tuple(sets)


def _grace(snapshot: Snapshot, row: int) -> int:
    """Seconds for last words: of what is not submitted yet, those that a job has by default."""
    return int(snapshot.workloads.stop_grace_seconds[row]) if row >= 0 else STOP_GRACE_SECONDS


def _is_of_guests(shape: Shape) -> bool:
    """Whether which nodes will do is said by its cluster: what else would, nobody here knows."""
    return bool(shape.restriction) and isinstance(shape.restriction, str)


def _other_nodes(
    snapshot: Snapshot, shape: Shape, starts: Callable[[NodeNeed | None], tuple[int, ...]]
) -> Iterator[Alternative]:
    """As `affinity.changes`."""
    traits = snapshot.nodes.traits
    if traits is None or _is_of_guests(shape):
        return

    def node_for(changed: NodeNeed | None) -> Traits | None:
        rows = starts(changed)
        return traits.of(rows[0]) if rows else None

    asked = NodeNeed() if isinstance(shape.restriction, str) else shape.restriction
    for other in affinity.changes(traits.each, asked, node_for):
        yield Alternative(change=other.field, before=other.before, after=other.after)


def _less_near(need: TopologyNeed | None, starts: Callable[[TopologyNeed], tuple[int, ...]]) -> Iterator[Alternative]:
    """The narrowest of the wider levels that would do, else that the level is preferred only."""
    if need is None or not need.required:
        return
    for level in LEVELS[: LEVELS.index(need.level)][::-1]:
        if starts(replace(need, level=level)):
            yield Alternative(change="topology", before=need.level, after=level)
            return
    if starts(replace(need, required=False)):
        yield Alternative(change="topology", before="required", after="preferred")


def _less_apart(
    shape: Shape, *, fits: Callable[[TopologyNeed], bool], starts: Callable[[TopologyNeed], bool]
) -> Iterator[Alternative]:
    """The fewest more in one domain that would do; and the widest of the narrower levels that would."""
    need = shape.topology
    if need is None or need.spread is None or not need.spread.at_most:
        return
    spread = need.spread
    more = [replace(need, spread=replace(spread, at_most=most)) for most in range(spread.at_most + 1, shape.least + 1)]
    fewest = bisect.bisect_left(more, True, key=fits)
    narrower = [
        replace(need, spread=replace(spread, level=level)) for level in LEVELS[LEVELS.index(spread.level) + 1 :]
    ]
    for changes in (more[fewest : fewest + 1], narrower):
        found = next(filter(starts, changes), None)
        if found is not None and found.spread is not None:
            yield Alternative(change="spread", before=spread.words, after=found.spread.words)


def _memory_words(resources: Resources) -> str:
    return memory_words(resources.memory_bytes).replace(" ", "")


def _changed(
    snapshot: Snapshot, row: int, shape: Shape, *, queue: int | None = None, priority: int | None = None
) -> Snapshot:
    """The same world, in which the workload in this row asks for another shape, waits in another queue or is more urgent."""
    table, choice = snapshot.workloads, shape.choices[0]

    def other(column: Ints, value: int) -> Ints:
        changed = column.copy()
        changed[row] = value
        return changed

    key = int(table.key[row])
    sets = {one: sets for one, sets in table.sets.items() if one != key}
    if shape.sets:
        sets[key] = _sets_with(shape, 0, nodes=0, resources=None)
    choices = {one: choices for one, choices in table.choices.items() if one != key}
    if not shape.sets and (len(shape.choices) > 1 or not choice.is_plain):
        choices[key] = shape.choices
    workloads = replace(
        table,
        sets=sets,
        nodes=other(table.nodes, shape.nodes),
        nodes_min=other(table.nodes_min, shape.least),
        cpu_milli=other(table.cpu_milli, choice.cpu_milli),
        memory_bytes=other(table.memory_bytes, choice.memory_bytes),
        gpus=other(table.gpus, choice.gpus),
        gpu_model=other(table.gpu_model, snapshot.gpu_models.index(choice.gpu_model)),
        max_duration_seconds=other(
            table.max_duration_seconds, max(0, shape.seconds - int(table.stop_grace_seconds[row]))
        ),
        cluster=other(table.cluster, snapshot.cluster_names.index(shape.cluster)),
        topology=other(table.topology, len(snapshot.topologies)),
        restriction=other(table.restriction, len(snapshot.restrictions)),
        volumes=other(table.volumes, len(snapshot.volume_needs) if shape.volumes else 0),
        queue=table.queue if queue is None else other(table.queue, queue),
        priority=table.priority if priority is None else other(table.priority, priority),
        choices=choices,
        equals={one: equals for one, equals in table.equals.items() if one != key},
    )
    return replace(
        snapshot,
        workloads=workloads,
        volume_needs=(*snapshot.volume_needs, shape.volumes),
        topologies=(*snapshot.topologies, shape.topology),
        restrictions=(*snapshot.restrictions, shape.restriction),
    )


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest n in [1, most] that fits, by bisection (less always fits where more does); 0 if none."""
    low, high = 0, max(most, 0)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _cost_max(hourly: Money, seconds: int) -> Money | None:
    return replace(hourly, micros=-(-hourly.micros * seconds // 3_600)) if seconds else None
