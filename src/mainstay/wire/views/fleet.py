"""Clusters, their nodes, and the GPUs on them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from mainstay.wire.views.base import ReasonView, ResourcesView, View


class DeviceView(View):
    """GPUs of a model on a node, or slices of a shape (`1g.10gb`, `T4.shared`)."""

    model: str
    total: int
    used: int
    unhealthy: int = 0
    """Those that it has beside `total` and cannot give."""
    memory_bytes: int = 0
    """Of each; 0: nobody knows."""


class ResidentView(View):
    """A pod of ours on a node."""

    pod: str
    workload: str
    tenant: str
    state: str
    detail: str = ""
    """What becomes of it while the node is drained."""


class NodeView(View):
    """A node, what it has and what is used. `pods`, `labels` and `strangers` only where a single node was asked for."""

    name: str
    cluster: str
    cluster_state: str = "ready"
    """Of its cluster: nothing new is placed on any node of one that is not `ready`."""
    ready: bool
    """As its cluster reports it."""
    state: Literal["ready", "tainted", "not ready", "cordoned", "draining", "quarantined"] = "ready"
    """Nothing new is placed on one that is not `ready`, but on one that is `tainted` what tolerates its taints."""
    reason: ReasonView | None = None
    """Why it is in this state; none if it is ready."""
    since: datetime | None = None
    """When somebody kept it out."""
    until: datetime | None = None
    """When that ends by itself; none: when somebody says so."""
    complaints: list[str] = Field(default_factory=list)
    """What is wrong with it besides: unhealthy devices, conditions."""
    spot: bool = False
    """Its provider may take it away."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Those that jobs may ask for; only where a single node was asked for."""
    taints: list[str] = Field(default_factory=list)
    """Those that keep jobs off it which do not tolerate them: `dedicated=ml:NoSchedule`."""
    capacity: ResourcesView
    used: ResourcesView
    devices: list[DeviceView] = Field(default_factory=list)
    pods_used: int = 0
    """How many pods of this platform are there."""
    pods_max: int | None = None
    """How many it takes at most, without those of others; none: no limit is known."""
    pods: list[ResidentView] = Field(default_factory=list)
    """Those that the caller may see."""
    pods_left: int = 0
    """All that have not ended."""
    strangers: list[str] = Field(default_factory=list)
    """Pods of others on a node that is kept out, as NAMESPACE/NAME: a drain leaves them alone. Not all of many."""


class ClusterView(View):
    """A cluster of the fleet, whether it takes work, and what there is on it. Credentials are never shown."""

    name: str
    kind: Literal["local", "simulated", "kubernetes", "agent"]
    state: Literal["ready", "connecting", "unreachable", "refused", "draining", "removed"]
    """`connecting`: its agent is awaited for the first time, or has just come back and catches up."""
    reason: ReasonView
    server: str = ""
    context: str = ""
    in_cluster: bool = False
    namespaces_per_project: int = 1
    helper_image: str = ""
    image: str = ""
    topology: dict[str, str] = Field(default_factory=dict)
    """Level -> label of nodes, where an administrator has named one."""
    identity: str = ""
    """The same for as long as it is the same cluster; empty if its kind has none."""
    nodes: int = 0
    nodes_ready: int = 0
    capacity: ResourcesView | None = None
    """Of all its nodes; `gpu_model` only where they have one in common."""
    used: ResourcesView | None = None
    added_at: datetime | None = None
    added_by: str = ""
    warnings: list[str] = Field(default_factory=list)
    """What was found when it was added; only in the answer to that."""
    agent_heard: bool | None = None
    """Whether its agent is connected just now; null if it has none."""
    token: str = ""
    """Of its agent: shown once, in the answer to adding it."""


class AgentTokenView(View):
    """A token for the agent of a cluster. It is shown once; only its SHA-256 is kept."""

    cluster: str
    token: str = ""
    """Empty if this was a repetition of the request that it was made for."""


class GpuView(View):
    """GPUs of one model and size, or slices of one shape, in one cluster."""

    model: str
    """Of whole GPUs, or the shape of slices."""
    cluster: str
    total: int
    used: int
    unhealthy: int = 0
    """Those that there are beside `total` and cannot be given."""
    memory_bytes: int = 0
    """Of each; 0: nobody knows."""
    price_per_hour: str
