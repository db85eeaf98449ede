"""What no node and no quota could ever hold, however much ends: it is refused when it is submitted, with what could be instead.

It is asked of an idle world: every node whole, ready and empty, and nothing of any quota in use. What finds no place there
never will.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np

from mainstay.decide.alternatives import alternatives
from mainstay.decide.cycle import ANY_QUEUE, Cycle
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES
from mainstay.decide.placement.fit import whole_of
from mainstay.decide.schedule import quota_refusal, refusal
from mainstay.decide.shapes import Shape, make_shape, words_of
from mainstay.domain.quantity import ANY_GPU
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import AllocationTable, Snapshot, WorkloadTable
from mainstay.domain.workload import WorkloadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Impossible:
    """Why something can never run, and what could."""

    reason: Reason
    nearest: tuple[str, ...]
    """Each is one change of the request, in words; empty if no single one helps."""


def impossible(
    snapshot: Snapshot, *, spec: WorkloadSpec, queue: str, fleet: Collection[str] | None = None
) -> Impossible | None:
    """Why this could never run in this queue; None if it could, or if nobody knows.

    `fleet`: the clusters that there are; None: those that have nodes. Of one without nodes nobody knows yet what it will
    have. Where volumes are is not asked, nor how many pods of others a node has: both change. Costs a look at all nodes.
    """
    known = set(snapshot.nodes.clusters)
    there = known if fleet is None else set(fleet)
    asked = {spec.cluster} if spec.cluster else there
    if not asked or asked - known:
        return None
    if not snapshot.queues.cells and _fits_a_node(snapshot, spec, there):
        return None
    world = idle(snapshot, clusters=there)
    shape = make_shape(
        world,
        nodes=spec.nodes,
        least=spec.nodes_min,
        choices=spec.choices,
        equals=spec.equals,
        sets=spec.sets,
        cluster=spec.cluster,
        restriction=spec.restricted_to,
        topology=spec.topology,
    )
    row, cycle = world.queues.names.index(queue), Cycle(world, _POLICY)
    if cycle.place(shape, row):
        return None
    fits = cycle.place(shape, ANY_QUEUE) is not None
    if fits and _nobody_knows(cycle, shape, row):
        return None
    reason = _quota_reason(cycle, shape, row) if fits else refusal(world, shape, cycle.free)
    return Impossible(reason=reason, nearest=tuple(_nearest(world, shape, cycle, queue=row)))


def _fits_a_node(snapshot: Snapshot, spec: WorkloadSpec, clusters: Collection[str]) -> bool:
    """Whether some node surely holds it alone: soon found out, and so for most of what is submitted."""
    nodes = snapshot.nodes
    if spec.nodes_min > 1 or spec.need:
        return False
    for choice in spec.choices:
        if choice.gpu_model or choice.others or not choice.is_plain:
            continue
        holds = nodes.cpu_milli >= choice.cpu_milli
        holds &= (nodes.memory_bytes >= choice.memory_bytes) & (nodes.gpus >= choice.gpus)
        if any(nodes.clusters[row] in clusters for row in np.flatnonzero(holds)[:1].tolist()):
            return spec.cluster == ""
    return False


_POLICY = POLICIES[DEFAULT_POLICY]


def idle(snapshot: Snapshot, *, clusters: Collection[str]) -> Snapshot:
    """The same world with nobody in it: the nodes of these clusters whole, ready, untainted and empty, nothing waits and nothing
    runs. A taint keeps nobody out of it: many are put on a node for a while.
    """
    nodes, whole = snapshot.nodes, whole_of(snapshot)
    inside = np.fromiter((name in clusters for name in nodes.clusters), dtype=np.bool_, count=len(nodes.clusters))
    nothing = np.zeros_like(nodes.gpus)
    return replace(
        snapshot,
        nodes=replace(
            nodes,
            ready=np.ones_like(nodes.ready),
            admits={name: mask for name, mask in nodes.admits.items() if isinstance(name, str)},
            meets={name: mask for name, mask in nodes.meets.items() if isinstance(name, str)},
            traits=nodes.traits.untainted() if nodes.traits else None,
            cpu_milli=whole.cpu_milli * inside,
            memory_bytes=whole.memory_bytes * inside,
            gpus=whole.gpus * inside,
            used_cpu_milli=nothing,
            used_memory_bytes=nothing,
            used_gpus=nothing,
            whole_cpu_milli=nothing,
            whole_memory_bytes=nothing,
            whole_gpus=nothing,
            shapes={shape: whole.nodes.free[column] * inside for shape, column in whole.shapes.items()},
            used_shapes=dict.fromkeys(whole.shapes, nothing),
            whole_shapes={},
            others={},
            used_others={},
        ),
        workloads=no_rows(snapshot.workloads),
        allocations=no_rows(snapshot.allocations),
        nominations={},
        closed_clusters={},
        closed_nodes={},
    )


Table = TypeVar("Table", WorkloadTable, AllocationTable)


def no_rows(table: Table) -> Table:
    """The same table without a row."""
    columns = ((one.name, getattr(table, one.name)) for one in fields(table))
    nothing: dict[str, object] = {
        name: column[:0] if isinstance(column, np.ndarray) else {} for name, column in columns
    }
    return replace(table, **nothing)  # type: ignore[arg-type]  # each as it was: an array or a mapping


def _quota_reason(cycle: Cycle, shape: Shape, queue: int) -> Reason:
    """In an idle world nothing is used: what is left is all that the queue may ever have, what is free all that nodes have."""
    reason = quota_refusal(cycle, shape, queue)
    if reason.code is Code.WAITS_FOR_CAPACITY:
        return replace(reason, code=Code.NEVER_FITS, numbers={**reason.numbers, "largest": reason.numbers["free"]})
    return replace(reason, code=Code.EXCEEDS_QUOTA) if reason.code is Code.WAITS_FOR_QUOTA else reason


def _nobody_knows(cycle: Cycle, shape: Shape, queue: int) -> bool:
    """Whether it may use nodes of a flavor of which there is none: nobody knows yet what they will have."""
    ways = (one for way in shape.ways for one in cycle.allowance.flavors_of(queue, way))
    usable = (one for one in ways if cycle.allowance.may_use_parts(queue, one))
    anything = (replace(part.request, restriction="", reach=None) for way in usable for part in way)
    return any(not cycle.free.usable(request).any() for request in anything)


def _nearest(world: Snapshot, shape: Shape, cycle: Cycle, *, queue: int) -> Iterator[str]:
    """The same amount over more nodes, else whatever single change helps, as little of it as does; else both of them with GPUs
    of any model, where one is asked for and all pods are alike.
    """
    if found := _over_more_nodes(world, shape, cycle, queue=queue):
        yield found
        return
    changes = [
        f"{one.change} {one.after} instead of {one.before}" for one in alternatives(world, shape, cycle, queue=queue)
    ]
    yield from changes
    first = shape.choices[0]
    if changes or shape.sets or not (first.gpus and first.gpu_model):
        return

    def with_model(model: str) -> Shape:
        choice = replace(first, gpu_model=model)
        return make_shape(
            world,
            nodes=shape.nodes,
            least=shape.least,
            choices=(choice,),
            cluster=shape.cluster,
            restriction=shape.restriction,
            topology=shape.topology,
        )

    over_more = (_over_more_nodes(world, with_model(model), cycle, queue=queue) for model in world.gpu_models if model)
    if found := next(filter(None, over_more), ""):
        yield found
        return
    for one in alternatives(world, with_model(ANY_GPU), cycle, queue=queue):
        yield f"{one.change} {one.after} instead of {one.before}, of any GPU model"


def _over_more_nodes(world: Snapshot, shape: Shape, cycle: Cycle, *, queue: int) -> str:
    """As many GPUs in all, on as few nodes as can be; empty if that does not help or none are asked for."""
    first = shape.choices[0]
    for parts in range(2, first.gpus + 1):
        if shape.sets or first.gpus % parts:
            continue
        part = replace(
            first,
            cpu_milli=-(-first.cpu_milli // parts),
            memory_bytes=-(-first.memory_bytes // parts),
            gpus=first.gpus // parts,
        )
        nodes = shape.least * parts
        over = make_shape(
            world,
            nodes=nodes,
            choices=(part,),
            cluster=shape.cluster,
            restriction=shape.restriction,
            topology=shape.topology,
        )
        if cycle.place(over, queue):
            return f"{nodes} nodes with {words_of(part)} each"
    return ""
