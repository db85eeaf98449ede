"""What a node offers us: what it can give, less what others have, and nothing where the cluster lies or the node must rest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.clusters.kubernetes.devices import gpu_model
from mainstay.clusters.kubernetes.nodes import is_off, is_silent, maps_users, node_state, requests, why_not
from mainstay.clusters.kubernetes.objects import Node, Pod
from mainstay.domain.affinity import NodeNeed, Requirement, Spot, Taint, Toleration, traits
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from tests.unit.clusters.kubernetes.objects import node

NOTHING = Resources()
GPU = "nvidia.com/gpu"
DEDICATED = Taint(key="dedicated", value="ml", effect="NoSchedule")


def taint(key: str, effect: str = "NoSchedule") -> dict[str, str]:
    return {"key": key, "effect": effect}


def test_a_node_offers_what_others_have_left():
    taken = Resources(cpu_milli=500, memory_bytes=BYTES_PER_GIB)
    state = node_state(node(), taken)
    assert state.capacity == Resources(cpu_milli=3_500, memory_bytes=7 * BYTES_PER_GIB)
    assert state.ready


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (node(), ""),
        (node(ready=""), "has not reported yet"),
        (node(ready="False"), "not ready: in words"),
        (node(ready="Unknown"), "does not report any more: in words"),
        (node(unschedulable=True), "cordoned"),
        (node(taints=[taint("dedicated")]), "tainted: dedicated"),
        (node(taints=[taint("b"), taint("a", "NoExecute")]), "tainted: a, b"),
        (node(taints=[taint("dedicated", "PreferNoSchedule")]), ""),
        (node(taints=[taint(GPU)]), ""),
        (node(taints=[taint("node.kubernetes.io/out-of-service", "NoExecute")]), "tainted: node.kubernetes.io/out-of-service"),
        (node(ready="maybe"), "not ready"),
    ],
)  # fmt: skip
def test_a_node_that_takes_nothing_says_why(shown, why):
    assert why_not(shown) == why if not why else why in why_not(shown)
    assert node_state(shown, NOTHING).ready == (not why)


def test_a_node_is_silent_when_its_kubelet_is_and_off_when_somebody_vouches_for_it():
    assert [is_silent(node(ready=ready)) for ready in ("True", "False", "Unknown", "")] == [False, False, True, False]
    assert is_off(node(taints=[taint("node.kubernetes.io/out-of-service", "NoExecute")]))
    assert not is_off(node(ready="Unknown"))


@pytest.mark.parametrize(
    ("label", "value", "model"),
    [
        ("nvidia.com/gpu.product", "NVIDIA-H100-80GB-HBM3", "H100"),
        ("nvidia.com/gpu.product", "NVIDIA-H200", "H200"),
        ("nvidia.com/gpu.product", "NVIDIA-B200", "B200"),
        ("nvidia.com/gpu.product", "NVIDIA-GB200", "GB200"),
        ("nvidia.com/gpu.product", "NVIDIA-GH200-480GB", "GH200"),
        ("nvidia.com/gpu.product", "NVIDIA-A100-SXM4-80GB", "A100"),
        ("nvidia.com/gpu.product", "NVIDIA-A10G", "A10G"),
        ("nvidia.com/gpu.product", "NVIDIA-L40S", "L40S"),
        ("nvidia.com/gpu.product", "NVIDIA-L4", "L4"),
        ("nvidia.com/gpu.product", "NVIDIA-RTX-A6000", "A6000"),
        ("nvidia.com/gpu.product", "NVIDIA-GeForce-RTX-4090", "RTX4090"),
        ("nvidia.com/gpu.product", "Tesla-V100-SXM2-16GB", "V100"),
        ("nvidia.com/gpu.product", "Tesla-T4", "T4"),
        ("nvidia.com/gpu.product", "Tesla-T4-SHARED", "T4"),
        ("cloud.google.com/gke-accelerator", "nvidia-tesla-t4", "T4"),
        ("cloud.google.com/gke-accelerator", "nvidia-h100-80gb", "H100"),
        ("cloud.google.com/gke-accelerator", "nvidia-h100-mega-80gb", "H100"),
        ("cloud.google.com/gke-accelerator", "nvidia-l4", "L4"),
        ("cloud.google.com/gke-accelerator", "nvidia-gb200", "GB200"),
        ("k8s.amazonaws.com/accelerator", "nvidia-tesla-a100", "A100"),
        ("karpenter.k8s.aws/instance-gpu-name", "a10g", "A10G"),
        ("karpenter.k8s.aws/instance-gpu-name", "h100", "H100"),
        ("accelerator", "nvidia", "NVIDIA"),
        ("kubernetes.azure.com/accelerator", "nvidia", "NVIDIA"),
        ("nvidia.com/gpu.product", "NVIDIA-GeForce-GTX-1080-Ti", "NVIDIA-GEFORCE-GTX-1080-TI"),
        ("nvidia.com/gpu.product", "", ""),
    ],
)
def test_the_model_is_written_as_users_write_it(label, value, model):
    assert gpu_model(node(labels={label: value})) == model


def test_the_most_exact_label_counts():
    labels = {"kubernetes.azure.com/accelerator": "nvidia", "nvidia.com/gpu.product": "NVIDIA-A100-80GB-PCIe"}
    assert gpu_model(node(labels=labels)) == "A100"


def test_a_node_without_gpus_has_no_model():
    labels = {"nvidia.com/gpu.product": "Tesla-T4"}
    assert node_state(node(labels=labels), NOTHING).capacity.gpu_model == ""
    with_gpus = node_state(node(labels=labels, allocatable={GPU: "2"}), Resources(gpus=1)).capacity
    assert (with_gpus.gpus, with_gpus.gpu_model) == (1, "T4")


@pytest.mark.parametrize("lie", ["-4", "-8Gi", "NaN", "many", "", -1, "1e99"])
def test_what_a_node_lies_about_is_nothing(lie):
    state = node_state(node(allocatable={"cpu": lie, "memory": lie, GPU: lie}), NOTHING)
    assert state.capacity == Resources()


@pytest.mark.parametrize(
    ("labels", "chosen", "found"),
    [
        ({"topology.kubernetes.io/zone": "eu-1"}, {}, (("zone", "eu-1"),)),
        (
            {"cloud.google.com/gce-topology-subblock": "s", "cloud.google.com/gce-topology-block": "b"},
            {},
            (("block", "b"), ("rack", "s")),
        ),
        ({"acme.com/rack": "r1", "topology.kubernetes.io/rack": "r2"}, {"rack": "acme.com/rack"}, (("rack", "r1"),)),
        ({"topology.kubernetes.io/rack": "r2"}, {"rack": "acme.com/rack"}, ()),
        ({"topology.kubernetes.io/rack": ""}, {}, ()),
        ({}, {}, ()),
    ],
)
def test_where_a_node_is_its_labels_say(labels, chosen, found):
    assert node_state(node(labels=labels), NOTHING, topology=chosen).topology == found


amounts = st.sampled_from(["", "0", "1", "500m", "-2", "1Gi", "4", "x"]) | st.integers(-10, 10)
asked = st.dictionaries(st.sampled_from(["cpu", "memory", GPU, "other"]), amounts)
containers = st.lists(
    st.fixed_dictionaries(
        {"resources": st.fixed_dictionaries({}, optional={"requests": asked, "limits": asked})},
        optional={"restartPolicy": st.sampled_from(["Always", ""])},
    ),
    max_size=4,
)


@given(main=containers, first=containers, overhead=asked, allocatable=asked)
def test_no_figure_is_below_nothing_whatever_pods_and_nodes_say(main, first, overhead, allocatable):
    document = {"spec": {"containers": main, "initContainers": first, "overhead": overhead}}
    held = requests(msgspec.convert(document, Pod))
    left = node_state(msgspec.convert({"status": {"allocatable": allocatable}}, Node), held).capacity
    for amount in (held, left):
        assert min(amount.cpu_milli, amount.memory_bytes, amount.gpus) >= 0


def held(**spec: Any) -> tuple[int, int]:
    of = requests(msgspec.convert({"spec": spec}, Pod))
    return of.cpu_milli, of.gpus


def container(cpu: str = "", *, limit: str = "", gpus: str = "", **more: str) -> dict[str, Any]:
    asked = {**({"cpu": cpu} if cpu else {})}
    limits = {**({"cpu": limit} if limit else {}), **({GPU: gpus} if gpus else {})}
    return {"resources": {"requests": asked, "limits": limits}, **more}


def test_a_pod_holds_the_sum_of_its_containers():
    assert held(containers=[container("1"), container("500m", gpus="2")]) == (1_500, 2)


def test_a_limit_without_a_request_is_the_request():
    assert held(containers=[container(limit="2")]) == (2_000, 0)
    assert held(containers=[container("1", limit="2")]) == (1_000, 0)


def test_init_containers_run_one_by_one_and_sidecars_beside_all():
    sidecar = container("1", restartPolicy="Always")
    assert held(containers=[container("1")], initContainers=[container("3"), container("2")]) == (3_000, 0)
    assert held(containers=[container("1")], initContainers=[sidecar, container("3")]) == (4_000, 0)
    assert held(containers=[container("4")], initContainers=[sidecar, container("3")]) == (5_000, 0)


def test_overhead_counts_on_top():
    assert held(containers=[container("1")], overhead={"cpu": "250m"}) == (1_250, 0)


def test_what_is_asked_for_the_pod_as_a_whole_counts_instead_of_its_containers():
    whole = {"requests": {"cpu": "6"}}
    assert held(containers=[container("1", gpus="1"), container("1")], resources=whole) == (6_000, 1)
    assert held(containers=[container("1")], resources=whole, overhead={"cpu": "1"}) == (7_000, 0)
    assert held(containers=[container("1")], resources={"limits": {"cpu": "8"}}) == (8_000, 0)


@pytest.mark.parametrize(
    ("allocatable", "taken", "left"),
    [
        ({}, 3, None),
        ({"pods": "110"}, 0, 110),
        ({"pods": "110"}, 3, 107),
        ({"pods": "2"}, 3, 0),
        ({"pods": "many"}, 0, 0),
    ],
)
def test_a_node_takes_so_many_pods_of_ours_as_others_leave(allocatable, taken, left):
    assert node_state(node(allocatable=allocatable), NOTHING, taken_pods=taken).pods_max == left


ML = {"key": "dedicated", "value": "ml", "effect": "NoSchedule"}
TOLERANT = NodeNeed(tolerations=(Toleration(key="dedicated"),))


def test_what_needs_look_at_is_reported_and_no_name_of_the_node():
    said = {"kubernetes.io/hostname": "n1", "disk": "ssd", "karpenter.sh/capacity-type": "spot"}
    state = node_state(node(labels=said, taints=[ML, taint(GPU), taint("soft", "PreferNoSchedule")]), NOTHING)
    assert state.traits == traits({"disk": "ssd", "karpenter.sh/capacity-type": "spot"}, (DEDICATED,))
    assert (state.ready, state.barred, state.problem) == (False, True, "tainted: dedicated")


@pytest.mark.parametrize(
    ("shown", "barred"),
    [
        (node(taints=[ML]), True),
        (node(), False),
        (node(taints=[ML], ready="False"), False),
        (node(taints=[ML], unschedulable=True), False),
        (node(taints=[ML, taint("node.kubernetes.io/disk-pressure")]), False),
        (node(taints=[taint("node.kubernetes.io/unreachable", "NoExecute")]), False),
    ],
)
def test_only_what_a_pod_may_put_up_with_bars_a_node_and_leaves_it_to_those_that_do(shown, barred):
    state = node_state(shown, NOTHING)
    assert state.barred is barred
    assert bool(why_not(shown, wanted=TOLERANT)) is not (barred or state.ready)
    assert all("node.kubernetes.io" not in one.key for one in state.traits.taints)


def test_a_taint_that_says_no_more_than_spot_keeps_nobody_out_who_allows_that():
    aks = {"key": "kubernetes.azure.com/scalesetpriority", "value": "spot", "effect": "NoSchedule"}
    shown = node(taints=[aks])
    state = node_state(shown, NOTHING)
    assert (state.ready, state.traits.spot, state.traits.taints) == (True, True, ())
    assert why_not(shown, wanted=NodeNeed(spot=Spot.ONLY)) == ""
    assert "not spot" in why_not(shown, wanted=NodeNeed(spot=Spot.NEVER))


def test_a_taint_of_spot_that_would_end_what_runs_must_be_tolerated_in_so_many_words():
    """The pod would have to say so too, or it is evicted as soon as it is there."""
    key = "karpenter.sh/capacity-type"
    shown = node(taints=[{"key": key, "value": "spot", "effect": "NoExecute"}])
    state = node_state(shown, NOTHING)
    assert (state.ready, state.barred, state.traits.spot) == (False, True, True)
    assert why_not(shown, wanted=NodeNeed(spot=Spot.ONLY)) == f"tainted: {key}"
    assert why_not(shown, wanted=NodeNeed(tolerations=(Toleration(key=key),))) == ""


def test_a_node_that_has_other_labels_by_now_says_so():
    must = Requirement(key="disk", operator="In", values=("ssd",))
    assert why_not(node(labels={"disk": "ssd"}), wanted=NodeNeed(requirements=(must,))) == ""
    assert "disk=ssd" in why_not(node(labels={"disk": "hdd"}), wanted=NodeNeed(requirements=(must,)))


@pytest.mark.parametrize(
    ("handlers", "can"),
    [
        ([], False),
        ([{"name": "", "features": {"userNamespaces": True}}], True),
        (
            [
                {"name": "", "features": {"userNamespaces": False}},
                {"name": "kata", "features": {"userNamespaces": True}},
            ],
            False,
        ),
        ([{"name": "runc", "features": {"userNamespaces": True}}], False),
        ([{"name": ""}], False),
    ],
)
def test_users_are_mapped_where_the_runtime_says_that_it_can_for_plain_pods(handlers, can):
    shown = msgspec.convert({"metadata": {"name": "n1"}, "status": {"runtimeHandlers": handlers}}, Node)
    assert maps_users(shown) is can
    assert not maps_users(None)
