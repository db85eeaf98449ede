"""Whole GPUs go where those who usually ask for GPUs lose least; of everything else nothing changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide.placement import usual
from mainstay.decide.placement.fragmentation import Fragmentation, NodeCards
from mainstay.decide.placement.mix import CardRequest, Mix
from mainstay.decide.schedule import schedule
from mainstay.domain.plan import Allocate
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.unit.decide.test_kernel import a_world, plan
from tests.worlds import allocation, node, workload, world

MODELS = 3
CARDS = 4
CPUS = st.sampled_from([0, 1_000, 2_500, 4_000, 16_000])
REQUESTS = st.builds(
    CardRequest,
    cpu_milli=CPUS,
    gpus=st.integers(1, CARDS),
    gpu_milli=st.just(1_000),
    models=st.sampled_from([(), (0,), (2,), (0, 1)]),
)
MIXES = st.dictionaries(REQUESTS, st.integers(1, 9), min_size=1, max_size=6).map(lambda counts: Mix(counts=counts))
NODES = st.lists(st.tuples(st.integers(0, CARDS), CPUS, st.integers(0, MODELS - 1)), min_size=1, max_size=6)


def places(snapshot: Snapshot, policy: str = "least-waste") -> dict[int, list[int]]:
    return {
        action.workload_key: [slot.node_key for slot in action.slots]
        for action in schedule(snapshot, policy=policy)
        if isinstance(action, Allocate)
    }


@given(NODES, MIXES, REQUESTS)
def test_the_table_says_what_fragmentation_says(nodes, mix, request):
    idle, cpus, model = (np.array(column, dtype=np.int64) for column in zip(*nodes, strict=True))
    cards = NodeCards(gpu_milli=1_000 * (np.arange(CARDS) < idle[:, np.newaxis]), cpu_milli=cpus, model=model)
    table = usual.table_of(mix, models=MODELS, gpus_max=CARDS, scarcity=np.zeros(MODELS))
    options = Fragmentation(cards, mix).options(request, np.arange(idle.size))
    rows = np.flatnonzero((idle >= request.gpus) & (cpus >= request.cpu_milli))
    growth = dict(zip(options.row.tolist(), (options.growth * 1_000 * mix.total).round().tolist(), strict=True))
    before = usual.wasted(table, model[rows], idle[rows], cpus[rows])
    after = usual.wasted(table, model[rows], idle[rows] - request.gpus, cpus[rows] - request.cpu_milli)
    assert (after - before).tolist() == [growth[row] for row in rows.tolist()]


def scarce(waiting: int) -> Snapshot:
    """Few H100, which so many ask for by name, and L4 that nobody does. The node with the H100 is the fuller one."""
    return world(
        nodes=[
            node(cpus=16, gpus=2, gpu_model="H100", used_cpus=8, used_gib=32),
            node(cpus=16, gpus=8, gpu_model="L4"),
        ],
        workloads=[
            workload(1, gpus=1, priority=90),
            *(workload(key, gpus=1, gpu_model="H100") for key in range(2, 2 + waiting)),
        ],
    )


def test_who_may_run_on_any_gpu_leaves_those_alone_that_others_need():
    assert places(scarce(9))[1] == [2]
    assert places(scarce(9), "best-fit")[1] == [1]


def test_where_nobody_needs_them_the_fuller_node_is_taken():
    assert places(scarce(0))[1] == [1]


def test_one_gpu_does_not_break_what_wide_requests_need():
    """Best fit takes the node with fewer cores left, and with it the last place for four."""
    nodes = [node(cpus=8, gib=32, gpus=4, gpu_model="L4"), node(cpus=64, gib=512, gpus=8, gpu_model="L4", used_cpus=1)]
    running = [workload(key, gpus=4, phase=Phase.RUNNING) for key in range(10, 19)]
    held = [allocation(10, node_key=2, gpus=5, gpu_model="L4")]
    snapshot = world(nodes=nodes, workloads=[workload(1, gpus=1), *running], allocations=held)
    assert places(snapshot)[1] == [2]
    assert places(snapshot, "best-fit")[1] == [1]


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_without_whole_gpus_all_is_as_by_best_fit(seed):
    snapshot = a_world(seed, nodes=40, jobs=30)
    table = snapshot.workloads
    no_gpus = replace(snapshot, workloads=replace(table, gpus=np.zeros_like(table.gpus), choices={}))
    assert plan(no_gpus, "least-waste") == plan(no_gpus, "best-fit")


def test_a_fleet_without_gpus_makes_no_table():
    assert usual.usual_of(world(nodes=[node()], workloads=[workload(1, gpus=1)])) is usual.NOBODY
    assert usual.usual_of(world(nodes=[node(gpus=1)], workloads=[workload(1)])) is usual.NOBODY


def test_only_the_most_frequent_requests_are_heeded():
    many = [workload(key, gpus=1, cpus=key) for key in range(1, 3 * usual.REQUESTS_MAX)]
    table = usual.usual_of(world(nodes=[node(gpus=1)], workloads=many))
    assert table.cpus.size == usual.REQUESTS_MAX
