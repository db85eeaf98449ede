"""Nodes, devices and clusters as they are shown, and clusters as they are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mainstay.api.convert import instant, instant_or_none, reason_view, resources_view
from mainstay.api.convert_jobs import resources
from mainstay.domain import gpu
from mainstay.domain.affinity import Taint
from mainstay.domain.capacity import Node
from mainstay.domain.errors import Invalid
from mainstay.domain.fleet import ClusterKind, ClusterRecord, ClusterSettings, Credentials, NodeGroup
from mainstay.domain.quantity import MEMORY_LABEL, Resources
from mainstay.domain.topology import LEVELS
from mainstay.operations.clusters import ClusterWish
from mainstay.operations.nodes import Resident
from mainstay.wire import node_labels, requests, views


def node_view(
    node: Node,
    *,
    cluster_state: str = "ready",
    residents: Iterable[Resident] = (),
    pods_left: int = 0,
    labelled: bool = False,
) -> views.NodeView:
    """A node and what of it is used; with its pods, if they are given, and its labels."""
    closure = node.closure
    return views.NodeView(
        name=node.name,
        cluster=node.cluster,
        cluster_state=cluster_state,
        ready=node.ready,
        state=node.state,
        reason=reason_view(node.reason) if node.reason else None,
        since=instant(closure.since) if closure else None,
        until=instant_or_none(closure.until) if closure else None,
        complaints=list(node.complaints),
        spot=node.traits.spot,
        labels=dict(node.traits.labels) if labelled else {},
        taints=[one.words for one in node.traits.taints],
        capacity=resources_view(node.capacity),
        used=resources_view(node.used),
        devices=list(device_views(node)),
        pods_used=node.used_pods,
        pods_max=node.pods_max,
        pods=[_resident_view(resident) for resident in residents],
        pods_left=pods_left,
    )


def _taint(text: str) -> Taint:
    found = node_labels.toleration(text)
    return Taint(key=found.key, value=found.value, effect=found.effect or "NoSchedule")


def device_views(node: Node) -> Iterable[views.DeviceView]:
    """Whole GPUs first, then slices by shape."""
    whole = node.capacity.gpu_model
    amounts = {whole: (node.capacity.gpus, node.used.gpus)} if node.capacity.gpus or node.used.gpus else {}
    amounts |= {shape: (count, node.used_shapes.get(shape, 0)) for shape, count in sorted(node.shapes.items())}
    for model in (*amounts, *(name for name in sorted(node.unhealthy) if name not in amounts)):
        total, used = amounts.get(model, (0, 0))
        unhealthy = node.unhealthy.get(model or "GPU", 0)
        memory = gpu.memory_of(model, node.traits)
        yield views.DeviceView(model=model, total=total, used=used, unhealthy=unhealthy, memory_bytes=memory)


def _resident_view(resident: Resident) -> views.ResidentView:
    pod = resident.allocation
    return views.ResidentView(
        pod=pod.pod, workload=pod.workload, tenant=pod.tenant, state=pod.state, detail=resident.words
    )


def cluster_wish(request: requests.ClusterRequest, *, agent_token: str = "") -> ClusterWish:
    """`agent_token`: what is kept of one. Raises Invalid for a quantity that cannot be read."""
    settings = ClusterSettings(
        context=request.context,
        in_cluster=request.in_cluster,
        namespaces_per_project=request.namespaces_per_project,
        helper_image=request.helper_image,
        image=request.image,
        nodes=tuple(_node_group(group) for group in request.simulated),
        agent_token=agent_token,
        topology=tuple((level, request.topology[level]) for level in LEVELS if level in request.topology),
    )
    return ClusterWish(
        name=request.name,
        kind=_cluster_kind(request),
        settings=settings,
        credentials=Credentials(kubeconfig=request.kubeconfig),
    )


def _node_group(group: requests.SimulatedNodes) -> NodeGroup:
    """The memory of its GPUs is a label of its nodes, as it is on real ones."""
    capacity = resources(cpu=group.cpu, memory=group.memory, gpu=group.gpu, where="simulated")
    if capacity.gpu_part_permille:
        msg = f"simulated.gpu: {group.gpu!r}: a node has whole GPUs, slices such as 1g.10gb:7 or shares such as T4.shared:8"
        raise Invalid(msg, object_="simulated.gpu", hint="shares are told apart by its label nvidia.com/gpu.replicas")
    memory = {MEMORY_LABEL: str(capacity.gpu_memory_bytes >> 20)} if capacity.gpu_memory_bytes else {}
    return NodeGroup(
        count=group.count,
        capacity=replace(capacity, gpu_memory_bytes=0),
        labels=tuple(sorted({**memory, **group.labels}.items())),
        taints=tuple(map(_taint, group.taints)),
    )


def _cluster_kind(request: requests.ClusterRequest) -> ClusterKind:
    if request.agent:
        return ClusterKind.AGENT
    return ClusterKind.SIMULATED if request.simulated else ClusterKind.KUBERNETES


def cluster_view(
    cluster: ClusterRecord,
    nodes: Iterable[Node] = (),
    *,
    warnings: Iterable[str] = (),
    agent_heard: bool | None = None,
) -> views.ClusterView:
    """With the sum of its nodes."""
    nodes = tuple(nodes)
    settings = cluster.settings
    return views.ClusterView(
        name=cluster.name,
        kind=cluster.kind.value,
        state=cluster.state,
        reason=reason_view(cluster.reason),
        server=settings.server,
        context=settings.context,
        in_cluster=settings.in_cluster,
        namespaces_per_project=settings.namespaces_per_project,
        helper_image=settings.helper_image,
        image=settings.image,
        topology=dict(settings.topology),
        identity=cluster.identity,
        nodes=len(nodes),
        nodes_ready=sum(node.ready for node in nodes),
        capacity=resources_view(_sum(node.capacity for node in nodes)),
        used=resources_view(_sum(node.used for node in nodes)),
        added_at=instant_or_none(cluster.added_at),
        added_by=cluster.added_by,
        warnings=list(warnings),
        agent_heard=agent_heard,
    )


def _sum(parts: Iterable[Resources]) -> Resources:
    parts = tuple(parts)
    models = {part.gpu_model for part in parts if part.gpus}
    return Resources(
        cpu_milli=sum(part.cpu_milli for part in parts),
        memory_bytes=sum(part.memory_bytes for part in parts),
        gpus=sum(part.gpus for part in parts),
        gpu_model=models.pop() if len(models) == 1 else "",
    )
