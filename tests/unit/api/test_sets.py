"""Jobs with several pod sets through the API: shown as they were written, planned and refused by set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mainstay.domain.errors import Invalid
from mainstay.domain.quantity import Resources
from mainstay.domain.topology import Spread, TopologyNeed
from mainstay.domain.workload import SETS_MAX, Elastic, Kind, PodSet, WorkloadSpec
from mainstay.operations.submit import JobRequest, check
from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem
from tests.unit.api.test_topology import report

SIMULATED = [{"count": 1, "cpu": "4", "memory": "4GB"}]
HEAD = {"name": "head", "resources": {"cpu": 1, "memory": "1GB"}, "run": "head"}


@pytest.fixture
async def fleet(api: Api) -> Api:
    """Three nodes of two CPUs."""
    await api.ask("POST", "/v1/clusters", json={"name": "east", "simulated": SIMULATED}, token="admin-token")
    report(api, "east", "", "", "")
    return api


def worker(nodes: int = 2, cpu: int = 2) -> dict[str, Any]:
    return {"name": "worker", "nodes": nodes, "resources": {"cpu": cpu, "memory": "1GB"}}


async def test_what_was_asked_for_is_shown(fleet: Api):
    made = (await fleet.submit(sets=[HEAD, worker()])).json()
    assert made["nodes"] == 3
    assert [(one["name"], one["nodes"], one["resources"]["cpu"], one["run"]) for one in made["sets"]] == [
        ("head", 1, 1, ["/bin/sh", "-c", "head"]),
        ("worker", 2, 2, []),
    ]
    assert (await fleet.submit()).json()["sets"] == []


async def test_a_plan_has_the_price_of_all_sets_and_what_each_would_get(fleet: Api):
    async def plan(**fields: Any) -> dict[str, Any]:
        job = {"name": "train", "run": "true", **fields}
        option: dict[str, Any] = (await fleet.ask("POST", "/v1/plan", json={"job": job})).json()["options"][0]
        return option

    found = await plan(sets=[HEAD, worker()])
    assert (found["starts"], found["nodes"]) == ("now", 3)
    assert [(one["name"], one["resources"]["cpu"]) for one in found["sets"]] == [("head", 1), ("worker", 2)]
    alone = [await plan(resources=one["resources"], nodes=one.get("nodes", 1)) for one in (HEAD, worker())]
    assert float(found["price_per_hour"]) == pytest.approx(sum(float(one["price_per_hour"]) for one in alone))


async def test_what_can_never_run_is_refused_at_the_set_that_is_short_with_what_could(fleet: Api):
    problem = is_problem(await fleet.submit(sets=[HEAD, worker(nodes=3)]), 422)
    assert problem["object"] == "sets.0.resources"
    assert "needs 1 x head (1 CPU, 1 GB) beside 3 x worker (2 CPUs, 1 GB)" in problem["detail"]
    assert "worker.nodes 2 instead of 3" in problem["hint"]
    problem = is_problem(await fleet.submit(sets=[HEAD, worker(cpu=3)]), 422)
    assert problem["object"] == "sets.1.resources"
    assert "worker.cpus 2 instead of 3" in problem["hint"]


@pytest.mark.parametrize(
    ("sets", "field", "said"),
    [
        ([HEAD], "job.sets", "one pod set is a job with"),
        ([HEAD, HEAD], "job.sets", "two pod sets are named head"),
        ([HEAD, {"nodes": 2}], "job.sets.1.name", "field required"),
        ([HEAD, worker(nodes=0)], "job.sets.1.nodes", "greater than or equal to 1"),
        ([HEAD, {**worker(), "resources": {"gpu": "x:y:z"}}], "job.sets.1.resources.gpu", ""),
        ([{"name": f"s{number}"} for number in range(SETS_MAX + 1)], "job.sets", "at most 16"),
    ],
)
async def test_what_are_no_pod_sets_is_told(fleet: Api, sets: Any, field: str, said: str):
    problem = is_problem(await fleet.submit(sets=sets), 422)
    assert (problem["errors"][0]["field"], said in problem["errors"][0]["message"]) == (field, True)


def test_whoever_makes_a_specification_is_held_to_the_same():
    one = PodSet(name="a", nodes=1, resources=Resources(cpu_milli=1, memory_bytes=1))
    other = replace(one, name="b", nodes=2)
    spec = WorkloadSpec(kind=Kind.JOB, name="x", run=("true",), nodes=3, sets=(one, other), choices=(one.resources,))
    bad = {
        "sets": [
            replace(spec, elastic=Elastic(nodes_min=1, nodes_max=3)),
            replace(spec, kind=Kind.SERVICE),
            replace(spec, sets=(one,), nodes=1),
            replace(spec, choices=(one.resources, one.resources)),
            replace(spec, nodes=4),
            replace(spec, topology=TopologyNeed(spread=Spread(level="host"))),
        ],
        "sets.1.name": [replace(spec, sets=(one, replace(other, name="a")))],
        "sets.1.nodes": [replace(spec, sets=(one, replace(other, nodes=0)))],
        "sets.1.resources.cpu (in thousandths of a core)": [
            replace(spec, sets=(one, replace(other, resources=Resources(memory_bytes=1))))
        ],
    }
    check(JobRequest(spec=spec, project="p", queue="q", priority=1))
    for field, specs in bad.items():
        for wrong in specs:
            with pytest.raises(Invalid) as refused:
                check(JobRequest(spec=wrong, project="p", queue="q", priority=1))
            assert refused.value.object == field
