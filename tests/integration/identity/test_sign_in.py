"""Signing in at the platform through a real identity provider: as a browser, a terminal and a machine do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mainstay.domain.access import PLATFORM_ADMIN, ROLES
from mainstay.domain.plan import AddProject, Plan, RemoveGroupRole, SetGroupRole, SetMember
from mainstay.domain.reason import Code, Reason
from mainstay.identity import Client, OpenId
from mainstay.operations.services import Services
from tests.identity_provider import CLIENT, SECRET, Provider, running, sign_in
from tests.stores import TENANT
from tests.unit.web.site import app_of, services_of

URL = "http://platform.test"
BACK = f"{URL}/sign-in/back"
PEOPLE = {"alice": ["vision", "everybody"], "carol": ["everybody"], "mallory": []}
WHY = Reason(code=Code.GROUP_ROLE_SET, object="x", numbers={"by": "root", "role": "x", "where": "in the tenant"})
EVERYTHING = ROLES[PLATFORM_ADMIN]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running(PEOPLE, back=BACK) as started:
        yield started


@pytest.fixture
async def services(tmp_path: Path, provider: Provider) -> AsyncIterator[Services]:
    """Of a platform on which the group vision may use the project vision, and everybody may look."""
    with services_of(tmp_path, url=URL) as plain:
        async with OpenId(provider.url, client=Client(id=CLIENT, secret=SECRET), clock=plain.clock) as identities:
            opened = replace(plain, identities=identities)
            commit(
                opened,
                AddProject(tenant=TENANT, project="vision", reason=WHY),
                SetGroupRole(
                    tenant=TENANT, group="vision", project="vision", role="user", within=EVERYTHING, reason=WHY
                ),
                SetGroupRole(tenant=TENANT, group="everybody", role="viewer", within=EVERYTHING, reason=WHY),
            )
            yield opened


def commit(services: Services, *actions: object) -> None:
    plan = Plan(actor="root", now=services.clock.now(), actions=actions, atomic=True)  # type: ignore[arg-type]
    assert not services.store.commit(plan).refused


def browser(services: Services, **headers: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app_of(services)), base_url=services.url, headers=headers, timeout=20
    )


async def signed_in(client: httpx2.AsyncClient, person: str) -> httpx2.Response:
    """Through the provider and back: what our page answers then."""
    begun = await client.get("/sign-in/provider")
    assert begun.status_code == 303
    return await client.get(sign_in(begun.headers["location"], person, back=BACK))


async def whoami(client: httpx2.AsyncClient) -> dict[str, str]:
    return (await client.get("/v1/server")).raise_for_status().json()


async def test_a_person_signs_in_with_a_browser_and_may_what_their_groups_may(services: Services):
    async with browser(services) as client:
        answer = await signed_in(client, "alice")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert "httponly" in answer.headers["set-cookie"].lower()
        assert (await whoami(client))["principal"] == "alice"
        page = await client.get("/runs")
        assert "alice" in page.text
    (alice,) = services.store.members(tenant=TENANT)
    assert (alice.member.role, alice.member.grants, alice.member.groups) == ("", {}, ("everybody", "vision"))


async def test_a_role_that_a_group_loses_is_gone_with_the_next_request(services: Services):
    async with browser(services) as client:
        await signed_in(client, "carol")
        assert (await client.get("/v1/workloads")).status_code == 200
        commit(services, RemoveGroupRole(tenant=TENANT, group="everybody", within=EVERYTHING, reason=WHY))
        assert (await client.get("/v1/workloads")).status_code == 403


async def test_who_is_known_to_the_provider_and_to_nobody_here_is_told_whom_to_ask(services: Services):
    async with browser(services) as client:
        answer = await signed_in(client, "mallory")
        assert answer.status_code == 200
        assert "to no tenant here" in answer.text
        assert "mainstay member add" in answer.text
        assert (await client.get("/v1/server")).status_code == 401
    assert services.store.members(tenant=TENANT) == ()


async def test_somebody_is_let_in_by_who_they_are_and_not_by_what_they_are_called(
    services: Services, provider: Provider
):
    """There is a member `mallory` already. Who signs in with that name is somebody else until an administrator says so."""
    member = SetMember(tenant=TENANT, name="mallory", role="maintainer", within=EVERYTHING, reason=WHY)
    commit(services, member)
    async with browser(services) as client:
        assert "to no tenant here" in (await signed_in(client, "mallory")).text
        identity = services.identities
        assert identity is not None
        from mainstay.domain.identity import Identity

        known = Identity(issuer=provider.url, subject="mallory", name="")
        commit(services, replace(member, identity=known))
        await signed_in(client, "mallory")
        assert (await whoami(client))["role"] == "maintainer"


async def test_a_sign_in_that_another_browser_began_signs_nobody_in(services: Services):
    """Login CSRF: the address that the provider sends a victim back to was got by the attacker's own browser."""
    async with browser(services) as attacker, browser(services) as victim:
        begun = await attacker.get("/sign-in/provider")
        back = sign_in(begun.headers["location"], "alice", back=BACK)
        answer = await victim.get(back)
        assert "begun somewhere else" in answer.text
        assert (await victim.get("/v1/server")).status_code == 401
        await victim.get("/sign-in/provider")
        assert "begun somewhere else" in (await victim.get(back)).text
        assert (await victim.get("/v1/server")).status_code == 401


async def test_a_cookie_that_somebody_tossed_in_is_not_ours(services: Services):
    async with browser(services) as client:
        begun = await client.get("/sign-in/provider")
        back = sign_in(begun.headers["location"], "alice", back=BACK)
        (name,) = client.cookies
        for tossed in ("", "x", "1.0.x", client.cookies[name][:-4] + "AAAA"):
            client.cookies.clear()
            client.cookies.set(name, tossed)
            assert "begun somewhere else" in (await client.get(back)).text


async def test_each_sign_in_makes_a_new_session_and_ends_the_one_before(services: Services):
    async with browser(services) as client:
        await signed_in(client, "alice")
        before = dict(client.cookies)
        await signed_in(client, "carol")
        assert (await whoami(client))["principal"] == "carol"
        assert set(before.values()).isdisjoint(dict(client.cookies).values())
        client.cookies.clear()
        client.cookies.update(before)
        assert (await client.get("/v1/server")).status_code == 401


async def test_a_refusal_of_the_provider_is_told_as_text(services: Services):
    async with browser(services) as client:
        answer = await client.get(
            "/sign-in/back?error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E"
        )
        assert answer.status_code == 200
        assert "refused the sign-in" in answer.text
        assert "<script>alert" not in answer.text


async def test_a_session_is_known_to_every_replica_and_revoked_on_all(services: Services):
    async with browser(services) as one, browser(services) as other:
        await signed_in(one, "alice")
        other.cookies.update(dict(one.cookies))
        assert (await whoami(other))["principal"] == "alice"
        token = next(row for row in services.store.tokens(tenant=TENANT) if row.kind == "session")
        answer = await one.delete(f"/v1/tokens/{token.id}", headers=await form(one))
        assert answer.status_code == 204
        assert (await other.get("/v1/server")).status_code == 401


async def form(client: httpx2.AsyncClient) -> dict[str, str]:
    page = await client.get("/runs")
    token = page.text.partition('name="form-token" content="')[2].partition('"')[0]
    return {"X-Mainstay-Form-Token": token, "Sec-Fetch-Site": "same-origin"}


async def test_a_terminal_gets_a_token_once_its_code_was_entered(services: Services):
    async with browser(services) as client:
        begun = (await client.post("/v1/sign-in/device")).json()
        body = {"device": begun["device"]}
        waiting = await client.post("/v1/sign-in/device/token", json=body)
        assert (waiting.status_code, waiting.json()["code"]) == (409, "not_yet")
        sign_in(begun["url_complete"], "alice", back=BACK)
        got = await client.post("/v1/sign-in/device/token", json=body)
        assert got.status_code == 201, got.text
        again = await client.post("/v1/sign-in/device/token", json=body)
        assert again.status_code == 401
    async with browser(services, authorization=f"Bearer {got.json()['token']}") as client:
        assert (await whoami(client))["principal"] == "alice"


async def test_what_a_terminal_sends_along_cannot_be_made_up(services: Services):
    async with browser(services) as client:
        begun = await client.get("/sign-in/provider")
        assert begun.status_code == 303
        (carried,) = dict(client.cookies).values()  # sealed by us, and for another end
        for device in ("x", "1.0.AAAA", carried):
            answer = await client.post("/v1/sign-in/device/token", json={"device": device})
            assert answer.status_code == 401, device


async def test_a_machine_comes_in_with_a_token_of_the_provider_once_somebody_has_said_as_whom(
    services: Services, provider: Provider
):
    token = provider.machine_token()
    async with browser(services, authorization=f"Bearer {token}") as client:
        answer = await client.get("/v1/server")
        assert answer.status_code == 401
        assert "mainstay member add" in answer.json()["hint"]
        from mainstay.domain.identity import Identity

        known = Identity(issuer=provider.url, subject=CLIENT, name="")
        commit(
            services,
            SetMember(tenant=TENANT, name="ci", role="user", identity=known, within=EVERYTHING, reason=WHY),
        )
        assert (await whoami(client))["principal"] == "ci"
        header, body, signature = token.split(".")
        for forged in (f"{header}.{body}.{signature[:-6]}AAAAAA", f"{header}.{body}.", token[1:]):
            other = await client.get("/v1/server", headers={"Authorization": f"Bearer {forged}"})
            assert other.status_code == 401


async def test_an_id_token_is_no_key(services: Services, provider: Provider):
    """It tells us who signed in; a page that gets hold of one could come in as them."""
    caught: list[str] = []
    identities = services.identities
    assert isinstance(identities, OpenId)
    plain = identities._signed_in

    async def catching(answer, *, nonce):
        caught.append(answer["id_token"])
        return await plain(answer, nonce=nonce)

    identities._signed_in = catching  # type: ignore[method-assign]
    async with browser(services) as client:
        await signed_in(client, "alice")
    async with browser(services, authorization=f"Bearer {caught[0]}") as client:
        assert (await client.get("/v1/server")).status_code == 401
