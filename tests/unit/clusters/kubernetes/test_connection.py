"""A server that misbehaves costs an error with a name, never a hang, a crash or a wrong answer."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from aiohttp import web

from mainstay.clusters.kubernetes import connection as connection_module
from mainstay.clusters.kubernetes import errors, transport
from mainstay.clusters.kubernetes.api import Change, Patch
from mainstay.clusters.kubernetes.connection import Connection, lines
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.kinds import NODES, PODS
from mainstay.clusters.kubernetes.sources import Fixed
from tests.clock import START_US, ManualClock
from tests.unit.clusters.kubernetes.misbehaving import (
    Renewing,
    breaks,
    connected,
    event,
    pod,
    pods,
    refuses,
    says,
    streams,
)


async def listed(api: Connection) -> list[str]:
    return [item.metadata.name async for page in api.list_pages(PODS) for item in page.items]


async def watched(api: Connection, *, stall_seconds: float = 5.0, told: list[str] | None = None) -> list[str]:
    """The names that were told of; in `told` also those that came before a failure."""
    told = [] if told is None else told
    async for found in api.watch(PODS, "1", stall_seconds=stall_seconds):
        told.append(found.object.metadata.name)
    return told


# Requests


@pytest.mark.parametrize("address", ["169.254.169.254", "168.63.129.16", "224.0.0.1"])
async def test_a_server_whose_name_leads_to_the_secrets_of_a_cloud_is_not_asked(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever registers a cluster owns its name, and may let it lead elsewhere at any moment."""
    connected_to: list[object] = []

    async def answers(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]

    async def connects(_: object, where: object) -> None:
        connected_to.append(where)
        raise ConnectionRefusedError

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", answers)
    monkeypatch.setattr(loop, "sock_connect", connects)
    credentials = Credentials(server="http://east.example.com:443", token="t")
    api = Connection(Fixed(credentials), clock=ManualClock())
    with pytest.raises(errors.Unreachable, match="leads to an address of no API server"):
        await listed(api)
    assert connected_to == []
    await api.close()


async def test_a_list_goes_through_all_its_pages() -> None:
    async with connected(says(pods(pod("x"), following="more")), says(pods(pod("y")))) as (api, server):
        assert await listed(api) == ["x", "y"]
        assert server.asked == ["GET /api/v1/pods?limit=500", "GET /api/v1/pods?limit=500&continue=more"]


async def test_a_page_that_has_expired_is_told() -> None:
    async with connected(says(pods(pod("x"), following="more")), refuses(410, "Expired")) as (api, _):
        with pytest.raises(errors.Expired):
            await listed(api)


async def test_paths_parameters_and_documents() -> None:
    async with connected(says(pod("x"))) as (api, server):
        await api.get(NODES, "", "n/../../secrets")
        await api.create(PODS, "a", {"metadata": {"name": "x"}}, by="mainstay-0/7")
        await api.bind("a", "x", node="n", uid="u")
        await api.evict("a", "x", uid="u", grace_seconds=5)
        await api.patch(PODS, "a", "x", [{"op": "remove", "path": "/metadata/finalizers"}], how=Patch.JSON)
        await api.patch(PODS, "a", "x", {}, how=Patch.APPLY, subresource="status")
        await api.delete(PODS, "a", "x", uid="u", grace_seconds=0)
    assert server.asked == [
        "GET /api/v1/nodes/n%2F..%2F..%2Fsecrets",
        "POST /api/v1/namespaces/a/pods?fieldManager=mainstay-0%2F7&fieldValidation=Ignore",
        "POST /api/v1/namespaces/a/pods/x/binding?fieldManager=mainstay",
        "POST /api/v1/namespaces/a/pods/x/eviction?fieldManager=mainstay",
        "PATCH /api/v1/namespaces/a/pods/x?fieldManager=mainstay",
        "PATCH /api/v1/namespaces/a/pods/x/status?fieldManager=mainstay&force=true",
        "DELETE /api/v1/namespaces/a/pods/x",
    ]
    bound, evicted, deleted = (json.loads(server.bodies[number]) for number in (2, 3, 6))
    assert bound == {"metadata": {"name": "x", "uid": "u"}, "target": {"apiVersion": "v1", "kind": "Node", "name": "n"}}
    assert evicted["deleteOptions"]["preconditions"] == deleted["preconditions"] == {"uid": "u"}
    assert deleted["gracePeriodSeconds"] == 0


@pytest.mark.parametrize(
    "answer", [says(b"<html>log in</html>", content_type="text/html"), says({}), says(b'{"metadata"')]
)
async def test_what_is_no_object_is_garbled(answer: object) -> None:
    async with connected(answer) as (api, _):  # type: ignore[arg-type]
        with pytest.raises(errors.Garbled):
            await api.get(PODS, "a", "x")


async def test_an_answer_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER_BYTES_MAX", 1 << 20)
    async with connected(streams(*[b"x" * (1 << 18)] * 64)) as (api, _):
        with pytest.raises(errors.Garbled, match="more than 1 MiB"):
            await api.get(PODS, "a", "x")


async def test_a_refusal_without_a_status_is_read_from_its_code() -> None:
    page = says(b"<html>try later</html>", status=503, content_type="text/html", Retry_After="9")
    async with connected(page) as (api, _):
        with pytest.raises(errors.ServerFailed, match="try later") as refused:
            await api.create(PODS, "a", {})
        assert refused.value.retry_after == 9.0


async def test_a_body_that_says_another_code_than_the_answer_is_not_believed() -> None:
    lie = says({"kind": "Status", "code": 404, "reason": "NotFound"}, status=500)
    async with connected(lie) as (api, _):
        with pytest.raises(errors.ServerFailed):
            await api.get(PODS, "a", "x")


async def test_too_many_requests_say_when_to_come_back() -> None:
    async with connected(refuses(429, "TooManyRequests", Retry_After="3")) as (api, _):
        with pytest.raises(errors.TooManyRequests) as refused:
            await api.get(PODS, "a", "x")
        assert refused.value.retry_after == 3.0


async def test_a_redirect_is_not_followed() -> None:
    async with connected(says(b"", status=302, Location="http://169.254.169.254/")) as (api, server):
        with pytest.raises(errors.Unreachable, match="redirect"):
            await api.get(PODS, "a", "x")
        assert len(server.asked) == 1


async def test_a_lost_answer_to_a_change_is_an_unknown_outcome_and_is_not_repeated() -> None:
    async with connected(breaks) as (api, server):
        for change in (api.create(PODS, "a", {}), api.patch(PODS, "a", "x", {}), api.bind("a", "x", node="n")):
            with pytest.raises(errors.OutcomeUnknown):
                await change
        assert len(server.asked) == 3
        with pytest.raises(errors.OutcomeUnknown):
            await api.delete(PODS, "a", "x")


async def test_what_is_too_late_is_not_sent_and_the_connection_is_not_used_again() -> None:
    async with connected(says(pod("x")), says(pod("x"))) as (api, server):
        now = api._transport._clock.monotonic()
        await api.create(PODS, "a", {"metadata": {"name": "x"}}, not_after=now + 60)
        with pytest.raises(errors.OutcomeUnknown):
            await api.create(PODS, "a", {"metadata": {"name": "y"}}, not_after=now - 1)
        await api.get(PODS, "a", "x")
    assert server.asked == [
        "POST /api/v1/namespaces/a/pods?fieldManager=mainstay&fieldValidation=Ignore",
        "GET /api/v1/namespaces/a/pods/x",
    ]


async def test_a_lost_answer_to_a_question_is_no_contact() -> None:
    async with connected(breaks) as (api, _):
        with pytest.raises(errors.Unreachable):
            await api.get(PODS, "a", "x")


async def test_half_an_answer_is_no_answer() -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"metadata": {"name": "x"}}')
        assert request.transport is not None
        request.transport.close()
        return response

    async with connected(half) as (api, _):
        with pytest.raises(errors.Unreachable):
            await api.get(PODS, "a", "x")
        with pytest.raises(errors.OutcomeUnknown):
            await api.create(PODS, "a", {})


async def test_a_change_that_takes_too_long_has_an_unknown_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER_SECONDS", 0.05)
    async with connected(streams(b'{"meta', 5.0)) as (api, _):
        with pytest.raises(errors.OutcomeUnknown):
            await api.create(PODS, "a", {})
        with pytest.raises(errors.Unreachable):
            await api.get(PODS, "a", "x")


async def test_nobody_there_is_unreachable_for_a_change_too() -> None:
    api = Connection(Fixed(Credentials(server="http://127.0.0.1:1")), clock=ManualClock())
    with pytest.raises(errors.Unreachable, match="refused"):
        await api.create(PODS, "a", {})
    await api.close()


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with connected(says(pod("x"))) as (api, _):
        assert (await api.get(PODS, "a", "x")).metadata.name == "x"


async def test_the_clock_of_the_server_is_kept_apart_from_ours() -> None:
    async with connected(says(pod("x"), Date="Wed, 15 Nov 2023 00:13:20 GMT")) as (api, _):
        assert api.server_time() == START_US
        await api.get(PODS, "a", "x")
        assert api.server_time() - START_US == 7_200 * 1_000_000


async def test_a_date_that_is_none_teaches_nothing() -> None:
    async with connected(says(pod("x"), Date="yesterday")) as (api, _):
        await api.get(PODS, "a", "x")
        assert api.server_time() == START_US


# Credentials


async def test_refused_credentials_are_renewed_once_and_the_change_is_made_once() -> None:
    async with connected(refuses(401), says(pod("x"))) as (_, server):
        api = Connection(Renewing(server.url, "old", "new"), clock=ManualClock())
        await api.create(PODS, "a", {})
        await api.close()
        assert server.tokens == ["Bearer old", "Bearer new"]


async def test_credentials_that_stay_refused_are_told() -> None:
    async with connected(refuses(401)) as (_, server):
        api = Connection(Renewing(server.url, "old", "new", "newer"), clock=ManualClock())
        with pytest.raises(errors.Unauthenticated):
            await api.get(PODS, "a", "x")
        await api.close()
        assert len(server.tokens) == 2


# Watches


async def test_a_watch_tells_its_events_and_ends_with_the_server() -> None:
    body = event("ADDED", pod("x")) + event("BOOKMARK", pod("", version="5")) + event("DELETED", pod("x"))
    async with connected(streams(body)) as (api, server):
        found = [item.change async for item in api.watch(PODS, "1", namespace="a", selector="k=v")]
        assert found == [Change.ADDED, Change.BOOKMARK, Change.DELETED]
        assert server.asked[0].startswith(
            "GET /api/v1/namespaces/a/pods?watch=true&resourceVersion=1&allowWatchBookmarks=true"
        )


async def test_lines_may_come_in_any_pieces() -> None:
    body = event("ADDED", pod("x")) + event("ADDED", pod("y"))
    async with connected(streams(body[:7], 0.01, body[7:90], 0.01, body[90:])) as (api, _):
        assert await watched(api) == ["x", "y"]


async def test_a_large_object_is_one_line() -> None:
    async with connected(streams(event("ADDED", pod("x", annotations={"a": "b" * 3_000_000})))) as (api, _):
        assert await watched(api) == ["x"]


async def test_a_line_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "LINE_BYTES_MAX", 1 << 20)
    async with connected(streams(*[b"x" * (1 << 18)] * 16)) as (api, _):
        with pytest.raises(errors.Garbled, match="more than 1 MiB"):
            await watched(api)


async def test_a_watch_that_is_cut_tells_what_came_before() -> None:
    told: list[str] = []
    async with connected(streams(event("ADDED", pod("x")), 0.05, b'{"type": "AD', cut=True)) as (api, _):
        with pytest.raises(errors.Unreachable):
            await watched(api, told=told)
    assert told == ["x"]


async def test_half_a_line_at_the_end_is_a_cut() -> None:
    async with connected(streams(b'{"type": "AD')) as (api, _):
        with pytest.raises(errors.Unreachable, match="middle of a line"):
            await watched(api)


async def test_a_silent_watch_is_ended() -> None:
    async with connected(streams(event("ADDED", pod("x")), 30.0)) as (api, _):
        async with asyncio.timeout(10.0):
            with pytest.raises(errors.Silent):
                await watched(api, stall_seconds=0.1)


async def test_a_watch_that_is_refused_at_once_is_told() -> None:
    async with connected(refuses(410, "Expired")) as (api, _):
        with pytest.raises(errors.Expired):
            await watched(api)


async def test_a_web_page_is_no_watch() -> None:
    async with connected(streams(b"<html>\n<body>\n")) as (api, _):
        with pytest.raises(errors.Garbled):
            await watched(api)


async def test_a_watch_can_be_left_at_any_moment() -> None:
    async with connected(streams(event("ADDED", pod("x")), 30.0)) as (api, _):
        task = asyncio.create_task(watched(api))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_empty_lines_are_nothing() -> None:
    async def chunks():
        for part in (b"\n\na", b"\n", b"\nb\n\n"):
            yield part

    assert [line async for line in lines(chunks())] == [b"a", b"b"]


# Logs


async def test_a_log_is_bytes_as_they_come() -> None:
    async with connected(streams(b"one\n", b"\xfftwo")) as (api, server):
        assert b"".join([part async for part in api.log("a", "x", "main", follow=True, tail=0)]) == b"one\n\xfftwo"
        assert server.asked == ["GET /api/v1/namespaces/a/pods/x/log?container=main&follow=true&tailLines=0"]


async def test_a_log_that_breaks_off_is_told() -> None:
    async with connected(streams(b"one\n", 0.05, cut=True)) as (api, _):
        with pytest.raises(errors.Unreachable):
            _ = [part async for part in api.log("a", "x", "main")]


async def test_the_connection_can_be_used_again_after_it_was_closed() -> None:
    async with connected(says(pod("x"))) as (api, _):
        await api.close()
        assert (await api.get(PODS, "a", "x")).metadata.name == "x"


async def test_a_name_is_one_part_of_a_path() -> None:
    assert PODS.path(namespace="a/b", name="x?y", subresource="log") == "/api/v1/namespaces/a%2Fb/pods/x%3Fy/log"
