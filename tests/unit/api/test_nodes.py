"""Nodes over the API and the clients: cordoned, drained, quarantined and let in again, by those who may, with who and why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mainstay.api.app import create_api
from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import ObserveNodes, StopPod
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.wire.views import NodeView
from tests.stores import WHY, Scene, one_cpu
from tests.unit.api.conftest import PEOPLE, Api
from tests.unit.api.test_routes import is_problem
from tests.unit.web.site import services_of

SIZE = Resources(cpu_milli=8_000, memory_bytes=32 * BYTES_PER_GIB, gpus=6, gpu_model="H100")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    with services_of(tmp_path, url="http://platform.test") as given:
        services = replace(given, authenticate=PEOPLE.get)
        app = create_api(services)
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=services.url) as http:
            yield Api(app=app, services=services, http=http)


@pytest.fixture
def scene(api: Api) -> Scene:
    made = Scene(api.services.store)
    node = NodeState(
        name="gpu-1",
        capacity=SIZE,
        ready=True,
        shapes=(("1g.10gb", 7),),
        unhealthy=(("H100", 2),),
        complaints=("2 of 8 H100 unhealthy",),
        strangers=("kube-system/proxy",),
    )
    made.applied(ObserveNodes(cluster="east", nodes=(node,), reason=WHY))
    return made


async def ask(
    api: Api, method: str, verb: str = "", *, token: str = "admin-token", place: str = "east/gpu-1", **options: Any
):
    path = f"/v1/nodes/{place}" + (f"/{verb}" if verb else "")
    return await api.ask(method, path, token=token, **options)


async def node(api: Api, **options: Any) -> NodeView:
    answer = await ask(api, "GET", **options)
    assert answer.status_code == 200, answer.text
    return NodeView.model_validate(answer.json())


async def test_a_node_is_shown_with_its_devices_and_what_is_wrong_with_it(api: Api, scene: Scene):
    shown = await node(api)
    assert (shown.state, shown.reason, shown.complaints) == ("ready", None, ["2 of 8 H100 unhealthy"])
    assert [(one.model, one.total, one.used, one.unhealthy) for one in shown.devices] == [
        ("H100", 6, 0, 2),
        ("1g.10gb", 7, 0, 0),
    ]
    assert [one.memory_bytes for one in shown.devices] == [80 << 30, 10**10]
    (listed,) = (await api.ask("GET", "/v1/nodes", token="viewer-token")).json()["items"]
    assert listed == {**shown.model_dump(mode="json"), "strangers": []}


async def test_gpus_and_slices_are_listed_by_model_with_those_that_are_unhealthy(api: Api, scene: Scene):
    scene.place(scene.submit(choices=(one_cpu(gpus=2, gpu_model="1g.10gb"),)))
    found = (await api.ask("GET", "/v1/gpus", token="viewer-token")).json()["items"]
    assert [(one["model"], one["total"], one["used"], one["unhealthy"]) for one in found] == [
        ("1g.10gb", 7, 2, 0),
        ("H100", 6, 0, 2),
    ]
    assert [one["memory_bytes"] for one in found] == [10**10, 80 << 30]


async def test_a_node_is_cordoned_and_uncordoned_by_name_alone_or_with_its_cluster(api: Api, scene: Scene):
    answer = await ask(api, "POST", "cordon", place="-/gpu-1", json={"reason": "new  disks\n"})
    assert answer.status_code == 200, answer.text
    shown = await node(api)
    assert NodeView.model_validate(answer.json()).state == shown.state == "cordoned"
    assert shown.reason is not None
    assert shown.reason.sentence.endswith(": new disks")
    assert shown.reason.numbers["by"] == PEOPLE["admin-token"].name
    assert (await ask(api, "POST", "uncordon")).json()["state"] == "ready"
    assert (await node(api)).reason is None


async def test_a_drain_shows_what_becomes_of_each_pod(api: Api, scene: Scene):
    pod = scene.run(scene.submit())
    assert (await node(api)).pods_left == 1
    answer = await ask(api, "POST", "drain", json={"wait": "30m"})
    assert answer.json()["state"] == "draining"
    (shown,) = (await node(api)).pods
    assert (shown.pod, shown.detail) == (pod.pod, "is about to be stopped")
    scene.applied(StopPod(allocation_key=pod.key, moves=True, reason=WHY))
    (shown,) = (await node(api)).pods
    assert shown.detail == "has up to 30 s to end"
    scene.end(scene.pod(pod))
    empty = await node(api)
    assert (empty.pods, empty.pods_left, empty.strangers) == ([], 0, ["kube-system/proxy"])


async def test_pods_of_other_tenants_and_strangers_are_shown_to_administrators_alone(api: Api, scene: Scene):
    scene.run(scene.submit(tenant="somebody-else"))
    shown = await node(api, token="viewer-token")
    assert (shown.pods, shown.pods_left, shown.strangers) == ([], 1, [])
    assert len((await node(api)).pods) == 1


async def test_a_quarantine_is_released_and_not_uncordoned(api: Api, scene: Scene):
    answer = await ask(api, "POST", "quarantine", json={"reason": "XID 79", "duration": "2h"})
    shown = NodeView.model_validate(answer.json())
    assert shown.state == "quarantined"
    assert shown.until is not None
    assert shown.since is not None
    assert (shown.until - shown.since).total_seconds() == 7_200
    problem = is_problem(await ask(api, "POST", "uncordon"), 409)
    assert problem["detail"] == "node gpu-1 is quarantined, not cordoned"
    assert problem["hint"] == "mainstay node release gpu-1"
    assert (await ask(api, "POST", "release")).json()["state"] == "ready"
    await ask(api, "POST", "cordon")
    assert is_problem(await ask(api, "POST", "release"), 409)["hint"] == "mainstay node uncordon gpu-1"


@pytest.mark.parametrize("verb", ["cordon", "uncordon", "drain", "quarantine", "release"])
async def test_only_administrators_may_say_it_and_only_of_nodes_that_are_there(api: Api, scene: Scene, verb: str):
    is_problem(await ask(api, "POST", verb, token="user-token"), 403)
    problem = is_problem(await ask(api, "POST", verb, place="-/gpu-2"), 404)
    assert problem["hint"] == "did you mean gpu-1?"
    scene.applied(ObserveNodes(cluster="west", nodes=(NodeState(name="gpu-1", capacity=SIZE, ready=True),), reason=WHY))
    problem = is_problem(await ask(api, "POST", verb, place="-/gpu-1"), 409)
    assert problem["hint"] == "name one of: east/gpu-1, west/gpu-1"


async def test_under_one_key_it_is_said_once(api: Api, scene: Scene):
    headers = {"Idempotency-Key": "k"}
    first = await ask(api, "POST", "cordon", headers=headers)
    await ask(api, "POST", "uncordon")
    again = await ask(api, "POST", "cordon", headers=headers)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert (await node(api)).state == "ready"


@pytest.mark.parametrize(
    ("verb", "body", "word"),
    [
        ("drain", {"wait": "soon"}, "wait"),
        ("drain", {"wait": "9999d"}, "wait"),
        ("drain", {"force": True}, "force"),
        ("quarantine", {"duration": "-1h"}, "duration"),
        ("cordon", {"reason": "x" * 501}, "reason"),
    ],
)
async def test_what_cannot_be_read_is_refused_by_its_field(api: Api, scene: Scene, verb: str, body: Any, word: str):
    answer = await ask(api, "POST", verb, json=body)
    assert answer.status_code in {400, 422}, answer.text
    assert word in answer.text
    assert (await node(api)).state == "ready"


async def test_events_of_nodes_are_for_who_may_manage_and_are_found_by_kind_and_name(api: Api) -> None:
    made = Scene(api.services.store)
    made.fleet(nodes=2)
    made.submit()

    async def found(query: str, token: str = "admin-token") -> list[tuple[str, str]]:
        answer = await api.ask("GET", f"/v1/events?{query}", token=token)
        assert answer.status_code == 200, answer.text
        return [(event["kind"], event["object"]) for event in answer.json()["items"]]

    nodes = [("node", "local-0"), ("node", "local-1")]
    assert await found("kind=node&kind=cluster") == nodes
    assert await found("newest=true&limit=1&kind=node") == nodes[1:]
    assert await found("object=local-0") == nodes[:1]
    assert set(nodes) < set(await found(""))
    assert {kind for kind, _ in await found("", token="user-token")} == {"workload"}
    assert await found("object=local-0", token="user-token") == []
    assert await found("kind=node&kind=workload", token="user-token") == await found("kind=workload")
    for path in ("/v1/events?kind=node", "/v1/events/stream?kind=cluster"):
        answer = await api.ask("GET", path, token="user-token")
        assert answer.status_code == 403
        assert "administrator" in answer.json()["hint"]
    assert (await api.ask("GET", "/v1/events?kind=nonsense")).status_code == 422


async def test_a_node_shows_how_many_pods_it_has_and_takes(api: Api, scene: Scene):
    assert (await node(api)).pods_max is None
    state = NodeState(name="gpu-1", capacity=SIZE, ready=True, pods_max=107)
    scene.applied(ObserveNodes(cluster="east", nodes=(state,), reason=WHY))
    scene.place(scene.submit())
    shown = await node(api)
    assert (shown.pods_used, shown.pods_max) == (1, 107)
