"""When what waits is expected to start, as its owner is told: before and after it is submitted."""

from __future__ import annotations

from datetime import datetime

from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from tests.unit.api.conftest import Api, site_of


async def test_plan_and_explain_say_when_it_is_expected_to_start_and_name_nobody(api: Api):
    scene = site_of(api.services, api.app).scene
    scene.fleet(cpus=4)
    whole = Resources(cpu_milli=4_000, memory_bytes=4 * BYTES_PER_GIB)
    scene.run(scene.submit(name="secret-run", tenant="chemistry", choices=(whole,), max_duration_seconds=600))
    job = {"name": "train", "run": "true", "resources": {"cpu": 4, "memory": "4Gi"}}
    plan = (await api.ask("POST", "/v1/plan", json={"job": job})).json()
    made = (await api.submit(**job)).json()
    answer = await api.ask("GET", f"/v1/workloads/{made['id']}/explain")
    assert "secret-run" not in answer.text
    now = datetime.fromisoformat(made["submitted_at"])
    for found in (plan["expected"], answer.json()["expected"]):
        half, most = (datetime.fromisoformat(found[name]) for name in ("p50", "p90"))
        assert 0 < (half - now).total_seconds() < (most - now).total_seconds() <= 600 + 30
        assert found["not_before"] is None
        assert " half of the time, and within " in found["sentence"]


async def test_what_runs_or_could_never_run_has_no_expected_start(api: Api):
    scene = site_of(api.services, api.app).scene
    scene.fleet(cpus=4)
    job = {"name": "train", "run": "true", "resources": {"cpu": 5}}
    assert (await api.ask("POST", "/v1/plan", json={"job": job})).json()["expected"] is None
    work = scene.submit(name="train", tenant="physics")
    scene.run(work)
    assert (await api.ask("GET", f"/v1/workloads/{work.id}/explain")).json()["expected"] is None
