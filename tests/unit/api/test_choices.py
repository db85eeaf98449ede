"""Runs with a choice: all of it is shown while it is open, and then what they have got. And GPUs of one model by their sizes."""

from __future__ import annotations

from mainstay.cli.show import wanted
from mainstay.domain.affinity import Traits
from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import ObserveNodes
from mainstay.domain.preemption import Slot
from mainstay.domain.quantity import BYTES_PER_GIB, MEMORY_LABEL, Resources
from mainstay.wire.views import WorkloadView
from tests.stores import WHY, Scene
from tests.unit.api.conftest import Api, site_of


def gpu(model: str) -> Resources:
    return Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB, gpus=1, gpu_model=model)


def fleet(scene: Scene, *gpus: tuple[str, int]) -> None:
    """A node of each model and size, in MiB."""
    nodes = tuple(
        NodeState(
            name=f"{model}-{mib}".lower(),
            capacity=Resources(cpu_milli=8_000, memory_bytes=8 * BYTES_PER_GIB, gpus=2, gpu_model=model),
            ready=True,
            traits=Traits(labels=((MEMORY_LABEL, str(mib)),)),
        )
        for model, mib in gpus
    )
    scene.applied(ObserveNodes(cluster="local", nodes=nodes, reason=WHY))


async def test_a_choice_is_shown_while_it_is_open_and_then_what_it_came_to(api: Api):
    scene = site_of(api.services, api.app).scene
    fleet(scene, ("H100", 81_559), ("L4", 23_034))

    async def seen(path: str) -> WorkloadView:
        found = (await api.ask("GET", path)).json()
        return WorkloadView.model_validate(found["items"][0] if "items" in found else found)

    work = scene.submit(tenant="physics", choices=(gpu("H100"), gpu("L4")), equals=2)
    for path in ("/v1/workloads", f"/v1/workloads/{work.id}"):
        assert wanted(await seen(path)) == "1 CPU, 1 GiB, H100:1 or 1 CPU, 1 GiB, L4:1"
    (node,) = (one for one in scene.store.nodes() if one.capacity.gpu_model == "L4")
    scene.applied(scene.allocate(work, slots=(Slot(rank=0, node_key=node.key, resources=gpu("L4")),)))
    for path in ("/v1/workloads", f"/v1/workloads/{work.id}"):
        assert wanted(await seen(path)) == "1 CPU, 1 GiB, L4:1"


async def test_two_sizes_of_a_model_are_two_and_a_few_mib_are_none(api: Api):
    fleet(site_of(api.services, api.app).scene, ("A100", 81_559), ("A100", 40_536), ("A100", 81_559 + 20))
    found = (await api.ask("GET", "/v1/gpus")).json()["items"]
    assert [(one["model"], one["total"], one["memory_bytes"] >> 30) for one in found] == [
        ("A100", 2, 39),
        ("A100", 4, 79),
    ]
