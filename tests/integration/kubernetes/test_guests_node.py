"""Pods of others, placed by us on a real node: what its kubelet says of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mainstay.domain.allocation import End
from mainstay.domain.workload import Phase
from testbed.control_plane import ControlPlane
from testbed.images import BUSYBOX
from tests.clusters import RealCluster
from tests.integration.kubernetes.guests import Platform, container, platform

pytestmark = pytest.mark.xdist_group("kubernetes")


@pytest.fixture
def control_plane(real_control_plane: ControlPlane) -> ControlPlane:
    """The cluster of the real node."""
    return real_control_plane


@pytest.fixture
async def really(real_cluster: RealCluster, namespace: str, tmp_path: Path) -> AsyncIterator[Platform]:
    async with platform(real_cluster.control_plane, namespace, tmp_path) as made:
        yield made


def real(script: str, node: str, **changes: Any) -> dict[str, Any]:
    """A pod of a few megabytes on the real node."""
    small = {"requests": {"cpu": "50m", "memory": "16Mi"}}
    command = ["/bin/sh", "-c", script]
    return {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "containers": [container(image=BUSYBOX, command=command, resources=small)],
        **changes,
    }


async def test_on_a_real_node_ends_and_exit_codes_are_those_of_the_kubelet(
    really: Platform, real_cluster: RealCluster
) -> None:
    node = real_cluster.node.name
    really.make_pod("well", **real("sleep 2", node, restartPolicy="Never"))
    really.make_pod("badly", **real("exit 3", node, restartPolicy="Never"))
    really.make_pod("again", **real("sleep 1; exit 1", node, restartPolicy="Always"))
    await really.until(lambda: really.phases().get("well") is Phase.SUCCEEDED)
    await really.until(lambda: really.phases().get("badly") is Phase.FAILED)
    (held,) = really.allocations("badly")
    assert (held.end, held.exit_code) == (End.EXITED, 3)
    (ran,) = really.allocations("well")
    assert 1_000_000 <= ran.ended_at - ran.started_at <= 10_000_000
    assert really.phases()["again"] is Phase.RUNNING
    really.stop("again")
    await really.until(lambda: really.phases()["again"] is Phase.STOPPED and really.pod("again") is None)


async def test_on_a_real_node_a_plain_job_is_done_and_billed(really: Platform, real_cluster: RealCluster) -> None:
    template = really.template(**real("sleep 2", real_cluster.node.name, restartPolicy="Never"))
    job = {"metadata": {"name": "sum"}, "spec": {"completions": 2, "parallelism": 2, "template": template}}
    really.make("batch/v1/jobs", job)
    await really.until(lambda: [w.phase for w in really.workloads()] == [Phase.SUCCEEDED] * 2)
    await really.until(lambda: all(really.store.allocations(w.key)[0].closed for w in really.workloads()))
    usage = really.store.usage(tenant="default", since=0, until=1 << 60)
    assert len(usage) == 2
    assert all(sum(line.cost.micros for line in charges) > 0 for _, charges in usage)
