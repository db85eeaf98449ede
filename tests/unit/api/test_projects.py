"""A member of one project sees and touches what lies in it, and nothing else of the tenant."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from mainstay.api.app import TOPICS
from mainstay.api.routes import PUBLIC
from mainstay.domain.allocation import Owner
from mainstay.domain.plan import ObserveVolumes
from mainstay.domain.volume import VolumeState
from tests.stores import TENANT, WHY
from tests.unit.api.conftest import Api, made_a_model, site_of
from tests.unit.api.test_access import api, member, token_of
from tests.unit.api.test_routes import is_problem

__all__ = ["api"]


@pytest.fixture
async def token(api: Api) -> str:
    """Of somebody who is a user in the project `vision` and nothing anywhere else."""
    assert (await api.ask("POST", "/v1/projects", token="dora-token", json={"name": "vision"})).status_code == 204
    answer = await member(api, "vera", "user", project="vision")
    assert answer.json()["projects"] == {"vision": "user"}
    made = await api.ask("POST", "/v1/tokens", token="dora-token", json={"name": "test", "member": "vera"})
    return str(made.json()["token"])


async def listed(api: Api, path: str, token: str, name: str = "id") -> list[str]:
    return [one[name] for one in (await api.ask("GET", path, token=token)).json()["items"]]


async def test_what_lies_in_another_project_is_not_there(api: Api, token: str):
    theirs = (await api.submit()).json()["id"]
    ours = (await api.submit(token=token, project="vision")).json()["id"]
    for method, path in (
        ("GET", ""),
        ("POST", "/stop"),
        ("POST", "/hold"),
        ("GET", "/explain"),
        ("GET", "/outputs"),
        ("GET", "/logs"),
        ("GET", "/logs/stream"),
    ):
        refused = is_problem(await api.ask(method, f"/v1/workloads/{theirs}{path}", token=token), 404)
        never = is_problem(await api.ask(method, f"/v1/workloads/nope{path}", token=token), 404)
        assert refused["hint"] == never["hint"]
        assert refused["detail"].replace(theirs, "nope") == never["detail"]
    assert await listed(api, "/v1/workloads?all=true", token) == [ours]
    is_problem(await api.ask("GET", f"/v1/events?workload={theirs}", token=token), 404)
    assert (await api.ask("GET", f"/v1/events?workload={ours}", token=token)).status_code == 200


async def test_a_name_means_the_newest_run_of_ones_own_projects(api: Api, token: str):
    ours = (await api.submit(token=token, project="vision")).json()["id"]
    theirs = (await api.submit()).json()["id"]
    assert (await api.ask("GET", "/v1/workloads/train", token=token)).json()["id"] == ours
    assert (await api.ask("GET", "/v1/workloads/train")).json()["id"] == theirs


async def test_work_goes_into_ones_own_projects_only(api: Api, token: str):
    assert "in project default" in is_problem(await api.submit(token=token), 403)["detail"]
    good, bad = {"job": {"name": "a", "run": "true", "project": "vision"}}, {"job": {"name": "a", "run": "true"}}
    is_problem(await api.ask("POST", "/v1/workloads/bulk", token=token, json={"jobs": [good, bad]}), 403)
    assert await listed(api, "/v1/workloads", "user-token") == []
    is_problem(await api.ask("POST", "/v1/plan", token=token, json=bad), 403)


async def test_what_a_whole_tenant_shares_is_for_those_who_have_a_role_in_all_of_it(api: Api, token: str):
    for path in ("/v1/events", "/v1/cost", "/v1/secrets", "/metrics"):
        is_problem(await api.ask("GET", path, token=token), 403)
    is_problem(await api.ask("PUT", "/v1/secrets/x", token=token, json={"value": "aGY="}), 403)


async def test_a_role_in_the_tenant_holds_in_each_project_and_one_there_adds_to_it(api: Api, token: str):
    await member(api, "vera", "viewer")
    theirs = (await api.submit()).json()["id"]
    assert (await api.ask("GET", f"/v1/workloads/{theirs}", token=token)).status_code == 200
    is_problem(await api.ask("POST", f"/v1/workloads/{theirs}/stop", token=token), 403)
    ours = (await api.submit(token=token, project="vision")).json()["id"]
    assert (await api.ask("POST", f"/v1/workloads/{ours}/stop", token=token)).status_code == 200


async def test_who_leaves_a_project_is_out_with_the_next_request(api: Api, token: str):
    ours = (await api.submit(token=token, project="vision")).json()["id"]
    await api.ask("DELETE", "/v1/members/vera?project=vision", token="dora-token")
    is_problem(await api.ask("GET", f"/v1/workloads/{ours}", token=token), 403)
    is_problem(await api.submit(token=token, project="vision"), 403)


async def test_a_token_for_one_project_is_one_for_nothing_else(api: Api, token: str):
    capped = await token_of(api, "zed", "maintainer", projects=["vision"])
    theirs = (await api.submit()).json()["id"]
    is_problem(await api.ask("GET", f"/v1/workloads/{theirs}", token=capped), 404)
    assert (await api.submit(token=capped, project="vision")).status_code == 201
    is_problem(await api.submit(token=capped), 403)


async def test_a_token_for_so_many_gpus_starts_nothing_larger(api: Api):
    capped = await token_of(api, "zed", "user", gpus=0)
    assert (await api.submit(token=capped)).status_code == 201
    asked: dict[str, Any]
    for asked in ({"resources": {"gpu": "1"}}, {"resources": {"any_of": [{"cpu": "1"}, {"gpu": "1"}]}}):
        assert "may hold 0 GPUs at a time" in is_problem(await api.submit(token=capped, **asked), 403)["detail"]


async def test_endpoints_and_volumes_of_other_projects_are_not_there(api: Api, token: str):
    site = site_of(api.services, api.app)
    maker = made_a_model(site)
    assert (await api.ask("POST", "/v1/endpoints", json={"workload": maker.id})).status_code == 202
    seen = tuple(VolumeState(owner=Owner(tenant=TENANT, project=name), name=name) for name in ("default", "vision"))
    site.scene.applied(ObserveVolumes(cluster="local", volumes=seen, reason=WHY))
    await member(api, "vera", "maintainer", project="vision")
    for path in ("/v1/endpoints/maker", "/v1/volumes/default"):
        is_problem(await api.ask("GET", path, token=token), 404)
        is_problem(await api.ask("DELETE", path, token=token), 404)
    is_problem(await api.ask("GET", "/endpoints/maker/v2/health/live", token=token), 404)
    assert await listed(api, "/v1/endpoints", token, "name") == []
    assert await listed(api, "/v1/models", token, "model") == []
    assert await listed(api, "/v1/volumes", token, "name") == ["vision"]
    is_problem(await api.ask("POST", "/v1/endpoints", token=token, json={"workload": maker.id}), 404)


async def stored(api: Api, content: bytes, *, project: str, token: str) -> tuple[str, str]:
    """One file, and the tree of it: their digests."""
    digest = hashlib.sha256(content).hexdigest()
    sent = await api.ask("PUT", f"/v1/blobs/{digest}?project={project}", token=token, content=content)
    assert sent.status_code == 204, sent.text
    entries = [{"path": "f", "size": len(content), "digest": digest}]
    answer = await api.ask("POST", f"/v1/trees?project={project}", token=token, json={"entries": entries})
    assert answer.json()["missing"] == []
    return digest, answer.json()["tree"]


async def test_files_of_another_project_are_as_if_nobody_had_stored_them(api: Api, token: str):
    """By their digest or as code of a run of one's own, asked about or fetched: there are none."""
    digest, tree = await stored(api, b"secret", project="default", token="user-token")
    for path in (f"/v1/blobs/{digest}", f"/v1/trees/{tree}"):
        refused = is_problem(await api.ask("GET", path, token=token), 404)
        never = is_problem(
            await api.ask("GET", path.replace(digest, "0" * 64).replace(tree, "0" * 64), token=token), 404
        )
        assert refused["detail"].replace(digest, "0" * 64).replace(tree, "0" * 64) == never["detail"]
        is_problem(await api.ask("GET", f"{path}?project=vision", token=token), 404)
        assert (await api.ask("GET", path)).status_code == 200
    announced = {"entries": [{"path": "f", "size": 6, "digest": digest}]}
    answer = await api.ask("POST", "/v1/trees?project=vision", token=token, json=announced)
    assert answer.json()["missing"] == [digest]
    is_problem(await api.ask("POST", "/v1/trees", token=token, json=announced), 403)
    is_problem(await api.ask("PUT", f"/v1/blobs/{digest}", token=token, content=b"secret"), 403)
    job = {"name": "a", "run": "true", "project": "vision", "files": {"g": "x"}}
    is_problem(await api.ask("POST", "/v1/workloads", token=token, json={"job": job, "code": tree}), 404)


async def test_ones_own_files_are_sent_and_fetched(api: Api, token: str):
    digest, tree = await stored(api, b"ours", project="vision", token=token)
    assert (await api.ask("GET", f"/v1/blobs/{digest}?project=vision", token=token)).content == b"ours"
    assert (await api.ask("GET", f"/v1/trees/{tree}?project=vision", token=token)).status_code == 200
    is_problem(await api.ask("GET", f"/v1/blobs/{digest}?project=vision", token="other-token"), 404)


async def test_files_go_into_no_project_that_is_not_there(api: Api):
    for name in ("visoin", "../../etc", "", "x" * 41):
        path = f"/v1/blobs/{hashlib.sha256(b'').hexdigest()}?project={name}"
        is_problem(await api.ask("PUT", path, token="carol-token", content=b""), 422)


async def test_a_project_that_is_not_there_takes_no_work_and_the_nearest_is_named(api: Api, token: str):
    problem = is_problem(await api.submit(project="visoin"), 422)
    assert problem["hint"] == "did you mean vision?"


async def test_projects_are_listed_to_those_who_may_look_into_them(api: Api, token: str):
    assert await listed(api, "/v1/projects", token, "name") == ["vision"]
    assert await listed(api, "/v1/projects", "user-token", "name") == ["default", "vision"]
    assert await listed(api, "/v1/projects", "other-token", "name") == ["default"]


@pytest.mark.parametrize("role", ["tenant-admin", "platform-admin"])
async def test_who_administers_does_so_in_a_whole_tenant(api: Api, token: str, role: str):
    is_problem(await member(api, "vera", role, project="vision", token="admin-token"), 422)


async def test_no_route_that_writes_for_all_lets_in_a_member_of_one_project(api: Api, token: str):
    """Routes that ask of each object where it lies are named in this file or in that of tokens."""
    routes = [route for topic in TOPICS for route in topic.declared if route.method != "GET"]
    asked = {f"{route.method} {route.path}" for route in routes if route.of_projects}
    assert asked == {
        *("POST /v1/workloads", "POST /v1/workloads/bulk", "POST /v1/plan", "POST /v1/sign-in"),
        *(f"POST /v1/workloads/{{ref}}/{verb}" for verb in ("stop", "hold", "release", "priority")),
        *("POST /v1/endpoints", "DELETE /v1/endpoints/{name}", "DELETE /v1/volumes/{name}"),
        *("POST /v1/trees", "PUT /v1/blobs/{digest}", "POST /endpoints/{name}/v2/{path:path}"),
        *("POST /v1/tokens", "DELETE /v1/tokens/{id}"),
    }
    assert not any(route.of_projects for route in routes if route.permission is PUBLIC)
