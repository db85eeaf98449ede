"""Signing out at a real identity provider: it is told by us, and tells us through a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mainstay.domain.access import PLATFORM_ADMIN, ROLES
from mainstay.domain.plan import Plan, SetGroupRole
from mainstay.domain.reason import Code, Reason
from mainstay.identity import Client, OpenId
from mainstay.operations.services import Services
from mainstay.operations.sign_out import DONE, TOLD
from tests.identity_provider import CLIENT, SECRET, new_browser, running, sign_in
from tests.stores import TENANT
from tests.unit.web.site import Server, app_of, free_port, services_of

WHY = Reason(code=Code.GROUP_ROLE_SET, object="x", numbers={"by": "root", "role": "x", "where": "in the tenant"})


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    """Of a platform that its provider reaches, and on which everybody may look."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        running({"alice": ["everybody"]}, back=f"{url}/sign-in/back", done=url + DONE, told=url + TOLD) as provider,
        services_of(tmp_path, url=url) as plain,
    ):
        client = Client(id=CLIENT, secret=SECRET)
        async with OpenId(provider.url, client=client, clock=plain.clock) as identities:
            role = SetGroupRole(
                tenant=TENANT, group="everybody", role="viewer", within=ROLES[PLATFORM_ADMIN], reason=WHY
            )
            plain.store.commit(Plan(actor="root", now=plain.clock.now(), actions=(role,), atomic=True))
            # The replica that the provider tells: with a loop and a thread of its own, so with connections of its own.
            told = OpenId(provider.url, client=client, clock=plain.clock)
            server = Server(port=port)
            server.start(app_of(replace(plain, identities=told)))
            yield replace(plain, identities=identities)
            assert server.loop is not None
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(told.close(), server.loop))
            server.stop()


def replica(services: Services) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app_of(services)), base_url=services.url, timeout=20)


async def signed_in(client: httpx2.AsyncClient, browser: httpx2.Client) -> None:
    begun = await client.get("/sign-in/provider")
    back = sign_in(begun.headers["location"], "alice", back=f"{client.base_url}/sign-in/back", browser=browser)
    assert (await client.get(back)).headers["location"] == "/"


async def status(client: httpx2.AsyncClient) -> int:
    return (await client.get("/v1/server")).status_code


async def test_who_signs_out_on_our_page_signs_out_at_the_provider_and_nowhere_else(services: Services) -> None:
    async with replica(services) as here, replica(services) as there:
        with new_browser() as browser, new_browser() as other:
            await signed_in(here, browser)
            await signed_in(there, other)
            page = await here.get("/runs")
            token = page.text.partition('name="form-token" content="')[2].partition('"')[0]
            headers = {"X-Mainstay-Form-Token": token, "Sec-Fetch-Site": "same-origin"}
            way = (await here.post("/sign-out", headers=headers)).json()["go_to"]
            assert sign_in(way, "alice", back=services.url + DONE, browser=browser) == services.url + DONE
            assert (await status(here), await status(there)) == (401, 200)
            # The provider knows this browser no more: it asks for a name again.
            begun = await here.get("/sign-in/provider")
            asked = browser.get(begun.headers["location"])
            assert (
                'name="login"'
                in browser.get(httpx2.URL(begun.headers["location"]).join(asked.headers["location"])).text
            )


async def test_who_signs_out_at_the_provider_is_signed_out_here_on_every_replica(services: Services) -> None:
    assert isinstance(services.identities, OpenId)
    async with replica(services) as here, replica(services) as there, replica(services) as elsewhere:
        with new_browser() as browser, new_browser() as other:
            await signed_in(here, browser)
            there.cookies.update(dict(here.cookies))
            await signed_in(elsewhere, other)
            assert [await status(one) for one in (here, there, elsewhere)] == [200, 200, 200]
            way = await services.identities.sign_out(back=services.url + DONE)
            sign_in(way, "alice", back=services.url + DONE, browser=browser)
            assert [await status(one) for one in (here, there, elsewhere)] == [401, 401, 200]
    ended = [token for token in services.store.tokens(tenant=TENANT) if token.revoked_at]
    assert [token.provider_session != "" for token in ended] == [True]
