"""What lists, the page of a run and `explain` say of what waits: the same, and as it is now."""

from __future__ import annotations

from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase
from tests.unit.api.conftest import Api, site_of


async def test_a_list_a_page_and_an_explanation_agree_when_the_world_has_changed(api: Api):
    scene = site_of(api.services, api.app).scene
    scene.fleet(cpus=4)
    half = Resources(cpu_milli=2_000, memory_bytes=BYTES_PER_GIB)
    first, second = (scene.run(scene.submit(name=name, choices=(half,))) for name in ("first", "second"))
    made = (await api.submit(resources={"cpu": 4, "memory": "1Gi"})).json()
    work = scene.workload(made["id"], tenant="physics")
    full = Reason(code=Code.WAITS_FOR_CAPACITY, numbers={"needs": "4 CPUs, 1 GiB", "free": "0 CPUs, 2 GiB"})
    scene.applied(scene.advance(work, Phase.QUEUED, reason=full))
    scene.end(second)

    async def said(path: str) -> dict:
        return (await api.ask("GET", path)).json()

    page = await said(f"/v1/workloads/{work.id}")
    (listed,) = (await said("/v1/workloads?phase=queued"))["items"]
    explained = await said(f"/v1/workloads/{work.id}/explain")
    assert page["reason"] == listed["reason"] == explained["reason"]
    assert page["reason"]["numbers"]["free"] == "2 CPUs, 3 GiB"
    assert first.node == second.node
