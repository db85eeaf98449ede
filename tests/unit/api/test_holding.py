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
