"""The end of projects and tenants through the API: refused with what lives there, and at once for everybody else."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mainstay.domain.access import ROLES
from mainstay.domain.allocation import Owner
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.plan import AddTenant, ObserveVolumes, SetMember
from mainstay.domain.reason import Code
from mainstay.domain.volume import VolumeState
from mainstay.domain.workload import Phase
from tests.stores import TENANT, WHY
from tests.unit.api.conftest import Api, site_of
from tests.unit.api.test_access import api, member, token_of, whoami
from tests.unit.api.test_routes import is_problem
from tests.unit.web.site import size

__all__ = ["api"]


MODEL = b"flavors: {}\n"


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def remove(api: Api, name: str, *, token: str = "dora-token", what: str = "projects", **options: Any) -> Any:
    return await api.ask("DELETE", f"/v1/{what}/{name}", token=token, **options)


async def listed(api: Api, path: str, token: str = "dora-token") -> list[str]:
    return [one["name"] for one in (await api.ask("GET", path, token=token)).json()["items"]]


@pytest.fixture
async def vision(api: Api) -> Api:
    """With a project."""
    assert (await api.ask("POST", "/v1/projects", token="dora-token", json={"name": "vision"})).status_code == 204
    return api


@pytest.fixture
async def biology(api: Api) -> str:
    """A tenant with an administrator: their token."""
    scene = site_of(api.services, api.app).scene
    within = ROLES["platform-admin"]
    scene.applied(
        *(AddTenant(tenant=name, reason=WHY) for name in (TENANT, "chemistry")),
        SetMember(tenant=TENANT, name="root", role="platform-admin", within=within, reason=WHY),
    )
    made = await api.ask("POST", "/v1/tenants", token="admin-token", json={"name": "biology", "administrator": "bea"})
    assert made.status_code == 201, made.text
    return str(made.json()["token"])


async def test_a_project_is_removed_for_good_and_named_nowhere_any_more(vision: Api):
    await member(vision, "vera", "user", project="vision")
    token = (await vision.ask("POST", "/v1/tokens", token="dora-token", json={"name": "t", "member": "vera"})).json()
    assert (await remove(vision, "vision")).status_code == 204
    assert await listed(vision, "/v1/projects") == ["default"]
    is_problem(await vision.submit(token=token["token"], project="vision"), 403)
    refused = [
        await vision.ask("POST", "/v1/projects", token="dora-token", json={"name": "vision"}),
        await vision.submit(project="vision"),
        await vision.ask("POST", "/v1/plan", json={"job": {"name": "a", "run": "true", "project": "vision"}}),
        await vision.ask("POST", "/v1/trees?project=vision", json={"entries": []}),
        await member(vision, "vera", "user", project="vision"),
        await remove(vision, "vision"),
    ]
    for answer in refused:
        problem = is_problem(answer, 410)
        assert problem["detail"].startswith("project vision was removed on 20")
        assert problem["hint"]
    rows = (await vision.ask("GET", "/v1/audit", token="admin-token")).json()["items"]
    removals = [(row["object"], row["actor"]) for row in rows if row["action"] == "remove_project"]
    assert removals == [("vision", "dora")]


async def test_the_refusal_names_what_lives_in_it_and_the_commands_that_end_it(vision: Api):
    run = (await vision.submit(project="vision")).json()["id"]
    scene = site_of(vision.services, vision.app).scene
    volume = VolumeState(owner=Owner(tenant=TENANT, project="vision"), name="data")
    scene.applied(ObserveVolumes(cluster="local", volumes=(volume,), reason=WHY))
    problem = is_problem(await remove(vision, "vision"), 409)
    assert problem["detail"] == f"project vision is in use: 1 open run ({run}), 1 volume (data)"
    assert problem["hint"] == "first: mainstay stop NAME, mainstay volume remove NAME"
    scene.applied(scene.advance(scene.workload(run), Phase.STOPPED))
    scene.applied(ObserveVolumes(cluster="local", volumes=(), reason=WHY))
    assert (await remove(vision, "vision")).status_code == 204
    seen = (await vision.ask("GET", f"/v1/workloads/{run}")).json()
    assert (seen["project"], seen["phase"]) == ("vision", "stopped")


async def test_what_a_run_of_a_removed_project_made_can_be_fetched_and_not_served(vision: Api):
    site = site_of(vision.services, vision.app)
    site.fleet()
    work = site.scene.submit(name="maker", project="vision", choices=(size(cpus=1, gib=1),))
    site.place(work, "atlas")
    site.running(work)
    files = vision.services.artifacts.of(Owner(tenant=TENANT, project="vision"))
    digest = hashlib.sha256(MODEL).hexdigest()
    await files.put(digest, once(MODEL))
    tree = await files.put_tree(Tree(entries=(Entry(path="model/MLmodel", size=len(MODEL), digest=digest),)))
    site.ended(work, output=tree)
    site.advance(work, Phase.SUCCEEDED, Code.COMPLETED)
    assert (await remove(vision, "vision")).status_code == 204
    problem = is_problem(await vision.ask("POST", "/v1/endpoints", json={"workload": work.id}), 410)
    assert "project vision was removed" in problem["detail"]
    outputs = (await vision.ask("GET", f"/v1/workloads/{work.id}/outputs")).json()
    assert [one["path"] for one in outputs["entries"]] == ["model/MLmodel"]
    blob = await vision.ask("GET", f"/v1/blobs/{digest}?project=vision")
    assert (blob.status_code, blob.content) == (200, MODEL)


async def test_the_default_project_stays(vision: Api):
    assert is_problem(await remove(vision, "default"), 409)["detail"] == "default is built in, and stays"


async def test_what_is_not_there_is_not_found_and_who_may_not_is_refused_first(vision: Api):
    problem = is_problem(await remove(vision, "visio"), 404)
    assert problem["hint"] == "did you mean vision?"
    is_problem(await remove(vision, "vision", token="user-token"), 403)
    is_problem(await remove(vision, "vision", token="other-token"), 404)
    is_problem(await remove(vision, "nope", token="admin-token", what="tenants"), 404)
    is_problem(await remove(vision, "default", what="tenants"), 403)


async def test_a_tenant_is_removed_and_its_tokens_are_nobodys_with_the_next_request(api: Api, biology: str):
    assert (await whoami(api, biology)).status_code == 200
    await api.ask("POST", "/v1/projects", token=biology, json={"name": "cells"})
    problem = is_problem(await remove(api, "biology", token="admin-token", what="tenants"), 409)
    assert problem["detail"] == "tenant biology is in use: 1 project (cells)"
    assert problem["hint"].startswith("its members do so first: mainstay project remove NAME; if none is left: ")
    assert (await remove(api, "cells", token=biology)).status_code == 204
    assert (await remove(api, "biology", token="admin-token", what="tenants")).status_code == 204
    is_problem(await whoami(api, biology), 401)
    assert await listed(api, "/v1/tenants", "admin-token") == ["chemistry", TENANT]
    (gone,) = (await api.ask("GET", "/v1/tenants?removed=true", token="admin-token")).json()["items"]
    assert gone["name"] == "biology"
    assert gone["removed_at"]
    again = await api.ask("POST", "/v1/tenants", token="admin-token", json={"name": "biology", "administrator": "bea"})
    assert "tenant biology was removed on" in is_problem(again, 410)["detail"]


async def test_nobody_removes_the_tenant_that_they_are_in(api: Api, biology: str):
    assert (
        "your own tenant" in is_problem(await remove(api, TENANT, token="admin-token", what="tenants"), 409)["detail"]
    )
    is_problem(await remove(api, "biology", token=biology, what="tenants"), 403)


async def test_the_bill_of_a_removed_tenant_is_for_who_administers_the_platform(api: Api, biology: str):
    assert (await remove(api, "biology", token="admin-token", what="tenants")).status_code == 204
    bill = await api.ask("GET", "/v1/cost?tenant=biology", token="admin-token")
    assert (bill.status_code, bill.json()["lines"]) == (200, [])
    for name in ("biology", "nope"):
        is_problem(await api.ask("GET", f"/v1/cost?tenant={name}"), 403)
    is_problem(await api.ask("GET", "/v1/cost?tenant=nope", token="admin-token"), 404)
    assert (await api.ask("GET", f"/v1/cost?tenant={TENANT}")).status_code == 200


async def test_a_token_that_is_good_for_that_project_alone_says_that_it_was_revoked(vision: Api):
    capped = await token_of(vision, "zed", "maintainer", projects=["vision"])
    assert (await remove(vision, "vision")).status_code == 204
    assert "revoked" in is_problem(await whoami(vision, capped), 401)["detail"]
