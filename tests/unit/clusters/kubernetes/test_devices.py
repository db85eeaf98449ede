"""GPUs and slices of them, by what labels and resources of a node say; what cannot be counts as nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.clusters.kubernetes import pods
from mainstay.clusters.kubernetes.devices import Devices, devices, shape_name
from mainstay.clusters.kubernetes.nodes import complaints, node_state, slices, why_not
from mainstay.clusters.kubernetes.objects import Node, Pod
from mainstay.domain.quantity import Resources
from tests.clusters import create
from tests.unit.clusters.kubernetes.objects import SETTINGS

GPU = "nvidia.com/gpu"
H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
NOTHING = Resources()


def shown(
    allocatable: dict[str, Any],
    *,
    capacity: dict[str, Any] | None = None,
    labels: dict[str, str] | None = None,
    conditions: dict[str, str] | None = None,
    words: str = "in words",
    taints: tuple[str, ...] = (),
) -> Node:
    said = [{"type": kind, "status": status, "message": words} for kind, status in (conditions or {}).items()]
    document = {
        "metadata": {"name": "n", "labels": labels or H100},
        "spec": {"taints": [{"key": key, "effect": "NoSchedule"} for key in taints]},
        "status": {
            "allocatable": allocatable,
            "capacity": capacity or {},
            "conditions": [{"type": "Ready", "status": "True"}, *said],
        },
    }
    return msgspec.convert(document, Node)


@pytest.mark.parametrize(
    ("amounts", "labels", "found"),
    [
        ({GPU: "8"}, {}, {"H100": 8}),
        ({"nvidia.com/mig-1g.10gb": "7"}, {}, {"1g.10gb": 7}),
        ({GPU: "1", "nvidia.com/mig-1g.10gb": "2", "nvidia.com/mig-3g.40gb": "1"}, {},
         {"H100": 1, "1g.10gb": 2, "3g.40gb": 1}),
        ({"nvidia.com/mig-1g.10gb.me": "1"}, {}, {"1g.10gb.me": 1}),
        ({GPU: "56"}, {"nvidia.com/mig.strategy": "single", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"},
         {"1g.10gb": 56}),
        ({GPU: "32"}, {"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.product": "Tesla-T4-SHARED"}, {"T4.shared": 32}),
        ({GPU: "8"}, {"nvidia.com/gpu.replicas": "1"}, {"H100": 8}),
        ({GPU: "8"}, {"nvidia.com/gpu.replicas": "many"}, {"H100": 8}),
        ({"nvidia.com/gpu.shared": "8"}, {}, {"H100.shared": 8}),
        ({"nvidia.com/mig-1g.10gb": "14"}, {"nvidia.com/mig-1g.10gb.replicas": "2"}, {"1g.10gb.shared": 14}),
        ({"nvidia.com/mig-nonsense": "7", "cpu": "4", "x/y": "2"}, {}, {}),
        ({"amd.com/gpu": "8"}, {}, {"amd.com/gpu": 8}),
        ({"google.com/tpu": "4", GPU: "1", "habana.ai/gaudi": "0"}, {}, {"H100": 1, "google.com/tpu": 4}),
        ({"kubernetes.io/batch": "1", "a.k8s.io/b": "1", "no.slash": "1", "nvidia.com/gpu-x": "1", "Bad.com/x": "1"}, {}, {}),
        ({GPU: "0"}, {}, {}),
    ],
)  # fmt: skip
def test_the_kinds_of_a_node_are_told_by_resource_and_label(amounts, labels, found):
    assert {one.model: one.gives for one in devices(shown(amounts, labels={**H100, **labels}))} == found


def test_slices_are_offered_apart_from_whole_gpus_and_less_what_others_have():
    node = shown({GPU: "2", "nvidia.com/mig-1g.10gb": "7", "cpu": "8"})
    state = node_state(node, Resources(gpus=1), taken_devices={"nvidia.com/mig-1g.10gb": 3})
    assert (state.capacity.gpus, state.capacity.gpu_model, state.shapes) == (1, "H100", (("1g.10gb", 4),))


def test_a_node_of_slices_alone_offers_no_whole_gpu():
    state = node_state(shown({GPU: "4"}, labels={**H100, "nvidia.com/gpu.replicas": "4"}), Resources(gpus=1))
    assert (state.capacity.gpus, state.capacity.gpu_model, state.shapes) == (0, "", (("H100.shared", 3),))


def test_devices_that_it_has_and_cannot_give_are_unhealthy_and_not_offered():
    state = node_state(shown({GPU: "6"}, capacity={GPU: "8"}), NOTHING)
    assert (state.capacity.gpus, state.unhealthy, state.ready) == (6, (("H100", 2),), True)
    assert state.complaints == ("2 of 8 H100 unhealthy",)
    gone = node_state(shown({GPU: "0"}, capacity={GPU: "8"}), NOTHING)
    assert (gone.capacity.gpus, gone.unhealthy) == (0, (("H100", 8),))


def test_a_node_is_whole_without_others_and_with_what_is_broken():
    mine = {GPU: "6", "cpu": "4", "memory": "8Gi", "nvidia.com/mig-1g.10gb": "2"}
    taken = Resources(cpu_milli=3_000, memory_bytes=1 << 30, gpus=5)
    devices = {"nvidia.com/mig-1g.10gb": 2}
    state = node_state(shown(mine, capacity={**mine, GPU: "8"}), taken, taken_devices=devices)
    assert (state.capacity.gpus, state.capacity.cpu_milli, state.shapes) == (1, 1_000, ())
    assert state.whole == Resources(cpu_milli=4_000, memory_bytes=8 << 30, gpus=8, gpu_model="H100")
    assert state.whole_shapes == (("1g.10gb", 2),)


@pytest.mark.parametrize(
    ("condition", "status"),
    [("AcceleratedHardwareReady", "False"), ("GPUMissing", "True"), ("XIDErrors", "True"), ("NVLinkStatusInactive", "True")],
)  # fmt: skip
def test_a_condition_against_its_gpus_takes_them_all_and_leaves_the_rest(condition, status):
    state = node_state(shown({GPU: "8", "cpu": "4"}, conditions={condition: status}), NOTHING)
    assert (state.capacity.gpus, state.capacity.cpu_milli, state.ready) == (0, 4_000, True)
    assert state.unhealthy == (("H100", 8),)
    assert f"{condition}: in words" in state.complaints


@pytest.mark.parametrize(
    ("condition", "status", "why"),
    [
        ("KernelDeadlock", "True", "KernelDeadlock: in words"),
        ("ReadonlyFilesystem", "True", "ReadonlyFilesystem: in words"),
        ("ContainerRuntimeReady", "False", "ContainerRuntimeReady: in words"),
        ("KernelDeadlock", "False", ""),
        ("KernelDeadlock", "Unknown", ""),
        ("NetworkingReady", "True", ""),
        ("FrequentKubeletRestart", "True", ""),
    ],
)
def test_conditions_with_which_nothing_runs_well_keep_a_node_out(condition, status, why):
    assert why_not(shown({}, conditions={condition: status})) == why


@pytest.mark.parametrize(
    ("condition", "status", "complains"),
    [
        ("FrequentKubeletRestart", "True", True),
        ("DiskPressure", "True", True),
        ("DiskPressure", "False", False),
        ("DiskPressure", "Unknown", False),
        ("EtcdIsVoter", "True", False),
        ("ThingReady", "False", True),
        ("ThingHealthy", "True", False),
    ],
)
def test_what_else_is_wrong_is_a_complaint_and_keeps_nobody_out(condition, status, complains):
    node = shown({}, conditions={condition: status})
    assert list(complaints(node)) == ([f"{condition}: in words"] if complains else [])
    assert node_state(node, NOTHING).ready


def test_a_node_that_complains_of_everything_at_length_is_cut_short():
    node = shown({}, conditions={f"Trouble{n}": "True" for n in range(200)}, words="x" * 10_000)
    told = list(complaints(node))
    assert len(told) == 10
    assert max(map(len, told)) < 500


names_of_amounts = st.sampled_from(
    ["cpu", "memory", GPU, "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-", "example.com/x", "/"]
)
figures = st.sampled_from(["-1", "0", "1", "8", "2.5", "9223372036854775808", "1e30", "NaN", "", "x"]) | st.integers()


@given(
    allocatable=st.dictionaries(names_of_amounts, figures),
    capacity=st.dictionaries(names_of_amounts, figures),
    taken=st.integers(0, 9),
    labels=st.dictionaries(
        st.sampled_from(["nvidia.com/gpu.replicas", "nvidia.com/gpu.product", "nvidia.com/mig.strategy"]),
        st.text(max_size=20) | st.sampled_from(["4", "-4", "A100-MIG-1g.5gb", "single"]),
    ),
)
def test_whatever_a_node_says_of_its_devices_no_figure_is_below_nothing_or_beyond_a_column(
    allocatable, capacity, taken, labels
):
    state = node_state(
        shown(allocatable, capacity=capacity, labels=labels),
        Resources(gpus=taken),
        taken_devices={"nvidia.com/mig-1g.10gb": taken},
    )
    counts = [state.capacity.gpus, *(count for _, count in (*state.shapes, *state.unhealthy))]
    assert all(0 <= count < 1 << 61 for count in counts)
    assert "." not in state.capacity.gpu_model


def test_what_can_be_given_is_never_more_than_there_is():
    node = shown({"cpu": "64", "memory": "64Gi", GPU: "16"}, capacity={"cpu": "4", "memory": "8Gi", GPU: "8"})
    state = node_state(node, NOTHING)
    assert state.capacity == Resources(cpu_milli=4_000, memory_bytes=8 << 30, gpus=8, gpu_model="H100")


def test_slices_of_a_pod_are_counted_like_all_it_asks_for():
    asked = {"nvidia.com/mig-1g.10gb": "1", GPU: "4", "cpu": "1"}
    spec = {
        "containers": [{"resources": {"limits": asked}}, {"resources": {"limits": asked}}],
        "initContainers": [{"resources": {"limits": {"nvidia.com/mig-1g.10gb": "5"}}}],
    }
    assert slices(msgspec.convert({"spec": spec}, Pod)) == (("nvidia.com/mig-1g.10gb", 5),)
    assert slices(msgspec.convert({"spec": {"containers": [{}]}}, Pod)) == ()


@pytest.mark.parametrize(
    ("resource", "shape"),
    [
        ("nvidia.com/mig-1g.10gb", "1g.10gb"),
        ("nvidia.com/mig-1g.10gb.me", "1g.10gb.me"),
        ("nvidia.com/mig-", ""),
        ("nvidia.com/mig-../..", ""),
        ("nvidia.com/gpu", ""),
        ("amd.com/gpu", "amd.com/gpu"),
        ("cpu", ""),
    ],
)
def test_only_what_is_the_name_of_a_shape_is_one(resource, shape):
    assert shape_name(resource) == shape


def test_other_devices_are_asked_for_and_given_by_the_name_of_their_resource():
    tainted = shown({"google.com/tpu": "4", "cpu": "8"}, capacity={"google.com/tpu": "4"}, taints=("google.com/tpu",))
    state = node_state(tainted, Resources(), taken_devices={"google.com/tpu": 1})
    assert (state.ready, state.shapes, state.capacity.gpus) == (True, (("google.com/tpu", 3),), 0)
    strange = node_state(shown({"google.com/tpu": "4"}, taints=("amd.com/gpu",)), Resources())
    assert (strange.ready, strange.problem) == (False, "tainted: amd.com/gpu")
    (device,) = devices(tainted)
    wanted = Resources(cpu_milli=1_000, memory_bytes=1 << 30, gpus=2, gpu_model="google.com/tpu")
    document = pods.pod(create("p-1-0", "n", script="true", resources=wanted), SETTINGS, device=device)
    main = document["spec"]["containers"][0]
    assert main["resources"]["limits"]["google.com/tpu"] == main["resources"]["requests"]["google.com/tpu"] == "2"
    assert "nvidia.com/gpu" not in main["resources"]["limits"]
    assert "google.com/tpu" in {one["key"] for one in document["spec"]["tolerations"]}


def test_what_is_claimed_is_no_resource_whose_taint_is_put_up_with():
    claimed = Devices(model="H100", resource="gpu.example.com/gpu.example.com/H100", has=1, gives=1, device_class="gpu")
    wanted = Resources(cpu_milli=1_000, memory_bytes=1 << 30, gpus=1, gpu_model="H100")
    document = pods.pod(create("p-1-0", "n", script="true", resources=wanted), SETTINGS, device=claimed)
    assert all(one["key"].count("/") == 1 for one in document["spec"]["tolerations"])
