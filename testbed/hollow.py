"""Hollow nodes: objects in the API server that a simulator keeps alive, and on which pods seem to run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from testbed import programs
from testbed.control_plane import ControlPlane
from testbed.processes import Running

MARK = "kwok.x-k8s.io/node"
"""The annotation of a node that the simulator keeps."""
START_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HollowNode:
    """What a hollow node says of itself."""

    name: str
    cpu: int = 32
    memory_gib: int = 128
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As the API server takes it."""
        amount = {"cpu": str(self.cpu), "memory": f"{self.memory_gib}Gi", "pods": "110"}
        if self.gpus:
            amount["nvidia.com/gpu"] = str(self.gpus)
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "annotations": {MARK: "fake"}, "labels": {**labels, **self.labels}},
            "status": {"capacity": amount, "allocatable": amount},
        }


@contextlib.contextmanager
def simulated(control_plane: ControlPlane) -> Iterator[Running]:
    """Keep all hollow nodes of a cluster alive until the end of the block."""
    options = [f"--kubeconfig={control_plane.kubeconfig}", f"--manage-nodes-with-annotation-selector={MARK}=fake"]
    options += ["--manage-all-nodes=false", "--node-lease-duration-seconds=40", "--v=error"]
    options += [f"--config={stage}" for stage in programs.stages()]
    simulator = Running("kwok", [str(programs.path("kwok")), *options], log=control_plane.folder / "kwok.log")
    simulator.start()
    try:
        yield simulator
    finally:
        simulator.stop()


def add(control_plane: ControlPlane, nodes: Iterable[HollowNode]) -> Iterator[str]:
    """Create them; the name of each as it is there."""
    for node in nodes:
        control_plane.ask("/api/v1/nodes", method="POST", body=node.document())
        yield node.name


def are_ready(control_plane: ControlPlane, names: Iterable[str]) -> bool:
    """Whether all of these nodes report that they are."""
    items = control_plane.ask("/api/v1/nodes")["items"]
    ready = {node["metadata"]["name"] for node in items if _is_ready(node)}
    return ready.issuperset(names)


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
