"""Flavors of nodes over the API: set and ordered by those who may, seen by all, refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from mainstay.domain.affinity import traits
from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import ObserveNodes
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.wire.views import FlavorView
from tests.stores import WHY, Scene
from tests.unit.api.conftest import Api
from tests.unit.api.test_queues import put as put_queue
from tests.unit.api.test_routes import is_problem

SPOT = {"node_labels": ["pool=spot"]}


@pytest.fixture
def scene(api: Api) -> Scene:
    """Two nodes, one of them spot, with GPUs."""
    made = Scene(api.services.store, now=api.services.clock.now())
    size = Resources(cpu_milli=8_000, memory_bytes=64 * BYTES_PER_GIB, gpus=4, gpu_model="H100")
    nodes = (
        NodeState(name="plain", capacity=size, ready=True),
        NodeState(name="s", capacity=size, ready=True, traits=traits({"pool": "spot"}, ())),
    )
    made.applied(ObserveNodes(cluster="east", nodes=nodes, reason=WHY))
    return made


async def put(api: Api, name: str, body: dict[str, Any]) -> FlavorView:
    answer = await api.ask("PUT", f"/v1/flavors/{name}", token="admin-token", json=body)
    assert answer.status_code == 200, answer.text
    return FlavorView.model_validate(answer.json())


async def names(api: Api, *, token: str = "user-token") -> list[str]:
    return [one["name"] for one in (await api.ask("GET", "/v1/flavors", token=token)).json()["items"]]


async def test_a_flavor_is_set_shown_with_its_nodes_changed_ordered_and_removed(api: Api, scene: Scene):
    made = await put(api, "spot", SPOT)
    assert (made.node_labels, made.nodes, made.cores, made.memory_bytes, made.gpus, made.set_by) == (
        ["pool=spot"],
        1,
        8,
        64 * BYTES_PER_GIB,
        4,
        "root",
    )
    await put(api, "owned", {"node_labels": {"pool": "owned"}, "before": "spot"})
    assert await names(api) == ["owned", "spot"]
    assert (await put(api, "spot", {"before": "owned"})).node_labels == ["pool=spot"], "what is not said stays"
    assert await names(api) == ["spot", "owned"]
    assert (await put(api, "owned", {"node_labels": ["pool in (a, spot)", "!gone"]})).nodes == 0, "spot comes first"
    assert (await api.ask("DELETE", "/v1/flavors/spot", token="admin-token")).status_code == 204
    assert (await put(api, "owned", {})).nodes == 1
    is_problem(await api.ask("DELETE", "/v1/flavors/spot", token="admin-token"), 404)


async def test_several_are_set_together_or_none(api: Api, scene: Scene):
    body = {
        "flavors": [{"name": "b", **SPOT}, {"name": "a", "before": "b", **SPOT}, {"name": "c", "before": "x", **SPOT}]
    }
    problem = is_problem(await api.ask("PUT", "/v1/flavors", token="admin-token", json=body), 404)
    assert "no such flavor of nodes: x" in problem["detail"]
    assert await names(api) == []
    body["flavors"].pop()
    answer = await api.ask("PUT", "/v1/flavors", token="admin-token", json=body)
    assert [one["name"] for one in answer.json()["items"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("Spot", SPOT, "'Spot' is not allowed"),
        ("default", SPOT, "'default' is not allowed"),
        ("1g.10gb", SPOT, "is not allowed"),
        ("42", SPOT, "is not allowed"),
        ("h100", SPOT, "h100 is how GPUs are called"),
        ("spot", {}, "it says of no label"),
        ("spot", {"node_labels": []}, ""),
        ("spot", {"node_labels": ["=spot"]}, ""),
    ],
)
async def test_what_cannot_be_a_flavor_is_refused(api: Api, scene: Scene, name: str, body: dict[str, Any], words: str):
    answer = await api.ask("PUT", f"/v1/flavors/{name}", token="admin-token", json=body)
    assert words in is_problem(answer, 422)["detail"]


async def test_only_who_may_manage_sets_them(api: Api, scene: Scene):
    for method, path, body in (("PUT", "/v1/flavors/spot", SPOT), ("DELETE", "/v1/flavors/spot", None)):
        is_problem(await api.ask(method, path, json=body), 403)


async def test_quotas_are_of_flavors_by_their_names_as_they_are_and_else_of_models(api: Api, scene: Scene):
    quotas = [{"resource": "cpu", "flavor": "spot", "nominal": 8}, {"resource": "gpu", "flavor": "h100", "nominal": 1}]
    early = await api.ask("PUT", "/v1/queues/research", token="admin-token", json={"quotas": quotas})
    assert "there is no flavor 'spot'" in is_problem(early, 422)["detail"], "nobody has named any nodes so"
    quotas[0]["flavor"] = "SPOT"
    assert (await put_queue(api, "research", {"quotas": quotas})).warnings == ["no node has SPOT now"]
    await put(api, "spot", SPOT)
    named = await put_queue(api, "research", {"weight": 2})
    assert named.warnings == ["no node has SPOT now; did you mean spot?"]
    quotas[0]["flavor"] = "spot"
    queue = await put_queue(api, "research", {"quotas": quotas})
    assert [(one.flavor, one.resource) for one in queue.quotas] == [("H100", "gpu"), ("spot", "cpu")]
    assert queue.warnings == []
    assert (await put(api, "spot", {})).queues == ["research"]
    problem = is_problem(await api.ask("DELETE", "/v1/flavors/spot", token="admin-token"), 409)
    assert problem["detail"].startswith("flavor spot is in use: these have a quota of it: research")


async def test_a_plan_takes_the_nodes_of_the_flavor_and_says_what_is_short(api: Api, scene: Scene):
    await put(api, "spot", SPOT)
    await put_queue(api, "research", {"quotas": [{"resource": "cpu", "flavor": "spot", "nominal": 2}]})
    job = {"run": "train", "queue": "research", "resources": {"cpu": 2}}
    (option,) = (await api.ask("POST", "/v1/plan", json={"job": job})).json()["options"]
    assert (option["starts"], option["reason"]["sentence"]) == ("now", "placed on s")
    refused = is_problem(await api.ask("POST", "/v1/workloads", json={"job": {**job, "resources": {"cpu": 3}}}), 422)
    assert "may have 2 CPUs of cpu (spot) at most" in refused["detail"]
    assert "tried spot: 2 CPUs more of cpu; other nodes: no quota" in refused["detail"]
