"""Signing a browser in and out, by HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mainstay.operations.principal import Principal
from mainstay.operations.services import Services
from tests.stores import TENANT, USER, put_on_record
from tests.unit.web.site import TOKEN, app_of, services_of

URL = "http://platform.test"
OURS = {"Sec-Fetch-Site": "same-origin"}


@contextmanager
def platform(folder: Path, *, url: str) -> Iterator[Services]:
    """One on whose record the caller is."""
    with services_of(folder, url=url) as services:
        who = Principal(name=USER, tenant=TENANT, role="platform-admin")
        put_on_record(services.store, who, now=services.clock.now())
        yield services


def browser(services: Services, **changes: object) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app_of(services))
    return httpx2.AsyncClient(transport=transport, base_url=services.url, **changes)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    with platform(tmp_path, url=URL) as services:
        async with browser(services) as opened:
            yield opened


async def code_for(client: httpx2.AsyncClient) -> str:
    answer = await client.post("/v1/sign-in", headers={"Authorization": f"Bearer {TOKEN}"})
    url, _, code = answer.json()["url"].partition("#")
    assert url.endswith("/sign-in")
    return code


async def signed_in(client: httpx2.AsyncClient) -> str:
    """The form token."""
    answer = await client.post("/sign-in", content=await code_for(client), headers=OURS)
    assert answer.status_code == 204
    page = await client.get("/runs")
    return page.text.partition('name="form-token" content="')[2].partition('"')[0]


async def test_a_code_becomes_a_cookie_that_no_script_and_no_other_site_can_use(client):
    answer = await client.post("/sign-in", content=await code_for(client), headers=OURS)
    parts = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}
    assert answer.status_code == 204
    assert {"httponly", "samesite=strict", "path=/"} <= parts
    assert "secure" not in parts
    assert not any(part.startswith("domain") for part in parts)
    assert (await client.get("/runs")).status_code == 200
    assert (await client.get("/v1/workloads")).status_code == 200


async def test_under_https_the_cookie_is_secure_and_belongs_to_this_host_alone(tmp_path):
    with platform(tmp_path, url="https://platform.test") as services:
        async with browser(services) as client:
            answer = await client.post("/sign-in", content=await code_for(client), headers=OURS)
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-mainstay-")
    assert "Secure" in cookie


async def test_a_code_works_once(client):
    code = await code_for(client)
    assert (await client.post("/sign-in", content=code, headers=OURS)).status_code == 204
    again = await client.post("/sign-in", content=code, headers=OURS)
    assert again.status_code == 401
    assert "mainstay login --page" in again.json()["hint"]
    assert "set-cookie" not in again.headers


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.test"}])
async def test_no_other_site_can_sign_somebody_in(client, headers):
    answer = await client.post("/sign-in", content=await code_for(client), headers=headers)
    assert answer.status_code == 403


async def test_a_browser_without_fetch_metadata_is_known_by_its_origin(client):
    answer = await client.post("/sign-in", content=await code_for(client), headers={"Origin": URL})
    assert answer.status_code == 204


@pytest.mark.parametrize("body", [b"", b"x" * 201, "höhö".encode(), b"\xff\xfe"])
async def test_what_cannot_be_a_code_is_refused_as_a_problem(client, body):
    answer = await client.post("/sign-in", content=body, headers=OURS)
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")


async def test_signing_out_ends_the_session_and_takes_the_cookie(client):
    token = await signed_in(client)
    kept = dict(client.cookies)
    answer = await client.post("/sign-out", headers={**OURS, "X-Mainstay-Form-Token": token})
    assert (answer.status_code, answer.json()) == (200, {"go_to": "/sign-in"})
    assert not client.cookies
    client.cookies.update(kept)
    assert (await client.get("/runs")).status_code == 303


async def test_signing_out_needs_the_form_token(client):
    await signed_in(client)
    assert (await client.post("/sign-out", headers=OURS)).status_code == 403
    assert (await client.get("/runs")).status_code == 200


async def test_signing_out_twice_is_signing_out(client):
    assert (await client.post("/sign-out", headers=OURS)).status_code == 200


async def test_a_new_sign_in_ends_the_session_before(client):
    await signed_in(client)
    first = dict(client.cookies)
    await signed_in(client)
    client.cookies.clear()
    client.cookies.update(first)
    assert (await client.get("/runs")).status_code == 303


async def test_a_write_with_the_cookie_needs_the_form_token_of_the_page(client):
    token = await signed_in(client)
    assert (await client.post("/v1/sign-in", headers=OURS)).status_code == 403
    headers = {**OURS, "X-Mainstay-Form-Token": token}
    assert (await client.post("/v1/sign-in", headers=headers)).status_code == 201


async def test_the_cookie_of_another_platform_is_no_session(tmp_path):
    with platform(tmp_path, url=URL) as services:
        async with browser(services) as client, browser(replace(services, system="other")) as other:
            await signed_in(client)
            other.cookies.update(dict(client.cookies))
            assert (await other.get("/runs")).status_code == 303
