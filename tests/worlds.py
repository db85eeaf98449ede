"""Worlds for tests: a Snapshot from few keyword arguments. What a test does not name does not matter to it.

    world(nodes=[node(gpus=8, gpu_model="H100")], workloads=[workload(1, gpus=2)])

Keys of nodes count from 1 in the order given. `used` is the sum of the allocations that have not ended, unless given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mainstay.domain.affinity import NodeTraits, Requirement, Restriction, Taint, traits
from mainstay.domain.allocation import ENDS, End, Owner, Seen
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.billing import Price
from mainstay.domain.flavor import NodeFlavor, flavor_numbers
from mainstay.domain.history import NO_HISTORY, HistoryPolicy, HistoryTable
from mainstay.domain.image import NodeImages, digest_of
from mainstay.domain.preemption import Nomination
from mainstay.domain.quantity import BYTES_PER_GIB, MICROSECONDS_PER_HOUR, Resources, is_shape
from mainstay.domain.queue import DEFAULT_QUEUE, QueueSpec, QueueTree
from mainstay.domain.reason import Code, Reason
from mainstay.domain.registry import Endpoint
from mainstay.domain.snapshot import ONE_QUEUE, AllocationTable, NodeTable, Snapshot, WorkloadTable
from mainstay.domain.topology import Spread, TopologyNeed, levels_of
from mainstay.domain.volume import VolumeNeed, VolumeRecord, VolumeRef, VolumeState
from mainstay.domain.workload import Phase, PodSet

SECOND = 1_000_000
OWNER = Owner(tenant="acme", project="vision")
NOON = 472_044 * MICROSECONDS_PER_HOUR
"""A round instant in UTC microseconds: the default `now`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ANode:
    """A node; `key` 0: by its place in the list."""

    key: int = 0
    name: str = ""
    cluster: str = "local"
    cpus: float = 16
    gib: float = 64
    gpus: int = 0
    gpu_model: str = ""
    ready: bool = True
    used_cpus: float = 0
    used_gib: float = 0
    used_gpus: int = 0
    admits: tuple[str, ...] = ()
    reaches: tuple[str, ...] = ()
    closed_at: int = 0
    closed_until: int = 0
    drains: bool = False
    wait_seconds: int = 0
    why: str = ""
    """Why it takes nothing, for one that is closed or not ready."""
    shapes: Mapping[str, int] = field(default_factory=dict)
    used_shapes: Mapping[str, int] = field(default_factory=dict)
    whole_cpus: float = 0
    whole_gpus: int = 0
    """What it could give if nobody else used it and all of it worked, where that is more."""
    whole_shapes: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)
    used_others: Mapping[str, int] = field(default_factory=dict)
    topology: Mapping[str, str] = field(default_factory=dict)
    """Level -> its domain."""
    labels: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)
    """Name -> MiB."""
    taints: tuple[str, ...] = ()
    """As `dedicated=ml:NoSchedule`. With any it is ready for nobody but who tolerates them."""
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AWorkload:
    """A workload that is not final."""

    key: int
    version: int = 1
    kind: int = 0
    phase: Phase = Phase.PENDING
    priority: int = 0
    queue: str = DEFAULT_QUEUE
    submitter: str = ""
    attempt: int = 1
    submitted_at: int = NOON
    not_before: int = 0
    started_at: int = 0
    stop_requested: bool = False
    held: bool = False
    preemptible: bool = True
    nodes: int = 1
    nodes_min: int = 0
    """0: as many as `nodes`."""
    nodes_max: int = 0
    cpus: float = 1
    gib: float = 1
    gpus: int = 0
    gpu_model: str = ""
    others: Mapping[str, int] = field(default_factory=dict)
    choices: tuple[Resources, ...] = ()
    equals: int = 1
    typical_on: Mapping[str, int] = field(default_factory=dict)
    sets: tuple[PodSet, ...] = ()
    """Then `nodes` is how many ranks all have, and the resources are those of the first."""
    max_duration_seconds: int = 0
    usual_seconds: int = 0
    typical_seconds: int = 0
    spread_permille: int = 0
    stop_grace_seconds: int = 30
    checkpoint_seconds: int = 0
    infrastructure_failures: int = 0
    user_failures: int = 0
    infrastructure_max: int = 3
    user_max: int = 0
    attempts_max: int = 0
    backoff_seconds: int = 10
    backoff_seconds_max: int = 360
    retry_always: bool = False
    cluster: str = ""
    restriction: Restriction = ""
    volumes: tuple[str, ...] = ()
    """Names, of the project OWNER."""
    topology: str = ""
    """As `near` has it."""
    image: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnAllocation:
    """An allocation that is not closed; `key` 0: by its place in the list."""

    key: int = 0
    version: int = 1
    workload_key: int
    attempt: int = 1
    rank: int = 0
    node_key: int = 1
    cpus: float = 1
    gib: float = 1
    gpus: int = 0
    gpu_model: str = ""
    stop: bool = False
    stop_asked_at: int = NOON
    moves: bool = False
    preempted: int = 0
    yields_to: int = 0
    """0: if it is preempted, for whom its workload was displaced last."""
    surplus: bool = False
    seen: Seen = Seen.RUNNING
    ready: bool = False
    created_at: int = NOON
    started_at: int = 0
    ended_at: int = 0
    metered_until: int = 0
    end: End | None = None
    exit_code: int | None = None
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AHistory:
    """What has ended left of what a queue used lately."""

    queue: str
    cpus: float = 0
    gib: float = 0
    gpus: float = 0
    at: int = NOON


def node(name: str = "", **values: object) -> ANode:
    """A node of 16 CPUs and 64 GiB, ready and empty, unless said otherwise."""
    return ANode(name=name, **values)  # type: ignore[arg-type]


def workload(key: int, **values: object) -> AWorkload:
    """A job of one pod with 1 CPU and 1 GiB, submitted at noon, unless said otherwise."""
    return AWorkload(key=key, **values)  # type: ignore[arg-type]


def gang_of(key: int, *sets: PodSet, **values: object) -> AWorkload:
    """A gang of several pod sets."""
    return workload(key, sets=sets, nodes=sum(one.nodes for one in sets), **values)


def pods(name: str, count: int, *, cpus: float = 1, gib: float = 1, gpus: int = 0, gpu_model: str = "") -> PodSet:
    """A pod set of such pods."""
    held = Resources(cpu_milli=_milli(cpus), memory_bytes=_bytes(gib), gpus=gpus, gpu_model=gpu_model)
    return PodSet(name=name, nodes=count, resources=held)


def allocation(workload_key: int, **values: object) -> AnAllocation:
    """An allocation of rank 0 on node 1, running, unless said otherwise."""
    return AnAllocation(workload_key=workload_key, **values)  # type: ignore[arg-type]


def ended(workload_key: int, end: End = End.EXITED, exit_code: int | None = 0, **values: object) -> AnAllocation:
    """An allocation that has ended: with exit code 0, unless said otherwise."""
    code = exit_code if end is End.EXITED else None
    given = {"started_at": NOON - 60 * SECOND, "ended_at": NOON - SECOND, **values}
    return allocation(workload_key, seen=Seen.ENDED, end=end, exit_code=code, **given)


def world(
    *,
    nodes: Sequence[ANode] = (),
    workloads: Sequence[AWorkload] = (),
    allocations: Sequence[AnAllocation] = (),
    endpoints: tuple[Endpoint, ...] = (),
    prices: tuple[Price, ...] = (),
    owners: Mapping[int, tuple[str, str, str]] | None = None,
    observed: Mapping[str, int] | None = None,
    closed: Mapping[str, Reason] | None = None,
    volumes: Sequence[VolumeRecord] = (),
    now: int = NOON,
    seed: int = 0,
    queues: Sequence[QueueSpec] = (),
    flavors: Sequence[NodeFlavor] = (),
    nominations: Mapping[int, Nomination] | None = None,
    displaced_by: Mapping[int, tuple[int, ...]] | None = None,
    history_policy: HistoryPolicy = NO_HISTORY,
    history: Sequence[AHistory] = (),
) -> Snapshot:
    """The snapshot of this world; rows are put in the order of their keys."""
    nodes = [replace(row, key=row.key or place) for place, row in enumerate(nodes, 1)]
    allocations = [
        replace(row, key=row.key or place, yields_to=row.yields_to or _yields_to(row, displaced_by or {}))
        for place, row in enumerate(allocations, 1)
    ]
    models = _models(nodes, workloads, allocations)
    always = [] if any(one.name == DEFAULT_QUEUE for one in queues) else [QueueSpec(name=DEFAULT_QUEUE)]
    tree = QueueTree.of([*always, *queues]) if queues else ONE_QUEUE
    clusters = ("", *sorted({row.cluster for row in workloads} - {""}))
    restrictions = ("", *sorted({row.restriction for row in workloads} - {""}, key=repr))
    needs = (None, *sorted({_need(row) for row in workloads if row.volumes}, key=repr))
    topologies = ("", *sorted({row.topology for row in workloads} - {""}))
    images = ("", *sorted({row.image for row in workloads} - {""}))
    submitters = ("", *sorted({row.submitter for row in workloads} - {""}))
    return Snapshot(
        now=now,
        seed=seed,
        version=1,
        gpu_models=models,
        nodes=_with_flavors(_node_table(sorted(nodes, key=_key), allocations, models), flavors),
        workloads=replace(
            _workload_table(
                sorted(workloads, key=_key),
                models,
                clusters,
                restrictions,
                needs=needs,
                topologies=topologies,
                queues=tree,
                submitters=submitters,
            ),
            image=_ints(images.index(row.image) for row in sorted(workloads, key=_key)),
        ),
        allocations=_allocation_table(sorted(allocations, key=_key), models),
        endpoints=endpoints,
        prices=prices,
        owners=owners or {row.workload_key: ("acme", "vision", f"w-{row.workload_key}") for row in allocations},
        addresses={row.key: row.address for row in allocations if row.address},
        observed=observed or {},
        flavors=("", *(one.name for one in flavors)),
        queues=tree,
        cluster_names=clusters,
        submitters=submitters,
        restrictions=restrictions,
        volume_needs=needs,
        images=images,
        topologies=tuple(near(text) if text else None for text in topologies),
        volumes={
            VolumeRef(owner=one.state.owner, name=one.state.name): tuple(
                other for other in volumes if (other.state.owner, other.state.name) == (one.state.owner, one.state.name)
            )
            for one in volumes
        },
        nominations=nominations or {},
        displaced_by=displaced_by or {},
        history_policy=history_policy,
        history=HistoryTable(
            queue=_ints(tree.names.index(row.queue) for row in history),
            used=np.array(
                [(row.cpus * 1_000, row.gib * BYTES_PER_GIB, row.gpus) for row in history], dtype=np.float64
            ).reshape(-1, 3),
            at=_ints(row.at for row in history),
        ),
        closed_clusters=closed or {},
        closed_nodes={
            row.key: Reason(code=Code.NODE_NOT_READY, object=row.name, numbers={"detail": row.why})
            for row in nodes
            if row.why
        },
    )


def flavor(name: str) -> NodeFlavor:
    """That of the nodes with the label `pool=NAME`."""
    return NodeFlavor(name=name, requirements=(Requirement(key="pool", operator="In", values=(name,)),))


def _with_flavors(nodes: NodeTable, flavors: Sequence[NodeFlavor]) -> NodeTable:
    if not flavors or nodes.traits is None:
        return nodes
    return replace(nodes, flavor=flavor_numbers(nodes.traits, flavors))


def _key(row: ANode | AWorkload | AnAllocation) -> int:
    return row.key


def _yields_to(row: AnAllocation, displaced_by: Mapping[int, tuple[int, ...]]) -> int:
    return displaced_by.get(row.workload_key, (0,))[-1] if row.preempted else 0


def _models(*tables: Iterable[ANode | AWorkload | AnAllocation]) -> tuple[str, ...]:
    named = {row.gpu_model for table in tables for row in table}
    chosen = {
        resources.gpu_model
        for table in tables
        for row in table
        if isinstance(row, AWorkload)
        for resources in (*row.choices, *(one.resources for one in row.sets))
    }
    shapes = {shape for table in tables for row in table if isinstance(row, ANode) for shape in row.shapes}
    return ("", *sorted((named | chosen | shapes) - {""}))


def _ints(values: Iterable[int]) -> Ints:
    return np.array(list(values), dtype=np.int64)


def _bools(values: Iterable[bool]) -> Bools:
    return np.array(list(values), dtype=np.bool_)


def _milli(cpus: float) -> int:
    return round(cpus * 1000)


def _bytes(gib: float) -> int:
    return round(gib * BYTES_PER_GIB)


def _node_table(rows: list[ANode], allocations: Sequence[AnAllocation], models: tuple[str, ...]) -> NodeTable:
    held: dict[int, list[int]] = {row.key: [0, 0, 0] for row in rows}
    for pod in allocations:
        if pod.seen is not Seen.ENDED and pod.node_key in held:
            amounts = held[pod.node_key]
            amounts[0] += _milli(pod.cpus)
            amounts[1] += _bytes(pod.gib)
            amounts[2] += 0 if is_shape(pod.gpu_model) else pod.gpus
    known = [traits(row.labels, map(taint, row.taints)) for row in rows]
    each = tuple(dict.fromkeys(known))
    return NodeTable(
        key=_ints(row.key for row in rows),
        version=_ints(row.version for row in rows),
        ready=_bools(row.ready and not row.closed_at and not one.taints for row, one in zip(rows, known, strict=True)),
        traits=NodeTraits(
            number=_ints(map(each.index, known)),
            each=each,
            barred=_bools(
                row.ready and not row.closed_at and bool(one.taints) for row, one in zip(rows, known, strict=True)
            ),
        ),
        closed_at=_ints(row.closed_at for row in rows),
        closed_until=_ints(row.closed_until for row in rows),
        drains=_bools(row.drains for row in rows),
        wait_seconds=_ints(row.wait_seconds for row in rows),
        cpu_milli=_ints(_milli(row.cpus) for row in rows),
        memory_bytes=_ints(_bytes(row.gib) for row in rows),
        gpus=_ints(row.gpus for row in rows),
        gpu_model=_ints(models.index(row.gpu_model) for row in rows),
        used_cpu_milli=_ints(_milli(row.used_cpus) + held[row.key][0] for row in rows),
        used_memory_bytes=_ints(_bytes(row.used_gib) + held[row.key][1] for row in rows),
        used_gpus=_ints(row.used_gpus + held[row.key][2] for row in rows),
        whole_cpu_milli=_ints(_milli(max(row.cpus, row.whole_cpus)) for row in rows),
        whole_memory_bytes=_ints(_bytes(row.gib) for row in rows),
        whole_gpus=_ints(max(row.gpus, row.whole_gpus) for row in rows),
        whole_shapes={
            shape: _ints(row.whole_shapes.get(shape, 0) for row in rows)
            for shape in sorted({shape for row in rows for shape in row.whole_shapes})
        },
        names=tuple(row.name or f"node-{row.key}" for row in rows),
        clusters=tuple(row.cluster for row in rows),
        admits={
            restriction: _bools(restriction in row.admits for row in rows)
            for restriction in sorted({restriction for row in rows for restriction in row.admits})
        },
        reaches={
            reach: _bools(reach in row.reaches for row in rows)
            for reach in sorted({reach for row in rows for reach in row.reaches})
        },
        shapes={shape: _ints(row.shapes.get(shape, 0) for row in rows) for shape in _shapes(rows)},
        used_shapes={shape: _ints(_used(row, shape, allocations) for row in rows) for shape in _shapes(rows)},
        others={name: _ints(row.others.get(name, 0) for row in rows) for name in _others(rows)},
        used_others={name: _ints(row.used_others.get(name, 0) for row in rows) for name in _others(rows)},
        images=NodeImages(
            number=np.arange(len(rows)),
            each=tuple({digest_of(name): size for name, size in row.images.items()} for row in rows),
        ),
        levels=levels_of([row.cluster for row in rows], [row.topology for row in rows]),
    )


def taint(words: str) -> Taint:
    """`dedicated=ml:NoSchedule`."""
    rest, _, effect = words.partition(":")
    key, _, value = rest.partition("=")
    return Taint(key=key, value=value, effect=effect)


def _shapes(rows: Iterable[ANode]) -> list[str]:
    return sorted({shape for row in rows for shape in row.shapes})


def _others(rows: Iterable[ANode] | Iterable[AWorkload]) -> list[str]:
    return sorted({name for row in rows for name in row.others})


def _used(row: ANode, shape: str, allocations: Iterable[AnAllocation]) -> int:
    here = (pod for pod in allocations if pod.node_key == row.key and pod.seen is not Seen.ENDED)
    return row.used_shapes.get(shape, 0) + sum(pod.gpus for pod in here if pod.gpu_model == shape)


def _workload_table(
    rows: list[AWorkload],
    models: tuple[str, ...],
    clusters: tuple[str, ...],
    restrictions: tuple[Restriction, ...],
    *,
    needs: tuple[VolumeNeed | None, ...],
    topologies: tuple[str, ...],
    queues: QueueTree,
    submitters: tuple[str, ...],
) -> WorkloadTable:
    first = [row.choices[0] if row.choices else row.sets[0].resources if row.sets else _request(row) for row in rows]
    return WorkloadTable(
        others={name: _ints(row.others.get(name, 0) for row in rows) for name in _others(rows)},
        key=_ints(row.key for row in rows),
        version=_ints(row.version for row in rows),
        kind=_ints(row.kind for row in rows),
        phase=_ints(int(row.phase) for row in rows),
        priority=_ints(row.priority for row in rows),
        queue=_ints(queues.names.index(row.queue) for row in rows),
        submitter=_ints(submitters.index(row.submitter) for row in rows),
        attempt=_ints(row.attempt for row in rows),
        submitted_at=_ints(row.submitted_at for row in rows),
        not_before=_ints(row.not_before for row in rows),
        started_at=_ints(row.started_at for row in rows),
        stop_requested=_bools(row.stop_requested for row in rows),
        held=_bools(row.held for row in rows),
        preemptible=_bools(row.preemptible for row in rows),
        nodes=_ints(row.nodes for row in rows),
        nodes_min=_ints(row.nodes_min or row.nodes for row in rows),
        nodes_max=_ints(row.nodes_max or row.nodes for row in rows),
        cpu_milli=_ints(request.cpu_milli for request in first),
        memory_bytes=_ints(request.memory_bytes for request in first),
        gpus=_ints(request.gpus for request in first),
        gpu_model=_ints(models.index(request.gpu_model) for request in first),
        choices={
            row.key: row.choices for row in rows if len(row.choices) > 1 or not all(one.is_plain for one in row.choices)
        },
        sets={row.key: row.sets for row in rows if row.sets},
        equals={row.key: row.equals for row in rows if row.equals > 1},
        typical_on={row.key: tuple(sorted(row.typical_on.items())) for row in rows if row.typical_on},
        max_duration_seconds=_ints(row.max_duration_seconds for row in rows),
        usual_seconds=_ints(row.usual_seconds for row in rows),
        typical_seconds=_ints(row.typical_seconds for row in rows),
        spread_permille=_ints(row.spread_permille for row in rows),
        stop_grace_seconds=_ints(row.stop_grace_seconds for row in rows),
        checkpoint_seconds=_ints(row.checkpoint_seconds for row in rows),
        infrastructure_failures=_ints(row.infrastructure_failures for row in rows),
        user_failures=_ints(row.user_failures for row in rows),
        infrastructure_max=_ints(row.infrastructure_max for row in rows),
        user_max=_ints(row.user_max for row in rows),
        attempts_max=_ints(row.attempts_max for row in rows),
        backoff_seconds=_ints(row.backoff_seconds for row in rows),
        backoff_seconds_max=_ints(row.backoff_seconds_max for row in rows),
        retry_always=_bools(row.retry_always for row in rows),
        cluster=_ints(clusters.index(row.cluster) for row in rows),
        restriction=_ints(restrictions.index(row.restriction) for row in rows),
        volumes=_ints(needs.index(_need(row)) for row in rows),
        topology=_ints(topologies.index(row.topology) for row in rows),
    )


def _need(row: AWorkload) -> VolumeNeed | None:
    return VolumeNeed(owner=OWNER, names=row.volumes) if row.volumes else None


def near(text: str) -> TopologyNeed:
    """`required rack`, `preferred block`, `/host 1` (at most 1 per host), `/zone 0` (evenly), `required rack/host 2`."""
    close, _, apart = text.partition("/")
    how, _, level = close.partition(" ")
    over, _, at_most = apart.partition(" ")
    spread = Spread(level=over, at_most=int(at_most)) if apart else None
    return TopologyNeed(level=level, required=how == "required", spread=spread)


def lies(name: str, cluster: str, *, removed: bool = False, **state_: object) -> VolumeRecord:
    """A volume of the project OWNER."""
    state = VolumeState(owner=OWNER, name=name, **state_)  # type: ignore[arg-type]
    return VolumeRecord(cluster=cluster, state=state, removed=removed)


def _request(row: AWorkload) -> Resources:
    return Resources(cpu_milli=_milli(row.cpus), memory_bytes=_bytes(row.gib), gpus=row.gpus, gpu_model=row.gpu_model)


def _allocation_table(rows: list[AnAllocation], models: tuple[str, ...]) -> AllocationTable:
    return AllocationTable(
        key=_ints(row.key for row in rows),
        version=_ints(row.version for row in rows),
        workload_key=_ints(row.workload_key for row in rows),
        attempt=_ints(row.attempt for row in rows),
        rank=_ints(row.rank for row in rows),
        node_key=_ints(row.node_key for row in rows),
        cpu_milli=_ints(_milli(row.cpus) for row in rows),
        memory_bytes=_ints(_bytes(row.gib) for row in rows),
        gpus=_ints(row.gpus for row in rows),
        gpu_model=_ints(models.index(row.gpu_model) for row in rows),
        stop=_bools(row.stop for row in rows),
        stop_asked_at=_ints(row.stop_asked_at if row.stop else 0 for row in rows),
        moves=_bools(row.moves for row in rows),
        preempted=_ints(row.preempted for row in rows),
        yields_to=_ints(row.yields_to for row in rows),
        surplus=_bools(row.surplus for row in rows),
        seen=_ints(int(row.seen) for row in rows),
        ready=_bools(row.ready for row in rows),
        created_at=_ints(row.created_at for row in rows),
        started_at=_ints(row.started_at for row in rows),
        ended_at=_ints(row.ended_at for row in rows),
        metered_until=_ints(row.metered_until for row in rows),
        end=_ints(-1 if row.end is None else ENDS.index(row.end) for row in rows),
        exit_code=_ints(-1 if row.exit_code is None else row.exit_code for row in rows),
    )
