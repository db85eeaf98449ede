"""What keeps pods from starting: what their events mean, and how seldom they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from mainstay.clusters.kubernetes.api import Page
from mainstay.clusters.kubernetes.errors import ApiError
from mainstay.clusters.kubernetes.objects import Event
from mainstay.clusters.kubernetes.troubles import DETAIL_CHARACTERS
from mainstay.clusters.kubernetes.views import OwnView
from mainstay.clusters.kubernetes.waiting import AGAIN_SECONDS, REST_FACTOR, WAIT_SECONDS, Waiting, words
from mainstay.domain.allocation import Seen
from tests.clock import ManualClock
from tests.unit.clusters.kubernetes.objects import STARTED, T0, own_view, pod

WAITS: dict[str, Any] = {"phase": "Pending"}
PULLING = ("Pulling", 'Pulling image "python:3.12"')
PULLED = ("Pulled", 'Successfully pulled image "busybox:1" in 3.25s (3.25s including waiting). Image size: 2000 bytes.')
PRESENT = ("Pulled", 'Container image "busybox:1" already present on machine')
NO_NETWORK = ("FailedCreatePodSandBox", "Failed to create pod sandbox:\n  no network")


def event(reason: str, message: str, *, second: int = 0, kind: str = "Normal") -> Event:
    at = f"2026-01-01T10:00:{second:02}Z"
    return msgspec.convert({"reason": reason, "message": message, "type": kind, "lastTimestamp": at}, Event)


@dataclass
class Server:
    """Answers questions about events, each after so many seconds."""

    clock: ManualClock
    events: list[Event] = field(default_factory=list)
    takes: float = 0.0
    asked: list[str] = field(default_factory=list)
    refuses: bool = False

    def server_time(self) -> int:
        return T0 + round(self.clock.monotonic() * 1e6)

    async def list_pages(self, *_: Any, fields: str, **__: Any) -> AsyncGenerator[Page[Event], None]:
        self.asked.append(fields)
        self.clock.advance(self.takes)
        if self.refuses:
            msg = "refused"
            raise ApiError(msg)
        yield Page(items=self.events, unreadable=(), resource_version="1", size=0)


@dataclass
class Bed:
    """Pods that wait, and who asks about them."""

    clock: ManualClock
    server: Server
    waiting: Waiting
    pods: dict[str, OwnView]

    def ask(self) -> str:
        """The name of the pod that was asked about; empty if it was nobody's turn."""
        due = self.waiting.due(self.pods.items())
        if due:
            asyncio.run(self.waiting.ask(*due))
        return due[0] if due else ""


@pytest.fixture
def bed() -> Bed:
    """Two pods that were made just now."""
    clock = ManualClock(seconds=0.0)
    server: Any = Server(clock)
    pods = {name: own_view(pod(name, status=WAITS, creationTimestamp=STARTED)) for name in ("a", "b")}
    return Bed(clock=clock, server=server, waiting=Waiting(server, clock), pods=pods)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([event(*PULLING)], (Seen.PULLING, "pulling image python:3.12")),
        (
            [event(*PULLED), event(*PULLING, second=1)],
            (Seen.PULLING, "pulling image python:3.12; busybox:1 took 3.25s"),
        ),
        ([event(*PRESENT), event(*PULLING)], (Seen.PULLING, "pulling image python:3.12")),
        ([event(*PULLING, second=1), event(*PULLED, second=5)], None),
        (
            [event(*NO_NETWORK, kind="Warning")],
            (Seen.STARTING, "FailedCreatePodSandBox: Failed to create pod sandbox: no network"),
        ),
        ([event("Scheduled", "assigned")], None),
        ([event("Pulling", "without a name")], (Seen.PULLING, "pulling image of an unknown name")),
        (
            [event("Failed", "x" * 9_999, kind="Warning")],
            (Seen.STARTING, ("Failed: " + "x" * 9_999)[:DETAIL_CHARACTERS]),
        ),
        ([], None),
    ],
)
def test_the_newest_event_says_what_a_pod_waits_for(events: list[Event], said: tuple[Seen, str] | None):
    found = words(events)
    assert (found and (found.seen, found.detail)) == said


def test_a_pod_is_asked_about_only_once_it_has_waited_and_less_and_less_often(bed: Bed):
    assert bed.ask() == ""
    bed.clock.advance(WAIT_SECONDS)
    assert [bed.ask(), bed.ask(), bed.ask()] == ["a", "b", ""]
    bed.clock.advance(AGAIN_SECONDS)
    assert [bed.ask(), bed.ask(), bed.ask()] == ["a", "b", ""]
    bed.clock.advance(AGAIN_SECONDS)
    assert bed.ask() == ""
    bed.clock.advance(AGAIN_SECONDS)
    assert bed.ask() == "a"
    assert bed.server.asked[0] == "involvedObject.name=a,involvedObject.uid=uid-a"


def test_a_slow_server_is_left_alone_for_longer(bed: Bed):
    bed.clock.advance(WAIT_SECONDS)
    bed.server.takes = 2.0
    assert [bed.ask(), bed.ask()] == ["a", ""]
    bed.clock.advance(2.0 * REST_FACTOR - 0.1)
    assert bed.ask() == ""
    bed.clock.advance(0.2)
    assert bed.ask() == "b"


def test_words_stand_where_the_pod_itself_says_nothing_until_it_runs(bed: Bed):
    known = bed.pods["a"]
    bed.server.events = [event(*PULLING)]
    assert bed.waiting.explained(known, known.state) == known.state
    bed.clock.advance(WAIT_SECONDS)
    bed.ask()
    said = bed.waiting.explained(known, known.state)
    assert (said.seen, said.detail) == (Seen.PULLING, "pulling image python:3.12")
    runs = pod("a", main={"running": {"startedAt": STARTED}})
    bed.pods["a"] = own_view(runs)
    bed.waiting.due(bed.pods.items())
    assert bed.waiting.explained(known, known.state) == known.state


def test_whoever_may_not_see_events_goes_without_their_words(bed: Bed):
    bed.server.refuses = True
    bed.clock.advance(WAIT_SECONDS)
    assert bed.ask() == "a"
    known = bed.pods["a"]
    assert bed.waiting.explained(known, known.state) == known.state


def test_a_volume_that_another_node_holds_is_told_as_that():
    message = 'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) other-1-0'
    said = words([event("FailedAttachVolume", message, kind="Warning")])
    assert said is not None
    assert (said.seen, said.detail) == (Seen.STARTING, f"its volume is held on another node: {message}")
