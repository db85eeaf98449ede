"""Spread through the API: what is asked for is shown, planned, explained and refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from mainstay.decide.schedule import schedule
from mainstay.domain.plan import Plan
from mainstay.domain.topology import LEVELS
from mainstay.wire.job import Job
from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem
from tests.unit.api.test_topology import SIMULATED, report


@pytest.fixture
async def fleet(api: Api) -> Api:
    """Three nodes of two CPUs in two racks."""
    await api.ask("POST", "/v1/clusters", json={"name": "east", "simulated": SIMULATED}, token="admin-token")
    report(api, "east", "r1", "r2", "r2")
    return api


WEB = {"type": "service", "resources": {"cpu": 1}}


@pytest.mark.parametrize(
    ("spread", "shown"),
    [
        ({"level": "host", "at_most": 1}, "at most 1 per host"),
        ({"level": "rack"}, "evenly over racks"),
        ("rack", "evenly over racks"),
        ({}, ""),
    ],
)
async def test_what_was_asked_for_is_shown(fleet: Api, spread: Any, shown: str):
    assert (await fleet.submit(**WEB, nodes=2, spread=spread)).json()["spread"] == shown


async def test_a_plan_says_on_which_nodes_it_would_lie(fleet: Api):
    job = {**WEB, "name": "web", "run": "true", "nodes": 3, "spread": {"level": "host", "at_most": 1}}
    plan = (await fleet.ask("POST", "/v1/plan", json={"job": job})).json()
    assert plan["options"][0]["reason"]["sentence"] == "placed on east-0, east-1, east-2"


async def test_more_replicas_than_racks_take_are_refused_with_what_could_be(fleet: Api):
    problem = is_problem(await fleet.submit(**WEB, nodes=4, spread={"level": "rack", "at_most": 1}), 422)
    assert "but with at most 1 per rack there is room for 2 of 4: 2 racks with room" in problem["detail"]
    assert "spread at most 2 per rack instead of at most 1 per rack or nodes 2 instead of 4" in problem["hint"]


async def test_explain_says_how_many_lie_apart_now_and_what_would_start(fleet: Api):
    assert (await fleet.submit(resources={"cpu": 2})).status_code == 201
    store, now = fleet.services.store, fleet.services.clock.now()
    store.commit(Plan(actor="loop", now=now, actions=schedule(store.snapshot(now=now, seed=0))))
    made = await fleet.submit(**WEB, nodes=3, spread={"level": "host", "at_most": 1})
    found = (await fleet.ask("GET", f"/v1/workloads/{made.json()['id']}/explain")).json()
    assert found["reason"]["code"] == "WaitsForCapacity"
    assert "but with at most 1 per host there is room for 2 of 3: 2 hosts with room" in found["reason"]["sentence"]
    assert [(one["change"], one["after"]) for one in found["would_start_if"]] == [
        ("spread", "at most 2 per host"),
        ("nodes", "2"),
    ]


@pytest.mark.parametrize(
    ("job", "field", "words"),
    [
        ({"spread": {"level": "row"}}, "spread.level", ""),
        ({"spread": {"level": "host", "at_most": -1}}, "spread.at_most", ""),
        ({"spread": {"at_most": 1}}, "spread", "`at_most` of what?"),
        ({"spread": {"level": "host", "most": 1}}, "spread.most", ""),
    ],
)
async def test_what_is_no_spread_is_refused_at_its_field(api: Api, job: dict[str, Any], field: str, words: str):
    (error,) = is_problem(await api.submit(**job), 422)["errors"]
    assert error["field"] == f"job.{field}"
    assert words in error["message"]


async def test_a_level_that_nobody_knows_is_refused_with_those_that_are_known(fleet: Api):
    problem = is_problem(await fleet.submit(nodes=2, spread="zone"), 422)
    assert problem["detail"] == "spread: of no node is it known in which zone it is"
    assert problem["hint"].startswith("known: rack, host;")
    assert (await fleet.submit(nodes=1, spread="zone")).status_code == 201


async def test_far_apart_within_one_domain_means_in_narrower_ones(fleet: Api):
    near = {"required": "rack"}
    problem = is_problem(await fleet.submit(nodes=2, topology=near, spread="rack"), 422)
    assert (problem["object"], problem["hint"]) == ("spread.level", "allowed: host within one rack")
    made = await fleet.submit(nodes=2, topology=near, spread={"level": "host", "at_most": 1})
    assert (made.json()["topology"], made.json()["spread"]) == ("required rack", "at most 1 per host")


def test_the_levels_of_the_job_file_are_those_of_the_domain():
    assert Job.model_json_schema()["$defs"]["Spread"]["properties"]["level"]["enum"] == ["", *LEVELS]
