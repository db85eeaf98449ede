"""Work without GPUs leaves, on nodes with idle GPUs, what GPU work that waits needs beside them."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide.cycle import Cycle
from mainstay.decide.explain import explain, preview
from mainstay.decide.placement import POLICIES
from mainstay.decide.preemption import preempt
from mainstay.decide.schedule import schedule
from mainstay.domain.plan import Advance, Allocate
from mainstay.domain.preemption import PreemptionPolicy, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Kind, Phase, PodSet, WorkloadSpec
from tests.unit.decide.test_kernel import a_world
from tests.worlds import NOON, SECOND, allocation, node, workload, world

MIXED = node(cpus=16, gib=64, gpus=4, gpu_model="L4")


def placed(snapshot: Snapshot, policy: str = "least-waste") -> dict[int, list[int]]:
    return {
        action.workload_key: [slot.node_key for slot in action.slots]
        for action in schedule(snapshot, policy=policy)
        if isinstance(action, Allocate)
    }


def told(snapshot: Snapshot) -> dict[int, Code]:
    return {one.workload_key: one.reason.code for one in schedule(snapshot) if isinstance(one, Advance)}


@pytest.mark.parametrize("policy", POLICIES)
def test_what_gpu_work_later_in_the_cycle_needs_is_left(policy):
    """Four CPUs for each of four GPUs: the work without takes none of the 16 cores, though its turn is first."""
    trainer = [workload(key, gpus=1, cpus=4, submitted_at=NOON + SECOND) for key in (2, 3, 4, 5)]
    snapshot = world(nodes=[MIXED], workloads=[workload(1, cpus=1), *trainer])
    assert placed(snapshot, policy) == {2: [1], 3: [1], 4: [1], 5: [1]}


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_over_it_may_use(policy):
    trainer = [workload(key, gpus=1, cpus=3, submitted_at=NOON + SECOND) for key in (3, 4, 5, 6)]
    snapshot = world(nodes=[MIXED], workloads=[workload(1, cpus=4), workload(2, cpus=1), *trainer])
    assert placed(snapshot, policy) == {1: [1], 3: [1], 4: [1], 5: [1], 6: [1]}


@pytest.mark.parametrize("policy", POLICIES)
def test_where_no_gpu_work_waits_it_may_use_all(policy):
    assert placed(world(nodes=[MIXED], workloads=[workload(1, cpus=16)]), policy) == {1: [1]}
    running = workload(2, gpus=1, cpus=4, phase=Phase.RUNNING)
    held = [allocation(2, gpus=1, cpus=4, gpu_model="L4")]
    assert placed(world(nodes=[MIXED], workloads=[workload(1, cpus=12), running], allocations=held), policy) == {1: [1]}


def test_busy_gpus_need_nothing_left():
    held = [allocation(2, gpus=4, cpus=4, gpu_model="L4")]
    busy = workload(2, gpus=4, cpus=4, phase=Phase.RUNNING)
    snapshot = world(
        nodes=[MIXED], workloads=[workload(1, cpus=12), busy, workload(3, gpus=1, cpus=4)], allocations=held
    )
    assert placed(snapshot) == {1: [1]}


def test_nodes_without_gpus_go_first_and_are_never_kept():
    snapshot = world(nodes=[MIXED, node(cpus=4)], workloads=[workload(1, cpus=4), workload(2, cpus=4), waits()])
    assert placed(snapshot) == {1: [2], 9: [1]}


def test_once_a_gpu_is_taken_what_was_left_for_it_is_there_for_the_next_at_once():
    """Also where nothing was found before: the second of equal requests looks again."""
    nodes = [node(cpus=7, gpus=1, gpu_model="L4"), *(node(ready=False) for _ in range(31)), node(cpus=2)]
    jobs = [
        workload(1, cpus=2),
        workload(2, cpus=1, gpus=1, submitted_at=NOON + 1),
        workload(3, cpus=2, submitted_at=NOON + 2),
        workload(4, cpus=6, gpus=1, submitted_at=NOON + 3),
    ]
    assert placed(world(nodes=nodes, workloads=jobs)) == {1: [33], 2: [1], 3: [1]}


def waits(**more) -> object:
    """GPU work that no node has room for now: two of the four GPUs of a node are broken for it, so to say."""
    return workload(9, **{"gpus": 4, "cpus": 16, "submitted_at": NOON + SECOND, **more})


def test_work_that_finds_no_place_yet_is_heeded_by_its_share_of_the_idle_gpus():
    """Two of four GPUs are taken: for the two that are idle, half of its 16 cores are kept."""
    held = [allocation(2, gpus=2, cpus=2, gpu_model="L4")]
    half = workload(2, gpus=2, cpus=2, phase=Phase.RUNNING)
    for cpus, found in ((6, {1: [1]}), (7, {})):
        snapshot = world(nodes=[MIXED], workloads=[workload(1, cpus=cpus), half, waits()], allocations=held)
        assert placed(snapshot) == found


@pytest.mark.parametrize(
    "other",
    [
        {"gpu_model": "H100"},
        {"cluster": "west"},
        {"cpus": 17},
        {"held": True},
        {"restriction": "guest"},
        {"queue": "poor"},
        {"not_before": NOON + SECOND},
    ],
)
def test_gpu_work_that_cannot_come_here_is_not_heeded(other):
    nodes = [MIXED, node(cluster="west", ready=False), node(gpus=1, gpu_model="H100", ready=False)]
    queues = [QueueSpec(name="poor", quotas={("default", "gpu"): Quota(nominal=3)})]
    snapshot = world(nodes=nodes, workloads=[workload(1, cpus=16), waits(**other)], queues=queues)
    assert placed(snapshot) == {1: [1]}
    assert placed(world(nodes=nodes, workloads=[workload(1, cpus=16), waits()], queues=queues)) == {9: [1]}


def test_memory_and_places_for_pods_are_left_as_well():
    few = node(cpus=16, gib=64, gpus=2, gpu_model="L4", others={"pods": 3, "disk": 10})
    trainer = [workload(key, gpus=1, cpus=1, gib=20, others={"disk": 4}, submitted_at=NOON + SECOND) for key in (2, 3)]
    for asked, fits in (({"gib": 24}, True), ({"gib": 25}, False), ({"others": {"disk": 3}}, False), ({}, True)):
        snapshot = world(nodes=[few], workloads=[workload(1, **asked), *trainer])
        assert (1 in placed(snapshot)) is fits
        assert {2, 3} <= placed(snapshot).keys()
    two = [workload(1), workload(4, submitted_at=NOON + 1)]
    assert placed(world(nodes=[few], workloads=[*two, *trainer])).keys() == {1, 2, 3}


def test_slices_count_as_gpus():
    sliced = node(cpus=8, shapes={"1g.10gb": 2})
    slices = [workload(key, gpus=1, gpu_model="1g.10gb", cpus=4, submitted_at=NOON + SECOND) for key in (2, 3)]
    assert placed(world(nodes=[sliced], workloads=[workload(1), *slices])).keys() == {2, 3}


def test_every_choice_and_every_pod_set_with_gpus_is_heeded():
    either = (
        Resources(cpu_milli=16_000, memory_bytes=1, gpus=4, gpu_model="L4"),
        Resources(cpu_milli=1_000, memory_bytes=1),
    )
    chooses = workload(9, cpus=16, gpus=4, choices=either, submitted_at=NOON + SECOND)
    assert placed(world(nodes=[MIXED], workloads=[workload(1), chooses])) == {9: [1]}
    poor = replace(chooses, queue="poor")
    queues = [QueueSpec(name="poor", quotas={("default", "gpu"): Quota(nominal=3)})]
    assert placed(world(nodes=[MIXED], workloads=[workload(1, cpus=15), poor], queues=queues)) == {1: [1], 9: [1]}
    head = PodSet(name="head", nodes=1, resources=Resources(cpu_milli=1_000, memory_bytes=1))
    worker = PodSet(name="worker", nodes=2, resources=Resources(cpu_milli=7_000, memory_bytes=1, gpus=2))
    gang = workload(9, nodes=3, cpus=1, sets=(head, worker), submitted_at=NOON + SECOND)
    assert placed(world(nodes=[MIXED], workloads=[workload(1, cpus=3), gang])) == {9: [1, 1, 1]}


def test_pods_without_gpus_of_a_gang_that_has_some_are_gpu_work():
    head = PodSet(name="head", nodes=1, resources=Resources(cpu_milli=4_000, memory_bytes=1))
    worker = PodSet(name="worker", nodes=1, resources=Resources(cpu_milli=4_000, memory_bytes=1, gpus=1))
    gang = workload(1, nodes=2, cpus=4, sets=(head, worker))
    assert placed(world(nodes=[MIXED], workloads=[gang, waits(cpus=16)])) == {1: [1, 1]}


def test_it_is_told_why_it_waits_and_what_would_start_it():
    held = [allocation(2, gpus=2, cpus=2, gpu_model="L4")]
    half = workload(2, gpus=2, cpus=2, phase=Phase.RUNNING)
    snapshot = world(nodes=[MIXED], workloads=[workload(1, cpus=7), half, waits()], allocations=held)
    assert told(snapshot)[1] is Code.KEPT_FOR_GPUS
    found = explain(snapshot, 1)
    assert found.reason.sentence.startswith(
        "waits for capacity: what is free for 7 CPUs, 1 GiB is on nodes with idle GPUs"
    )
    assert [(one.change, one.after) for one in found.alternatives] == [("cpus", "6")]
    assert found.holding is not None
    assert (
        found.holding.sentence == "it is kept for GPU work that may run there: queue default waits for 4 GPUs in 1 run"
    )
    assert placed(replace_cpus(snapshot, 6)) == {1: [1]}


def test_for_whom_it_is_kept_names_queues_of_work_that_could_run_there_and_nobody_else():
    held = [allocation(2, gpus=2, cpus=2, gpu_model="L4")]
    half = workload(2, gpus=2, cpus=2, phase=Phase.RUNNING)
    elsewhere = workload(5, gpus=1, gpu_model="H100", queue="b", priority=1)
    snapshot = world(
        nodes=[MIXED],
        workloads=[workload(1, cpus=7, queue="b"), half, waits(queue="a"), elsewhere],
        allocations=held,
        queues=[QueueSpec(name="a"), QueueSpec(name="b")],
    )
    found = explain(snapshot, 1).holding
    assert found is not None
    assert [(one.queue, one.amount, one.runs) for one in found.holders] == [("a", 4, 1)]


def replace_cpus(snapshot: Snapshot, cpus: int) -> Snapshot:
    table = snapshot.workloads
    return replace(
        snapshot, workloads=replace(table, cpu_milli=np.where(table.key == 1, cpus * 1_000, table.cpu_milli))
    )


def test_no_start_is_reserved_where_something_may_be_kept():
    """What ends soon would make room for it, but beside idle GPUs; so that start is never reached."""
    held = [allocation(2, gpus=2, cpus=2, gpu_model="L4", started_at=NOON)]
    half = workload(2, gpus=2, cpus=2, phase=Phase.RUNNING, max_duration_seconds=600, started_at=NOON)
    old = workload(1, cpus=8, submitted_at=NOON - 3_600 * SECOND)
    snapshot = world(nodes=[MIXED], workloads=[old, half, waits()], allocations=held)
    cycle = Cycle(snapshot, POLICIES["least-waste"])
    assert list(cycle.placements()) == []
    assert 0 not in cycle.reserved
    assert told(snapshot)[1] is Code.KEPT_FOR_GPUS


def test_who_may_displace_others_does_so_on_nodes_without_gpus():
    """It has no place by the rules of a cycle, though there is room beside the idle GPUs."""
    policy = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)
    queues = [QueueSpec(name="q", preemption=policy)]
    mild = workload(2, queue="q", cpus=4, phase=Phase.RUNNING, started_at=NOON - 3_600 * SECOND)
    held = [allocation(2, cpus=4, node_key=2, started_at=NOON - 3_600 * SECOND)]
    urgent = workload(1, queue="q", cpus=4, priority=50, phase=Phase.QUEUED)
    stays = waits(cpus=16, phase=Phase.QUEUED)
    taken = [allocation(3, gpus=1, cpus=1, gpu_model="L4")]
    runs = workload(3, gpus=1, cpus=1, phase=Phase.RUNNING, priority=90)
    snapshot = world(
        nodes=[MIXED, node(cpus=4)], workloads=[urgent, mild, runs, stays], allocations=[*held, *taken], queues=queues
    )
    assert placed(snapshot) == {}
    (found,) = preempt(snapshot)
    assert (found.workload_key, [one.workload_key for one in found.victims]) == (1, [2])
    assert [slot.node_key for slot in found.slots] == [2]


def takes_gpus_from_nobody(snapshot: Snapshot, policy: str) -> None:
    """Of each GPU workload that waits after the cycle and has quota: it fits beside what started without GPUs where it would fit
    without it.
    """
    cycle = Cycle(snapshot, POLICIES[policy])
    table, began = snapshot.workloads, []
    for one in cycle.placements():
        for row, nodes in zip(one.rows.tolist(), one.nodes.tolist(), strict=True):
            if not any(part.request.gpus for part in one.parts):
                began.append((row, nodes, one.parts[0].request))
    without = cycle.free.copy()
    for _, nodes, request in began:
        for at in nodes:
            without.give_back(at, request)
    for row, number in zip(cycle.order.tolist(), cycle.numbers.tolist(), strict=True):
        shape = cycle.shape(row, number)
        if cycle.started[row] or not shape.requests[0].gpus or shape.sets:
            continue
        queue = int(table.queue[row])
        cycle.free, beside = without, cycle.free
        before = cycle.place(shape, queue, delays=True)
        cycle.free = beside
        assert before is None or cycle.place(shape, queue, delays=True) is not None, (row, before)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_no_work_without_gpus_keeps_gpu_work_from_its_place(policy, seed):
    takes_gpus_from_nobody(crowded(seed), policy)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_nor_on_fleets_of_any_sort(seed):
    takes_gpus_from_nobody(a_world(seed, nodes=40, jobs=40), "least-waste")


def crowded(seed: int) -> Snapshot:
    """Nodes that are short of cores beside their GPUs, and more work than fits, with GPUs and without, in any order."""
    rng = random.Random(seed)
    nodes = [
        node(
            cpus=rng.choice((4, 8, 16)),
            gib=rng.choice((8, 32)),
            gpus=(gpus := rng.choice((0, 2, 4))),
            gpu_model=rng.choice(("L4", "H100")) if gpus else "",
            used_gpus=rng.randint(0, gpus),
            cluster=rng.choice(("east", "west")),
            others={"pods": rng.choice((3, 20))},
        )
        for _ in range(rng.randint(1, 6))
    ]
    limits = {("default", "gpu"): Quota(nominal=rng.randint(0, 6))} if rng.random() < 0.5 else {}
    jobs = [
        workload(
            key,
            queue=rng.choice("ab"),
            nodes=rng.choice((1, 1, 1, 2, 3)),
            cpus=rng.choice((1, 2, 3, 7)),
            gib=rng.choice((1, 5)),
            gpus=(gpus := rng.choice((0, 0, 1, 2, 4))),
            gpu_model=rng.choice(("", "L4", "H100")) if gpus else "",
            submitted_at=NOON - rng.randint(0, 5) * SECOND,
            max_duration_seconds=rng.choice((0, 600)),
        )
        for key in range(1, rng.randint(2, 20))
    ]
    queues = [QueueSpec(name="a", quotas=limits), QueueSpec(name="b")]
    return world(nodes=nodes, workloads=jobs, queues=queues)


def test_a_preview_says_the_same():
    held = [allocation(2, gpus=2, cpus=2, gpu_model="L4")]
    half = workload(2, gpus=2, cpus=2, phase=Phase.RUNNING)
    snapshot = world(nodes=[MIXED], workloads=[half, waits()], allocations=held)
    for cores, starts in ((6, True), (7, False)):
        asked = Resources(cpu_milli=cores * 1_000, memory_bytes=BYTES_PER_GIB)
        spec = WorkloadSpec(kind=Kind.JOB, name="job", run=("true",), choices=(asked,))
        found = preview(snapshot, spec=spec, priority=0)
        assert (found.starts_now, found.reason.code is Code.KEPT_FOR_GPUS) == (starts, not starts)


def test_nobody_yields_for_it_on_gpus_that_would_be_idle_then():
    """All GPUs are busy; without what holds them, they were to be left what other GPU work needs."""
    policy = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)
    long_ago = NOON - 3_600 * SECOND
    mild = workload(2, queue="q", gpus=4, cpus=16, phase=Phase.RUNNING, started_at=long_ago)
    held = [allocation(2, gpus=4, cpus=16, gpu_model="L4", started_at=long_ago)]
    urgent = workload(1, queue="q", cpus=4, priority=50, phase=Phase.QUEUED)
    queues = [QueueSpec(name="q", preemption=policy)]
    for others, victims in (([], [2]), ([waits(phase=Phase.QUEUED)], [])):
        snapshot = world(nodes=[MIXED], workloads=[urgent, mild, *others], allocations=held, queues=queues)
        assert [one.workload_key for found in preempt(snapshot) for one in found.victims] == victims
