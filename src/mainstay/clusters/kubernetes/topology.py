"""In which zone, block and rack a node is: by its labels."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mainstay.clusters.kubernetes.objects import Node
from mainstay.domain.topology import HOST, LEVELS

LABELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "zone": ("topology.kubernetes.io/zone",),
        "block": (
            "topology.kubernetes.io/block",
            "cloud.google.com/gce-topology-block",
            "topology.k8s.aws/network-node-layer-2",
            "network.topology.nvidia.com/spine",
        ),
        "rack": (
            "topology.kubernetes.io/rack",
            "cloud.google.com/gce-topology-subblock",
            "topology.k8s.aws/network-node-layer-3",
            "network.topology.nvidia.com/leaf",
        ),
    }
)
"""By level, the labels that say which domain it is, unless an administrator names another: Kubernetes' own, or in its manner;
those of GKE and EKS, and of NVIDIA's topograph. The first that a node has counts.
"""


HOST_LABEL = "kubernetes.io/hostname"


def level_of(label: str) -> str:
    """The level that pods mean by a label of nodes; empty if it is none that is known."""
    if label == HOST_LABEL:
        return HOST
    return next((level for level, names in LABELS.items() if label in names), "")


def domains(node: Node, chosen: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """(level, name), the widest first. `chosen`: the label by level, of those for which an administrator has named one."""
    labels = node.metadata.labels
    asked = {level: (chosen[level],) if level in chosen else LABELS[level] for level in LEVELS[:-1]}
    found = {level: next(filter(None, (labels.get(name, "") for name in names)), "") for level, names in asked.items()}
    return tuple((level, "_".join(name.split())) for level, name in found.items() if name.strip())
