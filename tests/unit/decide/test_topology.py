"""Gangs near to each other: the smallest domain that holds them, and as few of the narrower ones as will do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.explain import explain, preview
from mainstay.decide.placement import POLICIES
from mainstay.decide.placement.fill import rankings_of
from mainstay.decide.placement.fit import free_of
from mainstay.decide.placement.gang import place
from mainstay.decide.preemption import preempt
from mainstay.decide.schedule import schedule
from mainstay.decide.shapes import shape_of
from mainstay.domain.plan import Advance, Allocate, Preempt
from mainstay.domain.preemption import PreemptionPolicy, WithinQueue
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import QueueSpec
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.topology import LEVELS
from mainstay.domain.workload import Kind, Phase, WorkloadSpec
from tests.worlds import ANode, allocation, near, node, workload, world


def host(path: str, cpus: float, **values: object) -> ANode:
    """`b1/r2/x3`: a node of this name in a block and a rack."""
    block, rack, name = path.split("/")
    topology = {level: name for level, name in (("block", block), ("rack", rack)) if name}
    return node(name, cpus=cpus, topology=topology, **values)


KUEUES = [
    host(*one)
    for one in zip(
        ("b1/r1/x1", "b1/r2/x2", "b1/r2/x3", "b1/r2/x4", "b2/r1/x5", "b2/r2/x6"), (1, 1, 1, 1, 1, 2), strict=True
    )
]
"""The tree of Kueue's own tests: pkg/cache/scheduler/tas_cache_test.go, `defaultNodes`."""
WIDE_RACK = [
    host(*one)
    for one in zip(
        ("b1/r1/x1", "b1/r2/x2", "b1/r3/x3", "b1/r3/x4", "b1/r3/x5", "b1/r3/x6"), (2, 2, 1, 1, 1, 1), strict=True
    )
]


def placed(nodes: Sequence[ANode], count: int, topology: str, **values: object) -> dict[str, int] | None:
    """Pods by node of a gang of pods of one CPU; None where it is not placed."""
    snapshot = world(nodes=nodes, workloads=[workload(1, nodes=count, topology=topology, **values)])
    for action in schedule(snapshot):
        if isinstance(action, Allocate):
            return dict(Counter(snapshot.nodes.names[slot.node_key - 1] for slot in action.slots))
    return None


@pytest.mark.parametrize(
    ("nodes", "count", "topology", "found"),
    [
        (KUEUES, 3, "required rack", {"x2": 1, "x3": 1, "x4": 1}),
        (KUEUES, 2, "required rack", {"x6": 2}),
        (KUEUES, 4, "required rack", None),
        (KUEUES, 3, "required block", {"x6": 2, "x5": 1}),
        (KUEUES, 4, "required block", {"x1": 1, "x2": 1, "x3": 1, "x4": 1}),
        (KUEUES, 5, "required block", None),
        (KUEUES, 2, "required host", {"x6": 2}),
        (KUEUES, 3, "required host", None),
        (KUEUES, 4, "preferred rack", {"x1": 1, "x2": 1, "x3": 1, "x4": 1}),
        (KUEUES, 6, "preferred block", {"x1": 1, "x2": 1, "x3": 1, "x4": 1, "x6": 2}),
        (KUEUES, 7, "preferred rack", {"x1": 1, "x2": 1, "x3": 1, "x4": 1, "x5": 1, "x6": 2}),
        (KUEUES, 8, "preferred rack", None),
        (WIDE_RACK, 4, "required block", {"x3": 1, "x4": 1, "x5": 1, "x6": 1}),
        (WIDE_RACK, 4, "preferred host", {"x3": 1, "x4": 1, "x5": 1, "x6": 1}),
        (WIDE_RACK, 2, "preferred host", {"x1": 2}),
    ],
)
def test_a_gang_lies_where_kueue_puts_it(nodes, count, topology, found):
    assert placed(nodes, count, topology) == found


def test_a_rack_of_the_same_name_in_another_block_is_another_rack():
    assert placed([host("b1/r1/x1", 1), host("b2/r1/x2", 1)], 2, "required rack") is None


def test_a_rack_of_the_same_name_in_another_cluster_is_another_rack():
    nodes = [node(cpus=1, cluster=cluster, topology={"rack": "r1"}) for cluster in ("east", "west")]
    assert placed(nodes, 2, "required rack") is None


def test_nodes_of_which_no_rack_is_known_are_in_none():
    nodes = [host("b1//x1", 8), host("b1/r1/x2", 1), host("b1/r1/x3", 1)]
    assert placed(nodes, 2, "required rack") == {"x2": 1, "x3": 1}
    assert placed(nodes, 3, "required rack") is None
    assert placed(nodes, 3, "preferred rack") == {"x1": 3}


def test_ranks_beside_each_other_lie_beside_each_other():
    nodes = [host(f"b1/r{number % 2}/x{number}", 1) for number in range(4)]
    snapshot = world(nodes=nodes, workloads=[workload(1, nodes=4, topology="required block")])
    (action,) = schedule(snapshot)
    racks = [nodes[slot.node_key - 1].topology["rack"] for slot in action.slots]
    assert racks == ["r0", "r0", "r1", "r1"]


def test_within_its_rack_a_gang_takes_the_fullest_nodes():
    nodes = [host(f"b1/r1/x{number}", 16, gpus=8, used_cpus=number % 3, gpu_model="H100") for number in range(6)]
    assert placed(nodes, 2, "required rack", gpus=8) == {"x2": 1, "x5": 1}


def test_of_any_model_a_gang_takes_the_rack_that_holds_it():
    nodes = [host(f"b1/r1/x{number}", 9, gpus=8, gpu_model="A100" if number else "H100") for number in range(3)]
    assert placed(
        nodes,
        2,
        "required rack",
        choices=(
            Resources(cpu_milli=1_000, memory_bytes=1, gpus=8, gpu_model="H100"),
            Resources(cpu_milli=1_000, memory_bytes=1, gpus=8, gpu_model="A100"),
        ),
    ) == {"x1": 1, "x2": 1}


def test_a_single_pod_is_near_to_itself_everywhere():
    assert placed([node("x1")], 1, "required rack") == {"x1": 1}


def test_gangs_with_and_without_a_topology_are_told_apart():
    works = [workload(1, nodes=2, topology="required rack"), workload(2, nodes=2)]
    snapshot = world(nodes=[host("b1/r1/x1", 1), host("b1/r2/x2", 1)], workloads=works)
    assert {action.workload_key for action in schedule(snapshot) if isinstance(action, Allocate)} == {2}


# What it waits for, in words


def test_what_fits_into_no_rack_now_hears_how_many_the_roomiest_takes():
    nodes = [*(host(f"b1/r1/x{number}", 1) for number in range(3)), host("b1/r1/y", 1, used_cpus=1), host("b1/r2/z", 1)]
    (action,) = schedule(world(nodes=nodes, workloads=[workload(1, nodes=4, topology="required rack")]))
    assert isinstance(action, Advance)
    assert action.reason.code is Code.WAITS_FOR_CAPACITY
    assert action.reason.sentence == (
        "waits for capacity: needs 4 x (1 CPU, 1 GiB) in one rack, the most that is free on one node is 1 CPU, 64 GiB, but no"
        " rack has room for 4 such pods: the roomiest, b1/r1, has room for 3"
    )


def test_what_no_rack_could_ever_hold_is_told_so():
    (action,) = schedule(world(nodes=KUEUES, workloads=[workload(1, nodes=4, topology="required rack")]))
    assert action.reason.code is Code.NEVER_FITS
    assert action.reason.sentence.endswith("but no rack has room for 4 such pods: the roomiest, b1/r2, has room for 3")


def test_a_level_that_nobody_speaks_of_any_more_holds_nothing():
    (action,) = schedule(world(nodes=[node()], workloads=[workload(1, nodes=2, topology="required rack")]))
    assert action.reason.sentence.endswith("but of no node is it known in which rack it is")


def test_a_preview_says_where_a_gang_would_lie():
    spec = WorkloadSpec(
        kind=Kind.JOB, name="a", run=("x",), nodes=3, choices=(Resources(cpu_milli=1_000, memory_bytes=1),),
        topology=near("required rack"),
    )  # fmt: skip
    assert preview(world(nodes=KUEUES), spec=spec, priority=50).nodes == ("x2", "x3", "x4")


def test_explain_names_the_wider_level_that_would_do():
    explained = explain(world(nodes=KUEUES, workloads=[workload(1, nodes=4, topology="required rack")]), 1)
    assert ("topology", "rack", "block") in [(one.change, one.before, one.after) for one in explained.alternatives]


def test_explain_names_the_preference_that_would_do():
    explained = explain(world(nodes=KUEUES, workloads=[workload(1, nodes=6, topology="required rack")]), 1)
    assert ("topology", "required", "preferred") in [
        (one.change, one.before, one.after) for one in explained.alternatives
    ]


# Together with preemption

URGENT = QueueSpec(name="urgent", preemption=PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY))


def contended(racks: Sequence[tuple[str, bool]], *, count: int, topology: str) -> Snapshot:
    """Nodes of one CPU, by rack and whether it holds work that may yield; and a gang that waits."""
    nodes = [host(f"b1/{rack}/x{number}", 1) for number, (rack, _) in enumerate(racks, 1)]
    held = [number for number, (_, yields) in enumerate(racks, 1) if yields]
    low = [workload(10 + number, queue="urgent", phase=Phase.RUNNING, nodes=1) for number in held]
    wish = workload(1, queue="urgent", priority=90, phase=Phase.QUEUED, nodes=count, topology=topology)
    return world(
        nodes=nodes,
        workloads=[wish, *low],
        allocations=[allocation(10 + number, node_key=number) for number in held],
        queues=[URGENT],
    )


def test_those_yield_with_whom_one_rack_holds_the_gang():
    racks = [("r1", True), ("r2", True), ("r2", True), ("r3", False)]
    (action,) = preempt(contended(racks, count=2, topology="required rack"))
    assert isinstance(action, Preempt)
    assert [slot.node_key for slot in action.slots] == [2, 3]
    assert {victim.workload_key for victim in action.victims} == {12, 13}


def test_nobody_yields_for_a_gang_that_no_rack_would_hold():
    racks = [("r1", True), ("r2", True), ("r3", False)]
    assert preempt(contended(racks, count=2, topology="required rack")) == ()


def test_where_most_of_the_rack_is_free_fewer_yield():
    racks = [("r1", True), ("r1", True), ("r2", False), ("r2", True)]
    (action,) = preempt(contended(racks, count=2, topology="required rack"))
    assert {victim.workload_key for victim in action.victims} == {14}


HELD = st.lists(st.tuples(st.sampled_from(("r1", "r2", "r3")), st.booleans()), min_size=2, max_size=9)


@given(HELD, st.integers(2, 5), st.sampled_from(("required rack", "required block", "preferred rack")))
def test_whoever_yields_makes_room_where_it_was_asked_for(racks, count, topology):
    snapshot = contended(racks, count=count, topology=topology)
    found = preempt(snapshot)
    room = Counter(rack for rack, _ in racks) if topology == "required rack" else Counter(["all"] * len(racks))
    fits = any(here >= count for here in room.values())
    idle = Counter(rack if topology == "required rack" else "all" for rack, yields in racks if not yields)
    assert bool(found) == (fits and not any(here >= count for here in idle.values()))
    for action in found:
        nodes = [slot.node_key - 1 for slot in action.slots]
        victims = {victim.workload_key - 11 for victim in action.victims}
        assert {node for node in nodes if racks[node][1]} == victims
        assert topology != "required rack" or len({racks[node][0] for node in nodes}) == 1


# What always holds

CPUS = st.integers(0, 4)
PLACES = st.tuples(st.sampled_from(("b1", "b2")), st.sampled_from(("r1", "r2", "")), CPUS)
TREES = st.lists(PLACES, min_size=1, max_size=10)
NEEDS = st.tuples(st.sampled_from(("required", "preferred")), st.sampled_from(LEVELS[1:])).map(" ".join)


def tree(places: Sequence[tuple[str, str, int]]) -> list[ANode]:
    """Names are those of the places: they stay when these are shuffled."""
    return [host(f"{block}/{rack}/x{number}", cpus) for number, (block, rack, cpus) in enumerate(places)]


def domain(one: ANode, level: str) -> tuple[str, ...] | None:
    """None where it is not known."""
    if level == "host":
        return (one.name,)
    known = one.topology.get("block"), one.topology.get("rack")
    found = known[: 1 if level == "block" else 2]
    return None if found[-1] is None else tuple(map(str, found))


def rooms(nodes: Sequence[ANode], level: str) -> Counter[tuple[str, ...]]:
    found: Counter[tuple[str, ...]] = Counter()
    for one in nodes:
        if (where := domain(one, level)) is not None:
            found[where] += int(one.cpus)
    return found


def racks_of(nodes: Sequence[ANode], used: Mapping[str, int]) -> set[tuple[str, ...] | None]:
    return {domain(one, "rack") for one in nodes if one.name in used}


@given(TREES, st.integers(2, 12), NEEDS, st.sampled_from(sorted(POLICIES)))
def test_what_is_required_is_kept_and_one_domain_is_used_where_one_will_do(places, count, topology, policy):
    nodes, level = tree(places), topology.split()[1]
    snapshot = world(nodes=nodes, workloads=[workload(1, nodes=count, topology=topology)])
    free = free_of(snapshot, rankings=rankings_of([POLICIES[policy]]))
    found = place(free, shape_of(snapshot, 0).requests[0], count=count, policy=POLICIES[policy])
    fitting = [room for room in rooms(nodes, level).values() if room >= count]
    if found is None:
        assert not fitting
        assert topology.startswith("required") or sum(one.cpus for one in nodes) < count
        return
    used = Counter(found.tolist())
    assert all(pods <= nodes[row].cpus for row, pods in used.items())
    assert sum(used.values()) == count
    if topology.startswith("required") or fitting:
        (only,) = {domain(nodes[row], level) for row in used}
        assert rooms(nodes, level)[only] == min(fitting)


@given(TREES, st.integers(2, 12), NEEDS)
def test_a_gang_over_several_domains_uses_as_few_as_could_hold_it(places, count, topology):
    nodes = tree([(block, rack or "r1", cpus) for block, rack, cpus in places])
    used = placed(nodes, count, topology)
    if used is None:
        return
    widest = sorted(rooms(nodes, "block").values(), reverse=True)
    least = next(number for number in range(1, len(widest) + 1) if sum(widest[:number]) >= count)
    inside = {one.topology["block"] for one in nodes if one.name in used}
    assert len(inside) == (least if topology.startswith("preferred") else 1)


@given(TREES, st.integers(2, 12), NEEDS.filter(lambda need: "host" not in need), st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_does_not_matter(places, count, topology, random):
    nodes = tree(places)
    once, again = (placed(listed, count, topology) or {} for listed in (nodes, random.sample(nodes, len(nodes))))
    assert racks_of(nodes, once) == racks_of(nodes, again)


@given(TREES, st.integers(2, 12), NEEDS)
def test_what_explain_says_would_do_does(places, count, topology):
    nodes = tree(places)
    snapshot = world(nodes=nodes, workloads=[workload(1, nodes=count, topology=topology)])
    explained = explain(snapshot, 1)
    level, starts = topology.split()[1], placed(nodes, count, topology) is not None
    assert (explained.reason.code is Code.PLACED) == starts
    assert starts == (placed(nodes, count, topology) is not None)
    for one in explained.alternatives:
        changed = {
            "topology": lambda one=one: placed(
                nodes, count, f"{one.after} {level}" if one.before == "required" else f"required {one.after}"
            ),
            "nodes": lambda one=one: placed(nodes, int(one.after), topology),
        }
        if one.change in changed:
            assert changed[one.change]() is not None
