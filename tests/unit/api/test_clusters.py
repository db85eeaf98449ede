"""Clusters over the API: added once their credentials work, never shown again, drained, resumed, removed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog

from mainstay.api.app import create_api
from mainstay.app import configure_log
from mainstay.clusters.kubernetes import KubernetesConnector
from mainstay.domain.errors import Denied, Invalid, Unavailable
from mainstay.domain.fleet import ClusterFacts, ClusterKind, ClusterSettings, Credentials
from mainstay.domain.plan import ObserveNodes
from mainstay.operations import clusters as operations
from mainstay.sdk.aio import AsyncClient
from mainstay.simulation.files import MemoryArtifactStore
from mainstay.wire.requests import ClusterRequest
from mainstay.wire.views import ClusterView
from tests.connectors import FACTS, MemoryConnector
from tests.drawer import Drawer
from tests.stores import WHY, Scene
from tests.unit.api.conftest import PEOPLE, Api
from tests.unit.api.test_routes import is_problem
from tests.unit.web.site import services_of

CANARY = "canary-kubeconfig"
EAST = {"name": "east", "kubeconfig": CANARY, "namespaces_per_project": 4, "image": "python:3.13"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    with services_of(tmp_path, url="http://platform.test") as given:
        connectors = {ClusterKind.KUBERNETES: MemoryConnector(given.clock)}
        services = replace(given, authenticate=PEOPLE.get, connectors=connectors)
        app = create_api(services)
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=services.url) as http:
            yield Api(app=app, services=services, http=http)


@pytest.fixture
def real_log(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """As the platform writes it."""
    configure_log("debug")
    yield
    structlog.reset_defaults()


async def ask(api: Api, method: str, path: str = "", **options: Any) -> httpx2.Response:
    return await api.ask(method, f"/v1/clusters{path}", token="admin-token", **options)


def connector(api: Api) -> MemoryConnector:
    found = api.services.connectors[ClusterKind.KUBERNETES]
    assert isinstance(found, MemoryConnector)
    return found


async def test_a_cluster_whose_credentials_work_is_in_the_fleet(api: Api):
    connector(api).facts = replace(FACTS, warnings=("the clock there is an hour off",))
    answer = await ask(api, "POST", json=EAST)
    assert answer.status_code == 201, answer.text
    added = ClusterView.model_validate(answer.json())
    assert (added.state, added.server, added.identity) == ("ready", FACTS.server, FACTS.identity)
    assert added.warnings == ["the clock there is an hour off"]
    (shown,) = (await ask(api, "GET")).json()["items"]
    assert shown == {**answer.json(), "warnings": []}
    assert (await ask(api, "GET", "/east")).json() == shown
    (checked,) = connector(api).checked
    assert checked[1].kubeconfig == CANARY


@pytest.mark.parametrize("context", ["", "east"])
async def test_of_a_kubeconfig_the_chosen_context_alone_is_stored(api: Api, context: str):
    """What was stored whole by an older version opens all the same."""

    class Unasked(KubernetesConnector):
        async def check(self, settings: ClusterSettings, credentials: Credentials) -> ClusterFacts:
            return FACTS

    services = api.services
    found = Unasked(MemoryArtifactStore(), Drawer(), services.clock, system="s")
    services.connectors[ClusterKind.KUBERNETES] = found  # type: ignore[index]
    document = {
        "current-context": "east",
        "contexts": [{"name": name, "context": {"cluster": "c", "user": name}} for name in ("east", "west")],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1"}}],
        "users": [{"name": name, "user": {"token": f"{name}-{CANARY}"}} for name in ("east", "west")],
    }
    text = json.dumps(document)
    answer = await ask(api, "POST", json={"name": "east", "kubeconfig": text, "context": context})
    assert answer.status_code == 201, answer.text
    record = services.store.cluster("east")
    stored = services.sealing.opened("east", record.sealed)
    assert f"east-{CANARY}" in stored.kubeconfig
    assert f"west-{CANARY}" not in stored.kubeconfig
    for credentials in (
        stored,
        services.sealing.opened("east", services.sealing.sealed("east", Credentials(kubeconfig=text))),
    ):
        source = await found._source(record.settings, credentials).current()
        assert source.token == f"east-{CANARY}"


async def test_what_there_is_on_a_cluster_is_summed(api: Api):
    await ask(api, "POST", json=EAST)
    Scene(api.services.store).fleet(nodes=3, cpus=4, cluster="east")
    shown = (await ask(api, "GET", "/east")).json()
    assert (shown["nodes"], shown["nodes_ready"], shown["capacity"]["cpu"]) == (3, 3, 12.0)


@pytest.mark.usefixtures("real_log")
async def test_credentials_are_never_shown_again(api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    texts = [(await ask(api, "POST", json=EAST, headers={"Idempotency-Key": "k"})).text]
    texts.append((await ask(api, "POST", json={**EAST, "nonsense": 1}, headers={"Idempotency-Key": "l"})).text)
    texts.append((await ask(api, "POST", json={**EAST, "kubeconfig": [CANARY]})).text)
    texts.append((await ask(api, "POST", json={**EAST, "kubeconfig": CANARY * 40_000})).text)
    connector(api).check_fault = RuntimeError("a bug")
    texts.append((await ask(api, "POST", json={**EAST, "name": "west"})).text)
    texts += [(await ask(api, "GET", path)).text for path in ("", "/east")]
    texts.append((await ask(api, "POST", "/east/drain")).text)
    store = api.services.store
    texts.append(repr((store.events(tenant="", workload="", after=0, limit=99), store.audit(after=0, limit=99))))
    out = capsys.readouterr()
    assert not [text[:500] for text in (*texts, out.out, out.err) if CANARY in text]
    assert not any(CANARY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Invalid("users[0].user.exec: programs are not run here", hint="use a token"), 422),
        (Denied("the token is not accepted", hint="make a new one"), 422),
        (Unavailable("10.0.0.1:6443 does not answer", hint="is it reachable from the platform?"), 503),
    ],
)
async def test_a_cluster_that_does_not_let_us_in_is_not_added(api: Api, fault: Exception, status: int):
    connector(api).check_fault = fault
    problem = is_problem(await ask(api, "POST", json=EAST), status)
    assert problem["detail"] == str(fault)
    assert problem["hint"]
    assert (await ask(api, "GET")).json()["items"] == []


async def test_missing_permissions_are_named_and_the_cluster_is_not_added(api: Api):
    connector(api).facts = replace(FACTS, missing=("create pods", "watch nodes"))
    problem = is_problem(await ask(api, "POST", json=EAST), 422)
    assert "create pods; watch nodes" in problem["detail"]
    assert "add-a-cluster" in problem["hint"]
    assert (await ask(api, "GET")).json()["items"] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "local"}, "bring along"),
        ({"name": "local-a1b2c3"}, "bring along"),
        ({"name": "A"}, "name"),
        ({"kubeconfig": ""}, "no way into the cluster"),
        ({"in_cluster": True}, "in_cluster"),
        ({"simulated": [{"count": 1}]}, "no way into a cluster of the kind simulated"),
        ({"namespaces_per_project": 0}, "namespaces_per_project"),
        ({"simulated": [{"count": 1, "cpu": "lots"}]}, "simulated"),
    ],
)
async def test_what_cannot_be_added_is_refused_by_its_name(api: Api, changes: dict[str, Any], said: str):
    answer = await ask(api, "POST", json={**EAST, **changes})
    problem = is_problem(answer, 422)
    assert said in f"{problem['detail']} {problem['hint']}"
    assert not connector(api).checked


async def test_the_same_cluster_under_another_name_is_a_conflict(api: Api):
    await ask(api, "POST", json=EAST)
    problem = is_problem(await ask(api, "POST", json={**EAST, "name": "west"}), 409)
    assert problem["detail"] == "this cluster is in the fleet already, as east"


async def test_adding_it_again_changes_its_settings_and_nothing_else(api: Api):
    added = (await ask(api, "POST", json=EAST)).json()
    await ask(api, "POST", "/east/drain")
    again = (await ask(api, "POST", json={**EAST, "image": "python:3.14", "kubeconfig": "another"})).json()
    assert (again["image"], again["state"], again["added_at"]) == ("python:3.14", "draining", added["added_at"])
    assert (await ask(api, "GET", "/east")).json() == again
    events = api.services.store.events(tenant="", workload="", after=0, limit=99)
    assert events[-1].reason.sentence == "settings of cluster east changed by root"


async def test_a_cluster_that_never_answers_is_not_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operations, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(connector(api), "check", lambda *_: asyncio.sleep(60))
    assert "did not answer within" in is_problem(await ask(api, "POST", json=EAST), 503)["detail"]


async def test_draining_resuming_and_removing_answer_with_the_new_state(api: Api):
    await ask(api, "POST", json=EAST)
    drained = (await ask(api, "POST", "/east/drain")).json()
    assert (drained["state"], drained["reason"]["numbers"]) == ("draining", {"by": "root"})
    assert (await ask(api, "POST", "/east/resume")).json()["state"] == "ready"
    assert (await ask(api, "DELETE", "/east")).status_code == 204
    for method, path in (("GET", "/east"), ("DELETE", "/east"), ("POST", "/east/drain"), ("POST", "/east/resume")):
        is_problem(await ask(api, method, path), 404)


async def test_a_cluster_that_holds_pods_says_how_to_remove_it(api: Api):
    await ask(api, "POST", json=EAST)
    scene = Scene(api.services.store)
    scene.fleet(cluster="east")
    scene.place(scene.submit())
    problem = is_problem(await ask(api, "DELETE", "/east"), 409)
    assert "still holds 1 pod: 1 run, " in problem["detail"]
    assert problem["hint"].endswith("mainstay cluster drain east")
    await ask(api, "POST", "/east/drain")
    assert is_problem(await ask(api, "DELETE", "/east"), 409)["hint"].endswith("mainstay cluster remove east --lost")
    assert (await ask(api, "DELETE", "/east", params={"lost": "true"})).status_code == 204


async def test_a_cluster_that_holds_pods_names_five_of_the_runs_in_the_way_and_how_many_there_are(api: Api):
    await ask(api, "POST", json=EAST)
    scene = Scene(api.services.store)
    scene.fleet(cluster="east", cpus=16)
    runs = [scene.submit(name=f"run-{number}") for number in range(7)]
    for run in runs:
        scene.place(run)
    detail = is_problem(await ask(api, "DELETE", "/east"), 409)["detail"]
    assert detail == f"cluster east still holds 7 pods: 7 runs, {', '.join(run.id for run in runs[:5])} and 2 more"


async def test_clusters_are_listed_in_pages(api: Api):
    for name in ("a", "b", "c"):
        connector(api).facts = replace(FACTS, identity=name)
        await ask(api, "POST", json={**EAST, "name": name})
    first = (await ask(api, "GET", params={"limit": 2})).json()
    rest = (await ask(api, "GET", params={"cursor": first["next"]})).json()
    assert [item["name"] for item in (*first["items"], *rest["items"])] == ["a", "b", "c"]


async def test_a_job_bound_to_a_cluster_that_is_not_there_is_refused_with_the_nearest_name(api: Api):
    await ask(api, "POST", json=EAST)
    problem = is_problem(await api.submit(infra="eats"), 422)
    assert (problem["detail"], problem["hint"]) == ("infra: there is no cluster 'eats'", "did you mean east?")
    plan = await api.ask("POST", "/v1/plan", json={"job": {"name": "a", "run": "true", "infra": "nowhere"}})
    assert is_problem(plan, 422)["hint"] == "the fleet has: east"
    assert (await api.submit(infra="east")).json()["infra"] == "east"


async def test_a_repeated_submission_gets_its_answer_also_when_its_cluster_has_left(api: Api):
    await ask(api, "POST", json=EAST)
    first = await api.submit(infra="east", key="k")
    await ask(api, "DELETE", "/east")
    assert (await api.submit(infra="east", key="k")).json() == first.json()


async def test_nodes_say_that_their_cluster_takes_no_work(api: Api):
    await ask(api, "POST", json=EAST)
    scene = Scene(api.services.store)
    scene.fleet(cluster="east")
    scene.fleet(cluster="local")
    await ask(api, "POST", "/east/drain")
    nodes = (await api.ask("GET", "/v1/nodes")).json()["items"]
    assert [(node["cluster"], node["ready"], node["cluster_state"]) for node in nodes] == [
        ("east", True, "draining"),
        ("local", True, "ready"),
    ]


async def test_nodes_of_a_removed_cluster_are_no_longer_listed(api: Api):
    await ask(api, "POST", json=EAST)
    scene = Scene(api.services.store)
    scene.fleet(cluster="east")
    scene.applied(ObserveNodes(cluster="west", nodes=(), reason=WHY))
    await ask(api, "DELETE", "/east")
    assert (await api.ask("GET", "/v1/nodes")).json()["items"] == []


def test_a_request_does_not_show_its_kubeconfig():
    assert CANARY not in repr(ClusterRequest.model_validate(EAST))
    assert AsyncClient.add_cluster.__doc__
