"""Gangs of several pod sets: all of it finds a place together, or none of it does, and they are judged as one."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.cycle import Cycle
from mainstay.decide.explain import explain, preview
from mainstay.decide.placement import POLICIES
from mainstay.decide.possible import impossible
from mainstay.decide.preemption import preempt
from mainstay.decide.preemption.rules import wish_of
from mainstay.decide.preemption.search import Search
from mainstay.decide.schedule import schedule
from mainstay.decide.shapes import shape_of
from mainstay.domain.billing import Price
from mainstay.domain.plan import Advance, Allocate
from mainstay.domain.preemption import PreemptionPolicy, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB, Money, Resources
from mainstay.domain.queue import BUILT_IN_PRIORITIES, OTHER_FLAVOR, QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Kind, Phase, PodSet, WorkloadSpec
from tests.worlds import NOON, SECOND, allocation, gang_of, node, pods, workload, world

HEAD, WORKERS = pods("head", 1, cpus=2), pods("worker", 4, cpus=4, gpus=2)
GPU_NODE = node(cpus=16, gpus=8, gpu_model="H100")


def placed(snapshot: Snapshot) -> dict[int, list[str]]:
    """Workload -> the node of each rank."""
    return {
        action.workload_key: [snapshot.nodes.names[slot.node_key - 1] for slot in action.slots]
        for action in schedule(snapshot)
        if isinstance(action, Allocate)
    }


def why(snapshot: Snapshot) -> str:
    (told,) = (action for action in schedule(snapshot) if isinstance(action, Advance))
    return told.reason.sentence


def spec_of(*sets: PodSet, **values: object) -> WorkloadSpec:
    given = {"kind": Kind.JOB, "name": "impala", "run": ("true",), **values}
    return WorkloadSpec(nodes=sum(one.nodes for one in sets), choices=(sets[0].resources,), sets=sets, **given)  # type: ignore[arg-type]


def test_each_rank_gets_what_its_set_asks_for():
    snapshot = world(nodes=[node("cpu", cpus=8), GPU_NODE], workloads=[gang_of(1, HEAD, WORKERS)])
    (action,) = schedule(snapshot)
    assert isinstance(action, Allocate)
    held = [(slot.rank, slot.resources.cpu_milli, slot.resources.gpus) for slot in action.slots]
    assert held == [(0, 2000, 0), *((rank, 4000, 2) for rank in range(1, 5))]
    assert {slot.resources.gpu_model for slot in action.slots[1:]} == {"H100"}
    assert placed(snapshot) == {1: ["cpu"] + ["node-2"] * 4}


def test_all_sets_are_placed_or_none_is():
    assert placed(world(nodes=[node(cpus=16, gpus=8)], workloads=[gang_of(1, HEAD, WORKERS)])) == {}
    assert placed(world(nodes=[node(cpus=8), node(cpus=16, gpus=6)], workloads=[gang_of(1, HEAD, WORKERS)])) == {}


def test_sets_lie_in_one_cluster():
    apart = [node(cpus=8, cluster="east"), node(cpus=16, gpus=8, cluster="west")]
    assert placed(world(nodes=apart, workloads=[gang_of(1, HEAD, WORKERS)])) == {}
    both = [*apart, node("free", cpus=2, cluster="west")]
    assert placed(world(nodes=both, workloads=[gang_of(1, HEAD, WORKERS)])) == {1: ["free"] + ["node-2"] * 4}


def test_all_sets_lie_in_the_rack_that_they_ask_for():
    nodes = [
        node("a1", cpus=2, topology={"rack": "a"}),
        node("a2", cpus=16, gpus=6, topology={"rack": "a"}),
        node("b1", cpus=2, topology={"rack": "b"}),
        node("b2", cpus=16, gpus=8, topology={"rack": "b"}),
    ]
    near = world(nodes=nodes, workloads=[gang_of(1, HEAD, WORKERS, topology="required rack")])
    assert placed(near) == {1: ["b1"] + ["b2"] * 4}
    alone = world(
        nodes=nodes[1:3], workloads=[gang_of(1, HEAD, pods("worker", 2, gpus=2, cpus=8), topology="required rack")]
    )
    assert placed(alone) == {}
    preferred = world(
        nodes=nodes[1:3], workloads=[gang_of(1, HEAD, pods("worker", 2, gpus=2, cpus=8), topology="preferred rack")]
    )
    assert placed(preferred) == {1: ["b1", "a2", "a2"]}


def test_a_small_set_does_not_take_the_only_place_of_a_large_one():
    nodes = [node("small", cpus=8, gpus=8), node("large", cpus=64, gpus=8)]
    gang = gang_of(1, pods("gpu", 1, cpus=8, gpus=8), pods("cpu", 1, cpus=60))
    for policy in POLICIES:
        (action,) = schedule(world(nodes=nodes, workloads=[gang]), policy=policy)
        assert isinstance(action, Allocate), policy
        assert [slot.node_key for slot in action.slots] == [1, 2]


def test_a_model_that_is_named_goes_before_any_model():
    nodes = [node(cpus=16, gpus=8, gpu_model="H100"), node(cpus=16, gpus=8, gpu_model="L4")]
    gang = gang_of(1, pods("any", 1, gpus=8), pods("named", 1, gpus=8, gpu_model="H100"))
    assert placed(world(nodes=nodes, workloads=[gang])) == {1: ["node-2", "node-1"]}


def test_the_quota_counts_for_all_sets_together():
    def team(cpus: int, gpus: int) -> QueueSpec:
        quotas = {(OTHER_FLAVOR, "cpu"): Quota(nominal=cpus * 1000), (OTHER_FLAVOR, "gpu"): Quota(nominal=gpus)}
        return QueueSpec(name="team", quotas=quotas)  # type: ignore[arg-type]

    def waits(queue: QueueSpec) -> str:
        return why(
            world(nodes=[node(cpus=64, gpus=8)], queues=[queue], workloads=[gang_of(1, HEAD, WORKERS, queue="team")])
        )

    fits = world(
        nodes=[node(cpus=64, gpus=8)], queues=[team(18, 8)], workloads=[gang_of(1, HEAD, WORKERS, queue="team")]
    )
    assert len(placed(fits)[1]) == 5
    assert "4 x worker (4 CPUs, 1 GiB, 2 x GPU) beside 1 x head (2 CPUs, 1 GiB)" in waits(team(17, 8))
    assert "more of gpu" in waits(team(18, 7))


def test_all_that_a_gang_holds_counts_towards_the_share_of_its_queue():
    works = [
        gang_of(1, pods("a", 1, cpus=1), pods("b", 2, cpus=5), queue="one", submitted_at=NOON - 3 * SECOND),
        *(workload(key, queue="two", cpus=4, submitted_at=NOON - 2 * SECOND) for key in (2, 3, 4)),
        workload(5, queue="one", cpus=1, submitted_at=NOON - SECOND),
    ]
    queues = [QueueSpec(name="one"), QueueSpec(name="two")]
    # 4 and 8 CPUs of the second queue, the 11 of the gang; 12 would be as much for either, so the older goes first.
    assert placed(world(nodes=[node(cpus=23)], queues=queues, workloads=works)).keys() == {1, 2, 3, 4}


def test_who_waits_is_told_which_set_is_short():
    nodes = [node(cpus=8), node(cpus=16, gpus=8, used_gpus=2)]
    reason = why(world(nodes=nodes, workloads=[gang_of(1, HEAD, WORKERS)]))
    assert reason.startswith(
        "waits for capacity: needs 4 x worker (4 CPUs, 1 GiB, 2 x GPU) beside 1 x head (2 CPUs, 1 GiB), the most that is free"
    )
    full = [node(cpus=16, gpus=8)]
    told = why(world(nodes=full, workloads=[gang_of(1, HEAD, WORKERS)]))
    assert "needs 1 x head (2 CPUs, 1 GiB) beside 4 x worker" in told
    assert "cannot run on this fleet" in told
    assert "with places for the others" in told


def test_explain_names_the_set_and_what_would_start_it():
    snapshot = world(
        nodes=[node(cpus=8), node(cpus=16, gpus=8, used_gpus=3)],
        workloads=[gang_of(1, HEAD, WORKERS, phase=Phase.QUEUED)],
    )
    answer = explain(snapshot, 1)
    assert answer.reason.code is Code.WAITS_FOR_CAPACITY
    assert answer.reason.numbers["set"] == "worker"
    changes = {one.change: (one.before, one.after) for one in answer.alternatives}
    assert changes == {"worker.gpus": ("2", "1"), "worker.nodes": ("4", "2")}


@pytest.mark.parametrize(
    ("change", "sets"),
    [("gpus", (HEAD, pods("worker", 4, cpus=4, gpus=1))), ("nodes", (HEAD, pods("worker", 2, cpus=4, gpus=2)))],
)
def test_what_is_told_to_start_it_does(change, sets):
    nodes = [node(cpus=8), node(cpus=16, gpus=8, used_gpus=3)]
    assert placed(world(nodes=nodes, workloads=[gang_of(1, *sets)])), change


def test_what_no_fleet_could_hold_is_impossible_and_the_set_is_named():
    fleet = world(nodes=[node(cpus=16, gpus=4)])
    found = impossible(fleet, spec=spec_of(HEAD, pods("worker", 4, gpus=8)), queue="default")
    assert found is not None
    assert found.reason.code is Code.NEVER_FITS
    assert found.reason.numbers["set"] == "worker"
    assert "worker.gpus 1 instead of 8" in found.nearest
    assert impossible(fleet, spec=spec_of(HEAD, pods("worker", 4, gpus=1)), queue="default") is None


def test_of_sets_that_no_single_change_makes_possible_the_lacking_model_is_told_and_nothing_is_made_up():
    fleet = world(nodes=[node(cpus=16, gpus=4, gpu_model="L4")])
    asked = spec_of(pods("learner", 1, gpus=8, gpu_model="B200"), pods("actor", 2, cpus=32))
    found = impossible(fleet, spec=asked, queue="default")
    assert found is not None
    assert "needs 1 x learner (1 CPU, 1 GiB, 8 x B200) beside 2 x actor" in found.reason.sentence
    assert "no node of the fleet has any B200: it has 4 x L4" in found.reason.sentence
    assert found.nearest == ()


def test_a_plan_has_the_price_of_all_sets():
    prices = tuple(
        Price(sku=sku, per_hour=Money(micros=micros), effective_from=0)
        for sku, micros in (("cpu", 1_000_000), ("gpu", 10_000_000), ("gpu/H100", 10_000_000))
    )
    snapshot = world(nodes=[GPU_NODE, node(cpus=8)], prices=prices)
    answer = preview(snapshot, spec=spec_of(HEAD, WORKERS), priority=50)
    assert answer.starts_now
    alone = [preview(snapshot, spec=spec_of(one), priority=50).price_per_hour.micros for one in (HEAD, WORKERS)]
    assert answer.price_per_hour.micros == sum(alone) > 0
    assert [held.gpus for held in answer.sets] == [0, 2]


def test_a_gang_displaces_for_all_of_its_sets_at_once_and_is_displaced_whole():
    policy = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)
    queues = [QueueSpec(name="team", preemption=policy)]
    gang = gang_of(1, HEAD, WORKERS, queue="team", priority=80, phase=Phase.QUEUED)
    small = [
        workload(2, queue="team", priority=10, phase=Phase.RUNNING, cpus=2, gpus=4),
        workload(3, queue="team", priority=10, phase=Phase.RUNNING, cpus=2),
        workload(4, queue="team", priority=10, phase=Phase.RUNNING, cpus=1),
    ]
    nodes = [node(cpus=2), node(cpus=18, gpus=8)]
    held = [
        allocation(2, node_key=2, cpus=2, gpus=4, started_at=NOON - SECOND),
        allocation(3, node_key=1, cpus=2, started_at=NOON - SECOND),
    ]
    (action,) = preempt(world(nodes=nodes, queues=queues, workloads=[gang, *small], allocations=held))
    assert sorted(victim.workload_key for victim in action.victims) in ([2], [2, 3])
    assert [slot.resources.gpus for slot in action.slots] == [0, 2, 2, 2, 2]
    assert len(action.slots) == 5


def test_the_ways_to_choose_parts_for_sets_come_in_order_and_are_no_equals():
    """Else every one of them would be searched for the least that could be lost."""
    part = Resources(cpu_milli=1_000, gpus=1, gpu_part_permille=100)
    sets = [PodSet(name=name, nodes=1, resources=part) for name in "ab"]
    nodes = [node(shapes={"1g.10gb": 2, "2g.20gb": 2})]
    shape = shape_of(world(nodes=nodes, workloads=[gang_of(1, *sets)]), 0)
    assert len(shape.ways) == 4
    assert shape.tiers == (0, 1, 2, 3)


def test_nobody_yields_for_a_gang_of_which_one_set_would_not_fit():
    policy = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)
    gang = gang_of(1, pods("head", 1, cpus=32), WORKERS, queue="team", priority=80, phase=Phase.QUEUED)
    low = workload(2, queue="team", priority=10, phase=Phase.RUNNING, cpus=2, gpus=4)
    snapshot = world(
        nodes=[node(cpus=2), node(cpus=18, gpus=8)],
        queues=[QueueSpec(name="team", preemption=policy)],
        workloads=[gang, low],
        allocations=[allocation(2, node_key=2, cpus=2, gpus=4, started_at=NOON - SECOND)],
    )
    assert preempt(snapshot) == ()


def test_the_start_of_a_gang_that_has_waited_long_is_reserved_for_all_its_sets():
    gang = gang_of(1, HEAD, WORKERS, submitted_at=NOON - 3600 * SECOND, phase=Phase.QUEUED)
    runs = workload(2, phase=Phase.RUNNING, cpus=8, gpus=4, max_duration_seconds=600)
    late = workload(3, cpus=1, gpus=1, gib=1, max_duration_seconds=86_400)
    early = workload(4, cpus=1, gpus=1, max_duration_seconds=60)
    snapshot = world(
        nodes=[node(cpus=18, gpus=8)],
        workloads=[gang, runs, late, early],
        allocations=[allocation(2, cpus=8, gpus=4, started_at=NOON)],
    )
    cycle = Cycle(snapshot, POLICIES["best-fit"])
    rows = {int(snapshot.workloads.key[row]) for found in cycle.placements() for row in found.rows.tolist()}
    (start,) = cycle.reserved.values()
    assert start.starts_at == NOON + 630 * SECOND
    assert start.nodes.tolist() == [0] * 5
    assert rows == {4}


AMOUNTS = st.tuples(st.integers(1, 4), st.integers(1, 6), st.sampled_from([0, 0, 1, 2]))
GANGS = st.lists(AMOUNTS, min_size=2, max_size=4).map(
    lambda asked: [
        pods(f"set-{number}", count, cpus=cpus, gpus=gpus) for number, (count, cpus, gpus) in enumerate(asked)
    ]
)
NODES = st.lists(
    st.builds(
        lambda cpus, gpus, cluster, rack: node(cpus=cpus, gpus=gpus, cluster=cluster, topology={"rack": rack}),
        st.integers(1, 16),
        st.sampled_from([0, 0, 4, 8]),
        st.sampled_from(["east", "west"]),
        st.sampled_from(["r1", "r2"]),
    ),
    min_size=1,
    max_size=6,
)


def _check_whole(snapshot: Snapshot, policy: str) -> None:
    free = snapshot.nodes.cpu_milli.copy(), snapshot.nodes.gpus.copy()
    for action in schedule(snapshot, policy=policy):
        if not isinstance(action, Allocate):
            continue
        row = int((snapshot.workloads.key == action.workload_key).argmax())
        sets = snapshot.workloads.sets.get(action.workload_key, ())
        asked = [one.resources for one in sets for _ in range(one.nodes)]
        assert [slot.rank for slot in action.slots] == list(range(int(snapshot.workloads.nodes[row])))
        if sets:
            assert [slot.resources.gpus for slot in action.slots] == [one.gpus for one in asked]
            assert [slot.resources.cpu_milli for slot in action.slots] == [one.cpu_milli for one in asked]
        nodes = [slot.node_key - 1 for slot in action.slots]
        assert len({snapshot.nodes.clusters[at] for at in nodes}) == 1
        need = snapshot.topologies[int(snapshot.workloads.topology[row])]
        if need is not None and need.required:
            assert len({int(snapshot.nodes.levels["rack"].number[at]) for at in nodes}) == 1
        for slot, at in zip(action.slots, nodes, strict=True):
            free[0][at] -= slot.resources.cpu_milli
            free[1][at] -= slot.resources.gpus
    assert min(int(column.min()) for column in free) >= 0


@given(
    nodes=NODES,
    gangs=st.lists(GANGS, min_size=1, max_size=4),
    policy=st.sampled_from(sorted(POLICIES)),
    topology=st.sampled_from(["", "required rack", "preferred rack"]),
)
def test_gangs_of_several_sets_are_whole_under_every_policy(nodes, gangs, policy, topology):
    works = [gang_of(key, *sets, topology=topology) for key, sets in enumerate(gangs, 1)]
    _check_whole(world(nodes=nodes, workloads=[*works, workload(9, nodes=2, cpus=2)]), policy)


@given(nodes=NODES, sets=GANGS, policy=st.sampled_from(sorted(POLICIES)))
def test_sets_that_ask_for_the_same_find_a_place_where_one_set_does(nodes, sets, policy):
    """A gang of one shape, cut into sets, is no harder to place."""
    same = [pods(f"set-{number}", one.nodes, cpus=2, gpus=1) for number, one in enumerate(sets)]
    whole = workload(1, nodes=sum(one.nodes for one in same), cpus=2, gpus=1)
    cut = placed_by(world(nodes=nodes, workloads=[gang_of(1, *same)]), policy)
    assert cut == placed_by(world(nodes=nodes, workloads=[whole]), policy)


def placed_by(snapshot: Snapshot, policy: str) -> bool:
    return any(isinstance(action, Allocate) for action in schedule(snapshot, policy=policy))


FIELDS = {"gpus": ("gpus", 1), "cpus": ("cpu_milli", 1_000), "memory": ("memory_bytes", BYTES_PER_GIB)}


def _with_less(one: PodSet, change: str, after: str) -> PodSet:
    """With what an alternative says in place of what was asked for, if it is about this set."""
    name, _, what = change.rpartition(".")
    if one.name != name:
        return one
    if what == "nodes":
        return replace(one, nodes=int(after))
    field, unit = FIELDS[what]
    return replace(one, resources=replace(one.resources, **{field: int(after.removesuffix("GiB")) * unit}))


@given(nodes=NODES, gangs=st.lists(GANGS, min_size=1, max_size=3))
def test_explain_never_lies_about_pod_sets(nodes, gangs):
    """What it says starts now does, what it says would start it does, and the set that it names is one of it."""
    works = [gang_of(key, *sets, phase=Phase.QUEUED) for key, sets in enumerate(gangs, 1)]
    snapshot = world(nodes=nodes, workloads=works)
    starts = placed(snapshot)
    for work in works:
        answer = explain(snapshot, work.key)
        assert (answer.reason.code is Code.PLACED) == (work.key in starts)
        if "set" in answer.reason.numbers:
            assert answer.reason.numbers["set"] in {one.name for one in work.sets}
        for one in answer.alternatives:
            sooner = {"priority": BUILT_IN_PRIORITIES[one.after]} if one.change == "priority" else {}
            sets = [_with_less(each, one.change, one.after) for each in work.sets]
            other = gang_of(work.key, *sets, phase=Phase.QUEUED, **sooner)
            rest = [each if each is not work else other for each in works]
            assert work.key in placed(world(nodes=nodes, workloads=rest)), one


def test_the_start_of_a_gang_of_several_sets_is_expected_once_enough_has_ended_for_all_of_them():
    runs = [
        workload(key, phase=Phase.RUNNING, cpus=8, gpus=gpus, max_duration_seconds=600)
        for key, gpus in ((2, 4), (3, 0))
    ]
    held = [
        allocation(2, node_key=1, cpus=8, gpus=4, started_at=NOON),
        allocation(3, node_key=2, cpus=8, started_at=NOON),
    ]

    def expected(count: int) -> int:
        """With so many of the runs in its way."""
        works = [gang_of(1, HEAD, WORKERS, phase=Phase.QUEUED), *runs[:count]]
        nodes = [node(cpus=16, gpus=8), node(cpus=8)]
        found = explain(world(nodes=nodes, workloads=works, allocations=held[:count]), 1).expected
        assert found is not None
        assert NOON < found.p50 <= found.p90 <= NOON + 630 * SECOND
        return found.p50

    assert expected(1) < expected(2)


@given(nodes=NODES, sets=GANGS, ranks=st.lists(st.integers(1, 6), max_size=6))
def test_whoever_displaces_for_several_sets_gets_a_place_for_all_of_them(nodes, sets, ranks):
    """Kept on nodes that hold it once the victims are gone; nobody yields in vain, and gangs yield whole."""
    policy = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)
    free = [one.cpus for one in nodes]
    running, held = [], []
    for key, cpus in enumerate(ranks, 2):
        at = next((number for number, left in enumerate(free) if left >= cpus), None)
        if at is not None:
            free[at] -= cpus
            running.append(workload(key, queue="team", priority=10, phase=Phase.RUNNING, cpus=cpus))
            held.append(allocation(key, node_key=at + 1, cpus=cpus, started_at=NOON - SECOND))
    gang = gang_of(1, *sets, queue="team", priority=80, phase=Phase.QUEUED)
    queues = [QueueSpec(name="team", preemption=policy)]

    def without(victims: AbstractSet[int]) -> Snapshot:
        left = [one for one in running if one.key not in victims]
        pods_left = [one for one in held if one.workload_key not in victims]
        return world(nodes=nodes, queues=queues, workloads=[gang, *left], allocations=pods_left)

    def fits(snapshot: Snapshot) -> bool:
        shape = shape_of(snapshot, 0)
        return Search(snapshot).places_now(wish_of(snapshot, 0), shape)

    actions = preempt(without(set()))
    if not actions:
        return
    (action,) = actions
    victims = {victim.workload_key for victim in action.victims}
    after = without(victims)
    assert fits(after)
    assert len(action.slots) == gang.nodes
    left = after.nodes.cpu_milli - after.nodes.used_cpu_milli
    for slot in action.slots:
        left[slot.node_key - 1] -= slot.resources.cpu_milli
    assert left.min() >= 0
    for victim in victims:
        assert not fits(without(victims - {victim}))
