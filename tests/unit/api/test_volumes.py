"""Volumes through the API: as they were asked for, and never in a cluster that nobody named if there are several."""

from __future__ import annotations

import pytest

from tests.unit.api.conftest import Api
from tests.unit.api.test_routes import is_problem

CKPT = {"path": "ckpt", "name": "ckpt", "size": "1GB"}
SIMULATED = [{"count": 1, "cpu": "4", "memory": "4GB"}]


@pytest.fixture
async def fleet(api: Api) -> Api:
    """Of two clusters."""
    for name in ("east", "west"):
        answer = await api.ask("POST", "/v1/clusters", json={"name": name, "simulated": SIMULATED}, token="admin-token")
        assert answer.status_code == 201, answer.text
    return api


async def test_what_was_asked_for_is_shown(api: Api):
    volumes = [CKPT, {"path": "/data", "source": "s3://bucket/x", "secret": "store"}]
    await api.ask("PUT", "/v1/secrets/store", json={"value": "aGY="})
    made = (await api.submit(volumes=volumes, devices=["mig"])).json()
    assert [(one["name"], one["path"], one["size_bytes"]) for one in made["volumes"]] == [
        ("ckpt", "ckpt", 10**9),
        ("", "/data", 0),
    ]
    assert (made["volumes"][1]["source"], made["volumes"][1]["secret"]) == ("s3://bucket/x", "store")
    assert (made["secrets"], made["devices"]) == ([], ["mig"])
    spec = api.services.store.workload(made["id"], tenant="physics").spec
    assert [(use.name, use.file) for use in spec.secrets] == [("store", False)]


async def test_a_volume_whose_secret_is_not_there_is_refused(api: Api):
    problem = is_problem(await api.submit(volumes=[{"path": "d", "source": "s3://bucket/x", "secret": "no"}]), 422)
    assert "there is no secret 'no'" in problem["detail"]


async def test_a_volume_that_stays_needs_to_know_its_cluster(fleet: Api):
    problem = is_problem(await fleet.submit(volumes=[CKPT]), 422)
    assert "ckpt lies in one cluster, and the fleet has" in problem["detail"]
    assert "east" in problem["hint"]
    assert (await fleet.submit(volumes=[CKPT], infra="east")).status_code == 201
    assert (await fleet.submit(volumes=[{"path": "scratch"}])).status_code == 201
