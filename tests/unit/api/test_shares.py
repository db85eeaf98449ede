"""Shares in time of GPUs have no wall between them: they are for a fleet of one tenant (security.md A8)."""

from __future__ import annotations

import pytest

from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import AddTenant, ObserveNodes, Plan, RemoveTenant
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from tests.stores import WHY
from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem

SIZE = Resources(cpu_milli=32_000, memory_bytes=64 * BYTES_PER_GIB)
SLICE, SHARE = "1g.10gb", "T4.shared"
GPU = {"cpu": 1, "gpu": f"{SHARE}:1"}


def commit(api: Api, *actions: object) -> None:
    plan = Plan(actor="loop", now=api.services.clock.now(), actions=actions)  # type: ignore[arg-type]
    assert not api.services.store.commit(plan).refused


@pytest.fixture
async def fleet(api: Api) -> Api:
    """A node with slices, and one with shares."""
    cluster = {"name": "east", "simulated": [{"count": 1, "cpu": "4", "memory": "4GB"}]}
    await api.ask("POST", "/v1/clusters", json=cluster, token="admin-token")
    nodes = tuple(
        NodeState(name=shape.lower().replace(".", "-"), capacity=SIZE, ready=True, shapes=((shape, 4),))
        for shape in (SLICE, SHARE)
    )
    commit(api, ObserveNodes(cluster="east", nodes=nodes, reason=WHY))
    return api


async def starts(api: Api, gpu: str) -> bool:
    job = {"name": "train", "run": "true", "resources": {"cpu": 1, "memory": "1Gi", "gpu": gpu}}
    answer = await api.ask("POST", "/v1/plan", json={"job": job})
    assert answer.status_code == 200, answer.text
    (option, *_) = answer.json()["options"]
    return option["starts"] == "now"


async def test_shares_and_slices_are_given_in_a_fleet_of_one_tenant(fleet: Api):
    assert await starts(fleet, f"{SHARE}:1")
    assert await starts(fleet, f"{SLICE}:1")


async def test_with_a_second_tenant_shares_are_given_to_nobody_and_slices_as_before(fleet: Api):
    waiting = (await fleet.submit(run="true", resources={"cpu": 1, "gpu": f"{SHARE}:1"})).json()
    commit(fleet, *(AddTenant(tenant=name, reason=WHY) for name in ("physics", "chemistry")))
    job = {"name": "train", "run": "true", "resources": {"cpu": 1, "gpu": f"{SHARE}:1"}}
    for path in ("/v1/plan", "/v1/workloads"):
        refused = is_problem(await fleet.ask("POST", path, json={"job": job}), 422)
        assert "several tenants" in refused["detail"]
        assert SLICE in refused["hint"]
    assert await starts(fleet, f"{SLICE}:1")
    snapshot = fleet.services.store.snapshot(now=fleet.services.clock.now(), seed=0)
    assert {name: int(column.sum()) for name, column in snapshot.nodes.shapes.items()} == {SLICE: 4, SHARE: 0}
    told = (await fleet.ask("GET", f"/v1/workloads/{waiting['id']}/explain")).json()
    assert told["reason"]["code"] == "NeverFits"


async def test_shares_are_given_again_once_the_second_tenant_is_removed(fleet: Api):
    commit(fleet, *(AddTenant(tenant=name, reason=WHY) for name in ("physics", "chemistry")))
    is_problem(await fleet.ask("POST", "/v1/plan", json={"job": {"name": "a", "run": "true", "resources": GPU}}), 422)
    commit(fleet, RemoveTenant(tenant="chemistry", reason=WHY))
    assert await starts(fleet, f"{SHARE}:1")
