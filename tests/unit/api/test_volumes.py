"""Volumes through the API: as they were asked for, and never in a cluster that nobody named if there are several."""

from __future__ import annotations

import pytest

from mainstay.domain.allocation import Owner
from mainstay.domain.plan import ObserveVolumes, Plan
from mainstay.domain.volume import VolumeState
from tests.stores import WHY
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
    assert "ckpt is in none of the" in problem["detail"]
    assert "east" in problem["hint"]
    assert (await fleet.submit(volumes=[CKPT], infra="east")).status_code == 201
    assert (await fleet.submit(volumes=[{"path": "scratch"}])).status_code == 201


def found(api: Api, cluster: str, *names: str, tenant: str = "physics", project: str = "default") -> None:
    """What the loop of a cluster reports."""
    volumes = tuple(
        VolumeState(owner=Owner(tenant=tenant, project=project), name=name, size_bytes=10**9, place="on node n1")
        for name in names
    )
    action = ObserveVolumes(cluster=cluster, volumes=volumes, reason=WHY)
    api.services.store.commit(Plan(actor=f"cluster/{cluster}", now=api.services.clock.now(), actions=(action,)))


async def test_a_job_needs_not_say_where_a_volume_lies_that_is_on_record(fleet: Api):
    found(fleet, "west", "ckpt")
    assert (await fleet.submit(volumes=[CKPT])).status_code == 201
    await fleet.ask("POST", "/v1/projects", token="dora-token", json={"name": "other"})
    assert "is in none of" in is_problem(await fleet.submit(volumes=[CKPT], project="other"), 422)["detail"]
    found(fleet, "east", "ckpt")
    problem = is_problem(await fleet.submit(volumes=[CKPT]), 422)
    assert "there is a ckpt in each of east, west" in problem["detail"]


async def test_a_volume_that_is_too_small_is_refused_with_what_it_has(fleet: Api):
    found(fleet, "west", "ckpt")
    assert (await fleet.submit(volumes=[CKPT])).status_code == 201
    problem = is_problem(await fleet.submit(volumes=[{**CKPT, "size": "2GB"}]), 422)
    assert "ckpt has 1 GB, and 2 GB are asked for" in problem["detail"]
    assert "it lies in cluster west, on node n1" in problem["hint"]


async def test_a_volume_that_is_not_there_and_that_nobody_makes_is_refused_where_volumes_are_known(fleet: Api):
    asked = {"volumes": [{"path": "ckpt", "name": "ckpt"}], "infra": "west"}
    assert (await fleet.submit(**asked)).status_code == 201, "of this cluster nobody knows which volumes it has"
    await fleet.ask("POST", "/v1/workloads/job/stop")
    found(fleet, "west", "other")
    asked["volumes"] = [{"path": "data", "name": "data"}]
    problem = is_problem(await fleet.submit(**asked), 422)
    assert "there is no data in project default" in problem["detail"]
    assert "say its size" in problem["hint"]
    making = {**asked, "volumes": [{"path": "data", "name": "data", "size": "1GB"}]}
    assert (await fleet.submit(**making)).status_code == 201
    assert (await fleet.submit(**asked)).status_code == 201, "another run makes it"


async def test_volumes_are_listed_in_pages_with_what_uses_them(fleet: Api):
    found(fleet, "east", "a", "b")
    found(fleet, "west", "a")
    used = (await fleet.submit(volumes=[{"path": "x", "name": "b"}])).json()["id"]
    rows, cursor = [], ""
    while True:
        page = (await fleet.ask("GET", f"/v1/volumes?limit=1&cursor={cursor}")).json()
        rows += page["items"]
        if not (cursor := page["next"]):
            break
    assert [(row["cluster"], row["name"], row["used_by"]) for row in rows] == [
        ("east", "a", []),
        ("east", "b", [used]),
        ("west", "a", []),
    ]
    assert (rows[0]["place"], rows[0]["size_bytes"], rows[0]["state"]) == ("on node n1", 10**9, "ready")
    is_problem(await fleet.ask("GET", "/v1/volumes?cursor=nonsense"), 422)


async def test_one_volume_is_shown_and_several_of_a_name_are_told_apart(fleet: Api):
    found(fleet, "east", "a")
    assert (await fleet.ask("GET", "/v1/volumes/a")).json()["cluster"] == "east"
    found(fleet, "west", "a")
    assert "several volumes are called a" in is_problem(await fleet.ask("GET", "/v1/volumes/a"), 409)["detail"]
    assert (await fleet.ask("GET", "/v1/volumes/a?cluster=west")).json()["cluster"] == "west"
    assert "list them" in is_problem(await fleet.ask("GET", "/v1/volumes/zzz"), 404)["hint"]


async def test_nobody_sees_or_removes_the_volumes_of_another_tenant(fleet: Api):
    found(fleet, "east", "theirs", tenant="chemistry")
    assert (await fleet.ask("GET", "/v1/volumes")).json()["items"] == []
    is_problem(await fleet.ask("GET", "/v1/volumes/theirs"), 404)
    is_problem(await fleet.ask("DELETE", "/v1/volumes/theirs"), 404)


async def test_a_volume_is_not_removed_while_anything_uses_it_and_the_answer_says_what(fleet: Api):
    found(fleet, "east", "a")
    work = (await fleet.submit(volumes=[{"path": "x", "name": "a"}])).json()["id"]
    problem = is_problem(await fleet.ask("DELETE", "/v1/volumes/a"), 409)
    assert problem["detail"] == f"volume a is used by {work}"
    assert "stop them" in problem["hint"]
    elsewhere = await fleet.submit(volumes=[{"path": "x", "name": "a", "size": "1GB"}], infra="west")
    assert elsewhere.status_code == 201


async def test_a_viewer_removes_nothing_and_a_removal_is_done_once(fleet: Api):
    found(fleet, "east", "a")
    is_problem(await fleet.ask("DELETE", "/v1/volumes/a", token="viewer-token"), 403)
    for _ in range(2):
        answer = await fleet.ask("DELETE", "/v1/volumes/a", headers={"Idempotency-Key": "once"})
        assert answer.status_code == 204
    assert (await fleet.ask("GET", "/v1/volumes/a")).json()["state"] == "removing"
    events = fleet.services.store.events(tenant="physics", workload="", after=0, limit=100)
    assert [event.reason.code for event in events if event.kind == "volume"] == ["VolumeFound", "VolumeRemoved"]
