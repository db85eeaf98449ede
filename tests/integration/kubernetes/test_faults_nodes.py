"""F15: what befalls nodes and their pods, on a real API server.

Nothing runs twice, nothing is lost, no orphan stays, and nothing is charged that did not run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mainstay.clusters.kubernetes import chores, picture
from mainstay.clusters.kubernetes.nodes import OUT_OF_SERVICE
from mainstay.clusters.kubernetes.trust import REFUSALS_MAX
from mainstay.control import effects
from mainstay.decide import reconcile
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.reason import Code
from mainstay.domain.workload import Phase
from testbed.control_plane import ControlPlane
from testbed.puppets import Life
from tests.arena import Arena, arena

pytestmark = pytest.mark.xdist_group("nodes-in-storms")


ONE_POD = 1_000


@pytest.fixture
async def world(plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Arena]:
    # Played kubelets end what vanished within a second, and report at once.
    monkeypatch.setattr(reconcile, "MISSING_GRACE_SECONDS", 3)
    monkeypatch.setattr(picture, "ORPHAN_SECONDS", 4)
    monkeypatch.setattr(picture, "REPORT_SECONDS", 2)
    monkeypatch.setattr(picture, "SETTLED_SECONDS", 2)
    monkeypatch.setattr(chores, "BURIAL_SECONDS", 1.0)
    async with arena(plane, tmp_path, seed=1) as made:
        yield made


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def held(world: Arena, node: str) -> int:
    """What allocations hold of a node, in thousandths of a core."""
    (found,) = [one for one in world.replica.store.nodes() if one.name == node]
    return found.used.cpu_milli


async def settled(world: Arena) -> None:
    """Everything has come to its end, and no promise was broken."""
    ended = await world.settle()
    assert await world.violations(settled=ended) == []


async def test_a_node_that_is_cut_off_keeps_its_pod_which_goes_on_when_it_is_back(world):
    (job,) = world.submit(Life(seconds=8))
    await world.until_running(job)
    _, node = world.pod_of(job)
    await world.puppets.cut_off(node)
    await world.until(lambda: world.seen(job) == "UNKNOWN")
    await asyncio.sleep(2)
    assert len(world.runs(job)) == 1
    assert held(world, node) == ONE_POD, "what it holds is nobody else's before it is known to be dead"
    await world.puppets.come_back(node)
    await settled(world)
    assert (len(world.runs(job)), world.attempts(job)) == (1, ["exited"])
    assert held(world, node) == 0


async def test_a_node_that_loses_power_costs_one_attempt_and_no_failure_of_the_user(world):
    (job,) = world.submit(Life(seconds=4))
    await world.until_running(job)
    _, node = world.pod_of(job)
    await world.puppets.power_off(node)
    await world.until(lambda: world.seen(job) == "UNKNOWN")
    await asyncio.sleep(2)
    assert len(world.runs(job)) == 1
    await world.puppets.come_back(node)
    await settled(world)
    assert world.attempts(job) == ["lost", "exited"]


async def test_a_dead_node_holds_its_pod_until_somebody_vouches_for_its_death(world):
    (job,) = world.submit(Life(seconds=3))
    await world.until_running(job)
    _, node = world.pod_of(job)
    await world.puppets.power_off(node)
    await world.until(lambda: world.seen(job) == "UNKNOWN")
    taints = [{"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}]
    assert held(world, node) == ONE_POD
    found = await world.call("GET", f"/api/v1/nodes/{node}")
    found["spec"]["taints"] = taints
    await world.call("PUT", f"/api/v1/nodes/{node}", found)
    await settled(world)
    assert world.attempts(job) == ["lost", "exited"]


@pytest.mark.parametrize("how", ["deleted", "deleted by force", "evicted", "without its finalizer"])
async def test_a_pod_that_others_end_is_followed_by_another_attempt_and_never_beside_it(world, how):
    (job,) = world.submit(Life(seconds=3))
    await world.until_running(job)
    path, _ = world.pod_of(job)
    name = path.rpartition("/")[2]
    match how:
        case "deleted":
            await world.call("DELETE", path)
        case "deleted by force":
            await world.call("DELETE", path, {"gracePeriodSeconds": 0})
        case "evicted":
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
            await world.call("POST", f"{path}/eviction", eviction)
        case _:
            found = await world.call("GET", path)
            found["metadata"]["finalizers"] = []
            await world.call("PUT", path, found)
            await world.call("DELETE", path, {"gracePeriodSeconds": 0})
    await settled(world)
    assert len(world.attempts(job)) == 2
    assert world.attempts(job)[1] == "exited"


async def test_a_pod_that_others_deleted_while_nobody_looked_is_no_failure_of_its_job(world):
    """Its kubelet has said its last word when we look: the request seems to have come after the end."""
    (job,) = world.submit(Life(seconds=1))
    world.lives[f"{job}-1-0"] = Life(seconds=60)
    for machine in world.puppets.machines.values():
        machine.cleans_up_seconds = 1.2
    await world.until_running(job)
    path, _ = world.pod_of(job)
    async with world.down():
        await world.call("DELETE", path)
        async with asyncio.timeout(20):
            while (await world.call("GET", path))["metadata"]["deletionGracePeriodSeconds"]:
                await asyncio.sleep(0.1)
    await settled(world)
    assert world.attempts(job) == ["stopped", "exited"]


async def test_a_pod_that_asks_for_too_much_memory_is_the_failure_of_its_job(world):
    (job,) = world.submit(Life(seconds=1, exit_code=137, reason="OOMKilled"))
    await settled(world)
    assert world.attempts(job) == ["oom"]
    workload = world.workloads()[job]
    assert (workload.phase, workload.reason.code) == (Phase.FAILED, Code.OUT_OF_MEMORY)


async def test_a_pod_that_its_node_evicts_is_lost_to_the_infrastructure(world):
    (job,) = world.submit(Life(seconds=3))
    await world.until_running(job)
    (process,) = world.runs(job)
    await world.puppets.evict(process.uid)
    await settled(world)
    assert world.attempts(job) == ["lost", "exited"]


async def test_a_pod_that_a_scheduler_preempts_is_lost_to_the_infrastructure(world):
    (job,) = world.submit(Life(seconds=3))
    await world.until_running(job)
    path, _ = world.pod_of(job)
    disrupted = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": "preempted",
    }
    found = await world.call("GET", f"{path}/status")
    found["status"].setdefault("conditions", []).append({**disrupted, "lastTransitionTime": now()})
    await world.call("PUT", f"{path}/status", found)
    await world.call("DELETE", path)
    await settled(world)
    assert world.attempts(job) == ["lost", "exited"]


async def test_a_namespace_that_is_deleted_under_us_is_made_again(world):
    (job,) = world.submit(Life(seconds=3))
    await world.until_running(job)
    path, _ = world.pod_of(job)
    await world.call("DELETE", path.partition("/pods/")[0])
    await settled(world)
    assert world.attempts(job)[-1] == "exited"


async def test_a_storm_of_refused_pods_is_over_after_ten_and_other_nodes_take_the_jobs(plane, tmp_path, monkeypatch):
    monkeypatch.setattr(effects, "ROOM_SECONDS_MAX", 3.0)
    small = Resources(cpu_milli=250, memory_bytes=BYTES_PER_GIB // 8)
    async with arena(plane, tmp_path, seed=1, tombstone_seconds=600) as world:
        for machine in world.puppets.machines.values():
            machine.refuses = "UnexpectedAdmissionError"
        world.submit(Life(seconds=0.5), choices=(small,))
        await world.until(lambda: world.puppets.refused)
        lying = world.replica.store.allocations(1)[0].node
        for machine in world.puppets.machines.values():
            machine.refuses = machine.refuses if machine.name == lying else ""
        world.submit(*[Life(seconds=0.5)] * 40, choices=(small,))
        await settled(world)
        # Without an end each of the 41 jobs would be refused in each of its four attempts.
        assert len(world.puppets.refused) <= REFUSALS_MAX
