"""The same plays on simulated machines and on a real API server with played nodes: what is on record afterwards is the same.

The simulation proves the platform against machines in memory, and unit tests prove the adapter against an API server in memory;
here both are held against the real thing (reliability.md 4).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
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
from tests.clock import ManualClock
from tests.integration.kubernetes.client import connection
from tests.stages import Play, Stage, played, ready, simulated
from tests.unit.clusters.kubernetes.api_server import Server

pytestmark = pytest.mark.xdist_group("plays")

Scene: TypeAlias = Callable[[Play], Awaitable[None]]
Traces: TypeAlias = dict[str, dict[str, list[str]]]


async def it_ends_well(play: Play) -> None:
    play.submit()
    await play.run()
    await play.end()


async def it_fails(play: Play) -> None:
    play.submit()
    await play.run()
    await play.end(exit_code=3)


async def it_fails_and_is_tried_again(play: Play) -> None:
    play.submit(retry=RetryPolicy(user_max=1, backoff_seconds=1))
    for _ in range(2):
        await play.run()
        await play.end(exit_code=3)


async def it_is_stopped_while_it_runs(play: Play) -> None:
    play.submit()
    await play.run()
    play.stop()


async def it_is_stopped_while_it_starts(play: Play) -> None:
    play.submit()
    await play.until_seen(Seen.STARTING)
    play.stop()


async def it_takes_too_long(play: Play) -> None:
    play.submit(max_duration_seconds=1)
    await play.start()


async def somebody_takes_it_away(play: Play) -> None:
    play.submit()
    await play.run()
    await play.stage.take_away(play.pod)
    await play.run()
    await play.end()


async def a_gang_ends_well(play: Play) -> None:
    play.submit(nodes=2)
    await play.run()
    await play.end()


async def one_of_a_gang_fails(play: Play) -> None:
    play.submit(nodes=2)
    await play.run()
    await play.end(1, exit_code=1)


async def the_platform_crashes(play: Play) -> None:
    play.submit()
    await play.run()
    await play.stage.crash()
    await play.end()


async def its_node_is_cut_off(play: Play) -> None:
    play.submit()
    await play.run()
    await play.stage.cut_off(node := play.node)
    await play.until_seen(Seen.UNKNOWN)
    await play.stage.come_back(node)
    await play.until_seen(Seen.RUNNING)
    await play.end()


async def it_ends_while_its_node_is_cut_off(play: Play) -> None:
    play.submit()
    await play.run()
    await play.stage.cut_off(node := play.node)
    await play.until_seen(Seen.UNKNOWN)
    await play.end()
    await play.stage.come_back(node)


async def it_is_stopped_while_its_node_is_cut_off(play: Play) -> None:
    play.submit()
    await play.run()
    await play.stage.cut_off(node := play.node)
    await play.until_seen(Seen.UNKNOWN)
    play.stop()
    await asyncio.sleep(1.0)
    await play.stage.come_back(node)


async def its_node_loses_power(play: Play) -> None:
    play.submit()
    await play.run()
    await play.stage.power_off(node := play.node)
    await play.until_seen(Seen.UNKNOWN)
    await asyncio.sleep(1.0)
    await play.stage.come_back(node)
    await play.run()
    await play.end()


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


def written(trace: dict[str, list[str]]) -> str:
    """One line each, so that a difference is seen as one; without what no look need see."""
    return "\n".join(f"{what}: {line}" for what, lines in sorted(trace.items()) for line in _certain(lines))


def _certain(lines: Sequence[str]) -> Iterator[str]:
    """All but one word that a real cluster may say or not, whatever is done: that a pod runs, just before its end.

    - A run that its machine ends by its own clock is over at its time, whether or not somebody has looked meanwhile.
    - A node that was out of sight and is back says what it said before, until its kubelet has looked: of a pod that has ended,
      or is to end, it may say once more that it runs.

    The step that follows then begins where that one would have begun.
    """
    skipped, lost = "", False
    for line, following in zip(lines, [*lines, ""][1:], strict=True):
        lost = line.startswith("PodLost") or (lost and not line.startswith("Placed"))
        ends = line.startswith("PodRunning") and _END.search(following)
        if ends and (lost or _DEADLINE.search(following)):
            skipped = _phases(line)[0]
            continue
        before, after = _phases(line)
        yield line.replace(f"{before}>{after}", f"{skipped}>{after}") if skipped and before else line
        skipped = ""


_END = re.compile(r"^PodEnded|>(queued|succeeded|failed|stopped)$")
_DEADLINE = re.compile(r"end=deadline|^MaxDurationReached")


def _phases(line: str) -> tuple[str, str]:
    """Of its workload, before and after; empty where a line tells of none."""
    before, _, after = line.rpartition(" ")[2].partition(">")
    return (before, after) if after else ("", "")


RAN = ["Placed pending>starting", "PodRunning starting>running", "Completed running>succeeded"]
LATE = ["Placed pending>starting", "PodRunning starting>running", "MaxDurationReached running>failed"]
BACK = [*RAN[:2], "PodLost running>unknown", "StopRequested", "PodRunning unknown>running", "Stopped running>stopped"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (RAN, [RAN[0], "Completed starting>succeeded"], False),
        (RAN, RAN[1:], False),
        (LATE, [LATE[0], "MaxDurationReached starting>failed"], True),
        (["PodRunning", "PodEnded end=deadline"], ["PodEnded end=deadline"], True),
        (["PodStarting", "PodRunning", "PodEnded end=exited"], ["PodStarting", "PodEnded end=exited"], False),
        (BACK, [*BACK[:4], "Stopped unknown>stopped"], True),
        (BACK, [BACK[0], *BACK[2:]], False),
        ([*BACK, *RAN], [*BACK, RAN[0], "Completed starting>succeeded"], False),
    ],
)
def test_only_a_step_that_no_look_need_see_is_left_out_of_the_comparison(
    one: list[str],
    other: list[str],
    same: bool,  # noqa: FBT001
) -> None:
    assert (written({"job": one}) == written({"job": other})) is same


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
