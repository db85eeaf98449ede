"""Every write under an Idempotency-Key: done once, and answered the same way each time it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from mainstay.api.app import TOPICS, openapi
from mainstay.domain.allocation import Owner
from mainstay.domain.plan import ObserveVolumes
from mainstay.domain.volume import VolumeState
from tests.stores import TENANT, WHY
from tests.unit.api.conftest import Api, made_a_model, site_of
from tests.unit.api.test_routes import is_problem


@dataclass(frozen=True)
class Write:
    """A write, the same under its key with another body, and how to count what it has made."""

    method: str
    path: str
    route: str
    body: Any
    other: Any
    counted: str
    token: str = "user-token"


SIMULATED = {"name": "west", "simulated": [{"count": 1, "cpu": "4", "memory": "4GB"}]}
JOB = {"job": {"name": "new", "run": "true"}}
OTHER = {"job": {"name": "new", "run": "false"}}
WRITES = [
    Write("POST", "/v1/workloads", "/v1/workloads", JOB, OTHER, "/v1/workloads?all=true"),
    Write(
        "POST",
        "/v1/workloads/bulk",
        "/v1/workloads/bulk",
        {"jobs": [JOB, JOB]},
        {"jobs": [JOB, OTHER]},
        "/v1/workloads?all=true",
    ),
    Write("POST", "/v1/workloads/train/stop", "/v1/workloads/{ref}/stop", None, {"force": True}, "/v1/events"),
    Write(
        "POST",
        "/v1/endpoints",
        "/v1/endpoints",
        {"workload": "maker"},
        {"workload": "maker", "endpoint": "b"},
        "/v1/events",
    ),
    Write("DELETE", "/v1/endpoints/digits", "/v1/endpoints/{name}", None, {"force": True}, "/v1/events"),
    Write(
        "POST",
        "/v1/clusters",
        "/v1/clusters",
        SIMULATED,
        {**SIMULATED, "name": "north"},
        "/v1/clusters",
        token="admin-token",
    ),
    *(
        Write(
            "POST",
            f"/v1/clusters/east/{verb}",
            f"/v1/clusters/{{name}}/{verb}",
            None,
            {"force": True},
            "/v1/clusters",
            token="admin-token",
        )
        for verb in ("drain", "resume")
    ),
    *(
        Write(
            "POST",
            f"/v1/nodes/-/atlas/{verb}",
            f"/v1/nodes/{{cluster}}/{{name}}/{verb}",
            None,
            other,
            "/v1/events",
            token="admin-token",
        )
        for verb, other in (
            ("cordon", {"reason": "new disks"}),
            ("uncordon", {"force": True}),
            ("drain", {"reason": "new disks"}),
            ("quarantine", {"reason": "new disks"}),
            ("release", {"force": True}),
        )
    ),
    *(
        Write("POST", f"/v1/workloads/train/{verb}", f"/v1/workloads/{{ref}}/{verb}", body, other, "/v1/events")
        for verb, body, other in (
            ("hold", None, {"force": True}),
            ("release", None, {"force": True}),
            ("priority", {"priority": 80}, {"priority": 20}),
        )
    ),
    *(
        Write("DELETE", path, route, None, {"force": True}, "/v1/events", token="admin-token")
        for path, route in (
            ("/v1/queues/research", "/v1/queues/{name}"),
            ("/v1/flavors/spot", "/v1/flavors/{name}"),
            ("/v1/local-queues/team-a/main", "/v1/local-queues/{namespace}/{name}"),
            ("/v1/priorities/paper", "/v1/priorities/{name}"),
        )
    ),
    Write(
        "POST", "/v1/projects", "/v1/projects", {"name": "new"}, {"name": "other"}, "/v1/projects", token="dora-token"
    ),
    *(
        Write("DELETE", path, route, None, {"force": True}, "/v1/events", token="dora-token")
        for path, route in (
            ("/v1/members/zed", "/v1/members/{name}"),
            ("/v1/roles/night", "/v1/roles/{name}"),
            ("/v1/group-roles?group=ml", "/v1/group-roles"),
            ("/v1/projects/old", "/v1/projects/{name}"),
        )
    ),
    Write(
        "DELETE",
        "/v1/tenants/biology",
        "/v1/tenants/{name}",
        None,
        {"force": True},
        "/v1/tenants?removed=true",
        token="admin-token",
    ),
    Write(
        "POST",
        "/v1/audit/1/redact",
        "/v1/audit/{seq}/redact",
        {"why": "a name"},
        {"why": "another"},
        "/v1/audit",
        token="admin-token",
    ),
    Write("DELETE", "/v1/secrets/hf-token", "/v1/secrets/{name}", None, {"force": True}, "/v1/events"),
    Write("DELETE", "/v1/webhooks/hook", "/v1/webhooks/{name}", None, {"force": True}, "/v1/events"),
    Write("DELETE", "/v1/volumes/data", "/v1/volumes/{name}", None, {"force": True}, "/v1/events"),
    Write(
        "DELETE",
        "/v1/clusters/east",
        "/v1/clusters/{name}",
        None,
        {"force": True},
        "/v1/clusters",
        token="admin-token",
    ),
]
BY_CONTENT = {
    *("POST /v1/plan", "POST /v1/sign-in", "POST /v1/trees", "PUT /v1/blobs/{digest}", "PUT /v1/secrets/{name}"),
    *("PUT /v1/queues", "PUT /v1/queues/{name}", "PUT /v1/queue-history", "PUT /v1/priorities/{name}"),
    *("PUT /v1/flavors", "PUT /v1/flavors/{name}", "PUT /v1/local-queues"),
    *("PUT /v1/members/{name}", "PUT /v1/roles/{name}", "PUT /v1/group-roles"),
    *("POST /v1/sign-in/device", "POST /v1/sign-in/device/token"),
    *("PUT /v1/webhooks/{name}/enabled", "POST /v1/webhooks/{name}/test"),
}
"""They change nothing, or what they make is named by its content or takes the place of what was there, or (a sign-in) is
worthless when doubled. To try a webhook out twice is to send two messages: that is what is asked for.
"""


SHOWN_ONCE = {
    *("POST /v1/clusters/{name}/token", "POST /v1/tenants", "POST /v1/tokens", "DELETE /v1/tokens/{id}"),
    "POST /v1/tenants/{name}/administrators",
    *("POST /v1/webhooks", "POST /v1/webhooks/{name}/rotate"),
}
"""Done once by their keys; but the tokens and secrets that they make are not kept, so a repetition cannot show them
(test_agents.py, test_access.py, where one is revoked, too, test_appointing.py and test_webhooks.py).
"""


def named(write: Write) -> str:
    return f"{write.method} {write.route}"


@pytest.fixture
async def furnished(api: Api) -> Api:
    """A job that may be stopped, one that made a model, an endpoint, a volume, and a cluster."""
    site = site_of(api.services, api.app)
    volume = VolumeState(owner=Owner(tenant=TENANT, project="default"), name="data")
    site.scene.applied(ObserveVolumes(cluster="local", volumes=(volume,), reason=WHY))
    site.scene.submit(name="train")
    made_a_model(site)
    answer = await api.ask("POST", "/v1/endpoints", json={"workload": "maker", "endpoint": "digits"})
    assert answer.status_code == 202, answer.text
    secret = await api.ask("PUT", "/v1/secrets/hf-token", json={"value": "aGY="})
    assert secret.status_code == 200, secret.text
    webhook = await api.ask("POST", "/v1/webhooks", json={"url": "https://8.8.8.8/hook", "name": "hook"})
    assert webhook.status_code == 201, webhook.text
    for path, body in (
        ("/v1/queues/research", {"weight": 2}),
        ("/v1/flavors/spot", {"node_labels": ["pool=spot"]}),
        ("/v1/local-queues", {"local_queues": [{"namespace": "team-a", "name": "main", "queue": "default"}]}),
        ("/v1/priorities/paper", {"priority": 90}),
    ):
        put = await api.ask("PUT", path, json=body, token="admin-token")
        assert put.status_code == 200, put.text
    for path, body in (
        ("/v1/members/zed", {"role": "user"}),
        ("/v1/roles/night", {"may": ["read", "stop"]}),
        ("/v1/group-roles", {"group": "ml", "role": "user"}),
    ):
        put = await api.ask("PUT", path, json=body, token="dora-token")
        assert put.status_code == 200, put.text
    project = await api.ask("POST", "/v1/projects", json={"name": "old"}, token="dora-token")
    assert project.status_code == 204, project.text
    tenant = {"name": "biology", "administrator": "bea"}
    assert (await api.ask("POST", "/v1/tenants", json=tenant, token="admin-token")).status_code == 201
    cluster = await api.ask("POST", "/v1/clusters", json={**SIMULATED, "name": "east"}, token="admin-token")
    assert cluster.status_code == 201, cluster.text
    return api


async def sent(api: Api, write: Write, body: Any, key: str) -> httpx2.Response:
    options = {} if body is None else {"json": body}
    return await api.ask(write.method, write.path, headers={"Idempotency-Key": key}, token=write.token, **options)


async def count(api: Api, write: Write) -> int:
    path = write.counted + ("&" if "?" in write.counted else "?") + "limit=1000"
    return len((await api.ask("GET", path, token=write.token)).json()["items"])


def test_every_write_is_either_done_once_by_its_key_or_harmless_when_doubled():
    routes = [route for topic in TOPICS for route in topic.declared if route.listed and route.method != "GET"]
    assert {f"{route.method} {route.path}" for route in routes} == {
        named(write) for write in WRITES
    } | BY_CONTENT | SHOWN_ONCE


def test_the_description_offers_the_key_where_it_means_something(api: Api):
    paths = openapi(api.app)["paths"]
    offered = {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if any(parameter["name"] == "Idempotency-Key" for parameter in operation.get("parameters", []))
    }
    assert offered == {named(write) for write in WRITES} | SHOWN_ONCE


@pytest.mark.parametrize("write", WRITES, ids=named)
async def test_the_same_key_and_body_get_the_same_answer_and_make_nothing_more(furnished: Api, write: Write):
    first = await sent(furnished, write, write.body, "k")
    assert first.is_success, first.text
    made = await count(furnished, write)
    for _ in range(2):
        again = await sent(furnished, write, write.body, "k")
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert await count(furnished, write) == made


@pytest.mark.parametrize("write", WRITES, ids=named)
async def test_a_key_reused_with_another_body_is_refused(furnished: Api, write: Write):
    await sent(furnished, write, write.body, "k")
    made = await count(furnished, write)
    problem = is_problem(await sent(furnished, write, write.other, "k"), 422)
    assert problem["code"] == "idempotency_key_reused"
    assert problem["object"] == "k"
    assert "new key" in problem["hint"]
    assert await count(furnished, write) == made


async def test_the_same_key_on_two_routes_is_two_keys(furnished: Api):
    for write in WRITES:
        assert (await sent(furnished, write, write.body, "k")).is_success, named(write)


async def test_a_refused_write_does_not_use_up_its_key(api: Api):
    headers = {"Idempotency-Key": "k"}
    is_problem(await api.ask("POST", "/v1/workloads", json={"job": {"run": "a", "name": "-"}}, headers=headers), 422)
    assert (await api.submit(key="k")).status_code == 201


async def test_a_key_of_somebody_who_may_not_write_is_not_looked_up(api: Api):
    await api.submit(key="k")
    is_problem(await api.submit(key="k", token="viewer-token"), 403)
