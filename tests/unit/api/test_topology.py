"""Topology through the API: what is asked for is shown, planned and refused in words; and which labels of nodes say it."""

from __future__ import annotations

import pytest

from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import ObserveNodes, Plan
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.topology import LEVELS
from mainstay.wire.job import Job
from tests.stores import WHY
from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem

SIZE = Resources(cpu_milli=2_000, memory_bytes=8 * BYTES_PER_GIB)
SIMULATED = [{"count": 1, "cpu": "4", "memory": "4GB"}]


def report(api: Api, cluster: str, *racks: str) -> None:
    """Nodes of two CPUs, each in a rack; empty: it does not say."""
    nodes = tuple(
        NodeState(name=f"{cluster}-{number}", capacity=SIZE, ready=True, topology=(("rack", rack),) if rack else ())
        for number, rack in enumerate(racks)
    )
    action = ObserveNodes(cluster=cluster, nodes=nodes, reason=WHY)
    api.services.store.commit(Plan(actor="loop", now=api.services.clock.now(), actions=(action,)))


@pytest.fixture
async def fleet(api: Api) -> Api:
    """Two racks in the east; in the west nobody says where its nodes are."""
    for name in ("east", "west"):
        await api.ask("POST", "/v1/clusters", json={"name": name, "simulated": SIMULATED}, token="admin-token")
    report(api, "east", "r1", "r2", "r2")
    report(api, "west", "", "")
    return api


async def test_what_was_asked_for_is_shown(fleet: Api):
    made = await fleet.submit(nodes=2, topology={"required": "rack"})
    assert made.json()["topology"] == "required rack"
    assert (await fleet.submit(topology={"preferred": "block"})).json()["topology"] == "preferred block"
    assert (await fleet.submit()).json()["topology"] == ""


async def test_a_plan_says_on_which_nodes_of_one_rack_it_would_lie(fleet: Api):
    job = {"name": "train", "run": "true", "nodes": 2, "resources": {"cpu": 2}, "topology": {"required": "rack"}}
    plan = (await fleet.ask("POST", "/v1/plan", json={"job": job})).json()
    assert plan["options"][0]["reason"]["sentence"] == "placed on east-1, east-2"


async def test_what_no_rack_could_ever_hold_is_refused_with_what_could_be(fleet: Api):
    made = await fleet.submit(nodes=3, resources={"cpu": 2}, topology={"required": "rack"})
    problem = is_problem(made, 422)
    assert "but no rack has room for 3 such pods: the roomiest, r2, has room for 2" in problem["detail"]
    assert "topology preferred instead of required" in problem["hint"]


async def test_explain_says_what_the_roomiest_rack_holds_now(fleet: Api):
    report(fleet, "east", "r1", "r2", "r2", "r2")
    made = await fleet.submit(nodes=3, resources={"cpu": 2}, topology={"required": "rack"})
    await fleet.ask("POST", "/v1/nodes/east/east-3/cordon", token="admin-token")
    found = (await fleet.ask("GET", f"/v1/workloads/{made.json()['id']}/explain")).json()
    assert "east-3" in found["reason"]["sentence"]
    assert found["reason"]["code"] == "WaitsForNode"


async def test_a_level_that_nobody_knows_is_refused_with_those_that_are_known(fleet: Api):
    problem = is_problem(await fleet.submit(nodes=2, topology={"required": "row"}), 422)
    assert problem["errors"][0]["allowed"] == list(LEVELS)
    problem = is_problem(await fleet.submit(nodes=2, topology={"preferred": "block"}), 422)
    assert problem["detail"] == "topology: of no node is it known in which block it is"
    assert problem["hint"].startswith("known: rack, host;")
    problem = is_problem(await fleet.submit(nodes=2, topology={"required": "rack"}, infra="west"), 422)
    assert "of no node of cluster west is it known" in problem["detail"]
    assert problem["hint"].startswith("known of cluster west: host;")
    assert (await fleet.submit(nodes=2, topology={"required": "host"}, infra="west")).status_code == 201


async def test_one_node_needs_no_level_that_is_known(fleet: Api):
    assert (await fleet.submit(nodes=1, topology={"required": "block"})).status_code == 201


async def test_before_there_is_any_node_nobody_knows_what_there_will_be(api: Api):
    assert (await api.submit(nodes=2, topology={"required": "rack"})).status_code == 201


async def test_required_and_preferred_together_are_refused(api: Api):
    problem = is_problem(await api.submit(topology={"required": "rack", "preferred": "block"}), 422)
    assert "give `required` or `preferred`, not both" in str(problem)


async def test_the_label_that_says_the_level_is_a_setting_of_the_cluster(api: Api):
    labels = {"rack": "acme.com/rack", "block": "row"}
    body = {"name": "east", "simulated": SIMULATED, "topology": labels}
    made = await api.ask("POST", "/v1/clusters", json=body, token="admin-token")
    assert made.json()["topology"] == {"block": "row", "rack": "acme.com/rack"}
    assert api.services.store.clusters()[-1].settings.topology == (("block", "row"), ("rack", "acme.com/rack"))


@pytest.mark.parametrize(
    "labels", [{"row": "acme.com/row"}, {"host": "kubernetes.io/hostname"}, {"rack": "a b"}, {"rack": ""}]
)
async def test_what_is_no_level_or_no_label_is_refused(api: Api, labels: dict[str, str]):
    body = {"name": "east", "simulated": SIMULATED, "topology": labels}
    is_problem(await api.ask("POST", "/v1/clusters", json=body, token="admin-token"), 422)


def test_the_levels_of_the_job_file_are_those_of_the_domain():
    schema = Job.model_json_schema()["$defs"]["Topology"]["properties"]
    assert schema["required"]["enum"] == schema["preferred"]["enum"] == ["", *LEVELS]
