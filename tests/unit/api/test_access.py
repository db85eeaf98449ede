"""Members and their tokens through the API: what one may is what is on record at that very request."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mainstay.domain.access import ROLES, TOKEN_DAYS_MAX
from mainstay.domain.errors import Unauthenticated, Unavailable
from mainstay.operations import sessions, tokens
from tests.clock import ManualClock
from tests.stores import TENANT
from tests.unit.api.conftest import PEOPLE, Api, api_over
from tests.unit.api.test_routes import is_problem
from tests.unit.web.site import services_of

DAY = 86_400


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    with services_of(tmp_path, url="http://platform.test") as given:
        async with api_over(replace(given, authenticate=PEOPLE.get, clock=ManualClock())) as found:
            yield found


async def member(api: Api, name: str, role: str, *, token: str = "dora-token", **more: Any) -> Any:
    return await api.ask("PUT", f"/v1/members/{name}", token=token, json={"role": role, **more})


async def made(api: Api, *, token: str = "dora-token", **wish: Any) -> Any:
    return await api.ask("POST", "/v1/tokens", token=token, json={"name": "test", **wish})


async def token_of(api: Api, name: str, role: str, **wish: Any) -> str:
    """Somebody new, and a token for them."""
    assert (await member(api, name, role, token="admin-token")).status_code == 200
    answer = await made(api, token="admin-token", member=name, **wish)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


async def whoami(api: Api, token: str) -> Any:
    return await api.ask("GET", "/v1/server", token=token)


def clock_of(api: Api) -> ManualClock:
    clock = api.services.clock
    assert isinstance(clock, ManualClock)
    return clock


async def test_a_token_is_its_member_with_the_role_of_now(api: Api):
    token = await token_of(api, "zed", "user")
    here = (await whoami(api, token)).json()
    assert (here["principal"], here["tenant"], here["role"]) == ("zed", TENANT, "user")
    assert (await api.submit(token=token)).status_code == 201
    await member(api, "zed", "viewer")
    is_problem(await api.submit(token=token), 403)
    await api.ask("DELETE", "/v1/members/zed", token="dora-token")
    is_problem(await whoami(api, token), 401)


async def test_a_token_is_shown_once_and_nothing_of_it_is_kept(api: Api, tmp_path: Path):
    await member(api, "zed", "user")
    wish = {"name": "ci", "member": "zed"}
    first = await api.ask("POST", "/v1/tokens", token="dora-token", json=wish, headers={"Idempotency-Key": "k"})
    again = await api.ask("POST", "/v1/tokens", token="dora-token", json=wish, headers={"Idempotency-Key": "k"})
    token = first.json()["token"]
    assert re.fullmatch(r"mst_[0-9a-f]{12}_[0-9a-f]{72}", token)
    assert again.json() == {**first.json(), "token": ""}
    (listed,) = (await api.ask("GET", "/v1/tokens", token="dora-token")).json()["items"]
    assert {**listed, "token": ""} == again.json()
    api.services.store.close()
    secret = token.split("_")[2].encode()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and secret[:64] in path.read_bytes()] == []


async def test_a_revoked_token_is_refused_at_the_next_request_and_says_so(api: Api):
    token = await token_of(api, "zed", "user")
    (listed,) = (await api.ask("GET", "/v1/tokens", token=token)).json()["items"]
    assert (await api.ask("DELETE", f"/v1/tokens/{listed['id']}", token=token)).status_code == 204
    assert "revoked" in is_problem(await whoami(api, token), 401)["detail"]
    (listed,) = (await api.ask("GET", "/v1/tokens", token="dora-token")).json()["items"]
    assert listed["state"] == "revoked"


async def test_a_token_ends_when_its_time_is_over_and_not_a_second_before(api: Api):
    token = await token_of(api, "zed", "user", expires="1h")
    clock_of(api).advance(3_599)
    assert (await whoami(api, token)).status_code == 200
    clock_of(api).advance(1)
    assert "expired" in is_problem(await whoami(api, token), 401)["detail"]


@pytest.mark.parametrize("expires", ["30s", f"{TOKEN_DAYS_MAX + 1}d"])
async def test_a_token_is_valid_for_a_minute_to_ninety_days(api: Api, expires: str):
    await member(api, "zed", "user")
    is_problem(await made(api, member="zed", expires=expires), 422)


async def test_a_mistyped_token_is_told_apart_from_one_that_is_not_valid(api: Api):
    token = await token_of(api, "zed", "user")
    typo = token[:20] + ("0" if token[20] != "0" else "1") + token[21:]
    assert "mistyped" in is_problem(await whoami(api, typo), 401)["detail"]
    _, foreign = tokens.new_token()
    assert is_problem(await whoami(api, foreign), 401)["detail"] == "this token is not valid"
    id_, secret = foreign.split("_")[1:]
    stolen = f"mst_{token.split('_')[1]}_{secret[:64]}{tokens._check(token.split('_')[1], secret[:64])}"
    assert is_problem(await whoami(api, stolen), 401)["detail"] == "this token is not valid"
    assert id_ not in token


async def test_the_digest_alone_decides_and_not_the_checksum(api: Api, monkeypatch: pytest.MonkeyPatch):
    token = await token_of(api, "zed", "user")
    monkeypatch.setattr(tokens, "digest_of", lambda _: "0" * 64)
    is_problem(await whoami(api, token), 401)


async def test_a_token_allows_no_more_than_it_says(api: Api):
    token = await token_of(api, "zed", "maintainer", may=["read", "submit"])
    assert (await api.submit(token=token)).status_code == 201
    answer = await api.ask("POST", "/v1/workloads/train/stop", token=token)
    assert is_problem(answer, 403)["detail"] == "this token may not stop"


async def test_a_token_never_allows_more_than_its_member(api: Api):
    token = await token_of(api, "zed", "viewer", may=["read", "submit", "manage"])
    is_problem(await api.submit(token=token), 403)
    is_problem(await api.ask("GET", "/v1/clusters", token=token), 403)


async def test_a_token_with_limits_makes_no_others(api: Api):
    token = await token_of(api, "zed", "user", may=["read"])
    is_problem(await made(api, token=token), 403)
    free = await token_of(api, "zed", "user")
    own = await made(api, token=free)
    assert (own.status_code, own.json()["member"]) == (201, "zed")


async def test_nobody_makes_a_token_for_others_but_who_administers_members(api: Api):
    await member(api, "zed", "user")
    is_problem(await made(api, token="user-token", member="zed"), 403)
    is_problem(await made(api, member="nobody-there"), 404)


async def test_nobody_sees_or_revokes_tokens_of_others_but_who_administers_members(api: Api):
    zed, una = await token_of(api, "zed", "user"), await token_of(api, "una", "user")
    (own,) = (await api.ask("GET", "/v1/tokens", token=zed)).json()["items"]
    assert own["member"] == "zed"
    is_problem(await api.ask("DELETE", f"/v1/tokens/{own['id']}", token=una), 404)
    is_problem(await api.ask("DELETE", f"/v1/tokens/{own['id']}", token="other-token"), 404)
    assert len((await api.ask("GET", "/v1/tokens", token="dora-token")).json()["items"]) == 2
    assert (await api.ask("GET", "/v1/tokens", token="other-token")).json()["items"] == []


async def test_a_tenant_admin_makes_and_touches_no_platform_admin(api: Api):
    await member(api, "root", "platform-admin", token="admin-token")
    await member(api, "boss", "platform-admin", token="admin-token")
    for answer in (
        await member(api, "zed", "platform-admin"),
        await member(api, "root", "viewer"),
        await api.ask("DELETE", "/v1/members/root", token="dora-token"),
        await made(api, member="root"),
    ):
        is_problem(answer, 403)
    assert (await member(api, "zed", "tenant-admin")).status_code == 200


async def test_the_last_platform_admin_stays(api: Api):
    await member(api, "root", "platform-admin", token="admin-token")
    is_problem(await member(api, "root", "viewer", token="admin-token"), 409)
    is_problem(await api.ask("DELETE", "/v1/members/root", token="admin-token"), 409)


async def test_members_of_another_tenant_are_not_there(api: Api):
    await member(api, "zed", "user")
    assert (await api.ask("GET", "/v1/members", token="other-token")).json()["items"] == []
    is_problem(await api.ask("DELETE", "/v1/members/zed", token="other-token"), 404)


async def test_a_browser_is_signed_out_with_the_token_that_signed_it_in(api: Api):
    token = await token_of(api, "zed", "user")
    principal = tokens.authenticated(api.services.store, token, now=api.services.clock.now())
    store, now = api.services.store, api.services.clock.now()
    cookie = sessions.exchange(store, sessions.link(store, principal, now=now), now=now)
    assert await api.services.signed_in(cookie) is not None
    await member(api, "zed", "viewer")
    session = await api.services.signed_in(cookie)
    assert session is not None
    assert session.principal.role == "viewer"
    await api.ask("DELETE", f"/v1/tokens/{principal.token}", token=token)
    with pytest.raises(Unauthenticated, match="was revoked"):
        await api.services.signed_in(cookie)


async def test_a_cookie_is_no_key_and_a_link_opens_nothing_but_a_session(api: Api):
    token = await token_of(api, "zed", "user")
    store, now = api.services.store, api.services.clock.now()
    link = sessions.link(store, tokens.authenticated(store, token, now=now), now=now)
    is_problem(await api.ask("GET", "/v1/server", token=link), 401)
    for other in (link, token):
        with pytest.raises(Unauthenticated):
            await api.services.signed_in(other)
    cookie = sessions.exchange(store, link, now=now)
    is_problem(await api.ask("GET", "/v1/server", token=cookie), 401)
    with pytest.raises(Unauthenticated):
        sessions.exchange(store, link, now=now)


async def test_a_session_may_no_more_than_the_token_that_began_it(api: Api):
    token = await token_of(api, "zed", "user", may=["read"])
    store, now = api.services.store, api.services.clock.now()
    cookie = sessions.exchange(
        store, sessions.link(store, tokens.authenticated(store, token, now=now), now=now), now=now
    )
    session = await api.services.signed_in(cookie)
    assert session is not None
    assert session.principal.anywhere == {"read"}


async def test_the_use_of_a_token_goes_on_record_once_an_hour(api: Api):
    token = await token_of(api, "zed", "user")
    await whoami(api, token)
    version = api.services.store.version()
    clock_of(api).advance(600)
    await whoami(api, token)
    assert api.services.store.version() == version
    clock_of(api).advance(3_600)
    await whoami(api, token)
    (listed,) = (await api.ask("GET", "/v1/tokens", token="dora-token")).json()["items"]
    assert api.services.store.tokens(tenant=TENANT)[0].used_at == clock_of(api).now()
    assert listed["used_at"] is not None


async def test_a_token_is_good_while_nothing_can_be_written(api: Api, monkeypatch: pytest.MonkeyPatch):
    token = await token_of(api, "zed", "user")

    def full(*_: object) -> None:
        msg = "the disk is full"
        raise Unavailable(msg)

    monkeypatch.setattr(type(api.services.store), "commit", full)
    assert (await whoami(api, token)).status_code == 200


async def test_a_clock_that_was_set_back_ends_no_token_and_revives_no_revoked_one(api: Api):
    token = await token_of(api, "zed", "user")
    clock_of(api).jump(-30 * DAY)
    assert (await whoami(api, token)).status_code == 200
    (listed,) = (await api.ask("GET", "/v1/tokens", token=token)).json()["items"]
    await api.ask("DELETE", f"/v1/tokens/{listed['id']}", token=token)
    clock_of(api).jump(-30 * DAY)
    is_problem(await whoami(api, token), 401)


async def test_a_tenant_comes_with_its_administrator_and_sees_nothing_of_others(api: Api):
    body = {"name": "biology", "administrator": "ben@bio.example"}
    is_problem(await api.ask("POST", "/v1/tenants", token="dora-token", json=body), 403)
    answer = await api.ask("POST", "/v1/tenants", token="admin-token", json=body)
    assert answer.status_code == 201, answer.text
    token = answer.json()["token"]
    assert (await whoami(api, token)).json()["tenant"] == "biology"
    await api.submit()
    assert (await api.ask("GET", "/v1/workloads", token=token)).json()["items"] == []
    assert [one["name"] for one in (await api.ask("GET", "/v1/tenants", token=token)).json()["items"]] == ["biology"]
    is_problem(await api.ask("POST", "/v1/tenants", token="admin-token", json=body), 409)


async def test_roles_are_listed_with_all_that_they_may(api: Api):
    await api.ask("PUT", "/v1/roles/night", token="dora-token", json={"may": ["read", "stop"]})
    found = {one["name"]: one for one in (await api.ask("GET", "/v1/roles")).json()["items"]}
    assert set(found) == {*ROLES, "night"}
    assert (found["night"]["may"], found["night"]["built_in"]) == (["read", "stop"], False)
    token = await token_of(api, "zed", "night")
    is_problem(await api.submit(token=token), 403)
    assert is_problem(await api.ask("POST", "/v1/workloads/nope/stop", token=token), 404)
    await api.ask("PUT", "/v1/roles/night", token="dora-token", json={"may": ["read", "submit"]})
    assert (await api.submit(token=token)).status_code == 201


@pytest.mark.parametrize("may", [["read", "members"], ["read", "manage"], ["stop"]])
async def test_a_role_of_a_tenants_own_may_no_more_than_a_maintainer_and_read_at_least(api: Api, may: list[str]):
    is_problem(await api.ask("PUT", "/v1/roles/night", token="dora-token", json={"may": may}), 422)


async def test_a_built_in_role_cannot_be_said_anew(api: Api):
    is_problem(await api.ask("PUT", "/v1/roles/viewer", token="dora-token", json={"may": ["read", "submit"]}), 422)


@pytest.mark.parametrize("name", ["-x", "a b", "x" * 101, "ü"])
async def test_a_name_that_is_none_is_refused(api: Api, name: str):
    is_problem(await member(api, name, "user"), 422)


async def test_built_in_roles_are_nested():
    roles = list(ROLES.values())
    assert all(less < more for less, more in itertools.pairwise(roles))
