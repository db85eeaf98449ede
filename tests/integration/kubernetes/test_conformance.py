"""The same plays on simulated machines and on a real API server with played nodes: what is on record afterwards is the same.

The simulation proves the platform against machines in memory, and unit tests prove the adapter against an API server in memory;
here both are held against the real thing (reliability.md 4).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from mainstay.clusters.kubernetes import chores, names, picture
from mainstay.clusters.kubernetes.errors import ApiError
from mainstay.clusters.kubernetes.kinds import PODS
from mainstay.clusters.kubernetes.states import asked_at
from mainstay.domain.allocation import Seen
from mainstay.domain.workload import RetryPolicy
from testbed.control_plane import ControlPlane
from testbed.puppets import Life
from tests.clock import ManualClock
from tests.integration.kubernetes.client import connection
from tests.stages import Play, Stage, played, ready, simulated
from tests.unit.clusters.kubernetes.api_server import Server

pytestmark = pytest.mark.xdist_group("plays")

MEASURED_SECONDS = 1.1
"""What ran for longer is charged everywhere: kubelets count in whole seconds."""

LONG = Life(seconds=60)
"""Of a first attempt that is over before: however busy the machine is, it has not ended by itself."""

Scene: TypeAlias = Callable[[Play], Awaitable[None]]
Traces: TypeAlias = dict[str, dict[str, list[str]]]


async def it_ends_well(play: Play) -> None:
    play.submit(Life(seconds=1.5))


async def it_fails(play: Play) -> None:
    play.submit(Life(seconds=1.5, exit_code=3))


async def it_fails_and_is_tried_again(play: Play) -> None:
    play.submit(Life(seconds=1.5, exit_code=3), retry=RetryPolicy(user_max=1, backoff_seconds=1))


async def it_is_stopped_while_it_runs(play: Play) -> None:
    play.submit(Life(seconds=60))
    await play.until_seen(Seen.RUNNING)
    await asyncio.sleep(MEASURED_SECONDS)
    play.stop()


async def it_is_stopped_while_it_starts(play: Play) -> None:
    play.submit(Life(seconds=60, starts_after=60))
    await play.until_seen(Seen.STARTING)
    play.stop()


async def it_takes_too_long(play: Play) -> None:
    play.submit(Life(seconds=60), max_duration_seconds=1)


async def somebody_takes_it_away(play: Play) -> None:
    play.submit(Life(seconds=3), ranks=(LONG,))
    await play.until_seen(Seen.RUNNING)
    await asyncio.sleep(MEASURED_SECONDS)
    await play.stage.take_away(play.pod)


async def a_gang_ends_well(play: Play) -> None:
    play.submit(Life(seconds=1.5), nodes=2)


async def one_of_a_gang_fails(play: Play) -> None:
    play.submit(Life(), ranks=(Life(seconds=60), Life(seconds=1.5, exit_code=1)), nodes=2)


async def the_platform_crashes(play: Play) -> None:
    play.submit(Life(seconds=3))
    await play.until_seen(Seen.RUNNING)
    await play.stage.crash()


async def its_node_is_cut_off(play: Play) -> None:
    play.submit(Life(seconds=12))
    await play.until_seen(Seen.RUNNING)
    node = play.node
    await play.stage.cut_off(node)
    await play.until_seen(Seen.UNKNOWN)
    await play.stage.come_back(node)
    await play.until_seen(Seen.RUNNING)


async def it_ends_while_its_node_is_cut_off(play: Play) -> None:
    play.submit(Life(seconds=6))
    await play.until_seen(Seen.RUNNING)
    node = play.node
    await play.stage.cut_off(node)
    await play.until_seen(Seen.UNKNOWN)
    await asyncio.sleep(6.5)
    await play.stage.come_back(node)


async def it_is_stopped_while_its_node_is_cut_off(play: Play) -> None:
    play.submit(Life(seconds=60))
    await play.until_seen(Seen.RUNNING)
    node = play.node
    await play.stage.cut_off(node)
    await play.until_seen(Seen.UNKNOWN)
    play.stop()
    await asyncio.sleep(1.0)
    await play.stage.come_back(node)


async def its_node_loses_power(play: Play) -> None:
    play.submit(Life(seconds=3), ranks=(LONG,))
    await play.until_seen(Seen.RUNNING)
    node = play.node
    await play.stage.power_off(node)
    await play.until_seen(Seen.UNKNOWN)
    await asyncio.sleep(1.0)
    await play.stage.come_back(node)


TOGETHER: tuple[Scene, ...] = (
    it_ends_well,
    it_fails,
    it_fails_and_is_tried_again,
    it_is_stopped_while_it_runs,
    it_is_stopped_while_it_starts,
    it_takes_too_long,
    somebody_takes_it_away,
    a_gang_ends_well,
    one_of_a_gang_fails,
)
ALONE: tuple[Scene, ...] = (
    the_platform_crashes,
    its_node_is_cut_off,
    it_ends_while_its_node_is_cut_off,
    it_is_stopped_while_its_node_is_cut_off,
    its_node_loses_power,
)
"""What befalls them befalls all that are there."""


async def traces(stage: Stage) -> Traces:
    """Of all scenes."""
    found: Traces = {}

    async def perform(scene: Scene) -> None:
        play = Play(stage)
        await scene(play)
        await play.until_over()
        found[scene.__name__] = play.trace()

    await ready(stage)
    await asyncio.gather(*map(perform, TOGETHER))
    for scene in ALONE:
        await perform(scene)
    return found


@pytest.fixture(scope="module")
def both(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> tuple[Traces, Traces]:
    """What came of the plays on either stage, side by side."""

    async def on_simulated(folder: Path) -> Traces:
        async with simulated(folder) as stage:
            return await traces(stage)

    async def on_real(folder: Path) -> Traces:
        async with played(plane, folder) as stage:
            return await traces(stage)

    async def performed() -> tuple[Traces, Traces]:
        one, other = await asyncio.gather(
            on_simulated(tmp_path_factory.mktemp("simulated")), on_real(tmp_path_factory.mktemp("real"))
        )
        return one, other

    with pytest.MonkeyPatch.context() as patch:
        # Played kubelets end what vanished within a second, and report at once.
        patch.setattr(picture, "ORPHAN_SECONDS", 4)
        patch.setattr(picture, "REPORT_SECONDS", 2)
        patch.setattr(picture, "SETTLED_SECONDS", 2)
        patch.setattr(chores, "BURIAL_SECONDS", 1.0)
        return asyncio.run(performed())


@pytest.mark.parametrize("scene", [scene.__name__ for scene in (*TOGETHER, *ALONE)])
def test_a_play_leaves_the_same_record_on_simulated_machines_and_on_a_real_api_server(
    both: tuple[Traces, Traces], scene: str
) -> None:
    on_simulated, on_real = (written(one[scene]) for one in both)
    assert on_simulated == on_real


SEEN_IN_PASSING = ("PodStarting", "PodRunning", "job: Started ")
"""What lies between a beginning and an end may be over before the next look."""


def written(trace: dict[str, list[str]]) -> str:
    """One line each, so that a difference is seen as one; without what a look may miss: a pod may be back before it ends."""
    lines = [f"{what}: {line}" for what, lines in sorted(trace.items()) for line in lines]
    told = [line for line in lines if not any(word in line for word in SEEN_IN_PASSING)]
    return "\n".join(re.sub(r"\b(starting|running)>|\bunknown>(?=stopped)", "active>", line) for line in told)


async def answers(api: Any, namespace: str, wait: Callable[[float], Awaitable[None]]) -> list[str]:
    """What an API server says to all that the adapter builds upon: names, UIDs, versions, graces and finalizers."""
    said: list[str] = []

    async def say(what: str, call: Awaitable[Any]) -> Any:
        try:
            answer = await call
        except ApiError as error:
            said.append(f"{what}: {type(error).__name__}")
            return None
        meta = getattr(answer, "metadata", None)
        if meta is None:
            said.append(f"{what}: done")
            return None
        grace = meta.deletion_grace_period_seconds if meta.deletion_timestamp else "none"
        said.append(
            f"{what}: {answer.status.phase} grace={grace} finalizers={len(meta.finalizers)} {dict(meta.labels)}"
        )
        return answer

    def document(name: str, **spec: Any) -> dict[str, Any]:
        meta = {"name": name, "finalizers": [names.RECORDED], "labels": {"a": "b"}}
        containers = [{"name": "main", "image": "any", "resources": {}}]
        return {"metadata": meta, "spec": {"containers": containers, "tolerations": [{"operator": "Exists"}], **spec}}

    def get(name: str) -> Awaitable[Any]:
        return api.get(PODS, namespace, name)

    await say("create nowhere", api.create(PODS, f"{namespace}-not-there", document("p", nodeName="n")))
    made = await say("create", api.create(PODS, namespace, document("p", nodeName="n")))
    await say("create again", api.create(PODS, namespace, document("p", nodeName="n")))
    uid, version = made.metadata.uid, made.metadata.resource_version
    await say("patch another", api.patch(PODS, namespace, "p", {"metadata": {"uid": "other", "labels": {"c": "d"}}}))
    await say("patch", api.patch(PODS, namespace, "p", {"metadata": {"uid": uid, "labels": {"c": "d"}}}))
    late = {"metadata": {"resourceVersion": version, "labels": {"e": "f"}}}
    await say("patch an old version", api.patch(PODS, namespace, "p", late))
    await say("delete another", api.delete(PODS, namespace, "p", uid="other", grace_seconds=5))
    for grace in (5, 1, 30):
        await say(f"delete with {grace}", api.delete(PODS, namespace, "p", uid=uid, grace_seconds=grace))
        await say("get", get("p"))
    await say("let go", api.patch(PODS, namespace, "p", {"metadata": {"uid": uid, "finalizers": []}}))
    await say("get what waits for its kubelet", get("p"))
    await say("delete at once", api.delete(PODS, namespace, "p", uid=uid, grace_seconds=0))
    await say("get what is gone", get("p"))
    await say(
        "create a gated one", api.create(PODS, namespace, document("g", schedulingGates=[{"name": names.TOMBSTONE}]))
    )
    await say("delete it", api.delete(PODS, namespace, "g", grace_seconds=5))
    await say("get it", get("g"))
    await say("let it go", api.patch(PODS, namespace, "g", {"metadata": {"finalizers": []}}))
    await say("get it again", get("g"))
    await api.create(PODS, namespace, document("w", nodeName="n"))
    await api.delete(PODS, namespace, "w", grace_seconds=30)
    asked = asked_at(await get("w"))
    for grace in (20, 1, 0):
        await wait(2.1)
        await say(f"shorten to {grace}", api.delete(PODS, namespace, "w", grace_seconds=grace))
        shown = await get("w")
        said.append(f"it looks asked {'later' if asked_at(shown) > asked else 'when it was'}")
        await say("get what was shortened", get("w"))
    return said


async def test_an_api_server_in_memory_answers_as_a_real_one(control_plane: ControlPlane, namespace: str) -> None:
    real = connection(control_plane)
    clock = ManualClock()
    in_memory = Server(clock)

    async def advance(seconds: float) -> None:
        clock.advance(seconds)

    in_memory.put("namespaces", "", {"metadata": {"name": namespace}})
    try:
        expected = await answers(real, namespace, asyncio.sleep)
        assert "\n".join(await answers(in_memory, namespace, advance)) == "\n".join(expected)
        assert "it looks asked later" in expected
    finally:
        await real.close()
