"""Elastic jobs through the API: bounds are taken as a number, a text or a map, and shown; what has none is refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem
from tests.unit.api.test_topology import report

SIMULATED = [{"count": 1, "cpu": "4", "memory": "4GB"}]


@pytest.fixture
async def fleet(api: Api) -> Api:
    """Three nodes of two CPUs."""
    await api.ask("POST", "/v1/clusters", json={"name": "east", "simulated": SIMULATED}, token="admin-token")
    report(api, "east", "", "", "")
    return api


@pytest.mark.parametrize(
    ("nodes", "shown"),
    [(2, (2, 0, 0)), ("1:2", (2, 1, 2)), ({"min": 1, "max": 3, "desired": 2}, (2, 1, 3)), ("2:2", (2, 0, 0))],
)
async def test_how_many_nodes_it_may_have_is_shown(fleet: Api, nodes: Any, shown: tuple[int, int, int]):
    made = (await fleet.submit(nodes=nodes)).json()
    assert (made["nodes"], made["nodes_min"], made["nodes_max"], made["ranks"]) == (*shown, 0)


async def test_a_plan_says_how_many_it_would_start_with_and_what_they_cost(fleet: Api):
    async def plan(nodes: Any) -> dict[str, Any]:
        job = {"name": "train", "run": "true", "nodes": nodes, "resources": {"cpu": 2}}
        option: dict[str, Any] = (await fleet.ask("POST", "/v1/plan", json={"job": job})).json()["options"][0]
        return option

    found = await plan("2:8")
    assert (found["nodes"], found["nodes_min"], found["nodes_max"], found["starts"]) == (3, 2, 8, "now")
    assert found["reason"]["sentence"].startswith("placed with 3 nodes of 2 to 8 on east-")
    assert float(found["price_per_hour"]) == pytest.approx(3 * float((await plan(1))["price_per_hour"]))


async def test_what_can_never_have_its_min_is_refused_with_what_could(fleet: Api):
    problem = is_problem(await fleet.submit(nodes="4:8", resources={"cpu": 2}), 422)
    assert "needs 4 to 8 x (2 CPUs" in problem["detail"]
    assert "nodes 3 instead of 4" in problem["hint"]


@pytest.mark.parametrize(
    ("nodes", "field", "said"),
    [
        ("3:2", "job.nodes", "not in this order"),
        ("1:9999", "job.nodes.max", "less than or equal to 1000"),
        ({"min": 1}, "job.nodes.max", "field required"),
        ("many", "job.nodes", "valid integer"),
    ],
)
async def test_what_is_no_count_is_told(fleet: Api, nodes: Any, field: str, said: str):
    problem = is_problem(await fleet.submit(nodes=nodes), 422)
    assert (problem["errors"][0]["field"], said in problem["errors"][0]["message"]) == (field, True)


async def test_a_service_is_not_elastic(fleet: Api):
    problem = is_problem(await fleet.submit(nodes="1:2", type="service"), 422)
    assert problem["detail"] == "nodes: '1:2' is not allowed"
    assert "a service is not elastic" in problem["hint"]
