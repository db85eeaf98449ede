"""Signing out at the provider, and what the provider tells us of those who have, by HTTP: with tokens of a made-up issuer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from mainstay.domain.access import PLATFORM_ADMIN, ROLES, TokenKind
from mainstay.domain.errors import Conflict, Unavailable
from mainstay.domain.identity import Identity
from mainstay.domain.plan import AddToken, Plan, RevokeToken, SetMember
from mainstay.identity import Client, OpenId
from mainstay.operations import sessions, sign_in, sign_out, tokens
from mainstay.operations.services import Services
from mainstay.operations.sessions import FORM_HEADER, cookie_name
from tests.clock import ManualClock
from tests.forged import AUDIENCE, ISSUER, NOW, Keys, forged, forged_logouts, good_logouts, make_keys, signed_out
from tests.stores import TENANT, WHY, Scene
from tests.unit.web.site import app_of, services_of

URL = "http://platform.test"
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def keys() -> Keys:
    return make_keys()


@dataclass
class Platform:
    """Where people of one issuer are signed in; `up`: whether that answers, `pages`: what it says that it has."""

    services: Services
    http: httpx2.AsyncClient
    pages: dict[str, str] = field(default_factory=lambda: {"end_session_endpoint": f"{ISSUER}/out?x=1"})
    up: bool = True

    def cookie(self, subject: str, session: str = "") -> str:
        """Of a browser in which that subject has signed in, in that session of the issuer."""
        store, now = self.services.store, self.services.clock.now()
        principal = tokens.known_as(store, ISSUER, subject, until=now + 1, now=now)
        return sessions.begin(store, principal, now=now, provider_session=session)

    async def tell(self, token: str, **changed: Any) -> httpx2.Response:
        """As the provider does."""
        return await self.http.post(sign_out.TOLD, **{"data": {"logout_token": token}, **changed})

    async def signed_in(self, cookie: str) -> bool:
        name = cookie_name(self.services.system, secure=False)
        answer = await self.http.get("/v1/server", headers={"Cookie": f"{name}={cookie}"})
        return answer.status_code == 200


@pytest.fixture
async def platform(tmp_path: Path, keys: Keys) -> AsyncIterator[Platform]:
    def issuer(request: httpx2.Request) -> httpx2.Response:
        if not made.up:
            return httpx2.Response(503)
        if request.url.path == "/keys":
            return httpx2.Response(200, json=keys.document())
        return httpx2.Response(200, json={"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys", **made.pages})

    clock = ManualClock(wall_us=NOW)
    asked = httpx2.AsyncClient(transport=httpx2.MockTransport(issuer))
    with services_of(tmp_path, url=URL) as plain:
        async with OpenId(ISSUER, client=Client(id=AUDIENCE), clock=clock, http=asked) as identities:
            services = replace(plain, identities=identities, clock=clock)
            for subject in ("u-1", "u-2"):
                known = Identity(issuer=ISSUER, subject=subject, name="")
                within = ROLES[PLATFORM_ADMIN]
                Scene(services.store, now=NOW).applied(
                    SetMember(tenant=TENANT, name=subject, role="user", identity=known, within=within, reason=WHY)
                )
            transport = httpx2.ASGITransport(app_of(services))
            async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
                made = Platform(services, http)
                yield made


async def test_what_the_provider_says_truly_ends_the_session(platform: Platform, keys: Keys) -> None:
    for name, token in good_logouts(keys):
        cookie = platform.cookie("u-1", "s-1")
        assert await platform.signed_in(cookie)
        answer = await platform.tell(token)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), name
        assert not await platform.signed_in(cookie), name


async def test_nothing_else_signs_anybody_out(platform: Platform, keys: Keys) -> None:
    cookie, store = platform.cookie("u-1", "s-1"), platform.services.store
    tried = [*forged_logouts(keys), *((f"no key: {name}", token) for name, token in forged(keys))]
    before = store.audit_head().seq
    for name, token in tried:
        answer = await platform.tell(token)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), name
        assert len(token) < 40 or token[:40] not in answer.text, f"{name}: the refusal shows the token"
    assert await platform.signed_in(cookie)
    assert {row.action for row in store.audit(after=before, limit=999)} == {"deny"}
    assert len(list(forged_logouts(keys))) >= 15
    print(f"forged logout tokens refused: {len(tried)} of {len(tried)}")


async def test_the_end_of_one_session_ends_no_other_and_that_of_a_subject_all_of_theirs(
    platform: Platform, keys: Keys
) -> None:
    here, there, theirs = (platform.cookie(*who) for who in (("u-1", "s-1"), ("u-1", "s-2"), ("u-2", "s-3")))
    await platform.tell(signed_out(keys.rsa, jti="1"))
    assert [await platform.signed_in(one) for one in (here, there, theirs)] == [False, True, True]
    await platform.tell(signed_out(keys.rsa, jti="2", sid=None))
    assert [await platform.signed_in(one) for one in (here, there, theirs)] == [False, False, True]


async def test_what_a_session_has_opened_ends_with_it_however_many_lie_between(platform: Platform, keys: Keys) -> None:
    store, now = platform.services.store, platform.services.clock.now()
    cookies = [platform.cookie("u-1", "s-1")]
    for _ in range(3):
        answer = await platform.http.post("/v1/sign-in", headers=by_page(platform, cookies[-1]))
        assert answer.status_code == 201
        cookies.append(sessions.exchange(store, answer.json()["url"].partition("#")[2], now=now))
    other = platform.cookie("u-1", "s-2")
    assert [await platform.signed_in(one) for one in (*cookies, other)] == [True] * 5
    await platform.tell(signed_out(keys.rsa))
    assert [await platform.signed_in(one) for one in (*cookies, other)] == [False] * 4 + [True]


async def test_a_session_that_ends_while_it_asks_for_a_link_gets_none(
    platform: Platform, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = platform.services.store
    cookie, commit = platform.cookie("u-1", "s-1"), store.commit
    (session,) = store.tokens_of_session(issuer=ISSUER, session="s-1")
    ends = RevokeToken(tenant=TENANT, id=session.id, reason=WHY)

    def late(plan: Plan) -> Any:
        if any(isinstance(action, AddToken) for action in plan.actions):
            commit(replace(plan, actions=(ends,)))
        return commit(plan)

    monkeypatch.setattr(store, "commit", late)
    answer = await platform.http.post("/v1/sign-in", headers=by_page(platform, cookie))
    assert (answer.status_code, answer.json()["hint"]) == (401, tokens.REPLACE_HINT)
    assert [one.kind for one in store.tokens(tenant=TENANT)] == [TokenKind.SESSION]


async def test_a_session_of_somebody_else_does_not_end_whatever_its_name(platform: Platform, keys: Keys) -> None:
    cookie = platform.cookie("u-2", "s-1")
    for subject in ("u-1", "nobody"):
        assert (await platform.tell(signed_out(keys.rsa, jti=subject, sub=subject))).status_code == 200
    assert await platform.signed_in(cookie)


async def test_a_terminal_ends_with_its_member_and_not_with_a_browser(platform: Platform, keys: Keys) -> None:
    services = platform.services
    now = services.clock.now()
    principal = tokens.known_as(services.store, ISSUER, "u-1", until=now + 1, now=now)
    _, token = sign_in._terminal_token(services.store, principal, now=now)
    by_hand = tokens.make(
        services.store,
        replace(principal, identity=None),
        tokens.TokenWish(name="ci", seconds=600),
        now=now,
        request=None,
    )[1]
    statuses = []
    for number, session in enumerate(("s-1", None)):
        await platform.tell(signed_out(keys.rsa, jti=str(number), sid=session))
        for one in (token, by_hand):
            answer = await platform.http.get("/v1/server", headers={"Authorization": f"Bearer {one}"})
            statuses.append(answer.status_code)
    assert statuses == [200, 200, 401, 200]


async def test_a_token_is_told_once_and_a_later_session_outlives_its_repetition(platform: Platform, keys: Keys) -> None:
    token = signed_out(keys.rsa, sid=None)
    assert (await platform.tell(token)).status_code == 200
    cookie = platform.cookie("u-1", "s-2")
    for again in (token, signed_out(keys.rsa, sid=None, exp=NOW // 1_000_000 + 60)):
        answer = await platform.tell(again)
        assert (answer.status_code, "used before" in answer.text) == (400, True)
    assert await platform.signed_in(cookie)


async def test_a_crash_before_the_commit_ends_nothing_and_the_same_token_ends_it_then(
    platform: Platform, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie, token = platform.cookie("u-1", "s-1"), signed_out(keys.rsa)

    def fails(_: Plan) -> Any:
        msg = "the database does not answer"
        raise Unavailable(msg)

    with monkeypatch.context() as broken:
        broken.setattr(platform.services.store, "commit", fails)
        answer = await platform.tell(token)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert await platform.signed_in(cookie)
    assert (await platform.tell(token)).status_code == 200
    assert not await platform.signed_in(cookie)


async def test_a_session_that_is_forgotten_meanwhile_holds_up_no_other(
    platform: Platform, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie, commits = platform.cookie("u-1", "s-1"), platform.services.store.commit
    refused: list[Plan] = []

    def conflicts(plan: Plan) -> Any:
        if any(isinstance(action, RevokeToken) for action in plan.actions) and not refused:
            refused.append(plan)
            msg = "no such token"
            raise Conflict(msg)
        return commits(plan)

    monkeypatch.setattr(platform.services.store, "commit", conflicts)
    assert (await platform.tell(signed_out(keys.rsa))).status_code == 200
    assert refused
    assert not await platform.signed_in(cookie)


@pytest.mark.parametrize(
    "changed",
    [
        {"data": {}},
        {"data": {"logout_token": ["a", "b"]}},
        {"data": {str(number): "x" for number in range(20)}},
        {"data": {"logout_token": "x.y.z", "more": "x" * 40_000}},
        {"data": None, "json": {"logout_token": "x"}},
        {
            "data": None,
            "content": b"logout_token=\xff",
            "headers": {"Content-Type": "application/x-www-form-urlencoded"},
        },
    ],
)
async def test_what_is_no_form_with_one_token_is_refused_as_the_standard_has_it(
    platform: Platform, changed: Any
) -> None:
    answer = await platform.tell("x", **changed)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_without_a_provider_nobody_tells_us_anything(tmp_path: Path) -> None:
    with services_of(tmp_path, url=URL) as services:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app_of(services)), base_url=URL) as http:
            answer = await http.post(sign_out.TOLD, data={"logout_token": "x.y.z"})
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def by_page(platform: Platform, cookie: str) -> dict[str, str]:
    """The headers with which our page writes in that session."""
    session = sessions.session(platform.services.store, cookie, now=platform.services.clock.now())
    assert session is not None
    name = cookie_name(platform.services.system, secure=False)
    return {**OURS, FORM_HEADER: session.form_token, "Cookie": f"{name}={cookie}"}


async def signed_out_of(platform: Platform, cookie: str) -> str:
    """Where the page goes on to."""
    answer = await platform.http.post("/sign-out", headers=by_page(platform, cookie))
    assert answer.status_code == 200
    assert not await platform.signed_in(cookie)
    return str(answer.json()["go_to"])


async def test_who_signed_in_at_the_provider_signs_out_there_and_comes_back(platform: Platform) -> None:
    way = urlsplit(await signed_out_of(platform, platform.cookie("u-1", "s-1")))
    assert f"{way.scheme}://{way.netloc}{way.path}" == f"{ISSUER}/out"
    assert parse_qs(way.query) == {
        "x": ["1"],
        "client_id": [AUDIENCE],
        "post_logout_redirect_uri": [f"{URL}/sign-in"],
    }


async def test_a_provider_that_is_away_or_has_no_such_page_keeps_nobody_signed_in(platform: Platform) -> None:
    platform.pages.clear()
    assert await signed_out_of(platform, platform.cookie("u-1")) == "/sign-in"
    platform.up = False
    platform.services.clock.advance(90_000)  # type: ignore[attr-defined]
    assert await signed_out_of(platform, platform.cookie("u-1")) == "/sign-in"


async def test_who_came_with_a_link_of_the_command_line_is_not_sent_to_the_provider(platform: Platform) -> None:
    store, now = platform.services.store, platform.services.clock.now()
    principal = tokens.known_as(store, ISSUER, "u-1", until=now + 1, now=now)
    cookie = sessions.exchange(store, sessions.link(store, principal, now=now), now=now)
    assert await signed_out_of(platform, cookie) == "/sign-in"
    assert {token.issuer for token in store.tokens(tenant=TENANT) if token.kind is TokenKind.SESSION} == {""}
