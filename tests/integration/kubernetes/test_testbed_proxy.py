"""The proxy of the test bed does to a client what its rules say, and nothing else."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import httpx2
import pytest

from testbed.control_plane import ControlPlane
from testbed.faults import (
    Answer,
    CutBody,
    Delay,
    Drop,
    Duplicate,
    Expire,
    LoseReply,
    LoseRequest,
    OfWatch,
    Reorder,
    Rule,
    SlowBody,
    Stall,
)
from testbed.fixtures import until
from testbed.proxy import Proxy, proxied

pytestmark = pytest.mark.xdist_group("api-server")

QUIET_SECONDS = 1.0
"""As long as this nothing arrives where nothing may."""


class Watched:
    """The config maps of a namespace, made directly and seen through the proxy."""

    def __init__(self, control_plane: ControlPlane, namespace: str, client: httpx2.Client) -> None:
        self.control_plane, self.client = control_plane, client
        self.path = f"/api/v1/namespaces/{namespace}/configmaps"
        self.version = control_plane.ask(self.path)["metadata"]["resourceVersion"]

    def make(self, *names: str) -> None:
        for name in names:
            self.control_plane.ask(self.path, method="POST", body={"metadata": {"name": name}})

    def remove(self, name: str) -> None:
        self.control_plane.ask(f"{self.path}/{name}", method="DELETE")

    def names(self) -> set[str]:
        found = self.control_plane.ask(self.path)["items"]
        return {item["metadata"]["name"] for item in found} - {"kube-root-ca.crt"}

    def events(self, count: int, **query: str) -> list[tuple[str, str]]:
        """Kind and name of the first ones; fewer if the watch ends, or nothing arrives any more."""
        query = {
            "watch": "true",
            "resourceVersion": self.version,
            "fieldSelector": "metadata.name!=kube-root-ca.crt",
        } | query
        seen: list[tuple[str, str]] = []
        with (
            contextlib.suppress(httpx2.ReadTimeout),
            self.client.stream("GET", self.path, params=query, timeout=QUIET_SECONDS) as answer,
        ):
            for event in _events(answer):
                seen.append((event["type"], event["object"].get("metadata", {}).get("name", "")))
                if len(seen) == count:
                    break
        return seen


def _events(answer: httpx2.Response) -> Iterator[dict[str, Any]]:
    return map(json.loads, answer.iter_lines())


@pytest.fixture
def client(proxy: Proxy, control_plane: ControlPlane) -> Iterator[httpx2.Client]:
    yield from _client(proxy, control_plane)


def _client(proxy: Proxy, control_plane: ControlPlane) -> Iterator[httpx2.Client]:
    trusted = ssl.create_default_context(cafile=str(control_plane.keys.authority.certificate))
    token = {"Authorization": f"Bearer {control_plane.keys.token}"}
    with httpx2.Client(base_url=proxy.url, verify=trusted, headers=token, trust_env=False, timeout=10.0) as made:
        yield made


@pytest.fixture
def watched(control_plane: ControlPlane, namespace: str, client: httpx2.Client) -> Watched:
    return Watched(control_plane, namespace, client)


def test_without_rules_nothing_is_changed(watched: Watched, control_plane: ControlPlane):
    watched.make("a", "b")
    watched.remove("a")
    assert watched.events(3) == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]
    assert watched.client.get(watched.path).json()["items"] == control_plane.ask(watched.path)["items"]
    assert watched.client.get("/none").status_code == 404
    assert watched.client.post(watched.path, json={"metadata": {"name": "c"}}).status_code == 201
    assert watched.client.head("/version").status_code in {200, 403, 405}
    assert watched.client.get("/version").status_code == 200


@pytest.mark.parametrize("status", [429, 500, 504])
def test_an_answer_comes_instead_of_the_servers_as_often_as_it_is_wanted(proxy: Proxy, watched: Watched, status: int):
    fault = Answer(status=status, retry_after_seconds=7 if status == 429 else None)
    active = proxy.fail(Rule(fault=fault, method="POST", path="/configmaps$", after=1, times=2))
    answers = [watched.client.post(watched.path, json={"metadata": {"name": f"n{number}"}}) for number in range(5)]
    assert [answer.status_code for answer in answers] == [201, status, status, 201, 201]
    assert watched.names() == {"n0", "n3", "n4"}
    assert (active.matched, active.happened) == (5, 2)
    assert answers[1].headers.get("retry-after") == ("7" if status == 429 else None)
    assert answers[1].json()["code"] == status
    assert watched.client.get(watched.path).status_code == 200


def test_a_lost_request_changes_nothing_and_a_lost_reply_changes_everything_but_what_the_client_knows(
    proxy: Proxy, watched: Watched
):
    for name, fault, there in (("request", LoseRequest(), set()), ("reply", LoseReply(), {"reply"})):
        active = proxy.fail(Rule(fault=fault, method="POST", times=1))
        with pytest.raises(httpx2.RemoteProtocolError):
            watched.client.post(watched.path, json={"metadata": {"name": name}})
        assert watched.names() == there
        assert active.happened == 1


def test_a_delay_and_a_slow_body_take_their_time(proxy: Proxy, watched: Watched):
    proxy.fail(Rule(fault=Delay(seconds=0.4), path="/version"))
    assert _seconds(lambda: watched.client.get("/version")) >= 0.4
    proxy.heal()
    size = len(watched.client.get("/version").content)
    proxy.fail(Rule(fault=SlowBody(bytes_per_second=size), path="/version"))
    assert _seconds(lambda: watched.client.get("/version")) >= 0.8


def _seconds(do: Any) -> float:
    began = time.monotonic()
    assert do().status_code == 200
    return time.monotonic() - began


def test_a_body_that_is_cut_is_not_taken_for_a_whole_one(proxy: Proxy, watched: Watched):
    proxy.fail(Rule(fault=CutBody(after_bytes=100), path="/configmaps"))
    with pytest.raises(httpx2.RemoteProtocolError):
        watched.client.get(watched.path)


def test_who_is_content_with_any_version_gets_the_list_of_then(proxy: Proxy, watched: Watched):
    watched.make("old")
    proxy.serve_old_list(watched.path)
    watched.make("new")
    stale = watched.client.get(watched.path, params={"resourceVersion": "0"}).json()
    assert {item["metadata"]["name"] for item in stale["items"]} - {"kube-root-ca.crt"} == {"old"}
    assert {item["metadata"]["name"] for item in watched.client.get(watched.path).json()["items"]} >= {"old", "new"}


def test_a_list_may_expire_between_its_pages(proxy: Proxy, watched: Watched):
    watched.make("a", "b")
    proxy.fail(Rule(fault=Answer(status=410), path=r"[?&]continue="))
    first = watched.client.get(watched.path, params={"limit": 1})
    assert first.status_code == 200
    second = watched.client.get(watched.path, params={"limit": 1, "continue": first.json()["metadata"]["continue"]})
    assert (second.status_code, second.json()["reason"]) == (410, "Expired")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Stall(after_events=1), ["ADDED a"]),
        (Expire(after_events=1), ["ADDED a", "ERROR "]),
        (Drop(kinds=frozenset({"DELETED"})), ["ADDED a", "ADDED b"]),
        (Duplicate(), ["ADDED a", "ADDED a", "ADDED b", "ADDED b", "DELETED a", "DELETED a"]),
        (Reorder(), ["ADDED b", "ADDED a"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_events_of_a_watch_are_lost_doubled_and_mixed_up(
    proxy: Proxy, watched: Watched, fault: OfWatch, expected: list[str]
):
    watched.make("a", "b")
    watched.remove("a")
    active = proxy.fail(Rule(fault=fault, path="/configmaps"))
    assert watched.client.get(watched.path).status_code == 200
    assert [f"{kind} {name}" for kind, name in watched.events(9)] == expected
    assert (active.matched, active.happened) == (1, 1)
    proxy.heal()
    assert [f"{kind} {name}" for kind, name in watched.events(3)] == ["ADDED a", "ADDED b", "DELETED a"]


def test_a_watch_without_bookmarks_never_hears_how_far_it_is(proxy: Proxy, watched: Watched):
    asked = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    watched.make("a")
    asked["resourceVersion"] = ""
    assert [kind for kind, _ in watched.events(2, **asked)] == ["ADDED", "BOOKMARK"]
    proxy.fail(Rule(fault=Drop(kinds=frozenset({"BOOKMARK"}))))
    assert [kind for kind, _ in watched.events(2, **asked)] == ["ADDED"]


def test_an_expired_watch_says_410(proxy: Proxy, watched: Watched):
    proxy.fail(Rule(fault=Expire()))
    with watched.client.stream("GET", watched.path, params={"watch": "true"}) as answer:
        (event,) = _events(answer)
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


def test_a_partition_refuses_or_hangs_and_is_healed(proxy: Proxy, watched: Watched):
    assert watched.client.get("/version").status_code == 200
    proxy.partition("hang")
    with pytest.raises(httpx2.TimeoutException):
        watched.client.get("/version", timeout=QUIET_SECONDS)
    with pytest.raises(httpx2.TimeoutException):
        watched.client.get("/version", timeout=QUIET_SECONDS)
    proxy.heal()
    assert watched.client.get("/version").status_code == 200
    proxy.partition("refuse")
    with pytest.raises(httpx2.TransportError):
        watched.client.get("/version")
    with pytest.raises(httpx2.ConnectError):
        watched.client.get("/version")
    proxy.heal()
    assert watched.client.get("/version").status_code == 200


def test_a_client_that_leaves_a_silent_watch_is_noticed(proxy: Proxy, watched: Watched):
    active = proxy.fail(Rule(fault=Stall()))
    assert watched.events(1) == []
    assert active.happened == 1
    watched.client.close()
    until(lambda: proxy.connections == 0)


def test_a_watch_lives_through_a_partition_that_hangs(proxy: Proxy, watched: Watched):
    with watched.client.stream(
        "GET", watched.path, params={"watch": "true", "resourceVersion": watched.version}
    ) as answer:
        events = _events(answer)
        watched.make("before")
        assert next(events)["object"]["metadata"]["name"] == "before"
        proxy.partition("hang")
        watched.make("within")
        proxy.heal()
        assert next(events)["object"]["metadata"]["name"] == "within"


def test_a_connection_that_is_cut_the_moment_it_is_accepted_is_closed(proxy: Proxy):
    """The talk with such a client has not taken its first step, in which it would have learnt to clean up."""
    accepted = Mock()

    async def cut() -> None:
        proxy._accepted(accepted, accepted)
        await proxy._cut_all()

    proxy._ask(cut())
    until(lambda: accepted.transport.abort.called)
    assert proxy.connections == 0


def test_the_same_seed_lets_the_same_requests_fail(control_plane: ControlPlane):
    runs = []
    for seed in (1, 1, 2):
        with (
            proxied(control_plane, seed=seed) as proxy,
            contextlib.contextmanager(_client)(proxy, control_plane) as client,
        ):
            proxy.fail(Rule(fault=Answer(status=500), probability=0.5))
            runs.append([client.get("/version").status_code for _ in range(20)])
    assert runs[0] == runs[1] != runs[2]
    assert 4 <= runs[0].count(500) <= 16
