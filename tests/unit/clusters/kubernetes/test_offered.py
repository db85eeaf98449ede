"""What drivers offer in slices becomes GPUs of nodes, and whoever asks for one of them claims it."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest

from mainstay.clusters.kubernetes import names, pods
from mainstay.clusters.kubernetes.nodes import node_state
from mainstay.clusters.kubernetes.objects import Pod, ResourceClaim, ResourceSlice
from mainstay.clusters.kubernetes.offered import Offered, taken_by_others
from mainstay.clusters.kubernetes.restrictions import admits, restriction
from mainstay.clusters.kubernetes.views import view
from mainstay.domain.quantity import Resources
from tests.clusters import create
from tests.unit.clusters.kubernetes.objects import SETTINGS, SYSTEM, node, own_view
from tests.unit.clusters.kubernetes.restricted import faults

NVIDIA = "gpu.nvidia.com"
H100, T4 = "NVIDIA H100 80GB HBM3", "Tesla T4"
NONE = Resources()


def gpu(name: str, product: str = H100, **more: Any) -> dict[str, Any]:
    said = {"type": {"string": "gpu"}, "productName": {"string": product}, "index": {"int": 0}}
    return {"name": name, "attributes": said, **more}


def mig(name: str, profile: str = "1g.10gb", **more: Any) -> dict[str, Any]:
    said = {"type": {"string": "mig"}, "productName": {"string": H100}, "profile": {"string": profile}}
    return {"name": name, "attributes": said, **more}


def slice_(
    *devices: dict[str, Any], on: str = "n1", driver: str = NVIDIA, generation: int = 1, count: int = 1, pool: str = ""
) -> ResourceSlice:
    pool_ = {"name": pool or on, "generation": generation, "resourceSliceCount": count}
    spec = {"driver": driver, "nodeName": on, "pool": pool_, "devices": list(devices)}
    return msgspec.convert({"spec": spec}, ResourceSlice)


def offered(*slices: ResourceSlice) -> Offered:
    made = Offered()
    for number, one in enumerate(slices):
        made.slice_changed(str(number), one)
    return made


def counts(made: Offered, on: str = "n1") -> dict[str, tuple[int, int]]:
    return {one.model: (one.has, one.gives) for one in made.devices(on)}


def test_gpus_and_slices_of_them_are_counted_by_model_and_shape():
    made = offered(slice_(gpu("g0"), gpu("g1"), mig("m0"), mig("m1", "1g.10gb+me")), slice_(gpu("g0", T4), on="n2"))
    assert counts(made) == {"H100": (2, 2), "1g.10gb": (1, 1), "1g.10gb.me": (1, 1)}
    assert counts(made, "n2") == {"T4": (1, 1)}
    classes = {one.model: one.device_class for one in made.devices("n1")}
    assert classes == {"H100": NVIDIA, "1g.10gb": "mig.nvidia.com", "1g.10gb.me": "mig.nvidia.com"}


def test_a_claim_says_which_of_them_it_wants():
    (whole,) = offered(slice_(gpu("g0"))).devices("n1")
    place = 'device.attributes["gpu.nvidia.com"]'
    assert whole.selector == (
        f'(has({place}.type) && {place}.type == "gpu" && has({place}.productName) && {place}.productName == "{H100}")'
    )


@pytest.mark.parametrize(
    "odd",
    [
        slice_(gpu("g0"), driver="nic.example.com"),
        slice_(gpu("g0"), count=2),
        slice_(gpu("g0"), on=""),
        slice_(mig("m0", consumesCounters=[{"counterSet": "gpu-0"}])),
    ],
    ids=["no GPUs", "a part of its pool is missing", "of no one node", "a part that others overlap"],
)
def test_what_nobody_may_count_on_is_not_counted(odd: ResourceSlice):
    assert counts(offered(odd)) == {}


def test_of_a_pool_only_the_newest_generation_counts():
    made = offered(slice_(gpu("g0"), gpu("g1")), slice_(gpu("g0"), generation=2))
    assert counts(made) == {"H100": (1, 1)}
    made.slice_changed("1", None)
    assert counts(made) == {"H100": (2, 2)}


def test_a_device_with_a_taint_is_there_and_cannot_be_given():
    made = offered(slice_(gpu("g0"), gpu("g1", taints=[{"key": "a", "effect": "NoSchedule"}])))
    assert counts(made) == {"H100": (2, 1)}
    state = node_state(node(), NONE, offered=made.devices("n1"))
    assert (state.capacity.gpus, state.capacity.gpu_model, state.unhealthy) == (1, "H100", (("H100", 1),))


def claim(*devices: str, **more: Any) -> ResourceClaim:
    results = [{"request": "r", "driver": NVIDIA, "pool": "n1", "device": name, **more} for name in devices]
    return msgspec.convert({"status": {"allocation": {"devices": {"results": results}}}}, ResourceClaim)


def test_what_others_claim_is_taken_until_they_let_go_of_it():
    made = offered(slice_(gpu("g0"), gpu("g1"), mig("m0")))
    had = taken_by_others(claim("g0", "m0"), ours=False)
    made.claim_changed(None, had)
    assert sum(made.taken("n1").values()) == 2
    state = node_state(node(), NONE, offered=made.devices("n1"), taken_devices=made.taken("n1"))
    assert (state.capacity.gpus, state.shapes) == (1, ())
    made.claim_changed(had, ())
    assert not made.taken("n1")
    assert taken_by_others(claim("g0"), ours=True) == ()
    assert taken_by_others(claim("g0", adminAccess=True), ours=False) == ()
    assert taken_by_others(ResourceClaim(), ours=False) == ()


def test_what_is_offered_in_two_ways_counts_once_and_as_the_amount_that_it_is():
    labels = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    plugged = node(labels=labels, allocatable={"nvidia.com/gpu": "8"})
    state = node_state(plugged, NONE, offered=offered(slice_(gpu("g0"))).devices("n1"))
    assert state.capacity.gpus == 8


ASKED = Resources(cpu_milli=4_000, memory_bytes=8 << 30, gpus=2, gpu_model="H100")


def claiming(**changes: Any) -> dict[str, Any]:
    (kind,) = offered(slice_(gpu("g0"), gpu("g1"))).devices("n1")
    return pods.pod(create("p-1-0", "n1", script="true", resources=ASKED, **changes), SETTINGS, device=kind)


def shown(document: dict[str, Any], **meta: Any) -> Pod:
    """As the cluster shows it."""
    made = copy.deepcopy(document)
    home = names.namespace(create("p", "n", script="").spec.owner, system=SYSTEM)
    made["metadata"] |= {"uid": "uid", "namespace": home, **meta}
    return msgspec.convert(made, Pod)


def test_a_pod_that_is_given_gpus_of_a_driver_claims_them_and_is_bound_by_the_scheduler_of_the_cluster():
    document = claiming()
    assert faults(document) == []
    main = document["spec"]["containers"][0]
    assert main["resources"]["claims"] == [{"name": "claimed"}]
    assert "nvidia.com/gpu" not in main["resources"]["limits"]
    assert document["spec"]["resourceClaims"] == [{"name": "claimed", "resourceClaimName": "p-1-0"}]
    assert (document["spec"]["schedulerName"], "nodeName" in document["spec"]) == ("default-scheduler", False)
    assert all(one["resources"]["requests"] == one["resources"]["limits"] for one in document["spec"]["containers"])


def test_the_claim_goes_with_its_pod_and_asks_for_as_many_as_were_given():
    made = pods.device_claim(shown(claiming(devices=("nic.example.com:3",))))
    assert made["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": "p-1-0", "uid": "uid"}]
    assert made["metadata"]["labels"][names.SYSTEM] == names.short(SYSTEM)
    gpus, links = made["spec"]["devices"]["requests"]
    assert (gpus["exactly"]["deviceClassName"], gpus["exactly"]["count"]) == (NVIDIA, 2)
    assert H100 in gpus["exactly"]["selectors"][0]["cel"]["expression"]
    assert links == {
        "name": "device-0",
        "exactly": {"deviceClassName": "nic.example.com", "allocationMode": "ExactCount", "count": 3},
    }


def test_what_it_claims_it_holds_from_the_start_and_it_waits_for_its_claim_until_it_has_its_node():
    waits = own_view(shown(claiming()))
    assert (waits.node, waits.holds.gpus, json.loads(waits.claim)[0][:3]) == ("n1", 2, ["gpus", NVIDIA, 2])
    document = claiming()
    document["spec"]["nodeName"] = "n1"
    assert own_view(shown(document)).claim == ""
    strangers = view(shown(claiming()), system="other")
    assert strangers.holds.gpus == 0


def test_slices_that_are_claimed_are_held_by_their_shape():
    (kind,) = offered(slice_(mig("m0"))).devices("n1")
    wanted = Resources(cpu_milli=1_000, memory_bytes=1 << 30, gpus=1, gpu_model="1g.10gb")
    document = pods.pod(create("p-1-0", "n1", script="true", resources=wanted), SETTINGS, device=kind)
    held = view(shown(document), system=names.short(SYSTEM))
    assert (held.holds.gpus, held.slices) == (0, ((kind.resource, 1),))


def test_gpus_of_a_device_plugin_are_asked_for_as_before():
    document = pods.pod(create("p-1-0", "n1", script="true", resources=ASKED), SETTINGS)
    assert document["spec"]["nodeName"] == "n1"
    assert document["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"


def test_a_pod_of_others_that_asks_for_gpus_by_amount_is_kept_off_nodes_that_offer_them_to_claims_only():
    wanted = restriction(shown(claiming()).spec, devices=["nvidia.com/gpu"])
    plain = restriction(shown(claiming()).spec)
    assert wanted is not None
    assert plain is not None
    assert not admits(node(), wanted)
    assert admits(node(), plain)
    assert admits(node(allocatable={"nvidia.com/gpu": "1"}), wanted)
    assert wanted.name != plain.name
