"""Who holds what is short, as the owner of what waits is told: queues of others, and runs of their own."""

from __future__ import annotations

from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from tests.unit.api.conftest import Api, site_of


async def test_plan_and_explain_name_queues_and_only_the_callers_own_runs(api: Api):
    scene = site_of(api.services, api.app).scene
    scene.fleet(cpus=4)
    half = Resources(cpu_milli=2_000, memory_bytes=BYTES_PER_GIB)
    scene.run(scene.submit(name="secret-run", tenant="chemistry", choices=(half,), max_duration_seconds=600))
    mine = scene.submit(name="mine", tenant="physics", choices=(half,))
    scene.run(mine)
    job = {"name": "train", "run": "true", "resources": {"cpu": 4, "memory": "1Gi"}}
    plan = (await api.ask("POST", "/v1/plan", json={"job": job})).json()
    made = (await api.submit(**job)).json()
    answer = await api.ask("GET", f"/v1/workloads/{made['id']}/explain")
    assert "secret-run" not in answer.text
    assert "chemistry" not in answer.text
    for found in (plan["holding"], answer.json()["holding"]):
        assert (found["kind"], found["resource"], found["unit"], found["nodes"]) == ("capacity", "cpu", "cores", 1)
        (holder,) = found["holders"]
        assert (holder["queue"], holder["amount"], holder["runs"], holder["endless"]) == ("default", 4, 2, 1)
        assert holder["first_end"] is not None
        assert holder["last_end"] is None
        assert [(one["id"], one["amount"], one["ends_at"]) for one in found["own"]] == [(mine.id, 2, None)]
        assert found["own_sentence"] == f"of yours: {mine.id} (2 CPUs, nobody knows until when)"


async def test_what_runs_is_held_up_by_nobody(api: Api):
    scene = site_of(api.services, api.app).scene
    scene.fleet(cpus=4)
    work = scene.submit(name="train", tenant="physics")
    scene.run(work)
    assert (await api.ask("GET", f"/v1/workloads/{work.id}/explain")).json()["holding"] is None


async def test_the_head_of_a_strict_queue_is_named_to_its_own_tenant(api: Api):
    site_of(api.services, api.app).scene.fleet(cpus=4)
    set_ = await api.ask("PUT", "/v1/queues/line", json={"order": "strict"}, token="admin-token")
    assert set_.status_code == 200, set_.text
    job = {"run": "true", "queue": "line", "resources": {"cpu": 3, "memory": "1Gi"}}
    first = (await api.submit(**job, name="first")).json()
    head = (await api.submit(**job, name="head")).json()
    site_of(api.services, api.app).scene.run(site_of(api.services, api.app).scene.workload(first["id"]))
    small = (await api.submit(**{**job, "resources": {"cpu": 1, "memory": "1Gi"}}, name="small")).json()
    told = (await api.ask("GET", f"/v1/workloads/{small['id']}/explain")).json()["reason"]
    assert told["code"] == "WaitsInStrict"
    assert head["id"] in told["sentence"]


async def test_a_queue_is_named_as_a_way_out_only_to_who_may_use_it(api: Api):
    site_of(api.services, api.app).scene.fleet(cpus=4)
    for name, body in (
        ("full", {"quotas": [{"resource": "cpu", "nominal": "1"}]}),
        ("a-theirs", {"users": ["chemistry"]}),
        ("ours", {"users": ["physics/default"]}),
    ):
        answer = await api.ask("PUT", f"/v1/queues/{name}", json=body, token="admin-token")
        assert answer.status_code == 200, answer.text
    job = {"name": "train", "run": "true", "queue": "full", "resources": {"cpu": 1, "memory": "1Gi"}}
    first = (await api.submit(**job)).json()
    scene = site_of(api.services, api.app).scene
    scene.run(scene.workload(first["id"]))
    made = (await api.submit(**job)).json()
    answer = (await api.ask("GET", f"/v1/workloads/{made['id']}/explain")).json()
    ways = {one["after"] for one in answer["would_start_if"] if one["change"] == "queue"}
    assert "ours" in ways or "default" in ways, answer
    assert "a-theirs" not in str(answer)
