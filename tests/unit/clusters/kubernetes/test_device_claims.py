"""Claims of devices, whatever befalls whoever makes them: one for each pod, that pod's own, and none where none is needed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.chores import ROUND_SECONDS
from mainstay.clusters.kubernetes.errors import Forbidden, NotFound, ServerFailed
from mainstay.domain.allocation import End, Seen
from mainstay.domain.errors import NoCapacity
from mainstay.domain.quantity import Resources
from tests.unit.clusters.kubernetes.test_cluster_faults import HOME, POD, Bed, bed, creation

__all__ = ["bed"]
ASKED = Resources(cpu_milli=1_000, memory_bytes=1 << 30, gpus=2, gpu_model="H100")
DRIVER = "gpu.example.com"


def offer(bed: Bed, count: int = 4) -> None:
    pool = {"name": "n1", "generation": 1, "resourceSliceCount": 1}
    devices = [{"name": f"g{number}", "attributes": {"model": {"string": "H100"}}} for number in range(count)]
    spec = {"driver": DRIVER, "nodeName": "n1", "pool": pool, "devices": devices}
    bed.server.put("resourceslices", "", {"metadata": {"name": "s"}, "spec": spec})


async def looks(bed: Bed, times: int = 3) -> None:
    for _ in range(times):
        await bed.settle()
        await bed.cluster.observe()
        bed.clock.advance(ROUND_SECONDS)
    await bed.settle()


def claims(bed: Bed) -> list[dict[str, Any]]:
    return [one for key, one in bed.server.objects.items() if key[0] == "resourceclaims"]


async def gpus(bed: Bed) -> int:
    await bed.settle()
    (node,) = (await bed.cluster.observe()).nodes
    return node.capacity.gpus


async def test_the_claim_of_a_pod_belongs_to_it_and_is_made_once(bed: Bed) -> None:
    offer(bed)
    await looks(bed)
    await bed.act(creation(resources=ASKED))
    await looks(bed)
    bed.cluster = bed.fresh()
    await looks(bed)
    (claim,) = claims(bed)
    assert claim["metadata"]["name"] == POD
    assert claim["metadata"]["ownerReferences"][0]["uid"] == bed.server.pod(POD)["metadata"]["uid"]
    assert claim["spec"]["devices"]["requests"][0]["exactly"]["count"] == 2


async def test_whoever_dies_after_making_the_pod_leaves_its_claim_to_the_next(bed: Bed) -> None:
    offer(bed)
    await looks(bed)
    await bed.act(creation(resources=ASKED))
    bed.cluster = bed.fresh()
    assert claims(bed) == []
    await looks(bed)
    assert len(claims(bed)) == 1


async def test_a_claim_whose_answer_is_lost_is_one_claim(bed: Bed) -> None:
    offer(bed)
    await looks(bed)
    bed.server.deaf["create", "resourceclaims"] = 1
    await bed.act(creation(resources=ASKED))
    await looks(bed)
    await bed.later(3)
    await looks(bed)
    assert len(claims(bed)) == 1
    assert (await bed.state()).seen is Seen.STARTING


async def test_a_pod_whose_claim_is_refused_is_given_up_in_words(bed: Bed) -> None:
    offer(bed)
    await looks(bed)
    bed.server.failing["create", "resourceclaims"] = Forbidden("may not create resourceclaims")
    await bed.act(creation(resources=ASKED))
    await looks(bed, 5)
    state = await bed.state()
    assert (state.seen, state.end) == (Seen.ENDED, End.START_FAILED)
    assert "its devices cannot be claimed: may not create resourceclaims" in state.detail


async def test_what_pods_of_ours_claim_they_hold_from_the_moment_that_they_are_made(bed: Bed) -> None:
    offer(bed)
    assert await gpus(bed) == 4
    for number in range(2):
        await bed.act(creation(f"w{number}-1-0", resources=ASKED))
    with pytest.raises(NoCapacity, match="needs 2 GPUs, 0 are free"):
        await bed.act(creation("w3-1-0", resources=ASKED))
    assert await gpus(bed) == 4, "what ours hold is in our accounts"


async def test_claims_that_are_not_ours_take_devices_also_if_they_say_that_they_are(bed: Bed) -> None:
    offer(bed)
    given_ = {"allocation": {"devices": {"results": [{"driver": DRIVER, "pool": "n1", "device": "g0"}]}}}
    labels = {names.SYSTEM: names.short("platform"), names.TENANT: "acme", names.PROJECT: "nlp"}
    for name, home in (("forged", "evil"), ("true", HOME)):
        meta = {"name": name, "labels": labels}
        bed.server.put("namespaces", "", {"metadata": {"name": home}})
        bed.server.put("resourceclaims", home, {"metadata": meta, "spec": {}, "status": given_})
        assert await gpus(bed) == 3, name
    bed.server.vanish("resourceclaims", "forged")
    assert await gpus(bed) == 4


@pytest.mark.parametrize("refusal", [NotFound("no such kind"), Forbidden("may not list resourceslices")])
async def test_a_cluster_whose_slices_cannot_be_read_has_none_and_all_else_goes_on(bed: Bed, refusal: Any) -> None:
    offer(bed)
    bed.server.failing["list", "resourceslices"] = bed.server.failing["list", "resourceclaims"] = refusal
    (node,) = (await bed.cluster.observe()).nodes
    assert (node.ready, node.capacity.gpus) == (True, 0)
    bed.server.failing.clear()
    assert await gpus(bed) == 4


async def test_while_slices_cannot_be_read_for_a_while_what_was_known_holds(bed: Bed) -> None:
    offer(bed)
    assert await gpus(bed) == 4
    bed.server.failing["list", "resourceslices"] = ServerFailed("away")
    bed.server.cut()
    for _ in range(5):
        await asyncio.sleep(0)
        (node,) = (await bed.cluster.observe()).nodes
        assert node.capacity.gpus == 4
