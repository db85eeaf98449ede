"""What a cluster needs besides the effects follows from what it shows, and is done once, whoever starts it."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from mainstay.clusters.kubernetes import chores as chores_module
from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.chores import (
    BURIAL_SECONDS,
    LOG_PATIENCE_SECONDS,
    OVERRUN_SECONDS,
    PATIENCE_SECONDS,
    ROUND_SECONDS,
    Chores,
)
from mainstay.clusters.kubernetes.errors import ServerFailed
from mainstay.clusters.kubernetes.logs import Logs
from mainstay.clusters.kubernetes.pace import Pace
from mainstay.clusters.kubernetes.views import OwnView
from mainstay.clusters.kubernetes.waiting import Waiting
from mainstay.domain.allocation import Owner
from mainstay.domain.artifact import Tree
from mainstay.domain.secret import SecretUse
from mainstay.simulation.files import MemoryArtifactStore
from tests.clock import ManualClock
from tests.drawer import Drawer
from tests.unit.clusters.kubernetes.objects import OWNER, SYSTEM, own_view, pod
from tests.unit.clusters.kubernetes.server import Name, Process, Server

HOME = names.namespace(OWNER, system=SYSTEM)
TOMBSTONE_SECONDS = 600


class Seen:
    """The pods as a picture has them."""

    def __init__(self, server: Server, clock: ManualClock) -> None:
        self.ours: dict[str, OwnView] = {}
        self.waiting = Waiting(server, clock)  # type: ignore[arg-type]
        self.waiting = self

    def due(self, _views: object) -> None:
        """Nobody waits for words."""

    def views(self) -> list[tuple[str, OwnView]]:
        return list(self.ours.items())

    @property
    def restless(self) -> dict[str, OwnView]:
        return {name: known for name, known in self.ours.items() if known.is_restless}

    @property
    def logged(self) -> dict[str, OwnView]:
        return {name: known for name, known in self.ours.items() if known.is_logged}

    def silent(self) -> dict[str, int]:
        return {}


class Paced(Server):
    """Takes note of writes that did not pass the gate."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.pace = Pace(clock=clock)
        self.unpaced: list[tuple[str, Name]] = []

    def _told(self, verb: str, name: Name) -> None:
        if verb in {"create", "patch", "delete"} and not self.pace._in_flight:
            self.unpaced.append((verb, name))
        super()._told(verb, name)


async def nothing(_pod: str) -> tuple[bytes, ...]:
    """Is to be masked."""
    return ()


class Rig:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.server = Paced(self.clock)
        self.artifacts, self.seen = MemoryArtifactStore(), Seen(self.server, self.clock)
        self.drawer = Drawer()
        self.chores = self.anew()

    def anew(self) -> Chores:
        logs = Logs(self.server, self.artifacts.logs, self.clock, cluster="k8s", handed=nothing)  # type: ignore[arg-type]
        return Chores(
            self.server,  # type: ignore[arg-type]
            self.clock,
            self.seen,  # type: ignore[arg-type]
            logs,
            self.server.pace,
            artifacts=self.artifacts,
            secrets=self.drawer,
            tombstone_seconds=TOMBSTONE_SECONDS,
            look_up_groups=self.nobody_groups,
        )

    async def nobody_groups(self) -> None:
        """There are no pods of others."""

    def show(self, name: str = "p", **shown: Any) -> None:
        """A pod, on the server and in the picture."""
        object_ = pod(name, **shown)
        self.seen.ours[name] = own_view(object_)
        self.server.objects.setdefault(
            ("pods", HOME, name),
            {
                "metadata": {
                    "name": name,
                    "uid": f"uid-{name}",
                    "resourceVersion": "1",
                    "finalizers": [names.RECORDED, "other/one"],
                }
            },
        )

    async def round(self, seconds: float = ROUND_SECONDS) -> None:
        self.clock.advance(seconds)
        self.chores.round()
        for _ in range(50):
            await asyncio.sleep(0)

    def object(self, name: str = "p") -> dict[str, Any] | None:
        return self.server.objects.get(("pods", HOME, name))

    def did(self, verb: str) -> int:
        return sum(1 for call in self.server.calls if call == (verb, "pods"))


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.chores.close()
    await made.chores._logs.close()
    assert made.server.unpaced == []


def waiting(reason: str) -> dict[str, Any]:
    return {"main": {"waiting": {"reason": reason, "message": "in words"}}, "status": {"phase": "Pending"}}


def forgotten(rig: Rig, *, seconds_ago: int) -> dict[str, Any]:
    since = str(rig.clock.now() // 1_000_000 - seconds_ago)
    return {
        "main": {"terminated": {"exitCode": 0}},
        "labels": {names.FORGOTTEN: since},
        "status": {"phase": "Succeeded"},
    }


async def test_a_pod_that_can_never_start_is_given_up_at_once_and_the_verdict_comes_first(rig):
    rig.show(**waiting("InvalidImageName"))
    await rig.round()
    assert [verb for verb, _ in rig.server.calls] == ["get", "patch", "delete"]
    assert rig.object()["metadata"]["annotations"][names.VERDICT] == "the image cannot be pulled: in words"  # type: ignore[index]


async def test_what_may_come_yet_is_waited_for(rig):
    rig.show(**waiting("ImagePullBackOff"))
    await rig.round()
    await rig.round(PATIENCE_SECONDS - 1)
    assert not rig.did("delete")
    await rig.round(1)
    assert rig.did("delete") == 1


async def test_patience_begins_anew_when_something_moves(rig):
    rig.show(**waiting("ImagePullBackOff"))
    await rig.round()
    rig.show(**waiting("ContainerCreating"))
    await rig.round(PATIENCE_SECONDS - 1)
    rig.show(**waiting("ImagePullBackOff"))
    await rig.round(2)
    assert not rig.did("delete")


async def test_a_verdict_that_could_not_be_written_ends_nothing_and_is_tried_again(rig):
    def fail(verb: str, _: object) -> None:
        if verb == "patch":
            msg = "away"
            raise ServerFailed(msg)

    rig.show(**waiting("InvalidImageName"))
    rig.server.before = fail
    await rig.round()
    assert not rig.did("delete")
    rig.server.before = lambda _verb, _name: None
    await rig.round(2)
    assert rig.did("delete") == 1


async def test_a_name_that_another_pod_has_by_now_is_left_alone(rig):
    rig.show(**waiting("InvalidImageName"))
    rig.object()["metadata"]["uid"] = "another"  # type: ignore[index]
    await rig.round()
    assert not rig.did("delete")


def files_wait(tree: str) -> dict[str, Any]:
    helper = {"name": names.FILES, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
    return {
        "status": {"phase": "Pending", "initContainerStatuses": [helper]},
        "annotations": {names.MOUNTS: json.dumps([[".", tree]])} if tree else {},
    }


async def test_files_are_delivered_to_a_pod_that_waits_for_them(rig):
    tree = await rig.artifacts.of(OWNER).put_tree(Tree(entries=()))
    process = Process()
    rig.server.processes = deque([process])
    rig.show(**files_wait(tree))
    await rig.round()
    assert b"sign/complete" in process.received
    assert not rig.did("delete")


async def test_so_many_pods_are_handed_their_files_at_once_and_the_others_in_their_order(rig, monkeypatch):
    monkeypatch.setattr(chores_module, "DELIVERIES_MAX", 3)
    rig.chores = rig.anew()
    tree = await rig.artifacts.of(OWNER).put_tree(Tree(entries=()))
    let_go, served, here, most = asyncio.Event(), [], 0, 0

    @asynccontextmanager
    async def exec_(
        _namespace: str, pod: str, _container: str, _argv: object, *, stdin: bool
    ) -> AsyncIterator[Process]:
        nonlocal here, most
        assert stdin
        here += 1
        most = max(most, here)
        served.append(pod)
        await let_go.wait()
        yield Process()
        here -= 1

    rig.server.exec = exec_
    names_ = [f"p{number}" for number in range(10)]
    for name in names_:
        rig.show(name, **files_wait(tree))
    await rig.round()
    assert served == names_[:3]
    let_go.set()
    await rig.round()
    assert (served, most) == (names_, 3)


async def test_a_pod_whose_files_are_gone_is_given_up_with_the_reason(rig):
    rig.server.processes = deque([Process()])
    rig.show(**files_wait("0" * 64))
    await rig.round()
    assert "cannot be delivered" in rig.object()["metadata"]["annotations"][names.VERDICT]  # type: ignore[index]


def secrets_wait() -> dict[str, Any]:
    shown = files_wait("")
    return {**shown, "annotations": {names.SECRETS: "hf-token"}}


async def test_secrets_are_handed_in_before_a_pod_is_let_go_on(rig):
    rig.drawer.values["hf-token"] = b"hf_canary\n"
    rig.drawer.pods["p"] = OWNER, (SecretUse(name="hf-token", env="HF_TOKEN"),)
    first, then = Process(), Process()
    rig.server.processes = deque([first, then])
    rig.show(**secrets_wait())
    await rig.round()
    assert b"hf_canary\n" in first.received
    assert b"export HF_TOKEN='hf_canary'\n" in first.received
    assert b"sign/complete" in then.received
    assert not rig.did("delete")


async def test_a_pod_whose_secret_was_removed_is_given_up_with_its_name(rig):
    rig.drawer.pods["p"] = OWNER, (SecretUse(name="hf-token"),)
    rig.server.processes = deque([Process()])
    rig.show(**secrets_wait())
    await rig.round()
    assert "there is no secret hf-token any more" in rig.object()["metadata"]["annotations"][names.VERDICT]


async def test_a_pod_of_somebody_else_under_a_name_of_ours_is_handed_nothing(rig):
    rig.drawer.values["hf-token"] = b"hf_canary"
    rig.drawer.pods["p"] = Owner(tenant="chemistry", project="nlp"), (SecretUse(name="hf-token"),)
    rig.server.processes = deque([process := Process()])
    rig.show(**secrets_wait())
    await rig.round()
    assert not process.received
    assert rig.drawer.asked == []


async def test_a_tombstone_is_removed_once_it_is_old_and_not_before(rig):
    rig.show(**forgotten(rig, seconds_ago=TOMBSTONE_SECONDS - 60))
    await rig.round()
    assert rig.object()["metadata"]["finalizers"] == [names.RECORDED, "other/one"]  # type: ignore[index]
    await rig.round(60)
    assert rig.object()["metadata"]["finalizers"] == ["other/one"]  # type: ignore[index]
    assert rig.did("delete") == 1


async def test_burials_come_in_turns(rig):
    await rig.round()
    rig.show(**forgotten(rig, seconds_ago=TOMBSTONE_SECONDS))
    await rig.round(BURIAL_SECONDS / 2)
    assert not rig.server.calls
    await rig.round(BURIAL_SECONDS)
    assert rig.did("delete") == 1


async def test_what_is_not_forgotten_is_never_buried(rig):
    rig.show(main={"terminated": {"exitCode": 0}}, status={"phase": "Succeeded"})
    await rig.round(100_000)
    assert not rig.did("delete")


async def test_another_pod_of_the_same_name_is_not_buried_for_it(rig):
    rig.show(**forgotten(rig, seconds_ago=TOMBSTONE_SECONDS))
    rig.object()["metadata"]["uid"] = "another"  # type: ignore[index]
    await rig.round()
    assert not rig.did("delete")
    assert not rig.did("patch")


async def test_one_that_cannot_be_buried_does_not_keep_the_others(rig):
    for name in ("a", "b", "c"):
        rig.show(name, **forgotten(rig, seconds_ago=TOMBSTONE_SECONDS))
    del rig.server.objects["pods", HOME, "b"]
    await rig.round()
    assert rig.did("delete") == 2


async def test_the_end_of_a_pod_waits_for_its_log_but_not_for_ever(rig):
    ended = own_view(pod("p", main={"terminated": {"exitCode": 0}}))

    def fail(verb: str, _: object) -> None:
        if verb == "log":
            msg = "its node is away"
            raise ServerFailed(msg)

    rig.server.before = fail
    assert not await rig.chores.log_is_kept("p", ended)
    rig.clock.advance(LOG_PATIENCE_SECONDS + 1)
    assert await rig.chores.log_is_kept("p", ended)
    assert await rig.chores.log_is_kept("p", ended)


async def test_a_log_is_kept_once_all_of_it_is_here(rig):
    rig.server.logs["p"] = [b"one\n"]
    rig.show(main={"terminated": {"exitCode": 0}})
    await rig.round()
    assert await rig.chores.log_is_kept("p", rig.seen.ours["p"])
    assert rig.server.logs["p"]
    logs = Logs(rig.server, rig.artifacts.logs, rig.clock, cluster="k8s", handed=nothing)
    assert (await logs.read_kept("p", offset=0, limit=10)).data == b"one\n"


async def test_nothing_is_remembered_of_pods_that_are_gone(rig):
    ended = own_view(pod("p", main={"terminated": {"exitCode": 0}}))
    rig.show(**waiting("ImagePullBackOff"))
    await rig.round()
    await rig.chores.log_is_kept("q", ended)
    rig.seen.ours.clear()
    await rig.round()
    assert not rig.chores._hopeless_since
    assert not rig.chores._log_since
    assert not rig.chores._logs._followed


async def test_rounds_that_follow_too_closely_are_one(rig):
    rig.show(**waiting("InvalidImageName"))
    await rig.round()
    done = len(rig.server.calls)
    rig.show("q", **waiting("InvalidImageName"))
    rig.chores.round()
    await asyncio.sleep(0)
    assert len(rig.server.calls) == done


async def test_a_run_that_its_kubelet_does_not_end_at_its_deadline_is_ended_by_us(rig: Rig) -> None:
    started = datetime.fromtimestamp(rig.server.server_time() // 1_000_000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    runs = {"main": {"running": {"startedAt": started}}, "annotations": {names.DEADLINE: "90"}}
    grace = {"terminationGracePeriodSeconds": 10}
    rig.show("p", **runs, spec=grace)
    rig.show("q", **runs, spec=grace, deletionTimestamp=started)
    await rig.round(90 + OVERRUN_SECONDS + 10 - 2)
    assert rig.did("delete") == 0
    await rig.round(3)
    assert rig.did("delete") == 1
