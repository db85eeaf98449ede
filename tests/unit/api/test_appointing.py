"""The way back into a tenant whose administrators are gone: somebody of the platform appoints another."""

from __future__ import annotations

from typing import Any

import pytest

from mainstay.domain.access import DEFAULT_TENANT
from mainstay.domain.plan import AddTenant
from mainstay.operations import tokens
from tests.stores import TENANT, WHY
from tests.unit.api.conftest import Api, site_of
from tests.unit.api.test_access import api, made, member, token_of, whoami
from tests.unit.api.test_removal import biology, listed, remove
from tests.unit.api.test_routes import is_problem

__all__ = ["api", "biology"]


async def appoint(
    api: Api, name: str, *, tenant: str = "biology", token: str = "admin-token", key: str | None = None
) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    path = f"/v1/tenants/{tenant}/administrators"
    return await api.ask("POST", path, token=token, json={"administrator": name}, headers=headers)


async def tokens_of(api: Api, token: str) -> list[tuple[str, str]]:
    found = (await api.ask("GET", "/v1/tokens", token=token)).json()["items"]
    return sorted((one["member"], one["state"]) for one in found)


async def roles(api: Api, token: str) -> dict[str, str]:
    return {one["name"]: one["role"] for one in (await api.ask("GET", "/v1/members", token=token)).json()["items"]}


async def test_a_tenant_that_nobody_administers_is_emptied_and_removed_by_who_is_appointed(api: Api, biology: str):
    assert (await api.ask("POST", "/v1/projects", token=biology, json={"name": "cells"})).status_code == 204
    assert (await api.ask("DELETE", "/v1/members/bea", token=biology)).status_code == 204
    is_problem(await whoami(api, biology), 401)
    refused = is_problem(await remove(api, "biology", token="admin-token", what="tenants"), 409)
    assert refused["hint"].endswith("if none is left: mainstay tenant appoint biology --admin MEMBER")
    answer = await appoint(api, "noa@bio.example")
    assert answer.status_code == 201, answer.text
    token = answer.json().pop("token")
    assert answer.json() == {"tenant": "biology", "administrator": "noa@bio.example", "token": token}
    here = (await whoami(api, token)).json()
    assert (here["principal"], here["tenant"], here["role"]) == ("noa@bio.example", "biology", "tenant-admin")
    assert (await remove(api, "cells", token=token)).status_code == 204
    assert (await remove(api, "biology", token="admin-token", what="tenants")).status_code == 204
    is_problem(await whoami(api, token), 401)


async def test_who_is_a_member_already_keeps_the_rest_and_so_do_all_others(api: Api, biology: str):
    await api.ask("POST", "/v1/projects", token=biology, json={"name": "cells"})
    await member(api, "zed", "maintainer", token=biology, project="cells")
    await member(api, "ci", "user", token=biology, kind="service")
    old = (await made(api, token=biology, member="zed")).json()["token"]
    token = (await appoint(api, "zed")).json()["token"]
    assert await roles(api, token) == {"bea": "tenant-admin", "ci": "user", "zed": "tenant-admin"}
    (zed,) = [one for one in (await api.ask("GET", "/v1/members", token=token)).json()["items"] if one["name"] == "zed"]
    assert (zed["kind"], zed["projects"]) == ("person", {"cells": "maintainer"})
    for held in (biology, old, token):
        assert (await whoami(api, held)).json()["role"] == "tenant-admin"


async def test_an_administrator_who_lost_their_tokens_gets_another(api: Api, biology: str):
    (listing,) = (await api.ask("GET", "/v1/tokens", token=biology)).json()["items"]
    assert (await api.ask("DELETE", f"/v1/tokens/{listing['id']}", token=biology)).status_code == 204
    token = (await appoint(api, "bea")).json()["token"]
    assert await tokens_of(api, token) == [("bea", "revoked"), ("bea", "valid")]


@pytest.mark.parametrize("name", ["bea", "noa"])
async def test_members_of_the_tenant_read_who_of_the_platform_appointed_whom(api: Api, biology: str, name: str):
    """Also where the role is not new, and the token is all that is."""
    before = (await api.ask("GET", "/v1/audit", token="admin-token")).json()["items"]
    await appoint(api, name)
    events = (await api.ask("GET", "/v1/events?limit=1000", token=biology)).json()["items"]
    told = [one["reason"]["sentence"] for one in events if "root of tenant physics" in one["reason"]["sentence"]]
    (last,) = [one for one in told if one.endswith("appointed by the platform")]
    assert f"made by root of tenant {TENANT} for {name}" in last
    rows = (await api.ask("GET", "/v1/audit", token="admin-token")).json()["items"]
    new = rows[: len(rows) - len(before)]
    assert {(row["actor"], row["tenant"]) for row in new} == {("root", "biology")}
    assert new[0]["action"] == "add_token"
    assert "appointed by the platform" in new[0]["detail"]


async def test_a_repetition_makes_no_second_token_and_shows_none(api: Api, biology: str):
    first = (await appoint(api, "noa", key="k")).json()
    again = await appoint(api, "noa", key="k")
    assert (again.status_code, again.json()) == (201, {**first, "token": ""})
    assert await tokens_of(api, first["token"]) == [("bea", "valid"), ("noa", "valid")]
    is_problem(await appoint(api, "zed", key="k"), 422)
    await remove(api, "biology", token="admin-token", what="tenants")
    assert (await appoint(api, "noa", key="k")).json() == {**first, "token": ""}


async def test_a_crash_before_the_commit_leaves_neither_a_role_nor_a_token(
    api: Api, biology: str, monkeypatch: pytest.MonkeyPatch
):
    def crash(*_: object) -> None:
        msg = "before the commit"
        raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr("mainstay.store.write._write_head", crash)
        is_problem(await appoint(api, "noa", key="k"), 500)
    assert (await roles(api, biology), await tokens_of(api, biology)) == ({"bea": "tenant-admin"}, [("bea", "valid")])
    assert (await appoint(api, "noa", key="k")).json()["token"]


async def test_a_tenant_that_is_not_there_is_not_found_and_one_that_was_removed_is_gone(api: Api, biology: str):
    assert is_problem(await appoint(api, "noa", tenant="nope"), 404)["hint"] == "list them with: mainstay tenant list"
    await remove(api, "biology", token="admin-token", what="tenants")
    problem = is_problem(await appoint(api, "noa"), 410)
    assert problem["detail"].startswith("tenant biology was removed on 20")
    assert api.services.store.members(tenant="biology") == ()


async def test_nobody_appoints_but_who_administers_the_platform(api: Api, biology: str):
    for token in ("dora-token", "user-token", biology):
        for tenant in ("biology", "nope"):
            problem = is_problem(await appoint(api, "noa", tenant=tenant, token=token), 403)
            assert problem["hint"] == "ask an administrator of the platform"
    assert await roles(api, biology) == {"bea": "tenant-admin"}


async def test_a_token_with_limits_makes_none_without_them_in_another_tenant(api: Api, biology: str):
    capped = await token_of(api, "boss", "platform-admin", gpus=1)
    for answer in (
        await appoint(api, "noa", token=capped),
        await api.ask("POST", "/v1/tenants", token=capped, json={"name": "zoology", "administrator": "noa"}),
    ):
        assert is_problem(answer, 403)["detail"] == "a token with limits makes no others"
    assert await roles(api, biology) == {"bea": "tenant-admin"}
    assert "zoology" not in await listed(api, "/v1/tenants", "admin-token")


async def test_who_administers_the_platform_is_not_made_less(api: Api, biology: str):
    await member(api, "boss", "platform-admin", token="admin-token")
    problem = is_problem(await appoint(api, "boss", tenant=TENANT), 409)
    assert problem["detail"] == f"boss may more than administer the tenant {TENANT}: manage"
    assert problem["hint"] == "appoint somebody else, who may be new"
    assert (await roles(api, "admin-token"))["boss"] == "platform-admin"
    assert await tokens_of(api, "admin-token") == []


async def test_the_administrator_of_the_machine_has_a_file_and_needs_no_appointment(api: Api, biology: str):
    site_of(api.services, api.app).scene.applied(AddTenant(tenant=DEFAULT_TENANT, reason=WHY))
    problem = is_problem(await appoint(api, "admin", tenant=DEFAULT_TENANT), 409)
    assert problem["detail"] == "admin is the administrator of the machine, whose token lies in the state directory"
    assert (await appoint(api, "admin")).status_code == 201


async def test_nobody_has_more_tokens_by_being_appointed_than_there_may_be(
    api: Api, biology: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tokens, "TOKENS_MAX", 1)
    assert is_problem(await appoint(api, "bea"), 409)["detail"] == "bea has 1 valid tokens already"
    assert (await appoint(api, "noa")).status_code == 201


@pytest.mark.parametrize("name", ["-x", "a b", "x" * 101])
async def test_a_name_that_is_none_is_refused(api: Api, biology: str, name: str):
    is_problem(await appoint(api, name), 422)
