"""What would let a workload start at once: its request relaxed in one respect at a time, or another turn. By the scheduler's own
cycle, and each tried by a cycle of its own before it is named.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mainstay.decide import affinity
from mainstay.decide.cycle import Cycle
from mainstay.decide.devices import memory_of_gpus, parts_there
from mainstay.decide.other_turns import higher_priority, other_queue
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES
from mainstay.decide.placement.sets import Parts
from mainstay.decide.shapes import Shape, make_shape
from mainstay.domain.affinity import NodeNeed, Restriction, Traits
from mainstay.domain.arrays import Ints
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, Resources, figure, memory_unit, memory_words, written
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.topology import LEVELS, TopologyNeed
from mainstay.domain.volume import VolumeNeed
from mainstay.domain.workload import STOP_GRACE_SECONDS, PodSet


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
            found = place_of(Cycle(_changed(snapshot, row, one), POLICIES[DEFAULT_POLICY]), row)
        return found[0] if found else ()

    def most(upto: int, with_: Callable[[int], Shape]) -> int:
        """The most that starts, less than what was asked for; 0 if nothing does."""
        found = _largest(upto, lambda n: cycle.place(with_(n), queue) is not None)
        return found if found and starts(with_(found)) else 0

    spare = (cycle.delayed_by(shape) - snapshot.now) // MICROSECONDS_PER_SECOND
    grace = _grace(snapshot, row)
    if spare > grace and starts(relaxed(seconds=spare)):
        before = written(shape.seconds - grace) if shape.seconds else "none"
        yield Alternative(change="max_duration", before=before, after=written(spare - grace))
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
        unit, bytes_per_unit = memory_unit(asked.gpu_memory_bytes)
        there = {size // bytes_per_unit for size in memory_of_gpus(snapshot).tolist()}
        less = (size for size in sorted(there, reverse=True) if 0 < size * bytes_per_unit < asked.gpu_memory_bytes)
        found = next((one for one in less if starts(replace(asked, gpu_memory_bytes=one * bytes_per_unit))), 0)
        if found:
            before = memory_words(asked.gpu_memory_bytes).replace(" ", "")
            yield Alternative(change=f"{of}gpu_memory", before=before, after=f"{found}{unit}")
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
    unit, each = memory_unit(asked.memory_bytes)
    cores, most = (asked.cpu_milli - 1) // 1000, (asked.memory_bytes - 1) // each
    yield "gpus", asked.gpus - 1, lambda n: change_to(replace(asked, gpus=n), 0), str(asked.gpus), "{}"
    yield "nodes", ranks - 1, lambda n: change_to(asked, n), str(ranks), "{}"
    cpus = figure(asked.cpu_milli / 1_000)
    yield "cpus", cores, lambda n: change_to(replace(asked, cpu_milli=n * 1000), 0), cpus, "{}"
    memory = memory_words(asked.memory_bytes).replace(" ", "")
    yield "memory", most, lambda n: change_to(replace(asked, memory_bytes=n * each), 0), memory, f"{{}}{unit}"


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


def with_another_turn(
    snapshot: Snapshot,
    row: int,
    shape: Shape,
    *,
    cycle: Cycle,
    alone: Cycle,
    classes: Mapping[str, int],
    owner: tuple[str, str],
) -> Iterator[Alternative]:
    """Another queue that takes work of this owner (tenant and project), or a higher priority where it would have room if it went
    first. Each is tried by a cycle of its own.
    """
    queue, priority = int(snapshot.workloads.queue[row]), int(snapshot.workloads.priority[row])

    def starts(**other: int) -> bool:
        return place_of(Cycle(_changed(snapshot, row, shape, **other), POLICIES[DEFAULT_POLICY]), row) is not None

    def starts_in(other: int) -> bool:
        return starts(queue=other)

    def starts_with(other: int) -> bool:
        return starts(priority=other)

    tenant, project = owner
    found = [*other_queue(cycle, shape, queue, starts_in, tenant=tenant, project=project)]
    if alone.place(shape, queue) is not None:
        found += higher_priority(priority, classes, starts_with)
    for one in found:
        yield Alternative(change=one.field, before=one.before, after=one.after)


def place_of(cycle: Cycle, row: int) -> tuple[tuple[int, ...], Parts] | None:
    """Where the cycle places the workload in this row, if it does."""
    for found in cycle.placements():
        here = np.flatnonzero(found.rows == row)
        if here.size:
            return tuple(found.nodes[int(here[0])].tolist()), found.parts
    return None
