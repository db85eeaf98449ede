"""Pods of others, placed by us on a real API server with hollow nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mainstay.domain.allocation import Seen
from mainstay.domain.workload import Phase
from testbed.control_plane import ControlPlane
from tests.integration.kubernetes.guests import Platform, platform

pytestmark = pytest.mark.xdist_group("kubernetes")


@pytest.fixture
async def ours(
    control_plane: ControlPlane, hollow_nodes: tuple[str, ...], namespace: str, tmp_path: Path
) -> AsyncIterator[Platform]:
    async with platform(control_plane, namespace, tmp_path) as made:
        yield made


async def test_a_pod_that_names_us_is_placed_runs_and_is_billed(ours: Platform) -> None:
    ours.make_pod("web")
    await ours.until(lambda: ours.phases().get("web") is Phase.RUNNING)
    (held,) = ours.allocations("web")
    found = ours.pod("web")
    assert found is not None
    assert (held.seen, held.node, held.resources.cpu_milli) == (Seen.RUNNING, found["spec"]["nodeName"], 1_000)
    await asyncio.sleep(2.0)  # times of pods are whole seconds
    ours.stop("web")
    await ours.until(lambda: ours.pod("web") is None and ours.phases()["web"] is Phase.STOPPED)
    await ours.until(lambda: ours.allocations("web")[0].closed)
    (usage, charges), *rest = ours.store.usage(tenant="default", since=0, until=1 << 60)
    assert rest == []
    assert (usage.project, usage.resources.cpu_milli) == (ours.namespace[:40], 1_000)
    assert sum(line.cost.micros for line in charges) > 0
