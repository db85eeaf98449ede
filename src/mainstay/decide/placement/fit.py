"""Which nodes can take a request: masks and counts over the free columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.quantity import Resources, is_shape
from mainstay.domain.snapshot import NodeTable, Snapshot

ANY_CLUSTER = -1
NO_CLUSTER = -2
"""One that has no node."""
GPU_NODE = 1e3
"""More than anything that is left on a node weighs."""
ROOM_MAX = 1 << 20
"""More pods of one request than any gang has ranks; stands for "no limit" where a request asks for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one pod asks for, in the numbers of the columns. `gpu_model` 0: any; -1: a model that no node has."""

    cpu_milli: int
    memory_bytes: int
    gpus: int
    gpu_model: int
    shape: str = ""
    """Slices of GPUs of this shape are asked for instead of whole ones; then `gpu_model` means nothing."""
    cluster: int = ANY_CLUSTER
    """The number of the only cluster that will do, as in `Free.cluster`."""
    restriction: str = ""
    """Only nodes that admit it will do."""
    reach: Bools | None = field(default=None, compare=False)
    """Only these nodes will do; None: all."""
    one_node: bool = False
    """All pods that ask for it must be on one node, since they share a volume that cannot be on two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """What is free on each node. The columns belong to one cycle, which lowers them as it places pods."""

    key: Ints
    cpu_milli: Ints
    memory_bytes: Ints
    gpus: Ints
    gpu_model: Ints
    gpus_installed: Ints
    """Slices of them too."""
    shapes: Mapping[str, Ints]
    """Slices of GPUs by shape; those that no node has are not there."""
    cluster: Ints
    """A number per cluster, in the order of their names."""
    open_: Bools
    """Nodes that may be used for what has no restriction."""
    admits: Mapping[str, Bools]
    """Restriction -> the nodes that may be used for what has it; none for one that is not there."""
    left: Floats
    """How much is left on each node, as a score: the less, the fuller it is. A GPU of the largest node weighs four
    times what a core of the largest does."""
    left_apart: Floats
    """The same for work without GPUs: nodes with GPUs come after all others."""
    _scale: tuple[float, float, float]
    _allowed: dict[tuple[str, int, int], Bools] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        nodes: NodeTable,
        *,
        cpu_milli: Ints,
        memory_bytes: Ints,
        gpus: Ints,
        shapes: Mapping[str, Ints],
        open_: Bools,
    ) -> Free:
        """So much of these nodes. The amounts are the caller's to give: they are lowered in place."""
        installed = sum(nodes.shapes.values(), start=nodes.gpus) if nodes.shapes else nodes.gpus
        most = nodes.cpu_milli, nodes.memory_bytes, installed
        scale = tuple(
            weight / max(1, int(column.max(initial=0))) for column, weight in zip(most, (1, 1, 4), strict=True)
        )
        free = cls(
            key=nodes.key,
            cpu_milli=cpu_milli,
            memory_bytes=memory_bytes,
            gpus=gpus,
            gpu_model=nodes.gpu_model,
            gpus_installed=installed,
            shapes=shapes,
            cluster=_cluster_numbers(nodes.clusters),
            open_=open_,
            admits=nodes.admits,
            left=np.empty(nodes.key.size),
            left_apart=np.empty(nodes.key.size),
            _scale=(scale[0], scale[1], scale[2]),
        )
        free._weigh(np.arange(nodes.key.size))
        return free

    def usable(self, request: Request) -> Bools:
        """Nodes that may be used at all, whether or not there is room."""
        usable = self.open_
        if request.restriction:
            usable = self.admits.get(request.restriction, np.zeros(self.key.size, dtype=np.bool_))
        return usable if request.reach is None else usable & request.reach

    def allowed(self, request: Request) -> Bools:
        """Nodes of the cluster and the GPU model that are asked for which may be used, whether or not there is room."""
        asked = request.restriction, request.cluster, request.gpu_model
        mask = self._allowed.get(asked)
        if mask is None:
            # A node that shrank under its work takes nothing, whatever is asked of it.
            mask = self.usable(replace(request, reach=None)) & (self.cpu_milli >= 0) & (self.memory_bytes >= 0)
            if request.cluster != ANY_CLUSTER:
                mask = mask & (self.cluster == request.cluster)
            if request.gpu_model:
                mask = mask & (self.gpu_model == request.gpu_model)
            self._allowed[asked] = mask
        return mask if request.reach is None else mask & request.reach

    def asked(self, request: Request) -> list[tuple[Ints, int]]:
        """The columns that the request lowers, and by how much. Scarce resources first: they rule out most nodes."""
        amounts = [(self.devices(request), request.gpus)] if request.gpus else []
        amounts += [(self.cpu_milli, request.cpu_milli), (self.memory_bytes, request.memory_bytes)]
        return [(column, amount) for column, amount in amounts if amount]

    def take(self, rows: Ints, pods: Ints | int, request: Request) -> None:
        """Lower the free columns by so many pods on each of `rows`, none of which occurs twice."""
        for column, amount in self.asked(request):
            column[rows] -= pods * amount
        self._weigh(rows)

    def opened(self, open_: Bools) -> Free:
        """The same, if these were the nodes that may be used for what has no restriction."""
        return replace(self, open_=open_, _allowed={})

    def copies(self) -> tuple[Ints, ...]:
        """What is left now, to be restored."""
        return tuple(column.copy() for column in self._lowered())

    def restore(self, copies: tuple[Ints, ...]) -> None:
        """As it was when the copies were made."""
        for column, copy in zip(self._lowered(), copies, strict=True):
            column[:] = copy
        self._weigh(np.arange(self.key.size))

    def _lowered(self) -> tuple[Ints, ...]:
        return self.cpu_milli, self.memory_bytes, self.gpus, *self.shapes.values()

    def _weigh(self, rows: Ints) -> None:
        cpu, memory, gpu = self._scale
        slices = sum((column[rows] for column in self.shapes.values()), start=self.gpus[rows])
        left = self.cpu_milli[rows] * cpu + self.memory_bytes[rows] * memory + slices * gpu
        self.left[rows] = left
        self.left_apart[rows] = left + (self.gpus_installed[rows] > 0) * GPU_NODE

    def devices(self, request: Request) -> Ints:
        """Of the kind that is asked for, how many are free on each node, whatever their model."""
        if not request.shape:
            return self.gpus
        return self.shapes[request.shape] if request.shape in self.shapes else np.zeros(self.key.size, dtype=np.int64)


def free_of(snapshot: Snapshot) -> Free:
    """What is free now, on nodes that are ready or admit what has a restriction."""
    return _left(snapshot, open_=snapshot.nodes.ready)


def whole_of(snapshot: Snapshot) -> Free:
    """What would be free if every node were ready and empty: what the fleet could ever take."""
    nodes = snapshot.nodes
    return Free.of(
        nodes,
        cpu_milli=nodes.cpu_milli.copy(),
        memory_bytes=nodes.memory_bytes.copy(),
        gpus=nodes.gpus.copy(),
        shapes={shape: count.copy() for shape, count in nodes.shapes.items()},
        open_=np.ones(nodes.key.size, dtype=np.bool_),
    )


def free_in(snapshot: Snapshot, cluster: str) -> Free:
    """What would be free if this cluster took work and no other."""
    nodes = snapshot.nodes
    inside = np.fromiter((name == cluster for name in nodes.clusters), dtype=np.bool_, count=len(nodes.clusters))
    return _left(snapshot, open_=inside)


def _left(snapshot: Snapshot, *, open_: Bools) -> Free:
    nodes = snapshot.nodes
    return Free.of(
        nodes,
        cpu_milli=nodes.cpu_milli - nodes.used_cpu_milli,
        memory_bytes=nodes.memory_bytes - nodes.used_memory_bytes,
        gpus=nodes.gpus - nodes.used_gpus,
        shapes={shape: count - nodes.used_shapes[shape] for shape, count in nodes.shapes.items()},
        open_=open_,
    )


def cluster_number(name: str, clusters: Sequence[str]) -> int:
    """The number of a cluster as in `Free.cluster`, of the clusters of all nodes; the empty name is any."""
    if not name:
        return ANY_CLUSTER
    names = sorted(set(clusters))
    return names.index(name) if name in names else NO_CLUSTER


def request_of(
    resources: Resources,
    gpu_models: Sequence[str],
    *,
    cluster: int = ANY_CLUSTER,
    restriction: str = "",
    reach: Bools | None = None,
    one_node: bool = False,
) -> Request:
    """The request in the numbers of the columns. Without GPUs a model means nothing."""
    shape = resources.gpu_model if resources.gpus and is_shape(resources.gpu_model) else ""
    return Request(
        cpu_milli=resources.cpu_milli,
        memory_bytes=resources.memory_bytes,
        gpus=resources.gpus,
        gpu_model=model_number(resources.gpu_model, gpu_models) if resources.gpus and not shape else 0,
        shape=shape,
        cluster=cluster,
        restriction=restriction,
        reach=reach,
        one_node=one_node,
    )


def model_number(model: str, gpu_models: Sequence[str]) -> int:
    """Index of a GPU model in the vocabulary of the snapshot; 0 for any, -1 for one that no node has."""
    return gpu_models.index(model) if model in gpu_models else -1


def feasible(free: Free, request: Request) -> Bools:
    """Nodes that can take one pod now. A named GPU model or cluster is a hard condition."""
    mask = free.allowed(request)
    for column, amount in free.asked(request):
        mask = mask & (column >= amount)
    return mask


def room_on(free: Free, request: Request, rows: Ints) -> Ints:
    """How many pods each of these feasible nodes can take now, at most ROOM_MAX."""
    fits = np.full(rows.size, ROOM_MAX, dtype=np.int64)
    for column, amount in free.asked(request):
        np.minimum(fits, column[rows] // amount, out=fits)
    return fits


def room(free: Free, request: Request) -> Ints:
    """How many pods each node can take now, at most ROOM_MAX."""
    rows = np.flatnonzero(feasible(free, request))
    count = np.zeros(free.key.size, dtype=np.int64)
    count[rows] = room_on(free, request, rows)
    return count


def _cluster_numbers(clusters: tuple[str, ...]) -> Ints:
    number = {name: index for index, name in enumerate(sorted(set(clusters)))}
    return np.fromiter((number[name] for name in clusters), dtype=np.int64, count=len(clusters))
