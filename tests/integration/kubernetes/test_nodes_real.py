"""Nodes that are drained or cut off, with real pods: a job goes on from its checkpoint; one that nobody renews ends itself."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mainstay.clusters.kubernetes import chores, names, pods, surroundings
from mainstay.domain.allocation import End, Owner, Seen
from mainstay.domain.quantity import Resources
from mainstay.domain.workload import Phase
from mainstay.operations import nodes
from testbed.control_plane import ControlPlane
from testbed.fixtures import until
from testbed.images import BUSYBOX
from tests.clusters import Program, RealCluster, kubernetes_rig
from tests.integration.kubernetes.guests import Platform, container, platform
from tests.integration.kubernetes.installed import let_reach
from tests.integration.kubernetes.test_nodes import ADA, node, say_of, shown, submitted

pytestmark = pytest.mark.xdist_group("kubernetes")


@pytest.fixture(scope="module")
def control_plane(real_control_plane: ControlPlane) -> ControlPlane:
    return real_control_plane


KEEP = """
echo 0 > /tmp/kept
while :; do nc -l -p 9001 < /tmp/kept; done &
while :; do nc -l -p 9000 < /dev/null > /tmp/new; [ -s /tmp/new ] && cp /tmp/new /tmp/kept; done
"""
"""Where jobs keep a number: written at one port, read at the other."""
TRAIN = """
until step=$(nc {store} 9001 < /dev/null) && [ -n "$step" ]; do sleep 0.2; done; echo from step $step
kept() {{ echo $step | nc {store} 9000; [ "$(nc {store} 9001 < /dev/null)" = $step ]; }}
save() {{ until kept; do sleep 0.2; done; echo saved $step; exit 1; }}
trap save TERM
while [ $step -lt {steps} ]; do sleep 0.2 & wait $!; step=$((step + 1)); done
echo done at $step
"""
"""Asks again where it is refused: a network that keeps policies knows a new pod only after a moment."""


async def test_a_job_on_a_real_node_that_is_drained_saves_its_checkpoint_and_goes_on_from_there(
    real_cluster: RealCluster, namespace: str, tmp_path: Path
) -> None:
    """It saves to a pod of others on the same node, which the drain leaves alone, and which a policy lets it reach."""
    name, plane = real_cluster.node.name, real_cluster.control_plane
    async with platform(plane, namespace, tmp_path) as ours:
        images = {"helper_image": BUSYBOX, "image": BUSYBOX}
        ours.cluster._settings = dataclasses.replace(ours.cluster._settings, **images)
        small: dict[str, Any] = {"requests": {"cpu": "10m", "memory": "16Mi"}}
        keeper = container(image=BUSYBOX, command=["/bin/sh", "-c", KEEP], resources=small)
        spec = {"nodeName": name, "terminationGracePeriodSeconds": 1, "containers": [keeper]}
        ours.make("pods", {"metadata": {"name": "store"}, "spec": spec})
        store = until(lambda: plane.ask(ours.path("pods", "store"))["status"].get("podIP"))
        mine = Owner(tenant=ADA.tenant, project="default")
        home = names.namespace(mine, system=ours.cluster._settings.system)
        made = surroundings.namespace(home, mine, ours.cluster._settings)
        plane.ask("/api/v1/namespaces", method="POST", body=made)
        let_reach(plane, home, store, 9_000, 9_001)
        await ours.until(lambda: any(row.name == name for row in ours.store.nodes()))
        for other in [row for row in ours.store.nodes() if row.name != name]:
            say_of(ours, nodes.cordon, other.name, why="only the real one")
        script = TRAIN.format(store=store, steps=30)
        asked = Resources(cpu_milli=50, memory_bytes=32 << 20)
        submitted(ours, asked, run=("/bin/sh", "-c", script), grace=20)
        await ours.until(lambda: ours.phases()["job"] is Phase.RUNNING)
        await asyncio.sleep(2.0)
        say_of(ours, nodes.drain, name, why="kernel", wait_seconds=0)
        await ours.until(lambda: not nodes.residents(ours.store, node(ours, name)))
        await ours.until(lambda: ours.phases()["job"] in {Phase.PENDING, Phase.QUEUED})
        assert ours.allocations("job")[0].end == "stopped"
        assert (
            ours.workloads()[0].reason.sentence.endswith("drained by ada: kernel") or ours.workloads()[0].attempt == 2
        )
        await ours.until(lambda: f"{namespace}/store" in node(ours, name).strangers)
        assert plane.ask(ours.path("pods", "store"))["status"]["phase"] == "Running"
        say_of(ours, nodes.uncordon, name)
        await ours.until(lambda: ours.phases()["job"] is Phase.SUCCEEDED)
        await ours.until(lambda: all(one.closed for one in ours.allocations("job")))
        plane.ask(ours.path("pods", "store"), method="DELETE")
        found = ours.workloads()[0]
        assert (found.attempt, found.infrastructure_failures) == (2, 0)
        first, second = [await _log(ours, f"{found.id}-{attempt}-0") for attempt in (1, 2)]
        saved = first[1].removeprefix("saved ")
        assert int(saved) > 0
        assert (first, second) == (["from step 0", f"saved {saved}"], [f"from step {saved}", "done at 30"])
        for row in ours.store.nodes():
            if row.closure is not None:
                say_of(ours, nodes.uncordon, row.name)
        await ours.until(lambda: not any(shown(plane, row.name)[0] for row in ours.store.nodes()))


async def test_a_real_pod_lives_while_it_is_renewed_and_ends_itself_once_nobody_does(
    real_cluster: RealCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if nobody tells it to: that is what a pod must do whose node is cut off."""
    monkeypatch.setattr(pods, "DEAD_MAN_PERIOD_SECONDS", 1)
    monkeypatch.setattr(chores, "RENEW_SECONDS", 1)
    rig = await kubernetes_rig(real_cluster, tmp_path)
    try:
        await rig.create("alone-1-0", Program(runs_for=120), dead_man_seconds=4, stop_grace_seconds=1)
        await rig.seen("alone-1-0", Seen.RUNNING)
        for _ in range(40):
            state = await rig.state("alone-1-0")
            assert state is not None
            assert state.seen is Seen.RUNNING
            await asyncio.sleep(0.2)
        monkeypatch.setattr(chores, "RENEW_SECONDS", 1_000)
        ended = await rig.seen("alone-1-0", Seen.ENDED)
        assert (ended.end, ended.detail) == (End.LOST, pods.DEAD_MAN_WORDS)
    finally:
        await rig.close()


async def _log(ours: Platform, pod: str) -> list[str]:
    return (await ours.cluster.read_log(pod, offset=0, limit=10_000)).data.decode().splitlines()
