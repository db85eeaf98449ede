"""Every route by permission, keys, refusals, pages and limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mainstay.api.app import TOPICS, openapi
from mainstay.api.limits import BODY_BYTES_MAX, PREDICTION_BYTES_MAX
from mainstay.api.routes import PUBLIC, Declared
from mainstay.api.streams import MEDIA_TYPE
from mainstay.domain.access import ROLES
from mainstay.serving.server import Limits
from mainstay.wire.job import NOT_YET
from tests.unit.api.conftest import PEOPLE, Api, made_a_model, site_of

ROUTES = [declared for topic in TOPICS for declared in topic.declared]
GUARDED = [route for route in ROUTES if route.permission is not PUBLIC]
FILLED = {
    "cluster": "nope",
    "namespace": "nope",
    "ref": "nope",
    "name": "nope",
    "id": "nope",
    "digest": "0" * 64,
    "path": "v2",
    "rest": "v2",
}


def path_of(route: Declared) -> str:
    path = route.path
    for name, value in FILLED.items():
        path = path.replace(f"{{{name}:path}}", value).replace(f"{{{name}}}", value)
    assert "{" not in path, f"fill in {path}"
    return path


def named(route: Declared) -> str:
    return f"{route.method} {route.path}"


def is_problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["code"]
    assert body["detail"]
    assert "Traceback" not in answer.text
    return body


@pytest.mark.parametrize("route", GUARDED, ids=named)
async def test_a_route_without_a_token_is_refused_whatever_is_sent(api: Api, route: Declared):
    for token in ("", "wrong"):
        problem = is_problem(await api.ask(route.method, path_of(route), token=token, content=b"x" * 100), 401)
        assert problem["code"] == "unauthenticated"


@pytest.mark.parametrize("route", GUARDED, ids=named)
async def test_a_route_is_open_to_the_roles_with_its_permission_and_to_no_other(api: Api, route: Declared):
    for token, person in PEOPLE.items():
        allowed = route.permission in ROLES.get(person.role, frozenset())
        if allowed and route.media_type == MEDIA_TYPE:
            continue  # a stream that is allowed has no end
        answer = await api.ask(route.method, path_of(route), token=token, headers={"Accept": "application/json"})
        if allowed:
            assert answer.status_code not in {401, 403}, answer.text
        else:
            is_problem(answer, 403)


def test_every_route_that_changes_something_needs_more_than_reading():
    of_oneself = {"POST /v1/tokens", "DELETE /v1/tokens/{id}"}
    harmless = {"POST /v1/plan", "POST /v1/sign-in", *of_oneself}
    writes = {named(route) for route in GUARDED if route.method != "GET" and str(route.permission) == "read"}
    assert {name for name in writes if not name.startswith("POST /endpoints/")} <= harmless


async def test_every_route_is_described_with_its_permission(api: Api):
    described = openapi(api.app)["paths"]
    for route in ROUTES:
        if route.listed:
            operation = described[route.path.replace(":path", "")][route.method.lower()]
            assert operation["x-permission"] == str(route.permission or "public")
            assert operation["description"]


async def test_a_description_holds_nothing_of_this_machine(api: Api, tmp_path):
    answer = await api.ask("GET", "/v1/openapi.json", token="")
    assert answer.status_code == 200
    assert str(tmp_path) not in answer.text
    assert "platform.test" not in answer.text


async def test_what_belongs_to_another_tenant_is_not_there(api: Api):
    ref = (await api.submit()).json()["id"]
    for method, path in (
        ("GET", f"/v1/workloads/{ref}"),
        ("POST", f"/v1/workloads/{ref}/stop"),
        ("GET", f"/v1/workloads/{ref}/explain"),
        ("GET", f"/v1/workloads/{ref}/outputs"),
        ("GET", f"/v1/workloads/{ref}/logs"),
        ("GET", f"/v1/events?workload={ref}"),
    ):
        is_problem(await api.ask(method, path, token="other-token"), 404)
        assert (await api.ask(method, path)).status_code in {200, 404, 409}
    assert (await api.ask("GET", "/v1/workloads?all=true", token="other-token")).json()["items"] == []
    assert (await api.ask("GET", "/v1/events", token="other-token")).json()["items"] == []


async def test_a_repeated_key_gets_the_first_answer_and_makes_no_second_job(api: Api):
    first = await api.submit(key="k1")
    again = await api.submit(key="k1")
    assert (first.status_code, again.json()) == (201, first.json())
    assert len((await api.ask("GET", "/v1/workloads")).json()["items"]) == 1
    assert (await api.submit(key="k2")).json()["id"] != first.json()["id"]


async def test_a_key_with_another_body_is_refused(api: Api):
    await api.submit(key="k1")
    problem = is_problem(await api.submit(key="k1", run="false"), 422)
    assert problem["code"] == "idempotency_key_reused"
    assert len((await api.ask("GET", "/v1/workloads")).json()["items"]) == 1


async def test_keys_of_tenants_do_not_meet(api: Api):
    ours, theirs = await api.submit(key="k1"), await api.submit(key="k1", token="other-token")
    assert ours.json()["id"] != theirs.json()["id"]


@pytest.mark.parametrize("key", ["", " ", "x" * 300, "a\tb", "ü"])
async def test_a_key_that_is_none_is_refused_or_ignored_but_never_fails(api: Api, key: str):
    answer = await api.ask(
        "POST",
        "/v1/workloads",
        json={"job": {"run": "true", "name": "a"}},
        headers={"Idempotency-Key": key.encode()},
    )
    assert answer.status_code in {201, 422}


async def test_many_jobs_are_accepted_together_or_not_at_all(api: Api):
    good, bad = {"job": {"name": "a", "run": "true"}}, {"job": {"name": "a", "run": "true", "nodes": 0}}
    problem = is_problem(await api.ask("POST", "/v1/workloads/bulk", json={"jobs": [good, bad]}), 422)
    assert problem["errors"][0]["field"] == "jobs.1.job.nodes"
    assert (await api.ask("GET", "/v1/workloads")).json()["items"] == []
    done = await api.ask("POST", "/v1/workloads/bulk", json={"jobs": [good] * 3})
    assert len({item["id"] for item in done.json()["items"]}) == 3


@pytest.mark.parametrize(
    ("job", "field", "said", "nearest"),
    [
        ({"resorces": {}}, "job.resorces", "no such field", "resources"),
        ({"resources": {"gpuz": 1}}, "job.resources.gpuz", "no such field", "gpu"),
        ({"type": "jobb"}, "job.type", "'job' or 'service'", "job"),
        ({"nodes": -1}, "job.nodes", "greater than or equal to 1", ""),
        ({"checkpoint": "x"}, "job.checkpoint", NOT_YET["checkpoint"], ""),
        ({"cpus": 1, "resources": {"cpu": 1, "cpus": 2}}, "job.cpus", "no such field", None),
        ({"name": "Not A Name"}, "job.name", "", None),
        ({"command": ["x"]}, "job", "give either", ""),
        ({"resources": {"memory": "-5GB"}}, "job.resources.memory", "", None),
        ({"resources": {"cpu": "1e99"}}, "job.resources.cpu", "", None),
        ({"resources": {"gpu": "H100:-1"}}, "job.resources.gpu", "", None),
        ({"max_duration": "soon"}, "job.max_duration", "", None),
    ],
)
async def test_a_fault_names_its_field_what_may_stand_there_and_the_nearest(
    api: Api, job: dict[str, Any], field: str, said: str, nearest: str | None
):
    problem = is_problem(await api.submit(**job), 422)
    found = {error["field"]: error for error in problem["errors"]}
    assert field in found, found
    assert said in found[field]["message"]
    assert nearest is None or found[field]["nearest"] == nearest


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"job": 1}', b"\xff\xfe", b'{"job": {"run": "\\ud800"}}', b'{"job":' * 500, b"NaN"],
)
async def test_a_body_that_is_none_is_a_problem_and_never_an_error_of_ours(api: Api, content: bytes):
    answer = await api.ask("POST", "/v1/workloads", content=content, headers={"Content-Type": "application/json"})
    is_problem(answer, 422)


async def test_a_body_that_is_too_large_is_refused_announced_or_not(api: Api):
    async def endless() -> Any:
        for _ in range(64):
            yield b" " * (BODY_BYTES_MAX // 32)

    for content in (b" " * (BODY_BYTES_MAX + 1), endless()):
        problem = is_problem(await api.ask("POST", "/v1/workloads", content=content), 413)
        assert problem["numbers"]["bytes_max"] == BODY_BYTES_MAX


async def test_a_prediction_may_be_as_large_as_the_model_server_takes_it(api: Api):
    assert Limits().body_bytes_max == PREDICTION_BYTES_MAX
    path = "/endpoints/digits/v2/models/digits/infer"
    is_problem(await api.ask("POST", path, content=b" " * PREDICTION_BYTES_MAX), 404)
    problem = is_problem(await api.ask("POST", path, content=b" " * (PREDICTION_BYTES_MAX + 1)), 413)
    assert problem["hint"] == "ask for fewer rows at a time"


@pytest.mark.parametrize("path", ["/v1/nodes", "/v1/models", "/v1/endpoints", "/v1/events"])
async def test_every_list_that_grows_comes_in_pages(api: Api, path: str):
    site = site_of(api.services, api.app)
    maker = made_a_model(site)
    for name in ("a", "b", "c"):
        body = {"workload": maker.id, "endpoint": name, "model": name}
        assert (await api.ask("POST", "/v1/endpoints", json=body)).status_code == 202
    whole = (await api.ask("GET", path)).json()
    assert len(whole["items"]) >= 3
    assert whole["next"] == ""
    found, cursor = [], ""
    while True:
        page = (await api.ask("GET", path, params={"limit": 1, "cursor": cursor})).json()
        found += page["items"]
        if not (cursor := page["next"]):
            break
    assert found == whole["items"]


async def test_what_serves_may_be_bound_to_a_cluster_of_the_fleet_and_to_no_other(api: Api):
    site = site_of(api.services, api.app)
    body = {"workload": made_a_model(site).id}
    nodes = {"name": "east", "simulated": [{"count": 1, "cpu": "4", "memory": "8GB"}]}
    assert (await api.ask("POST", "/v1/clusters", json=nodes, token="admin-token")).status_code == 201
    problem = is_problem(await api.ask("POST", "/v1/endpoints", json={**body, "infra": "eats"}), 422)
    assert problem["hint"] == "did you mean east?"
    made = await api.ask("POST", "/v1/endpoints", json={**body, "infra": "east"})
    assert made.status_code == 202
    service = await api.ask("GET", f"/v1/workloads/{made.json()['candidate']}")
    assert service.json()["infra"] == "east"


async def test_pages_hold_everything_once_while_more_is_submitted(api: Api):
    before = [(await api.submit(name=f"job-{number}")).json()["id"] for number in range(7)]
    found, cursor = [], ""
    while True:
        page = (await api.ask("GET", f"/v1/workloads?limit=2&cursor={cursor}")).json()
        found += [item["id"] for item in page["items"]]
        await api.submit(name="meanwhile")
        if not (cursor := page["next"]):
            break
    assert found == before[::-1]


@pytest.mark.parametrize(
    "query", ["cursor=x", "cursor=-1", "cursor=0", "limit=0", "limit=1001", "cursor=99999999999999999999"]
)
async def test_a_page_that_cannot_be_is_refused(api: Api, query: str):
    is_problem(await api.ask("GET", f"/v1/workloads?{query}"), 422)


@pytest.mark.parametrize("cursor", ["x", ":", "1:a", "1:a:", ":a:1", "1:a:b", "-1:a:1"])
async def test_a_cursor_of_models_that_is_none_is_refused(api: Api, cursor: str):
    is_problem(await api.ask("GET", "/v1/models", params={"cursor": cursor}), 422)


async def test_the_newest_events_come_in_one_page_oldest_first(api: Api):
    for number in range(5):
        await api.submit(name=f"job-{number}")
    every = (await api.ask("GET", "/v1/events")).json()["items"]
    newest = (await api.ask("GET", "/v1/events?newest=true&limit=2")).json()
    assert newest == {"items": every[-2:], "next": ""}


async def test_a_plan_changes_nothing(api: Api):
    version = api.services.store.version()
    answer = await api.ask("POST", "/v1/plan", json={"job": {"name": "a", "run": "true"}})
    assert answer.status_code == 200
    assert api.services.store.version() == version


async def test_an_error_of_ours_tells_nothing_of_itself(api: Api, monkeypatch):
    def broken(*_: Any, **__: Any) -> Any:
        msg = "the password is hunter2"
        raise RuntimeError(msg)

    monkeypatch.setattr(type(api.services.store), "workloads", broken)
    problem = is_problem(await api.ask("GET", "/v1/workloads"), 500)
    assert "hunter2" not in json.dumps(problem)


async def test_a_path_or_method_that_is_not_there_is_a_problem_too(api: Api):
    is_problem(await api.ask("GET", "/v1/nothing"), 404)
    is_problem(await api.ask("DELETE", "/v1/workloads"), 405)


async def test_answers_forbid_being_framed_sniffed_or_stored(api: Api):
    headers = (await api.ask("GET", "/v1/workloads")).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "no-store" in headers["cache-control"]
