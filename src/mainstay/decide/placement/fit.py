"""Which nodes can take a request: masks and counts over the free columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mainstay.domain.quantity import Resources, is_shape
from mainstay.domain.snapshot import Bools, Ints, Snapshot

ANY_CLUSTER = -1
NO_CLUSTER = -2
"""One that has no node."""
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

    def usable(self, request: Request) -> Bools:
        """Nodes that may be used at all, whether or not there is room."""
        usable = self.open_
        if request.restriction:
            usable = self.admits.get(request.restriction, np.zeros(self.key.size, dtype=np.bool_))
        return usable if request.reach is None else usable & request.reach

    def take(self, rows: Sequence[int], request: Request) -> None:
        """Lower the free columns by one pod on each of `rows`; a row may occur more than once."""
        for row in rows:
            self.cpu_milli[row] -= request.cpu_milli
            self.memory_bytes[row] -= request.memory_bytes
            if request.gpus:
                self.devices(request)[row] -= request.gpus

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
    return Free(
        key=nodes.key,
        cpu_milli=nodes.cpu_milli.copy(),
        memory_bytes=nodes.memory_bytes.copy(),
        gpus=nodes.gpus.copy(),
        gpu_model=nodes.gpu_model,
        gpus_installed=_installed(snapshot),
        shapes={shape: count.copy() for shape, count in nodes.shapes.items()},
        cluster=_cluster_numbers(nodes.clusters),
        open_=np.ones(nodes.key.size, dtype=np.bool_),
        admits=nodes.admits,
    )


def free_in(snapshot: Snapshot, cluster: str) -> Free:
    """What would be free if this cluster took work and no other."""
    nodes = snapshot.nodes
    inside = np.fromiter((name == cluster for name in nodes.clusters), dtype=np.bool_, count=len(nodes.clusters))
    return _left(snapshot, open_=inside)


def _left(snapshot: Snapshot, *, open_: Bools) -> Free:
    nodes = snapshot.nodes
    return Free(
        key=nodes.key,
        cpu_milli=nodes.cpu_milli - nodes.used_cpu_milli,
        memory_bytes=nodes.memory_bytes - nodes.used_memory_bytes,
        gpus=nodes.gpus - nodes.used_gpus,
        gpu_model=nodes.gpu_model,
        gpus_installed=_installed(snapshot),
        shapes={shape: count - nodes.used_shapes[shape] for shape, count in nodes.shapes.items()},
        cluster=_cluster_numbers(nodes.clusters),
        open_=open_,
        admits=nodes.admits,
    )


def _installed(snapshot: Snapshot) -> Ints:
    nodes = snapshot.nodes
    return sum(nodes.shapes.values(), start=nodes.gpus) if nodes.shapes else nodes.gpus


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
    )


def model_number(model: str, gpu_models: Sequence[str]) -> int:
    """Index of a GPU model in the vocabulary of the snapshot; 0 for any, -1 for one that no node has."""
    return gpu_models.index(model) if model in gpu_models else -1


def feasible(free: Free, request: Request) -> Bools:
    """Nodes that can take one pod now. A named GPU model or cluster is a hard condition."""
    mask = free.usable(request) & (free.cpu_milli >= request.cpu_milli) & (free.memory_bytes >= request.memory_bytes)
    if request.gpus:
        mask &= free.devices(request) >= request.gpus
        if request.gpu_model:
            mask &= free.gpu_model == request.gpu_model
    if request.cluster != ANY_CLUSTER:
        mask &= free.cluster == request.cluster
    return mask


def room(free: Free, request: Request) -> Ints:
    """How many pods each node can take now, at most ROOM_MAX."""
    rows = np.flatnonzero(feasible(free, request))
    count = np.zeros(free.key.size, dtype=np.int64)
    if rows.size:
        asked = (
            (free.cpu_milli, request.cpu_milli),
            (free.memory_bytes, request.memory_bytes),
            (free.devices(request) if request.gpus else free.gpus, request.gpus),
        )
        fits = np.full(rows.size, ROOM_MAX, dtype=np.int64)
        for column, amount in asked:
            if amount:
                fits = np.minimum(fits, column[rows] // amount)
        count[rows] = fits
    return count


def _cluster_numbers(clusters: tuple[str, ...]) -> Ints:
    number = {name: index for index, name in enumerate(sorted(set(clusters)))}
    return np.fromiter((number[name] for name in clusters), dtype=np.int64, count=len(clusters))
