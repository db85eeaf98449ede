"""Elastic gangs on a real API server with played nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mainstay.decide import growth
from mainstay.domain.allocation import Seen
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.workload import Elastic, Phase, RetryPolicy
from mainstay.operations import nodes
from testbed.control_plane import ControlPlane
from testbed.puppets import Life
from tests.arena import CLUSTER, SOMEBODY, Arena, arena

pytestmark = pytest.mark.xdist_group("api-server")
WHOLE = Resources(cpu_milli=5_000, memory_bytes=BYTES_PER_GIB)
"""Of a played node there is room for one."""


async def test_an_elastic_gang_shrinks_for_a_drain_and_grows_once_there_is_room_again(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "PAUSE_SECONDS", 2)
    async with arena(plane, tmp_path, seed=5, machines=3) as world:
        (job,) = world.submit(
            Life(seconds=300),
            nodes=3,
            elastic=Elastic(nodes_min=2, nodes_max=3),
            choices=(WHOLE,),
            retry=RetryPolicy(infrastructure_max=0),
        )
        await world.until(lambda: len(_where(world, job)) == 3)
        drained = _where(world, job)[-1]
        services = world.replica.services
        nodes.drain(
            services.store,
            SOMEBODY,
            (CLUSTER, drained),
            now=services.clock.now(),
            why="",
            wait_seconds=0,
            request=None,
            reply=lambda _: "",
        )
        services.pulse.beat()
        await world.until(lambda: len(_where(world, job)) == 2)
        assert drained not in _where(world, job)
        await world.until(lambda: _lives(world, job) == 2)
        nodes.uncordon(
            services.store, SOMEBODY, (CLUSTER, drained), now=services.clock.now(), request=None, reply=lambda _: ""
        )
        services.pulse.beat()
        await world.until(lambda: len(_where(world, job)) == 3)
        assert drained in _where(world, job)
        world.lives[job] = Life(seconds=1)
        assert await world.settle()
        assert await world.violations(settled=True) == []
        found = world.workloads()[job]
        assert (found.phase, found.attempt, found.infrastructure_failures) == (Phase.SUCCEEDED, 1, 0)


def _where(world: Arena, job: str) -> list[str]:
    """The nodes on which the machines run its ranks, by rank."""
    running = {one.pod: one.node for one in world.puppets.running() if one.pod.startswith(job)}
    return [running[pod] for pod in sorted(running)]


def _lives(world: Arena, job: str) -> int:
    """So many of its pods are on record and have not ended."""
    key = world.workloads()[job].key
    return sum(one.seen is not Seen.ENDED for one in world.replica.store.allocations(key))
