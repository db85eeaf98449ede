"""Streams over a real socket: nothing twice, nothing left out, and never more of them than we can hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from mainstay.api import events, limits, logs, standing
from mainstay.api.routes import Call
from mainstay.domain.access import PLATFORM_ADMIN, ROLES, Permission
from mainstay.domain.capacity import LogChunk
from mainstay.domain.errors import Unauthenticated, Unavailable
from mainstay.domain.plan import RemoveMember, RevokeToken
from mainstay.domain.reason import Code
from mainstay.domain.workload import Phase, Workload
from mainstay.operations.principal import Principal
from tests.clock import ManualClock
from tests.stores import TENANT, WHY
from tests.unit.api.test_routes import is_problem
from tests.unit.web.site import TOKEN, Site, running_site, size

DEADLINE = 10.0
STREAMS = ("/v1/events/stream", "/v1/workloads/{ref}/logs/stream")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("streams")
    with running_site(folder) as given:
        given.fleet()
        yield given


@pytest.fixture
async def http(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with asyncio.timeout(DEADLINE), httpx2.AsyncClient(base_url=site.url, headers=headers) as client:
        yield client
        # A stream that was left is noticed before the next test counts them.
        while site.app.state.streams.open:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def stream(http: httpx2.AsyncClient, path: str, **options: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Frames as they come; a comment has only `comment`."""
    async with http.stream("GET", path, **options) as answer:
        if answer.status_code != 200:
            await answer.aread()
            is_problem(answer, 0)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        yield frames(answer)


async def frames(answer: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    found: dict[str, Any] = {}
    async for line in answer.aiter_lines():
        if not line:
            yield found
            found = {}
        elif line.startswith(":"):
            found["comment"] = line
        else:
            name, _, value = line.partition(": ")
            found[name] = json.loads(value) if name == "data" else value


async def take(given: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return [await anext(given) for _ in range(count)]


def running(site: Site, name: str, log: bytes = b"") -> Workload:
    work = site.scene.submit(name=name, choices=(size(cpus=0.01, gib=0.01),))
    site.place(work, "atlas")
    work = site.running(work)
    site.cluster.logs[f"{work.id}-1-0"] = log
    return work


async def test_events_come_as_they_happen_in_order_with_their_seq_as_id(site: Site, http: httpx2.AsyncClient):
    work = site.scene.submit(name="live")
    async with stream(http, f"/v1/events/stream?workload={work.id}") as given:
        first = await anext(given)
        site.scene.applied(site.scene.stop(work))
        second = await anext(given)
    assert [frame["event"] for frame in (first, second)] == ["event", "event"]
    assert [frame["id"] for frame in (first, second)] == [str(frame["data"]["seq"]) for frame in (first, second)]
    listed = (await http.get(f"/v1/events?workload={work.id}")).json()["items"]
    assert [first["data"], second["data"]] == listed


@pytest.mark.parametrize("by_header", [True, False], ids=["Last-Event-ID", "after"])
async def test_a_stream_of_events_that_broke_goes_on_without_gap_or_repeat(
    site: Site, http: httpx2.AsyncClient, *, by_header: bool
):
    before = site.scene.submit(name="before")
    works = [site.scene.submit(name=f"many-{number}") for number in range(6)]
    every = (await http.get("/v1/events?limit=1000")).json()["items"]
    last = every[-len(works) - 1]["seq"]
    assert every[-len(works) - 1]["workload"] == before.id
    seen: list[int] = []
    for _ in range(3):
        headers = {"Last-Event-ID": str(last)} if by_header else {}
        after = 0 if by_header else last
        async with stream(http, f"/v1/events/stream?after={after}", headers=headers) as given:
            seen += [frame["data"]["seq"] for frame in await take(given, 2)]
        last = seen[-1]
    assert seen == [event["seq"] for event in every[-len(works) :]]


async def test_what_the_browser_saw_last_beats_the_address(site: Site, http: httpx2.AsyncClient):
    for number in range(3):
        site.scene.submit(name=f"beats-{number}")
    newest = (await http.get("/v1/events?newest=true&limit=3")).json()["items"]
    headers = {"Last-Event-ID": str(newest[1]["seq"])}
    async with stream(http, "/v1/events/stream?after=0", headers=headers) as given:
        assert (await anext(given))["data"] == newest[2]


@pytest.mark.parametrize("given", ["x", "-1", "1e3", "9" * 30, "١", ":", "1:", "1:2:3", "0:7", "1:-1", "1: 1"])
@pytest.mark.parametrize("path", STREAMS)
async def test_a_last_event_id_that_is_none_is_refused(site: Site, http: httpx2.AsyncClient, path: str, given: str):
    work = site.scene.submit(name="ids")
    headers = {"Last-Event-ID": given.encode()}
    is_problem(await http.get(path.format(ref=work.id), headers=headers), 422)


async def test_a_number_alone_is_an_id_of_events_and_two_are_one_of_a_log(site: Site, http: httpx2.AsyncClient):
    work = site.scene.submit(name="ids")
    for path, foreign in zip(STREAMS, ("1:4", "4"), strict=True):
        is_problem(await http.get(path.format(ref=work.id), headers={"Last-Event-ID": foreign}), 422)


async def test_a_followed_log_comes_whole_and_says_how_it_ended(site: Site, http: httpx2.AsyncClient):
    work = running(site, "whole", b"one\n")
    async with stream(http, f"/v1/workloads/{work.id}/logs/stream") as given:
        first = await anext(given)
        site.cluster.logs[f"{work.id}-1-0"] += b"two\n"
        second = await anext(given)
        site.ended(work)
        site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)
        last = await anext(given)
    assert [frame["data"]["text"] for frame in (first, second)] == ["one\n", "two\n"]
    assert [frame["id"] for frame in (first, second, last)] == ["1:4", "1:8", "1:8"]
    assert last["event"] == "end"
    assert (last["data"]["phase"], last["data"]["next_attempt"]) == ("succeeded", 0)


async def test_a_followed_log_goes_on_once_who_reaches_its_cluster_is_back(
    site: Site, http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    asked: list[int] = []

    async def away(pod: str, *, offset: int, limit: int) -> LogChunk:
        asked.append(offset)
        msg = f"the agent of {pod} is away"
        raise Unavailable(msg)

    work = running(site, "away", b"one\n")
    async with stream(http, f"/v1/workloads/{work.id}/logs/stream") as given:
        first = await anext(given)
        with monkeypatch.context() as patch:
            patch.setattr(site.cluster, "read_log", away)
            waiting = asyncio.create_task(anext(given))
            while len(asked) < 3:
                await asyncio.sleep(0.01)
            site.cluster.logs[f"{work.id}-1-0"] += b"two\n"
        second = await waiting
    assert [frame["data"]["text"] for frame in (first, second)] == ["one\n", "two\n"]
    assert set(asked) == {4}


@pytest.mark.parametrize("by_header", [True, False], ids=["Last-Event-ID", "offset"])
async def test_a_followed_log_that_broke_goes_on_at_its_byte(site: Site, http: httpx2.AsyncClient, *, by_header: bool):
    work = running(site, "broken", "zwölf\n".encode())
    async with stream(http, f"/v1/workloads/{work.id}/logs/stream") as given:
        first = await anext(given)
    site.cluster.logs[f"{work.id}-1-0"] += b"thirteen\n"
    headers = {"Last-Event-ID": first["id"]} if by_header else {}
    query = "" if by_header else f"?attempt=1&offset={first['data']['next_offset']}"
    async with stream(http, f"/v1/workloads/{work.id}/logs/stream{query}", headers=headers) as given:
        second = await anext(given)
    assert first["data"]["text"] + second["data"]["text"] == "zwölf\nthirteen\n"


async def test_a_log_that_broke_in_one_attempt_does_not_go_on_in_the_next_at_its_bytes(
    site: Site, http: httpx2.AsyncClient
):
    work = running(site, "again", b"the first attempt")
    async with stream(http, f"/v1/workloads/{work.id}/logs/stream") as given:
        seen = await anext(given)
    site.ended(work, exit_code=1)
    work = site.advance(work, Phase.PENDING, Code.BACKING_OFF, attempt=2, seconds=10)
    site.place(work, "atlas")
    site.running(work)
    site.cluster.logs[f"{work.id}-2-0"] = b"the second attempt, and more of it"
    async with stream(http, f"/v1/workloads/{work.id}/logs/stream", headers={"Last-Event-ID": seen["id"]}) as given:
        end = await anext(given)
    assert (end["event"], end["data"]["attempt"], end["data"]["next_attempt"]) == ("end", 1, 2)
    async with stream(http, f"/v1/workloads/{work.id}/logs/stream?attempt=2") as given:
        assert (await anext(given))["data"]["text"] == "the second attempt, and more of it"


@pytest.mark.parametrize("path", ["logs", "logs/stream"])
async def test_an_offset_needs_the_attempt_that_it_belongs_to(site: Site, http: httpx2.AsyncClient, path: str):
    work = running(site, "whose", b"text")
    problem = is_problem(await http.get(f"/v1/workloads/{work.id}/{path}?offset=2"), 422)
    assert problem["object"] == "offset"
    assert "attempt" in problem["hint"]


async def test_a_log_is_never_cut_inside_a_character(site: Site, http: httpx2.AsyncClient):
    text = "äöü€😀\n" * 5
    work = running(site, "cut", text.encode())
    found, offset = "", 0
    while offset < len(text.encode()):
        piece = (await http.get(f"/v1/workloads/{work.id}/logs?attempt=1&offset={offset}&limit=7")).json()
        found, offset = found + piece["text"], piece["next_offset"]
    assert found == text


async def test_a_log_that_is_asked_for_as_a_stream_is_one(site: Site, http: httpx2.AsyncClient):
    work = running(site, "accepted", b"hello\n")
    async with stream(http, f"/v1/workloads/{work.id}/logs", headers={"Accept": "text/event-stream"}) as given:
        assert (await anext(given))["data"]["text"] == "hello\n"


async def test_a_rank_or_attempt_that_is_none_is_not_found(site: Site, http: httpx2.AsyncClient):
    work = running(site, "ranks")
    for query in ("rank=1", "attempt=2"):
        for path in ("logs", "logs/stream"):
            is_problem(await http.get(f"/v1/workloads/{work.id}/{path}?{query}"), 404)


@pytest.mark.parametrize("path", STREAMS)
async def test_a_quiet_stream_has_a_heartbeat(
    site: Site, http: httpx2.AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
):
    work = running(site, "quiet")
    for module in (events, logs):
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.05)
    newest = (await http.get("/v1/events?newest=true&limit=1")).json()["items"][0]["seq"]
    query = f"?after={newest}" if "events" in path else ""
    async with stream(http, path.format(ref=work.id) + query) as given:
        assert [set(frame) for frame in await take(given, 2)] == [{"comment"}, {"comment"}]


@pytest.mark.parametrize("path", STREAMS)
async def test_one_stream_too_many_is_told_when_to_come_back(
    site: Site, http: httpx2.AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
):
    work = running(site, "crowd")
    monkeypatch.setattr(limits, "STREAMS_MAX", 2)
    address = path.format(ref=work.id)
    async with stream(http, STREAMS[0]) as first, stream(http, STREAMS[0]) as second:
        await anext(first)
        await anext(second)
        answer = await http.get(address)
        problem = is_problem(answer, 503)
        assert problem["numbers"]["open"] == 2
        assert int(answer.headers["retry-after"]) == problem["numbers"]["retry_after_seconds"] > 0
    while site.app.state.streams.open:
        await asyncio.sleep(0.01)
    async with stream(http, STREAMS[0]) as again:
        await anext(again)


async def test_a_stream_that_nobody_takes_ends_and_lets_go(site: Site, monkeypatch: pytest.MonkeyPatch):
    from mainstay.api import streams

    monkeypatch.setattr(streams, "STALLED_SECONDS", 0.2)
    work = running(site, "flood", b"x" * 30_000_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port, limit=1)
    request = f"GET /v1/workloads/{work.id}/logs/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    writer.write(request.encode())
    await reader.read(1)
    async with asyncio.timeout(DEADLINE):
        while not site.app.state.streams.open:
            await asyncio.sleep(0.01)
        while site.app.state.streams.open:
            await asyncio.sleep(0.01)
    writer.close()


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may still have what they opened is asked a hundred times a second."""
    monkeypatch.setattr(standing, "RECHECK_SECONDS", 0.01)


def somebody(site: Site, name: str, **changes: str) -> dict[str, str]:
    """The header of a new member."""
    return {"Authorization": f"Bearer {site.scene.person(name, now=site.services.clock.now(), **changes)}"}


@pytest.mark.usefixtures("quickly")
async def test_a_stream_ends_with_the_token_that_opened_it_and_says_so(site: Site, http: httpx2.AsyncClient):
    work = running(site, "revoked")
    headers = somebody(site, "zed")
    for path in STREAMS:
        site.scene.person("zed", now=site.services.clock.now())
        headers = somebody(site, "zed")
        async with stream(http, path.format(ref=work.id), headers=headers) as given:
            token = headers["Authorization"].split("_")[1]
            site.scene.applied(RevokeToken(tenant=TENANT, id=token, reason=WHY))
            last = [each async for each in given if "event" in each][-1]
        assert (last["event"], last["data"]["code"]) == ("refused", "unauthenticated")
        assert "was revoked" in last["data"]["detail"]


@pytest.mark.usefixtures("quickly")
async def test_a_log_ends_for_who_leaves_its_project_and_for_nobody_else(site: Site, http: httpx2.AsyncClient):
    work = running(site, "left")
    leaver, stayer = somebody(site, "lea", project="default"), somebody(site, "stan")
    path = f"/v1/workloads/{work.id}/logs/stream"
    async with stream(http, path, headers=leaver) as given, stream(http, path, headers=stayer) as kept:
        within = ROLES[PLATFORM_ADMIN]
        site.scene.applied(
            RemoveMember(tenant=TENANT, name="lea", project="default", within=within, reason=WHY),
        )
        last = [each async for each in given if "event" in each][-1]
        site.cluster.logs[f"{work.id}-1-0"] = b"still here"
        piece = await anext(kept)
    assert (last["event"], last["data"]["code"]) == ("refused", "forbidden")
    assert piece["data"]["text"] == "still here"


async def test_a_database_that_is_away_for_a_moment_ends_nothing_and_for_long_it_does(monkeypatch: pytest.MonkeyPatch):
    clock, asked = ManualClock(), []

    async def away(_: object) -> Principal:
        asked.append(clock.monotonic())
        if len(asked) == 3:
            return principal
        msg = "the database does not answer"
        raise Unavailable(msg)

    principal = Principal(name="zed", tenant=TENANT, role="user", token="t1")
    services: Any = SimpleNamespace(clock=clock, renewed=away)
    call = Call(services=services, principal=principal, key=None)
    error = await standing.until_refused(call, Permission.READ)
    assert isinstance(error, Unavailable)
    assert clock.monotonic() - asked[2] >= standing.UNSEEN_SECONDS
    assert asked[2] - asked[0] == 2 * standing.RECHECK_SECONDS


async def test_what_a_machine_opened_with_the_token_of_an_issuer_ends_with_that_token():
    """It has no token on record: what is asked again is who it is, and until when."""
    clock = ManualClock()
    ends = clock.monotonic() + 60

    async def renewed(principal: Principal) -> Principal:
        if clock.monotonic() >= ends:
            msg = "this token has expired"
            raise Unauthenticated(msg)
        return principal

    principal = Principal(name="ci", tenant=TENANT, role="user", identity=("https://idp.test", "ci"), until=1)
    services: Any = SimpleNamespace(clock=clock, renewed=renewed)
    call = Call(services=services, principal=principal, key=None)
    asking = asyncio.create_task(standing.until_refused(call, Permission.READ))
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert asking.done()
    assert isinstance(asking.result(), Unauthenticated)
    assert clock.monotonic() - ends < standing.RECHECK_SECONDS


def test_who_is_revoked_is_out_within_five_seconds():
    assert standing.RECHECK_SECONDS < 5
