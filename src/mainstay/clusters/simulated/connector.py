"""The way into simulated clusters: for trying out how a large fleet schedules, without one. They live in memory only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

from mainstay import __version__
from mainstay.clusters.simulated.cluster import SimulatedCluster
from mainstay.clusters.simulated.machines import Behaviour, Machines, heeding_taints
from mainstay.domain.affinity import traits
from mainstay.domain.allocation import CreatePod
from mainstay.domain.capacity import NodeState
from mainstay.domain.errors import Invalid
from mainstay.domain.fleet import ClusterFacts, ClusterRecord, ClusterSettings, Credentials
from mainstay.domain.quantity import is_shape
from mainstay.domain.topology import domains
from mainstay.ports import Clock

NODES_MAX = 10_000
JOB_SECONDS = 10.0


class SimulatedConnector:
    """Implements `ports.Connector`. Machines go on when their cluster is opened anew with other settings."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._machines: dict[str, Machines] = {}

    async def check(self, settings: ClusterSettings, credentials: Credentials) -> ClusterFacts:  # noqa: ARG002
        """Only the number of nodes can be wrong."""
        count = sum(group.count for group in settings.nodes)
        if not 0 < count <= NODES_MAX:
            msg = f"a simulated cluster has 1 to {NODES_MAX} nodes, not {count}"
            raise Invalid(msg, object_="simulated", hint="e.g. --simulated 100xcpu=32,memory=128GB,gpu=H100:8")
        warning = "nothing truly runs: each job takes 10 s, and all of it is lost when the platform ends"
        return ClusterFacts(identity="", version=__version__, warnings=(warning,))

    def kept(self, settings: ClusterSettings, credentials: Credentials) -> Credentials:  # noqa: ARG002
        """It needs none."""
        return Credentials()

    def open(self, cluster: ClusterRecord, credentials: Credentials) -> SimulatedCluster:  # noqa: ARG002
        """The machines of this name, with the nodes that the settings say."""
        nodes = tuple(_nodes(cluster))
        machines = self._machines.setdefault(cluster.name, Machines(self._clock, nodes, behaviour=_behaviour))
        before = machines.nodes
        machines.nodes = {node.name: _as_before(node, before.get(node.name)) for node in nodes}
        return SimulatedCluster(cluster.name, machines)


def _as_before(node: NodeState, before: NodeState | None) -> NodeState:
    """It keeps its mark, and the images that it has pulled."""
    if before is None:
        return replace(node, marked=False)
    return replace(node, marked=bool(before.marked), images=before.images)


def _nodes(cluster: ClusterRecord) -> Iterator[NodeState]:
    """`sim-0001`, `sim-0002`, in the order of the groups."""
    groups = (group for group in cluster.settings.nodes for _ in range(group.count))
    for number, group in enumerate(groups, 1):
        name, capacity = f"{cluster.name}-{number:04}", group.capacity
        shapes = ((capacity.gpu_model, capacity.gpus),) if is_shape(capacity.gpu_model) else ()
        whole = replace(capacity, gpus=0, gpu_model="") if shapes else capacity
        labels = dict(group.labels)
        found, near = traits(labels, group.taints, node=name), domains(labels, dict(cluster.settings.topology))
        yield heeding_taints(
            NodeState(name=name, capacity=whole, ready=True, shapes=shapes, traits=found, topology=near)
        )


def _behaviour(action: CreatePod) -> Behaviour:
    """A service runs until it is stopped."""
    line = f"simulated: {action.name} on {action.node}\n".encode()
    return Behaviour(runs_for=inf if action.spec.port else JOB_SECONDS, lines=(line,))
