"""A real operator of others: the clusters that KubeRay makes are placed by us, grow, shrink, and end.

It is built by `make test-others` only; without it these tests skip.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mainstay.domain.allocation import Seen
from mainstay.domain.workload import Phase
from testbed import programs
from testbed.control_plane import ControlPlane
from testbed.fixtures import until
from testbed.processes import Running
from tests.integration.kubernetes.guests import Platform, container, platform

pytestmark = pytest.mark.xdist_group("api-server")

RAY = "ray.io/v1/rayclusters"
CLOCK_SECONDS = 2.0
"""A cluster tells times in whole seconds: a pod that starts and ends within one cost nothing."""
KINDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def operator(control_plane: ControlPlane) -> Iterator[Running]:
    """KubeRay, beside the cluster, as its administrator."""
    if not (programs.folder() / programs.RAY.name).exists():
        pytest.skip("the operator of Ray is not built; hint: make test-others")
    names = []
    for file in programs.definitions():
        made = control_plane.ask(KINDS, method="POST", body=yaml.safe_load(file.read_text()))
        names.append(made["metadata"]["name"])
    for name in names:
        until(lambda name=name: is_established(control_plane.ask(f"{KINDS}/{name}")))
    command = [str(programs.path(programs.RAY.name)), "--enable-leader-election=false", "--health-probe-bind-address=0"]
    running = Running(
        "ray-operator",
        [*command, "--metrics-addr=0", f"--kubeconfig={control_plane.kubeconfig}"],
        log=control_plane.folder / "ray-operator.log",
    )
    running.start()
    yield running
    running.stop()
    for name in names:
        control_plane.ask(f"{KINDS}/{name}", method="DELETE")


def is_established(kind: dict[str, Any]) -> bool:
    return any(
        one["type"] == "Established" and one["status"] == "True" for one in kind["status"].get("conditions") or ()
    )


@pytest.fixture
async def ours(
    control_plane: ControlPlane, hollow_nodes: tuple[str, ...], namespace: str, tmp_path: Path
) -> AsyncIterator[Platform]:
    async with platform(control_plane, namespace, tmp_path) as made:
        yield made


def ray_cluster(ours: Platform, *, workers: int) -> dict[str, Any]:
    """A head and so many workers, 1 CPU and 1 GiB each."""
    template = ours.template(containers=[container(image="rayproject/ray:2.46.0")])
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "ray"},
        "spec": {
            "rayVersion": "2.46.0",
            "headGroupSpec": {"rayStartParams": {}, "template": template},
            "workerGroupSpecs": [
                {
                    "groupName": "small",
                    "replicas": workers,
                    "minReplicas": 0,
                    "maxReplicas": 8,
                    "rayStartParams": {},
                    "template": template,
                }
            ],
        },
    }


def of_phase(ours: Platform, phase: Phase) -> int:
    return sum(workload.phase is phase for workload in ours.workloads())


def billed(ours: Platform) -> set[int]:
    """Keys of the allocations on the bill."""
    return {record.allocation_key for record, _ in ours.store.usage(tenant="default", since=0, until=1 << 60)}


async def test_a_ray_cluster_is_placed_by_us_grows_shrinks_and_ends(operator: Running, ours: Platform) -> None:
    ours.make(RAY, ray_cluster(ours, workers=2))
    await ours.until(lambda: of_phase(ours, Phase.RUNNING) == 3)
    assert all(pod["spec"]["schedulerName"] == ours.scheduler for pod in ours.pods())
    assert {pod["metadata"]["labels"]["ray.io/node-type"] for pod in ours.pods()} == {"head", "worker"}
    nodes = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in ours.pods()}
    for workload in ours.workloads():
        (held,) = ours.allocations(workload.spec.name)
        assert (held.seen, held.resources.cpu_milli) == (Seen.RUNNING, 1_000)
        assert held.node == nodes[workload.spec.name]

    scaled(ours, workers=4)
    await ours.until(lambda: of_phase(ours, Phase.RUNNING) == 5)
    all_run = time.monotonic()
    await ours.until(lambda: time.monotonic() > all_run + CLOCK_SECONDS)
    scaled(ours, workers=1)
    await ours.until(lambda: (of_phase(ours, Phase.RUNNING), of_phase(ours, Phase.STOPPED)) == (2, 3))

    ours.control_plane.ask(ours.path(RAY, "ray"), method="DELETE")
    await ours.until(lambda: of_phase(ours, Phase.STOPPED) == 5 and not ours.pods())
    await ours.until(lambda: len(billed(ours)) == 5)


def scaled(ours: Platform, *, workers: int) -> None:
    """As its owner, or the autoscaler of Ray, asks for it."""
    found = ours.control_plane.ask(ours.path(RAY, "ray"))
    found["spec"]["workerGroupSpecs"][0]["replicas"] = workers
    ours.control_plane.ask(ours.path(RAY, "ray"), method="PUT", body=found)
