"""One scheduling cycle: order, guards, what is told to what must wait, and what must hold for every world."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide import admission
from mainstay.decide.placement import POLICIES
from mainstay.decide.schedule import schedule
from mainstay.domain.allocation import Seen
from mainstay.domain.plan import Advance, Allocate, CapacityLeft, RowVersion
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import LEGAL_TRANSITIONS, Phase
from tests.worlds import NOON, SECOND, allocation, ended, node, workload, world


def placed(snapshot: Snapshot, **options) -> dict[int, list[int]]:
    """Node key of each rank, by workload."""
    actions = schedule(snapshot, **options)
    return {a.workload_key: [slot.node_key for slot in a.slots] for a in actions if isinstance(a, Allocate)}


def told(snapshot: Snapshot) -> dict[int, Code]:
    return {a.workload_key: a.reason.code for a in schedule(snapshot) if isinstance(a, Advance)}


def test_higher_priority_goes_first_then_age_then_key():
    snapshot = world(
        nodes=[node()],
        workloads=[
            workload(1, submitted_at=NOON),
            workload(2, submitted_at=NOON - 1),
            workload(3, priority=5),
            workload(4, submitted_at=NOON - 1),
        ],
    )
    assert snapshot.workloads.key[admission.order(snapshot)].tolist() == [3, 2, 4, 1]


@pytest.mark.parametrize(
    "values",
    [
        {"stop_requested": True},
        {"not_before": NOON + 1},
        {"phase": Phase.RUNNING},
        {"phase": Phase.STARTING},
        {"phase": Phase.UNKNOWN},
    ],
)
def test_what_may_not_start_is_not_in_the_order(values):
    assert admission.order(world(workloads=[workload(1, **values)])).tolist() == []


def test_a_back_off_that_is_over_admits():
    assert admission.order(world(workloads=[workload(1, not_before=NOON, attempt=2)])).tolist() == [0]


def test_a_clock_set_back_does_not_lengthen_a_back_off():
    a_day_ahead = workload(1, not_before=NOON + 86_400 * SECOND, backoff_seconds_max=360)
    assert admission.order(world(workloads=[a_day_ahead])).tolist() == [0]


@pytest.mark.parametrize("seen", [Seen.NOTHING, Seen.RUNNING, Seen.UNKNOWN])
def test_no_attempt_starts_beside_a_pod_that_is_not_proven_dead(seen):
    snapshot = world(nodes=[node()], workloads=[workload(1, attempt=2)], allocations=[allocation(1, seen=seen)])
    assert placed(snapshot) == {}


def test_an_attempt_starts_once_the_earlier_one_has_ended():
    snapshot = world(nodes=[node()], workloads=[workload(1, attempt=2)], allocations=[ended(1)])
    assert placed(snapshot) == {1: [1]}


def test_an_allocation_states_what_it_read():
    snapshot = world(nodes=[node()], workloads=[workload(7, version=3, cpus=2, gib=4, nodes=2)])
    (action,) = schedule(snapshot)
    both = Resources(cpu_milli=4_000, memory_bytes=8 * BYTES_PER_GIB)
    assert action.guards == (
        RowVersion(kind="workload", key=7, version=3),
        CapacityLeft(node_key=1, resources=both, pods=2),
    )


def test_a_slot_of_any_gpu_carries_the_model_of_its_node():
    snapshot = world(nodes=[node(gpus=2, gpu_model="L4")], workloads=[workload(1, gpus=1)])
    (action,) = schedule(snapshot)
    assert [slot.resources.gpu_model for slot in action.slots] == ["L4"]


def test_a_named_gpu_model_is_hard():
    nodes = [node(gpus=8, gpu_model="A100"), node(gpus=8, gpu_model="H100")]
    snapshot = world(nodes=nodes, workloads=[workload(1, gpus=1, gpu_model="H100")])
    assert placed(snapshot) == {1: [2]}


def test_work_without_gpus_leaves_gpu_nodes_alone_while_it_can():
    nodes = [node(gpus=8, gpu_model="H100", cpus=2), node(cpus=16)]
    snapshot = world(nodes=nodes, workloads=[workload(1), workload(2, cpus=17), workload(3)])
    assert placed(snapshot) == {1: [2], 3: [2]}


def test_choices_are_tried_in_order():
    def choice(model: str) -> Resources:
        return Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB, gpus=1, gpu_model=model)

    nodes = [node(gpus=1, gpu_model="A100"), node(gpus=1, gpu_model="H100")]
    jobs = [workload(key, choices=(choice("H100"), choice("A100")), submitted_at=NOON + key) for key in (1, 2, 3)]
    assert placed(world(nodes=nodes, workloads=jobs)) == {1: [2], 2: [1]}


def test_a_gang_stays_within_one_cluster():
    nodes = [node(cluster="a", cpus=2), node(cluster="b", cpus=2)]
    snapshot = world(nodes=nodes, workloads=[workload(1, nodes=3), workload(2, nodes=2, submitted_at=NOON + 1)])
    assert placed(snapshot) == {2: [1, 1]}


def test_a_gang_is_placed_whole_or_not_at_all():
    snapshot = world(nodes=[node(cpus=3)], workloads=[workload(1, nodes=4)])
    assert placed(snapshot) == {}


def test_spreading_puts_ranks_on_different_nodes():
    snapshot = world(nodes=[node(), node(), node()], workloads=[workload(1, nodes=3)])
    assert sorted(placed(snapshot, policy="spread")[1]) == [1, 2, 3]
    assert placed(snapshot, policy="best-fit")[1] == [1, 1, 1]


def test_best_fit_takes_the_fullest_node():
    snapshot = world(nodes=[node(), node(used_cpus=10), node(used_cpus=5)], workloads=[workload(1, cpus=2)])
    assert placed(snapshot) == {1: [2]}


def test_nothing_goes_to_a_node_that_is_not_ready():
    assert placed(world(nodes=[node(ready=False)], workloads=[workload(1, cpus=0, gib=0)])) == {}


def test_what_waits_hears_why():
    snapshot = world(
        nodes=[node(cpus=4, used_cpus=3)],
        workloads=[workload(1, cpus=2), workload(2, cpus=5), workload(3, gpus=1, gpu_model="H100")],
    )
    assert told(snapshot) == {1: Code.WAITS_FOR_CAPACITY, 2: Code.NEVER_FITS, 3: Code.NEVER_FITS}


def test_the_reason_names_the_figures():
    (action,) = schedule(world(nodes=[node(cpus=4, gib=8)], workloads=[workload(1, cpus=5)]))
    assert action.reason.sentence == (
        "cannot run on this fleet: needs 5 CPUs, 1 GiB, the largest node has 4 CPUs, 8 GiB"
    )


def test_without_ready_nodes_the_reason_is_just_that():
    assert told(world(nodes=[node(ready=False)], workloads=[workload(1)])) == {1: Code.NO_NODES}


def test_a_workload_hears_only_once_that_it_is_queued():
    snapshot = world(nodes=[node(cpus=1)], workloads=[workload(1, cpus=2, phase=Phase.QUEUED)])
    assert schedule(snapshot) == ()


def test_a_cycle_is_bounded_and_allocations_go_first():
    jobs = [workload(key, cpus=1 if key % 2 else 99) for key in range(1, 21)]
    actions = schedule(world(nodes=[node()], workloads=jobs), changes_max=12)
    assert [type(action) for action in actions] == [Allocate] * 10 + [Advance] * 2


def test_an_empty_world_needs_nothing():
    assert schedule(world()) == ()


GPU_MODELS = ("", "A100", "H100")


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    nodes = draw(
        st.lists(
            st.builds(
                node,
                cluster=st.sampled_from("ab"),
                cpus=st.integers(0, 8),
                gib=st.integers(0, 8),
                gpus=st.integers(0, 4),
                gpu_model=st.sampled_from(GPU_MODELS[1:]),
                ready=st.booleans(),
                used_cpus=st.integers(0, 3),
            ),
            max_size=5,
        )
    )
    requests = st.builds(
        Resources,
        cpu_milli=st.integers(0, 5).map(lambda n: n * 1000),
        memory_bytes=st.integers(0, 5).map(lambda n: n * BYTES_PER_GIB),
        gpus=st.integers(0, 3),
        gpu_model=st.sampled_from(GPU_MODELS),
    )
    jobs = [
        workload(
            key,
            phase=draw(st.sampled_from([Phase.PENDING, Phase.QUEUED])),
            priority=draw(st.integers(0, 2)),
            submitted_at=NOON - draw(st.integers(0, 3)),
            nodes=draw(st.integers(1, 4)),
            choices=tuple(draw(st.lists(requests, min_size=1, max_size=2))),
        )
        for key in range(1, draw(st.integers(0, 8)) + 1)
    ]
    return world(nodes=nodes, workloads=jobs)


POLICY = st.sampled_from(sorted(POLICIES))


@given(worlds(), POLICY)
def test_no_node_is_ever_over_its_capacity(snapshot, policy):
    nodes = snapshot.nodes
    row_of = {int(key): row for row, key in enumerate(nodes.key)}
    taken = np.zeros((3, nodes.key.size), dtype=np.int64)
    for action in schedule(snapshot, policy=policy):
        for slot in action.slots if isinstance(action, Allocate) else ():
            row, held = row_of[slot.node_key], slot.resources
            assert nodes.ready[row]
            taken[:, row] += (held.cpu_milli, held.memory_bytes, held.gpus)
    used = taken > 0
    left = np.stack(
        [
            nodes.cpu_milli - nodes.used_cpu_milli,
            nodes.memory_bytes - nodes.used_memory_bytes,
            nodes.gpus - nodes.used_gpus,
        ]
    )
    assert (taken[used] <= left[used]).all()


@given(worlds(), POLICY)
def test_every_gang_is_whole_in_one_cluster_and_of_one_of_its_choices(snapshot, policy):
    table, cluster = snapshot.workloads, dict(zip(snapshot.nodes.key.tolist(), snapshot.nodes.clusters, strict=True))
    for action in schedule(snapshot, policy=policy):
        if isinstance(action, Allocate):
            row = int(np.searchsorted(table.key, action.workload_key))
            assert [slot.rank for slot in action.slots] == list(range(table.nodes[row]))
            assert len({cluster[slot.node_key] for slot in action.slots}) == 1
            assert action.attempt == table.attempt[row]


@given(worlds(), POLICY)
def test_the_guards_add_up_to_the_slots(snapshot, policy):
    for action in schedule(snapshot, policy=policy):
        if isinstance(action, Allocate):
            guarded = {g.node_key: g.resources.cpu_milli for g in action.guards if isinstance(g, CapacityLeft)}
            needed: dict[int, int] = {}
            for slot in action.slots:
                needed[slot.node_key] = needed.get(slot.node_key, 0) + slot.resources.cpu_milli
            assert guarded == needed


@given(worlds(), POLICY, st.randoms(use_true_random=False))
def test_the_plan_depends_on_keys_not_on_the_order_of_rows(snapshot, policy, random):
    rows = list(range(snapshot.workloads.key.size))
    random.shuffle(rows)
    # Choices are looked up by key in an ascending table, so only worlds without them can be shuffled.
    plain = dataclasses.replace(snapshot, workloads=dataclasses.replace(snapshot.workloads, choices={}))
    columns = {
        field.name: getattr(plain.workloads, field.name)[rows]
        for field in dataclasses.fields(plain.workloads)
        if isinstance(getattr(plain.workloads, field.name), np.ndarray)
    }
    shuffled = dataclasses.replace(plain, workloads=dataclasses.replace(plain.workloads, **columns))
    first = [action for action in schedule(plain, policy=policy) if isinstance(action, Allocate)]
    assert [a for a in schedule(shuffled, policy=policy) if isinstance(a, Allocate)] == first
    assert schedule(plain, policy=policy) == schedule(plain, policy=policy)


@given(worlds())
def test_of_equal_shapes_no_younger_or_lesser_one_starts_while_a_better_one_waits(snapshot):
    table = snapshot.workloads
    started = {a.workload_key for a in schedule(snapshot) if isinstance(a, Allocate)}
    shapes: dict[tuple[object, ...], list[int]] = {}
    for row in admission.order(snapshot).tolist():
        key = int(table.key[row])
        choices = table.choices.get(key, ())
        shape = (table.nodes[row], table.cpu_milli[row], table.memory_bytes[row], table.gpus[row], table.gpu_model[row])
        shapes.setdefault((*shape, choices), []).append(key)
    for keys in shapes.values():
        flags = [key in started for key in keys]
        assert flags == sorted(flags, reverse=True)


@given(worlds())
def test_whatever_can_start_is_started_or_told_why_not(snapshot):
    """Each row of the order ends a cycle allocated, newly queued, or queued as before; and every step is legal."""
    actions = {action.workload_key: action for action in schedule(snapshot)}
    table = snapshot.workloads
    for row in admission.order(snapshot).tolist():
        action = actions.get(int(table.key[row]))
        if action is None:
            assert table.phase[row] == Phase.QUEUED
        elif isinstance(action, Advance):
            assert (Phase(int(table.phase[row])), action.phase) in LEGAL_TRANSITIONS


@settings(max_examples=20)
@given(worlds())
def test_a_second_cycle_after_nothing_fitted_writes_nothing(snapshot):
    table = snapshot.workloads
    queued = np.full_like(table.phase, int(Phase.QUEUED))
    all_queued = dataclasses.replace(snapshot, workloads=dataclasses.replace(table, phase=queued))
    full = dataclasses.replace(
        all_queued, nodes=dataclasses.replace(snapshot.nodes, ready=snapshot.nodes.ready & False)
    )
    assert schedule(full) == ()


# Bound to a cluster, and clusters that take no work


EAST, WEST = node(name="e", cluster="east"), node(name="w", cluster="west")
DRAINED = Reason(code=Code.CLUSTER_DRAINED, object="east", numbers={"by": "ada"})


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize(("cluster", "where"), [("east", 1), ("west", 2)])
def test_what_is_bound_to_a_cluster_is_placed_there(cluster: str, where: int, nodes: int):
    snapshot = world(nodes=[EAST, WEST], workloads=[workload(1, cluster=cluster, nodes=nodes)])
    assert placed(snapshot) == {1: [where] * nodes}


def test_what_is_bound_to_a_full_cluster_waits_and_holds_up_nobody_else():
    snapshot = world(
        nodes=[node(cluster="east", used_cpus=16), WEST], workloads=[workload(1, cluster="east"), workload(2)]
    )
    assert placed(snapshot) == {2: [2]}
    assert told(snapshot) == {1: Code.WAITS_FOR_CAPACITY}


def test_what_is_bound_to_a_cluster_without_a_node_that_is_large_enough_never_fits_there():
    snapshot = world(nodes=[node(cluster="east", cpus=2), WEST], workloads=[workload(1, cluster="east", cpus=4)])
    (action,) = schedule(snapshot)
    assert action.reason.sentence == (
        "cannot run on this fleet: needs 4 CPUs, 1 GiB in cluster east, the largest node has 2 CPUs, 64 GiB"
    )
    nowhere = world(nodes=[WEST], workloads=[workload(1, cluster="east")])
    assert schedule(nowhere)[0].reason.sentence.endswith("the largest node has no node")


def test_what_is_bound_to_a_cluster_that_takes_no_work_says_why():
    closed = replace(EAST, ready=False)
    snapshot = world(nodes=[closed, WEST], workloads=[workload(1, cluster="east")], closed={"east": DRAINED})
    (action,) = schedule(snapshot)
    assert action.reason.code is Code.WAITS_FOR_CLUSTER
    assert action.reason.sentence == "waits for cluster east: drained by ada: nothing new is placed here"


def test_what_fits_only_a_cluster_that_takes_no_work_names_it():
    closed = replace(EAST, cpus=64, ready=False)
    snapshot = world(nodes=[closed, WEST], workloads=[workload(1, cpus=32)], closed={"east": DRAINED})
    assert schedule(snapshot)[0].reason.object == "east"
    elsewhere = world(nodes=[closed, WEST], workloads=[workload(1, cpus=4)], closed={"east": DRAINED})
    assert placed(elsewhere) == {1: [2]}


def test_what_is_restricted_goes_only_where_a_node_admits_it_ready_or_not():
    nodes = [node(), node(admits=("r",)), node(ready=False, admits=("r",))]
    assert placed(world(nodes=nodes[:2], workloads=[workload(1, restriction="r")])) == {1: [2]}
    assert placed(world(nodes=[nodes[0], nodes[2]], workloads=[workload(1, restriction="r")])) == {1: [2]}
    assert placed(world(nodes=[nodes[2]], workloads=[workload(1)])) == {}


def test_the_guard_of_what_is_restricted_names_its_restriction():
    (action,) = schedule(world(nodes=[node(admits=("r",))], workloads=[workload(1, restriction="r")]))
    assert [guard.restriction for guard in action.guards if isinstance(guard, CapacityLeft)] == ["r"]


def test_what_no_node_admits_is_told_so_and_keeps_nobody_else_waiting():
    snapshot = world(nodes=[node(admits=("r",))], workloads=[workload(1, restriction="other"), workload(2)])
    assert told(snapshot) == {1: Code.NO_NODE_ADMITS}
    assert placed(snapshot) == {2: [1]}
