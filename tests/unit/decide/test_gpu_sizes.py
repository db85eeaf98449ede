"""GPUs with enough memory, and parts of GPUs: which units will do, in which order, and what is told where none does."""

from __future__ import annotations

import numpy as np
import pytest

from mainstay.decide.explain import explain, preview
from mainstay.decide.placement.mix import mix_of
from mainstay.decide.possible import impossible
from mainstay.decide.preemption import preempt
from mainstay.decide.schedule import schedule
from mainstay.domain.billing import Price
from mainstay.domain.plan import Allocate
from mainstay.domain.preemption import PreemptionPolicy, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB, Money, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Kind, Phase, PodSet, WorkloadSpec
from tests.worlds import NOON, ANode, AWorkload, allocation, node, workload, world

GB = 10**9


def asks(*, gb: int = 0, part: int = 0, model: str = "", count: int = 1) -> Resources:
    return Resources(
        cpu_milli=1_000,
        memory_bytes=BYTES_PER_GIB,
        gpus=count,
        gpu_model=model,
        gpu_memory_bytes=gb * GB,
        gpu_part_permille=part,
    )


def wants(resources: Resources, key: int = 1, **values: object) -> AWorkload:
    return workload(key, choices=(resources,), **values)


def has(model: str, count: int, *, mib: int = 0, **values: object) -> ANode:
    labels = {"nvidia.com/gpu.memory": str(mib)} if mib else {}
    return node(gpus=count, gpu_model=model, labels=labels, **values)


def slices(shape: str, count: int, **labels: str) -> ANode:
    return node(shapes={shape: count}, labels={name.replace("__", "/"): text for name, text in labels.items()})


def shares(model: str, count: int, replicas: int) -> ANode:
    return node(shapes={f"{model}.shared": count}, labels={"nvidia.com/gpu.replicas": str(replicas)})


def places(snapshot: Snapshot) -> dict[int, tuple[int, str, int]]:
    """Of each its node, and how many of which devices it holds."""
    found = (one for one in schedule(snapshot) if isinstance(one, Allocate))
    return {
        one.workload_key: (one.slots[0].node_key, one.slots[0].resources.gpu_model, one.slots[0].resources.gpus)
        for one in found
    }


def test_only_gpus_with_enough_memory_will_do_whatever_their_model():
    nodes = [has("A100", 8, mib=40_536), has("A100", 8, mib=81_920), has("X1", 8), has("H100", 8)]
    jobs = [wants(asks(gb=80, count=8), key, submitted_at=NOON + key) for key in (1, 2, 3)]
    found = places(world(nodes=nodes, workloads=jobs))
    assert sorted(found.values()) == [(2, "A100", 8), (4, "H100", 8)]


def test_the_memory_goes_with_a_model_and_with_other_shapes_in_one_cycle():
    nodes = [has("A100", 4, mib=40_536), has("A100", 4, mib=81_920)]
    jobs = [
        wants(asks(gb=80, model="A100"), 1),
        wants(asks(gb=40, model="A100", count=4), 2, priority=-1),
        workload(3, gpus=2, gpu_model="A100", priority=-2),
        wants(asks(gb=80, model="H100"), 4),
    ]
    found = places(world(nodes=nodes, workloads=jobs))
    assert found == {1: (2, "A100", 1), 2: (1, "A100", 4), 3: (2, "A100", 2)}


def test_a_gang_lies_on_gpus_of_the_size_alone():
    nodes = [has("A100", 4, mib=40_536), has("A100", 4, mib=81_920), has("A100", 4, mib=81_920)]
    (action,) = schedule(world(nodes=nodes, workloads=[wants(asks(gb=80, count=4), nodes=2)]))
    assert isinstance(action, Allocate)
    assert sorted(slot.node_key for slot in action.slots) == [2, 3]


def test_what_has_another_size_in_mind_is_another_shape():
    nodes = [has("A100", 1, mib=40_536), has("A100", 1, mib=81_920)]
    jobs = [wants(asks(gb=80), 1), wants(asks(gb=200), 2), wants(asks(gb=40), 3, priority=-1)]
    assert places(world(nodes=nodes, workloads=jobs)) == {1: (2, "A100", 1), 3: (1, "A100", 1)}


def test_slices_have_the_memory_in_their_name():
    nodes = [slices("1g.10gb", 7)]
    jobs = [wants(asks(gb=10, model="1g.10gb", count=2), 1), wants(asks(gb=11, model="1g.10gb"), 2)]
    assert places(world(nodes=nodes, workloads=jobs)) == {1: (1, "1g.10gb", 2)}


def spec(resources: Resources) -> WorkloadSpec:
    return WorkloadSpec(kind=Kind.JOB, name="job", run=("true",), choices=(resources,))


def test_more_memory_than_any_gpu_has_is_refused_with_the_nearest_size():
    snapshot = world(nodes=[has("A100", 4, mib=40_536), has("T4", 8)])
    found = impossible(snapshot, spec=spec(asks(gb=80)), queue="default")
    assert found is not None
    assert found.reason.code is Code.NEVER_FITS
    assert found.reason.sentence.endswith("but no GPU is known to have 80 GB: the largest are A100 with 42.5 GB")
    assert found.nearest == ("gpu_memory 42GB instead of 80GB",)
    assert impossible(snapshot, spec=spec(asks(gb=40)), queue="default") is None


BOOK = tuple(
    Price(sku=f"gpu/{model}", per_hour=Money(micros=micros), effective_from=0)
    for model, micros in (("H100", 7_000_000), ("A100", 3_000_000), ("L40S", 1_000_000))
)


def test_of_models_with_enough_memory_the_one_of_the_least_expected_cost_is_taken():
    nodes = [has("H100", 1, mib=81_559), has("A100", 1, mib=40_536), has("L40S", 1, mib=46_068), has("T4", 1)]
    jobs = [wants(asks(gb=40), key=key, submitted_at=NOON + key) for key in (1, 2, 3, 4)]
    found = places(world(nodes=nodes, workloads=jobs, prices=BOOK))
    assert {key: model for key, (_, model, _) in found.items()} == {1: "L40S", 2: "A100", 3: "H100"}
    fast = wants(asks(gb=40), typical_on={"H100:1": 600, "L40S:1": 6_000, "A100:1": 6_000})
    assert places(world(nodes=nodes, workloads=[fast], prices=BOOK))[1][1] == "H100"


def test_a_gang_for_which_no_model_has_enough_memory_on_its_own_lies_on_several():
    nodes = [has("H100", 1, mib=81_559), has("A100", 1, mib=40_536), has("T4", 1)]
    gang = wants(asks(gb=40), nodes=2)
    (found,) = schedule(world(nodes=nodes, workloads=[gang], prices=BOOK))
    assert isinstance(found, Allocate)
    assert {slot.resources.gpu_model for slot in found.slots} == {"H100", "A100"}
    same = [*nodes, has("A100", 1, mib=40_536)]
    (found,) = schedule(world(nodes=same, workloads=[gang], prices=BOOK))
    assert isinstance(found, Allocate)
    assert {slot.resources.gpu_model for slot in found.slots} == {"A100"}


def test_what_waits_for_a_large_gpu_is_told_so_and_which_size_would_start_now():
    snapshot = world(
        nodes=[has("A100", 1, mib=81_920, used_gpus=1), has("A100", 1, mib=40_536)], workloads=[wants(asks(gb=80))]
    )
    found = explain(snapshot, 1)
    assert found.reason.code is Code.WAITS_FOR_CAPACITY
    assert "1 x GPU of 80 GB" in found.reason.sentence
    assert [(one.change, one.after) for one in found.alternatives] == [("gpu_memory", "42GB")]


def test_of_pod_sets_each_has_gpus_of_its_size():
    sets = (
        PodSet(name="small", nodes=1, resources=asks(gb=30)),
        PodSet(name="large", nodes=1, resources=asks(gb=80)),
    )
    nodes = [has("A100", 1, mib=40_536), has("A100", 1, mib=81_920)]
    (action,) = schedule(world(nodes=nodes, workloads=[workload(1, nodes=2, sets=sets)]))
    assert isinstance(action, Allocate)
    assert [slot.node_key for slot in action.slots] == [1, 2]


LOWER = [QueueSpec(name="a", preemption=PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY))]


def test_whoever_holds_gpus_of_another_size_does_not_yield():
    snapshot = world(
        nodes=[has("A100", 1, mib=40_536), has("A100", 1, mib=81_920)],
        workloads=[
            *(workload(key, queue="a", phase=Phase.RUNNING, gpus=1) for key in (1, 2)),
            wants(asks(gb=80), 9, queue="a", phase=Phase.QUEUED, priority=50),
        ],
        allocations=[allocation(key, node_key=key, gpus=1, gpu_model="A100") for key in (1, 2)],
        queues=LOWER,
    )
    (action,) = preempt(snapshot)
    assert [one.workload_key for one in action.victims] == [2]


# Parts of GPUs


def test_a_part_is_the_smallest_unit_that_is_enough():
    nodes = [slices("1g.10gb", 7), slices("3g.40gb", 2), shares("T4", 8, 2), has("H100", 8)]
    jobs = [wants(asks(part=part), key) for key, part in ((1, 100), (2, 142), (3, 400), (4, 500))]
    assert places(world(nodes=nodes, workloads=jobs)) == {
        1: (1, "1g.10gb", 1),
        2: (1, "1g.10gb", 1),
        3: (2, "3g.40gb", 1),
        4: (3, "T4.shared", 1),
    }


def test_where_prices_differ_the_cheapest_that_is_enough_is_taken():
    prices = tuple(
        Price(sku=sku, per_hour=Money(micros=micros), effective_from=0)
        for sku, micros in (("gpu/3g.40gb", 3_000_000), ("gpu/T4.shared", 200_000))
    )
    snapshot = world(nodes=[slices("3g.40gb", 2), shares("T4", 8, 2)], workloads=[wants(asks(part=400))], prices=prices)
    assert places(snapshot) == {1: (2, "T4.shared", 1)}
    found = preview(snapshot, spec=spec(asks(part=400)), priority=0)
    assert (found.resources.gpu_model, found.price_per_hour.micros) == ("T4.shared", 200_000)
    assert found.reason.sentence.endswith("1 x T4.shared (0.20 USD an hour), the least expected cost of 2")


def test_a_whole_gpu_is_given_only_where_the_fleet_has_no_part_that_is_enough():
    jobs = [wants(asks(part=500), key, submitted_at=NOON + key) for key in (1, 2)]
    full = world(nodes=[shares("T4", 1, 2), has("H100", 8)], workloads=jobs)
    assert places(full) == {1: (1, "T4.shared", 1)}
    found = explain(full, 2)
    assert found.reason.code is Code.WAITS_BEHIND
    alone = world(nodes=[slices("1g.10gb", 7), has("H100", 8)], workloads=jobs[:1])
    assert places(alone) == {1: (2, "H100", 1)}
    assert explain(alone, 1).reason.sentence == (
        "placed on node-2: 1 x H100 (0.00 USD an hour), as no smaller part of a GPU would do"
    )


def test_of_whole_gpus_in_place_of_a_part_it_is_the_cheapest():
    prices = tuple(
        Price(sku=sku, per_hour=Money(micros=micros), effective_from=0)
        for sku, micros in (("gpu/H100", 7_000_000), ("gpu/T4", 400_000))
    )
    snapshot = world(nodes=[has("H100", 8), has("T4", 1)], workloads=[wants(asks(part=500))], prices=prices)
    assert explain(snapshot, 1).reason.sentence == (
        "placed on node-2: 1 x T4 (0.40 USD an hour), the least expected cost of 2, as no smaller part of a GPU would do"
    )


def test_a_whole_gpu_in_place_of_a_part_may_be_one_without_a_model():
    jobs = [wants(asks(part=500), key, submitted_at=NOON + key) for key in (1, 2, 3)]
    assert places(world(nodes=[node(gpus=1), has("H100", 1)], workloads=jobs)) == {1: (1, "", 1), 2: (2, "H100", 1)}
    assert places(world(nodes=[node(gpus=2)], workloads=jobs)) == {1: (1, "", 1), 2: (1, "", 1)}


def test_how_large_a_share_is_says_each_node():
    nodes = [shares("T4", 8, 4), shares("T4", 2, 2)]
    jobs = [wants(asks(part=500), key, submitted_at=NOON + key) for key in (1, 2, 3)]
    assert places(world(nodes=nodes, workloads=jobs)) == {1: (2, "T4.shared", 1), 2: (2, "T4.shared", 1)}


def test_a_share_of_which_nobody_says_how_large_it_is_is_none():
    nodes = [node(shapes={"T4.shared": 8}), has("T4", 1)]
    assert places(world(nodes=nodes, workloads=[wants(asks(part=500))])) == {1: (2, "T4", 1)}


def test_a_part_of_a_model_is_one_of_its_cards():
    nodes = [
        shares("L4", 8, 2),
        slices("3g.20gb", 2, **{"nvidia.com__gpu.product": "NVIDIA-A100-SXM4-40GB"}),
        shares("T4", 8, 2),
    ]
    jobs = [wants(asks(part=400, model=model), key) for key, model in ((1, "T4"), (2, "A100"), (3, "L4"), (4, "H100"))]
    assert places(world(nodes=nodes, workloads=jobs)) == {
        1: (3, "T4.shared", 1),
        2: (2, "3g.20gb", 1),
        3: (1, "L4.shared", 1),
    }


def test_a_part_with_memory_has_both():
    nodes = [slices("4g.20gb", 1), slices("4g.40gb", 1)]
    assert places(world(nodes=nodes, workloads=[wants(asks(part=500, gb=40))])) == {1: (2, "4g.40gb", 1)}


def test_a_part_counts_against_the_quota_of_its_shape():
    quotas = {("3g.40gb", "gpu"): Quota(nominal=1), ("default", "gpu"): Quota(nominal=0)}
    jobs = [wants(asks(part=400), key, queue="a", submitted_at=NOON + key) for key in (1, 2)]
    queues = [QueueSpec(name="a", quotas=quotas)]
    assert places(world(nodes=[slices("3g.40gb", 4)], workloads=jobs, queues=queues)) == {1: (1, "3g.40gb", 1)}


def test_a_part_larger_than_any_is_refused_with_the_largest_there_is():
    found = impossible(world(nodes=[slices("1g.10gb", 7)]), spec=spec(asks(part=500)), queue="default")
    assert found is not None
    assert "0.5 x GPU" in found.reason.sentence
    assert "it has 7 x 1g.10gb" in found.reason.sentence
    assert found.nearest == ("gpus 0.142 instead of 0.5",)


def test_of_equal_choices_a_part_is_one_beside_whole_gpus():
    prices = tuple(
        Price(sku=sku, per_hour=Money(micros=micros), effective_from=0)
        for sku, micros in (("gpu/T4", 400_000), ("gpu/3g.40gb", 3_000_000))
    )
    work = workload(1, choices=(asks(part=400), asks(model="T4")), equals=2)
    assert places(world(nodes=[slices("3g.40gb", 4), has("T4", 1)], workloads=[work], prices=prices)) == {
        1: (2, "T4", 1)
    }


def test_of_pod_sets_each_may_have_a_part():
    sets = (
        PodSet(name="actor", nodes=2, resources=asks(part=500)),
        PodSet(name="learner", nodes=1, resources=asks(model="H100")),
    )
    nodes = [shares("T4", 2, 2), has("H100", 1)]
    (action,) = schedule(world(nodes=nodes, workloads=[workload(1, nodes=3, sets=sets)]))
    assert isinstance(action, Allocate)
    assert [slot.resources.gpu_model for slot in action.slots] == ["T4.shared", "T4.shared", "H100"]


def test_many_that_ask_for_sizes_and_parts_are_placed_by_the_loop_as_by_numpy_alone():
    """Those that want a topology take the other path: it must find the same nodes for one pod."""
    random = np.random.default_rng(7)
    nodes = [
        has("A100", 4, mib=int(random.choice([40_536, 81_920])), topology={"rack": "r1"}, cpus=64) for _ in range(40)
    ]
    jobs = [
        wants(asks(gb=int(random.choice([20, 40, 80])), count=int(random.integers(1, 4))), key, submitted_at=NOON + key)
        for key in range(1, 60)
    ]
    found = places(world(nodes=nodes, workloads=jobs))
    sizes = {at: int(one.labels["nvidia.com/gpu.memory"]) for at, one in enumerate(nodes, 1)}
    asked = {job.key: job.choices[0].gpu_memory_bytes for job in jobs}
    assert found
    assert all(sizes[where] << 20 >= asked[key] * 15 // 16 for key, (where, _, _) in found.items())
    left = {at: 4 - sum(count for where, _, count in found.values() if where == at) for at in sizes}
    assert min(left.values()) >= 0
    for job in jobs:
        if job.key not in found:
            room = [
                at for at in sizes if sizes[at] << 20 >= asked[job.key] * 15 // 16 and left[at] >= job.choices[0].gpus
            ]
            assert not room


@pytest.mark.parametrize("resources", [asks(gb=10), asks(part=500)])
def test_without_any_gpu_it_is_refused(resources):
    found = impossible(world(nodes=[node()]), spec=spec(resources), queue="default")
    assert found is not None
    assert found.reason.code is Code.NEVER_FITS


def test_who_asks_for_a_part_is_none_of_those_who_usually_ask_for_whole_gpus():
    sets = (PodSet(name="a", nodes=1, resources=asks(part=500)), PodSet(name="b", nodes=2, resources=asks()))
    snapshot = world(
        nodes=[has("T4", 8), shares("T4", 8, 2)],
        workloads=[wants(asks(part=500), 1), wants(asks(gb=16), 2), workload(3, nodes=3, sets=sets)],
    )
    assert sum(mix_of(snapshot).counts.values()) == 3
