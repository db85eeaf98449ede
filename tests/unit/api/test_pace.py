"""How fast a tenant may ask: it is told when to come back, and neither its members nor other tenants lose what is theirs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from mainstay.api import limits, logs
from mainstay.api.app import create_api
from mainstay.api.auth import Authentication
from mainstay.api.buckets import BURST_SECONDS
from mainstay.api.limits import Sockets, Streams
from mainstay.api.pace import MEMBER_SHARE, WRITE_COST, Owner, Pacing
from mainstay.domain.errors import TooFast, Unavailable
from mainstay.domain.reason import Code
from mainstay.domain.workload import Phase
from mainstay.operations.principal import Principal
from mainstay.operations.sessions import cookie_name
from tests.clock import ManualClock
from tests.unit.api.conftest import PEOPLE, Api, site_of
from tests.unit.api.test_routes import is_problem

RATE = 8
PATH = "/v1/server"


@pytest.fixture
async def paced(api: Api) -> AsyncIterator[Api]:
    """Eight requests a second of a tenant, with a burst of sixteen."""
    services = replace(api.services, authenticate=PEOPLE.get, rate_max=RATE, clock=ManualClock())
    app = create_api(services)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=services.url) as http:
        yield Api(app=app, services=services, http=http)


async def answered(api: Api, *, token: str, most: int = 100) -> int:
    """So many requests until one is refused."""
    for number in range(most):
        if (await api.ask("GET", PATH, token=token)).status_code == 429:
            return number
    return most


async def test_a_tenant_that_asks_too_fast_is_told_why_and_when_to_come_back(paced: Api):
    assert await answered(paced, token="user-token") == RATE + 1
    refused = await paced.ask("GET", PATH)
    problem = is_problem(refused, 429)
    assert (problem["code"], problem["object"]) == ("too_fast", "alice")
    assert "4 requests a second of alice" in problem["detail"]
    assert problem["hint"]
    assert refused.headers["retry-after"] == "1" == str(problem["numbers"]["retry_after_seconds"])
    paced.services.clock.advance(1)
    assert (await paced.ask("GET", PATH)).status_code == 200


async def test_one_member_leaves_half_to_the_others_and_one_tenant_all_to_other_tenants(paced: Api):
    assert await answered(paced, token="user-token") == RATE + 1
    assert await answered(paced, token="admin-token") == RATE
    assert "8 requests a second of physics" in (await paced.ask("GET", PATH, token="admin-token")).json()["detail"]
    assert await answered(paced, token="other-token") == RATE + 1


async def test_a_refused_request_is_not_read_and_changes_nothing(paced: Api):
    await answered(paced, token="user-token")
    version = paced.services.store.version()
    read = list[bytes]()

    async def body() -> AsyncIterator[bytes]:
        read.append(b"{}")
        yield b"{}"

    assert (await paced.ask("POST", "/v1/workloads", content=body())).status_code == 429
    assert not read
    assert paced.services.store.version() == version


async def test_a_write_counts_as_much_as_it_costs(paced: Api):
    written = [await paced.ask("POST", "/v1/workloads", token="user-token", json={}) for _ in range(RATE)]
    assert [answer.status_code for answer in written] == [422, 422] + [429] * (RATE - 2)
    assert await answered(paced, token="admin-token") == 1
    assert "physics" in (await paced.ask("GET", PATH, token="admin-token")).json()["detail"]


@pytest.mark.parametrize("rate", range(1, 9))
async def test_writes_keep_to_the_pace_at_every_rate(api: Api, rate: int):
    clock = ManualClock()
    pacing, owner, went = (
        Pacing(replace(api.services, rate_max=rate, clock=clock)),
        Owner("lane", "physics", "alice"),
        0,
    )
    for _ in range(600):
        with contextlib.suppress(TooFast):
            pacing.count(owner, "POST")
            went += 1
        clock.advance(0.1)
    assert went <= (60 + BURST_SECONDS) * rate * MEMBER_SHARE / WRITE_COST + 1


async def test_a_token_is_known_however_it_is_set_in_its_header(paced: Api):
    asked = list[str]()
    app = create_api(replace(paced.services, authenticate=lambda token: (asked.append(token), PEOPLE.get(token))[1]))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=paced.services.url) as http:
        for spaces in range(1, 40):
            await http.get(
                PATH, headers={"Authorization": f"{'bearer' if spaces % 2 else 'Bearer'}{' ' * spaces}user-token"}
            )
    assert len(asked) == RATE + 1


async def test_a_page_of_whom_one_knows_counts_and_asking_after_health_does_not(paced: Api):
    cookie = {"Cookie": f"{cookie_name(paced.services.system, secure=False)}=user-cookie"}
    pacing = Pacing(paced.services)
    pacing.found("user-cookie", Owner("tenant physics", "physics", "alice"))
    lanes = list[str]()

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        lanes.append(scope["path"])

    door = Authentication(inner, services=paced.services)
    door._pacing = pacing
    sent = list[Any]()

    async def send(message: Any) -> None:
        sent.append(message.get("status"))

    async def ask(path: str) -> None:
        headers = [(name.lower().encode(), value.encode()) for name, value in cookie.items()]
        await door({"type": "http", "method": "GET", "path": path, "headers": headers}, None, send)  # type: ignore[arg-type]

    for path in ["/runs"] * 20 + ["/readyz"] * 20:
        await ask(path)
    assert (lanes.count("/runs"), lanes.count("/readyz")) == (RATE + 1, 20)
    assert sent.count(429) == 20 - (RATE + 1)


async def test_a_known_credential_that_opens_nothing_any_more_is_forgotten(paced: Api):
    people = dict(PEOPLE)
    app = create_api(replace(paced.services, authenticate=people.get))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=paced.services.url) as http:
        watched = Api(app=app, services=paced.services, http=http)
        assert await answered(watched, token="user-token") == RATE + 1
        person = people.pop("user-token")
        is_problem(await watched.ask("GET", PATH, token="user-token"), 429)
        paced.services.clock.advance(1)
        for _ in range(RATE):
            is_problem(await watched.ask("GET", PATH, token="user-token"), 401)
        people["user-token"] = replace(person, name="bob")
        assert (await watched.ask("GET", PATH, token="user-token")).status_code == 200


async def test_what_is_refused_is_not_looked_up_until_it_may_ask_again(paced: Api):
    asked = list[str]()

    def authenticate(token: str) -> Principal | None:
        asked.append(token)
        return PEOPLE.get(token)

    app = create_api(replace(paced.services, authenticate=authenticate))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=paced.services.url) as http:
        watched = Api(app=app, services=paced.services, http=http)
        assert await answered(watched, token="user-token") == RATE + 1
        known = len(asked)
        for _ in range(20):
            is_problem(await watched.ask("GET", PATH, token="user-token"), 429)
        assert len(asked) == known, "the refusals cost no look-up"
        is_problem(await watched.ask("GET", PATH, token="user-tokem"), 401)
        assert (await watched.ask("GET", PATH, token="other-token")).status_code == 200
        paced.services.clock.advance(1)
        assert (await watched.ask("GET", PATH, token="user-token")).status_code == 200


async def test_health_is_never_refused(paced: Api):
    for _ in range(100):
        assert (await paced.ask("GET", "/readyz", token="")).status_code == 200


async def test_a_wall_clock_that_jumps_changes_nothing(paced: Api):
    await answered(paced, token="user-token")
    paced.services.clock.jump(86_400)
    assert (await paced.ask("GET", PATH)).status_code == 429
    paced.services.clock.jump(-2 * 86_400)
    paced.services.clock.advance(1)
    assert (await paced.ask("GET", PATH)).status_code == 200


async def test_without_a_limit_nobody_is_refused(api: Api):
    assert await answered(api, token="user-token") == 100


async def test_logs_are_read_no_faster_than_a_tenant_may(paced: Api, monkeypatch: pytest.MonkeyPatch):
    site = site_of(paced.services, paced.app)
    site.fleet()
    work = site.scene.submit(name="talks")
    site.place(work, "atlas")
    site.running(work)
    site.cluster.logs[f"{work.id}-1-0"] = b"x" * 1_000
    paced.app.state.log_bytes._per_second = 400.0
    path = f"/v1/workloads/{work.id}/logs"
    assert [(await paced.ask("GET", path)).status_code for _ in range(2)] == [200, 429]
    refused = await paced.ask("GET", path)
    assert "logs a second of physics" in is_problem(refused, 429)["detail"]
    assert refused.headers["retry-after"] == "1"
    paced.services.clock.advance(1)
    assert (await paced.ask("GET", path)).status_code == 200


async def test_a_followed_log_waits_for_what_its_tenant_may_read(paced: Api, monkeypatch: pytest.MonkeyPatch):
    site = site_of(paced.services, paced.app)
    site.fleet()
    work = site.scene.submit(name="talks")
    site.place(work, "atlas")
    site.running(work)
    monkeypatch.setattr(logs, "LOG_BYTES_DEFAULT", 400)
    site.cluster.logs[f"{work.id}-1-0"] = b"x" * 4_000
    site.ended(work)
    paced.app.state.log_bytes._per_second = 400.0
    clock: Any = paced.services.clock
    site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)
    began = clock.monotonic()
    whole = await paced.ask("GET", f"/v1/workloads/{work.id}/logs/stream")
    assert whole.text.count("x") >= 4_000
    # Ten seconds' worth, of which two go at once, and the last piece is not waited for.
    assert 7 <= clock.monotonic() - began <= 10


def test_one_tenant_does_not_take_all_streams_and_sockets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "STREAMS_OF_TENANT_MAX", 1)
    monkeypatch.setattr(limits, "SOCKETS_OF_TENANT_MAX", 2)
    streams, sockets = Streams(), Sockets()
    with streams.one("physics"):
        with pytest.raises(Unavailable, match="1 of your tenant"):
            streams.require_room("physics")
        streams.require_room("chemistry")
    streams.require_room("physics")
    alice, bob = (Principal(name=name, tenant="physics", role="user") for name in ("alice", "bob"))
    eve = Principal(name="eve", tenant="chemistry", role="user")
    with sockets.one(alice), sockets.one(bob):
        with pytest.raises(Unavailable, match="1 of yours, 2 of your tenant"), sockets.one(alice):
            pass
        with sockets.one(eve):
            pass
