"""Signing in at a real provider: with a browser, from a terminal, and with the token of a machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from mainstay.domain.errors import NotYet, Unauthenticated, Unavailable
from mainstay.identity import Client, OpenId
from tests.clock import ManualClock
from tests.identity_provider import BACK, CLIENT, SECRET, Provider, running, sign_in

PEOPLE = {"alice": ["vision", "admins"], "carol": []}


class WallClock(ManualClock):
    """That of the provider, which a test can move."""

    def __init__(self) -> None:
        import time

        super().__init__(wall_us=time.time_ns() // 1_000)


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running(PEOPLE) as started:
        yield started


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
async def openid(provider: Provider, clock: WallClock) -> AsyncIterator[OpenId]:
    async with OpenId(provider.url, client=Client(id=CLIENT, secret=SECRET), clock=clock) as opened:
        yield opened


def code_of(address: str) -> tuple[str, str]:
    query = parse_qs(urlsplit(address).query)
    return query["code"][0], query["state"][0]


async def test_a_person_signs_in_with_a_browser_and_brings_groups(openid: OpenId, provider: Provider) -> None:
    begun = await openid.begin(back=BACK)
    code, state = code_of(sign_in(begun.url, "alice"))
    assert state == begun.state
    identity = await openid.finish(code, begun=begun, back=BACK)
    assert (identity.issuer, identity.subject, identity.name) == (provider.url, "alice", "alice")
    assert identity.groups == ("admins", "vision")


async def test_a_code_is_good_once(openid: OpenId) -> None:
    begun = await openid.begin(back=BACK)
    code, _ = code_of(sign_in(begun.url, "carol"))
    await openid.finish(code, begun=begun, back=BACK)
    with pytest.raises(Unauthenticated):
        await openid.finish(code, begun=begun, back=BACK)


async def test_a_code_that_somebody_caught_is_of_no_use_without_what_began_it(openid: OpenId) -> None:
    begun, other = await openid.begin(back=BACK), await openid.begin(back=BACK)
    code, _ = code_of(sign_in(begun.url, "alice"))
    with pytest.raises(Unauthenticated):  # PKCE: the verifier of another sign-in
        await openid.finish(code, begun=other, back=BACK)


async def test_a_sign_in_that_was_slipped_in_is_refused(openid: OpenId) -> None:
    """The right code and verifier, and the nonce of another browser."""
    import dataclasses

    begun, other = await openid.begin(back=BACK), await openid.begin(back=BACK)
    code, _ = code_of(sign_in(begun.url, "alice"))
    with pytest.raises(Unauthenticated, match="begun somewhere else"):
        await openid.finish(code, begun=dataclasses.replace(begun, nonce=other.nonce), back=BACK)


async def test_a_person_signs_a_terminal_in(openid: OpenId) -> None:
    begun = await openid.begin_device()
    with pytest.raises(NotYet):
        await openid.finish_device(begun.device_code)
    assert "Sign-in Success" in sign_in(begun.url_complete, "alice")
    identity = await openid.finish_device(begun.device_code)
    assert identity.subject == "alice"
    with pytest.raises(Unauthenticated):
        await openid.finish_device(begun.device_code)


async def test_a_machine_comes_with_a_token(openid: OpenId, provider: Provider, clock: WallClock) -> None:
    token = provider.machine_token()
    assert (await openid.of_token(token)).subject == CLIENT
    clock.advance(3_600)
    with pytest.raises(Unauthenticated, match="expired"):
        await openid.of_token(token)


async def test_a_provider_that_is_down_lets_in_whom_it_vouched_for_and_nobody_new() -> None:
    clock = WallClock()
    with running(PEOPLE) as provider:
        async with OpenId(provider.url, client=Client(id=CLIENT, secret=SECRET), clock=clock) as openid:
            token = provider.machine_token()
            await openid.of_token(token)
            provider.process.kill()
            provider.process.wait()
            clock.seconds += 700  # its keys are old, the token is not
            assert (await openid.of_token(token)).subject == CLIENT
            with pytest.raises(Unavailable):
                await openid.begin_device()
            clock.seconds += 25 * 3_600
            with pytest.raises(Unavailable):
                await openid.of_token(token)


async def test_tokens_of_unknown_keys_do_not_make_us_ask_again_and_again(provider: Provider) -> None:
    import httpx2

    from mainstay.identity.openid import new_http
    from tests.forged import make_keys, signed

    asked: list[str] = []
    http = new_http()

    async def count(request: httpx2.Request) -> None:
        asked.append(request.url.path)

    http.event_hooks = {"request": [count]}
    clock = WallClock()
    async with OpenId(provider.url, client=Client(id=CLIENT, secret=SECRET), clock=clock, http=http) as openid:
        await openid.of_token(provider.machine_token())
        asked.clear()
        foreign = make_keys().foreign
        clock.seconds += 11
        now = clock.now() // 1_000_000
        for number in range(50):
            token = signed(foreign, "RS256", kid=f"k{number}", iss=provider.url, iat=now, exp=now + 60)
            with pytest.raises(Unauthenticated):
                await openid.of_token(token)
        assert asked == ["/.well-known/openid-configuration", "/jwks"]
