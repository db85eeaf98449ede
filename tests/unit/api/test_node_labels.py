"""What a run needs of its nodes, through the API: it is shown, planned and refused in words; and what nodes say of themselves."""

from __future__ import annotations

import pytest

from mainstay.domain.affinity import Taint, traits
from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import ObserveNodes, Plan
from mainstay.wire.job import Job
from tests.stores import WHY
from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem
from tests.unit.api.test_topology import SIZE

ML = Taint(key="dedicated", value="ml", effect="NoSchedule")


@pytest.fixture
async def fleet(api: Api) -> Api:
    """A disk of each sort, and one that is set apart."""
    nodes = (
        NodeState(name="hdd", capacity=SIZE, ready=True, traits=traits({"disk": "hdd"}, ())),
        NodeState(
            name="ssd",
            capacity=SIZE,
            ready=True,
            traits=traits({"disk": "ssd", "cloud.google.com/gke-spot": "true"}, ()),
        ),
        NodeState(name="apart", capacity=SIZE, ready=False, barred=True, traits=traits({"disk": "tape"}, [ML])),
    )
    action = ObserveNodes(cluster="local", nodes=nodes, reason=WHY)
    api.services.store.commit(Plan(actor="loop", now=api.services.clock.now(), actions=(action,)))
    return api


async def where(api: Api, **fields: object) -> str:
    """What a plan says."""
    answer = await api.ask("POST", "/v1/plan", json={"job": {"name": "train", "run": "true", **fields}})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["options"][0]["reason"]["sentence"])


async def test_what_was_asked_for_is_shown(fleet: Api):
    asked = {"node_labels": {"disk": ["ssd", "hdd"]}, "node_preferences": {"disk": "ssd"}, "tolerations": ["dedicated"]}
    made = (await fleet.submit(**asked, resources={"spot": "never"})).json()
    assert (made["node_labels"], made["node_preferences"]) == (["disk in (hdd, ssd)"], ["disk=ssd (1)"])
    assert (made["tolerations"], made["spot"]) == (["dedicated"], "never")
    plain = (await fleet.submit()).json()
    assert (plain["node_labels"], plain["tolerations"], plain["spot"]) == ([], [], "auto")


async def test_a_plan_goes_by_labels_taints_and_spot(fleet: Api):
    assert await where(fleet, node_labels={"disk": "ssd"}) == "placed on ssd"
    assert await where(fleet, node_labels={"disk": "tape"}, tolerations=["dedicated=ml"]) == "placed on apart"
    assert await where(fleet, node_preferences={"disk": "ssd"}) == "placed on ssd"
    assert await where(fleet, resources={"spot": "only"}) == "placed on ssd"
    assert await where(fleet, node_preferences={"disk": "ssd"}, resources={"spot": "never"}) == "placed on hdd"
    told = await where(fleet, node_labels={"disk": "tape"})
    assert "tainted, and it does not tolerate dedicated=ml:NoSchedule" in told


async def test_what_no_node_has_is_refused_at_its_field_with_what_there_is(fleet: Api):
    problem = is_problem(await fleet.submit(node_labels={"disk": "nvme"}), 422)
    assert problem["object"] == "node_labels"
    assert "no node has disk=nvme: disk is hdd, ssd, tape" in problem["detail"]
    assert "node_labels disk=hdd instead of disk=nvme" in problem["hint"]
    assert (await fleet.submit(node_labels={"disk": "tape"})).status_code == 201, "its taint may go"


@pytest.mark.parametrize(("disk", "starts"), [("tape", "later"), ("nvme", "never"), ("ssd", "now")])
async def test_a_plan_says_never_of_what_is_refused_and_of_nothing_else(fleet: Api, disk: str, starts: str):
    job = {"name": "train", "run": "true", "node_labels": {"disk": disk}}
    answer = (await fleet.ask("POST", "/v1/plan", json={"job": job})).json()
    assert answer["options"][0]["starts"] == starts
    assert (await fleet.submit(node_labels={"disk": disk})).status_code == (422 if starts == "never" else 201)


async def test_a_node_says_its_labels_where_it_is_asked_for_alone(fleet: Api):
    nodes = {one["name"]: one for one in (await fleet.ask("GET", "/v1/nodes")).json()["items"]}
    assert {name: one["state"] for name, one in nodes.items()} == {"hdd": "ready", "ssd": "ready", "apart": "tainted"}
    assert [name for name, one in nodes.items() if one["spot"]] == ["ssd"]
    assert (nodes["apart"]["taints"], nodes["apart"]["labels"]) == (["dedicated=ml:NoSchedule"], {})
    assert (await fleet.ask("GET", "/v1/nodes/local/apart")).json()["labels"] == {"disk": "tape"}


def test_the_sdk_takes_what_the_file_takes():
    job = Job(name="train", run="true", node_labels={"disk": "ssd"}, tolerations=["dedicated=ml"])
    assert job.node_labels == ["disk=ssd"]
