"""What could never run is known from what waits, with the nearest that could; and nothing is refused that could."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide.explain import explain
from mainstay.decide.possible import Impossible, impossible
from mainstay.decide.schedule import schedule
from mainstay.domain.plan import Allocate
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.topology import TopologyNeed
from mainstay.domain.workload import Kind, WorkloadSpec
from tests.worlds import allocation, node, workload, world

GPU_NODE = {"cpus": 32, "gib": 128, "gpus": 4, "gpu_model": "H100"}


def asked(snapshot: Snapshot, *, queue: str = "default", fleet=None, **job) -> Impossible | None:
    return impossible(snapshot, spec=spec(**job), queue=queue, fleet=fleet)


def spec(*, cpus=1, gib=1, gpus=0, gpu_model="", **more) -> WorkloadSpec:
    resources = Resources(cpu_milli=cpus * 1000, memory_bytes=gib * BYTES_PER_GIB, gpus=gpus, gpu_model=gpu_model)
    return WorkloadSpec(kind=Kind.JOB, name="job", run=("true",), choices=(resources,), **more)


def test_more_gpus_than_any_node_has_are_spread_over_more_nodes():
    found = asked(world(nodes=[node(**GPU_NODE), node(**GPU_NODE)]), cpus=16, gib=64, gpus=8, gpu_model="H100")
    assert found is not None
    assert found.reason.code is Code.NEVER_FITS
    assert found.reason.sentence == (
        "cannot run on this fleet: needs 16 CPUs, 64 GiB, 8 x H100, the largest node has 32 CPUs, 128 GiB, 4 x H100"
    )
    assert found.nearest == ("2 nodes with 8 CPUs, 32 GiB, 4 x H100 each",)


A100S = [node(cpus=32, gib=128, gpus=4, gpu_model="A100") for _ in range(3)]
T4 = node(cpus=8, gib=32, gpus=2, gpu_model="T4", cluster="west")


@pytest.mark.parametrize(
    ("job", "words", "nearest"),
    [
        ({"gpus": 2}, "the fleet has any H100: it has 12 x A100, 2 x T4", ("gpu_model T4 instead of H100",)),
        (
            {"gpus": 8},
            "the fleet has any H100: it has 12 x A100, 2 x T4",
            ("2 nodes with 0.5 CPUs, 512 MiB, 4 x A100 each",),
        ),
        ({"gpus": 1, "cluster": "west"}, "cluster west has any H100: it has 2 x T4", ("gpu_model T4 instead of H100",)),
        ({"gpus": 13}, "the fleet has any H100: it has 12 x A100, 2 x T4", ("gpus 4 instead of 13, of any GPU model",)),
    ],
)
def test_of_a_gpu_that_the_fleet_has_not_it_is_told_which_it_has_and_the_nearest(job, words, nearest):
    found = asked(world(nodes=[*A100S, T4]), gpu_model="H100", **job)
    assert found is not None
    assert found.reason.code is Code.NEVER_FITS
    assert found.reason.sentence.endswith(f", but no node of {words}")
    assert found.nearest == nearest


def test_a_fleet_without_gpus_says_so_and_one_with_too_few_does_not():
    none = asked(world(nodes=[node(cpus=8)]), gpus=1)
    assert none is not None
    assert none.reason.sentence.endswith(", but no node of the fleet has any GPU")
    few = asked(world(nodes=A100S), gpus=5, gpu_model="A100")
    assert few is not None
    assert few.reason.sentence.endswith("the largest node has 32 CPUs, 128 GiB, 4 x A100")


def test_slices_that_no_gpu_is_cut_into_are_told_with_those_that_there_are():
    found = asked(world(nodes=[node(whole_shapes={"1g.10gb": 7})]), gpus=1, gpu_model="3g.40gb")
    assert found is not None
    assert found.reason.sentence.endswith(", but no node of the fleet has any 3g.40gb: it has 7 x 1g.10gb")


def test_where_spreading_does_not_help_the_smallest_single_change_is_named():
    found = asked(world(nodes=[node(cpus=8, gib=16)]), cpus=12, gib=4)
    assert found is not None
    assert found.nearest == ("cpus 8 instead of 12",)


def test_a_gang_that_is_larger_than_the_fleet_is_told_how_large_it_may_be():
    found = asked(world(nodes=[node(cpus=4), node(cpus=4)]), cpus=4, nodes=3)
    assert found is not None
    assert found.nearest[0] == "nodes 2 instead of 3"


def test_a_gang_that_no_rack_can_hold_together_is_told_what_could():
    racks = [node(cpus=4, topology={"block": "b1", "rack": rack}) for rack in ("r1", "r1", "r2", "r2")]
    near = TopologyNeed(level="rack", required=True)
    assert asked(world(nodes=racks), cpus=4, nodes=2, topology=near) is None
    assert asked(world(nodes=racks), cpus=4, nodes=4, topology=replace(near, required=False)) is None
    found = asked(world(nodes=racks), cpus=4, nodes=4, topology=near)
    assert found is not None
    assert "the roomiest, b1/r1, has room for 2" in found.reason.sentence
    assert found.nearest[:2] == ("topology block instead of rack", "nodes 2 instead of 4")


@pytest.mark.parametrize(
    "values",
    [
        {"ready": False},
        {"closed_at": 1, "drains": True},
        {"used_cpus": 16},
        {"others": {"pods": 0}},
        {"cpus": 2, "whole_cpus": 16},
    ],
)
def test_what_is_only_out_of_reach_now_is_possible(values):
    assert asked(world(nodes=[node(**{"cpus": 16, **values})]), cpus=16) is None


def test_gpus_that_others_use_or_that_are_broken_still_count():
    assert asked(world(nodes=[node(gpus=3, whole_gpus=8)]), gpus=8) is None
    assert asked(world(nodes=[node(whole_shapes={"1g.10gb": 7})]), gpus=1, gpu_model="1g.10gb") is None


def test_nobody_knows_what_a_fleet_without_nodes_will_have():
    assert asked(world(), cpus=1000) is None
    assert asked(world(nodes=[node(cluster="east")]), cpus=1000, cluster="west") is None
    assert asked(world(nodes=[node(cluster="east")]), cpus=1000, fleet=("east", "new")) is None


def test_the_nodes_of_a_cluster_that_has_left_the_fleet_do_not_count():
    nodes = [node(cluster="east", cpus=4), node(cluster="gone", cpus=64)]
    found = asked(world(nodes=nodes), cpus=32, fleet=("east",))
    assert found is not None
    assert found.reason.code is Code.NEVER_FITS
    assert asked(world(nodes=nodes), cpus=32) is None


def test_what_exceeds_all_that_its_queue_may_ever_use_is_refused_with_the_figures():
    def own(nominal: int, **limits) -> dict:
        return {("default", "gpu"): Quota(nominal=nominal, **limits)}

    queues = [
        QueueSpec(name="vision", parent="all", quotas=own(2, borrowing_limit=1)),
        QueueSpec(name="speech", parent="all", quotas=own(6)),
    ]
    running = [allocation(9, gpus=2)]
    snapshot = world(nodes=[node(gpus=8)], queues=queues, workloads=[workload(9, queue="vision")], allocations=running)
    assert asked(snapshot, queue="vision", gpus=3) is None
    found = asked(snapshot, queue="vision", gpus=4)
    assert found is not None
    assert found.reason.code is Code.EXCEEDS_QUOTA
    assert "may have 3 of gpu (default) at most: 2 are its own" in found.reason.sentence
    assert found.nearest == ("gpus 3 instead of 4",)
    assert asked(snapshot, queue="speech", gpus=8) is None


sizes = st.tuples(st.integers(1, 6), st.integers(0, 4), st.sampled_from(("", "A", "B")))


@settings(max_examples=40)
@given(
    nodes=st.lists(sizes, min_size=1, max_size=4),
    job=st.tuples(st.integers(1, 7), st.integers(0, 5), st.sampled_from(("", "A", "B")), st.integers(1, 5)),
    queue=st.sampled_from(("open", "bound")),
)
def test_only_what_an_empty_fleet_would_not_start_is_refused(nodes, job, queue):
    fleet = [node(cpus=cpus, gpus=gpus, gpu_model=model if gpus else "") for cpus, gpus, model in nodes]
    cpus, gpus, model, ranks = job
    queues = [QueueSpec(name="open"), QueueSpec(name="bound", quotas={("default", "cpu"): Quota(nominal=8_000)})]
    wish = {"cpus": cpus, "gpus": gpus, "gpu_model": model if gpus else "", "nodes": ranks}
    empty = world(nodes=fleet, workloads=[workload(1, queue=queue, **wish)], queues=queues)
    starts = any(isinstance(action, Allocate) for action in schedule(empty))
    assert (asked(empty, queue=queue, **wish) is None) == starts


def test_of_a_gang_of_which_every_pod_has_room_it_is_told_for_how_many_there_is():
    nodes = [node(cpus=8, gib=64) for _ in range(3)]
    found = explain(world(nodes=nodes, workloads=[workload(1, nodes=4, cpus=6)]), 1).reason
    assert found.code is Code.NEVER_FITS
    assert found.sentence.endswith("the largest node has 8 CPUs, 64 GiB, and all nodes have room for 3 of 4 such pods")
    apart = [node(cpus=8, gib=64, cluster=name) for name in ("east", "east", "west", "west")]
    found = explain(world(nodes=apart, workloads=[workload(1, nodes=4, cpus=6)]), 1).reason
    assert found.sentence.endswith("and no cluster has room for more than 2 of 4 such pods")


def test_memory_is_told_in_the_units_in_which_it_is_asked_for():
    asked = Resources(cpu_milli=1_000, memory_bytes=70 * 10**9)
    found = explain(world(nodes=[node(cpus=8, gib=64)], workloads=[workload(1, choices=(asked,))]), 1)
    assert "GiB" not in found.reason.sentence
    assert [(one.before, one.after) for one in found.alternatives] == [("70GB", "68GB")]
