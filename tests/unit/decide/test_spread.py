"""Gangs apart from each other: evenly over the domains of a level, and never more than so many in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.explain import explain, preview
from mainstay.decide.growth import PAUSE_SECONDS, grow
from mainstay.decide.placement import POLICIES
from mainstay.decide.placement.fill import rankings_of
from mainstay.decide.placement.fit import free_of
from mainstay.decide.placement.gang import place
from mainstay.decide.possible import impossible
from mainstay.decide.preemption import preempt
from mainstay.decide.schedule import schedule
from mainstay.decide.shapes import shape_of
from mainstay.domain.plan import Advance, Allocate, Preempt
from mainstay.domain.preemption import PreemptionPolicy, Reclaim, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.workload import Kind, Phase, WorkloadSpec
from tests.worlds import NOON, SECOND, ANode, allocation, near, node, workload, world


def host(path: str, cpus: float = 8, **values: object) -> ANode:
    """`z1/r2/x3`: a node of this name in a zone and a rack."""
    zone, rack, name = path.split("/")
    topology = {level: name for level, name in (("zone", zone), ("rack", rack)) if name}
    return node(name, cpus=cpus, topology=topology, **values)


THREE_ZONES = [host(f"z{zone}/r{zone}{rack}/x{zone}{rack}") for zone in range(1, 4) for rack in range(1, 3)]


def placed(nodes: Sequence[ANode], count: int, topology: str, **values: object) -> dict[str, int] | None:
    """Pods by node of a gang of pods of one CPU; None where it is not placed."""
    snapshot = world(nodes=nodes, workloads=[workload(1, nodes=count, topology=topology, **values)])
    for action in schedule(snapshot):
        if isinstance(action, Allocate):
            return dict(Counter(snapshot.nodes.names[slot.node_key - 1] for slot in action.slots))
    return None


def by_domain(nodes: Sequence[ANode], used: dict[str, int], level: str) -> list[int]:
    """Pods in each domain that has any, fewest first."""
    found: Counter[object] = Counter()
    for one in nodes:
        found[domain(one, level)] += used.get(one.name, 0)
    return sorted(filter(None, found.values()))


def domain(one: ANode, level: str) -> object:
    """None where it is not known."""
    if level == "host":
        return one.name
    zone, rack = one.topology.get("zone"), one.topology.get("rack")
    found = (zone,) if level == "zone" else (zone, rack)
    return None if found[-1] is None else (one.cluster, *found)


@pytest.mark.parametrize(
    ("count", "topology", "level", "found"),
    [
        (3, "/host 1", "host", [1, 1, 1]),
        (6, "/host 1", "host", [1] * 6),
        (7, "/host 1", "host", None),
        (7, "/host 2", "host", [1] * 5 + [2]),
        (3, "/zone 1", "zone", [1, 1, 1]),
        (4, "/zone 1", "zone", None),
        (5, "/zone 2", "zone", [1, 2, 2]),
        (5, "/zone 0", "zone", [1, 2, 2]),
        (48, "/zone 0", "zone", [16, 16, 16]),
        (49, "/zone 0", "zone", None),
        (4, "required zone/rack 2", "rack", [2, 2]),
        (5, "required zone/rack 2", "rack", None),
        (2, "required zone/host 1", "host", [1, 1]),
        (3, "required zone/host 1", "host", None),
        (3, "preferred zone/host 1", "host", [1, 1, 1]),
    ],
)
def test_ranks_lie_as_far_apart_as_was_asked_for(count, topology, level, found):
    used = placed(THREE_ZONES, count, topology)
    assert (used and by_domain(THREE_ZONES, used, level)) == found


def test_a_gang_that_prefers_one_zone_takes_as_few_as_will_do():
    used = placed(THREE_ZONES, 3, "preferred zone/host 1")
    assert used is not None
    assert by_domain(THREE_ZONES, used, "zone") == [1, 2]


def test_where_there_is_room_for_fewer_the_others_have_more():
    nodes = [host("z1//a", cpus=1), host("z2//b"), host("z3//c")]
    assert placed(nodes, 7, "/zone 0") == {"a": 1, "b": 3, "c": 3}
    assert placed(nodes, 7, "/zone 3") == {"a": 1, "b": 3, "c": 3}
    assert placed(nodes, 7, "/zone 2") is None


def test_it_lies_in_one_cluster_as_every_gang():
    nodes = [host("z1//a", cluster="east"), host("z2//b", cluster="east"), host("z3//c", cluster="west")]
    assert placed(nodes, 2, "/zone 1") == {"a": 1, "b": 1}
    assert placed(nodes, 3, "/zone 1") is None


def test_the_fullest_nodes_are_taken_as_by_the_policy():
    nodes = [host(f"z{number}//x{number}", used_cpus=number % 3) for number in range(6)]
    assert placed(nodes, 2, "/host 1") == {"x2": 1, "x5": 1}
    assert placed(nodes, 2, "/zone 1") == {"x2": 1, "x5": 1}


def test_of_nodes_of_which_no_zone_is_known_a_required_spread_uses_none():
    nodes = [host("//x1"), host("z1//x2"), host("z2//x3")]
    assert placed(nodes, 2, "/zone 1") == {"x2": 1, "x3": 1}
    assert placed(nodes, 3, "/zone 1") is None
    assert placed(nodes, 3, "/zone 0") == {"x1": 1, "x2": 1, "x3": 1}


def test_a_single_pod_is_spread_anywhere():
    assert placed([host("//x1")], 1, "/zone 1") == {"x1": 1}


def test_an_elastic_gang_gets_as_many_as_may_lie_apart():
    assert placed(THREE_ZONES, 8, "/host 1", nodes_min=2) == dict.fromkeys((one.name for one in THREE_ZONES), 1)
    assert placed(THREE_ZONES, 8, "/zone 1", nodes_min=4) is None


def test_gangs_with_and_without_a_spread_are_told_apart():
    works = [workload(1, nodes=2, topology="/host 1"), workload(2, nodes=2), workload(3, nodes=2, topology="/host 2")]
    snapshot = world(nodes=[host("//x1", cpus=4)], workloads=works)
    assert {action.workload_key for action in schedule(snapshot) if isinstance(action, Allocate)} == {2, 3}


# What it waits for, in words


def reason(nodes: Sequence[ANode], count: int, topology: str) -> tuple[Code, str]:
    (action,) = schedule(world(nodes=nodes, workloads=[workload(1, nodes=count, topology=topology)]))
    assert isinstance(action, Advance)
    return action.reason.code, action.reason.sentence


def test_what_finds_too_few_hosts_now_hears_for_how_many_there_is_room():
    nodes = [host("z1//a"), host("z1//b"), host("z1//c", used_cpus=8)]
    code, sentence = reason(nodes, 3, "/host 1")
    assert code is Code.WAITS_FOR_CAPACITY
    assert sentence == (
        "waits for capacity: needs 3 x (1 CPU, 1 GiB), at most 1 per host, the most that is free on one node is 8 CPUs, 64 GiB,"
        " but with at most 1 per host there is room for 2 of 3: 2 hosts with room"
    )


def test_what_no_fleet_of_so_many_zones_could_spread_is_told_so():
    code, sentence = reason(THREE_ZONES, 7, "/zone 2")
    assert code is Code.NEVER_FITS
    assert sentence.endswith("but with at most 2 per zone there is room for 6 of 7: 3 zones with room")


def test_a_level_that_nobody_speaks_of_any_more_spreads_nothing():
    assert reason([node(), node()], 2, "/zone 1")[1].endswith(
        "but of no node with room is it known in which zone it is"
    )


def test_where_there_is_not_even_room_side_by_side_the_spread_is_not_what_is_short():
    full = [host(f"//{name}", used_cpus=8) for name in "abc"]
    assert "there is room for" not in reason([*full, host("//y", cpus=2)], 3, "/host 1")[1]


def test_explain_names_how_many_in_one_would_do_and_the_narrower_level_that_would():
    explained = explain(world(nodes=THREE_ZONES, workloads=[workload(1, nodes=5, topology="/zone 1")]), 1)
    assert [(one.change, one.before, one.after) for one in explained.alternatives] == [
        ("spread", "at most 1 per zone", "at most 2 per zone"),
        ("spread", "at most 1 per zone", "at most 1 per rack"),
        ("nodes", "5", "3"),
    ]


def spec(count: int, topology: str) -> WorkloadSpec:
    size = Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB)
    return WorkloadSpec(
        kind=Kind.SERVICE, name="web", run=("x",), nodes=count, choices=(size,), topology=near(topology)
    )


def test_a_preview_says_where_the_ranks_would_lie():
    found = preview(world(nodes=THREE_ZONES[::2]), spec=spec(3, "/zone 1"), priority=50)
    assert (found.starts_now, found.nodes) == (True, ("x11", "x21", "x31"))


def test_more_ranks_than_domains_take_is_refused_with_the_nearest_that_could_be():
    full = [host(f"z{number}//x{number}", used_cpus=8) for number in range(3)]
    assert impossible(world(nodes=full), spec=spec(3, "/host 1"), queue="default") is None
    found = impossible(world(nodes=full), spec=spec(5, "/host 1"), queue="default")
    assert found is not None
    assert found.reason.code is Code.NEVER_FITS
    assert found.nearest == ("spread at most 2 per host instead of at most 1 per host", "nodes 3 instead of 5")


# Together with preemption

URGENT = QueueSpec(name="urgent", preemption=PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY))
HELD = st.lists(st.tuples(st.sampled_from(("r1", "r2", "r3", "")), st.booleans()), min_size=1, max_size=9)


@given(
    HELD,
    st.integers(2, 5),
    st.sampled_from(("/host 1", "/rack 1", "/rack 2", "required zone/rack 1")),
    st.integers(1, 2),
)
def test_those_yield_without_whom_it_lies_apart_and_no_others(racks, count, topology, cpus):
    """Nodes by rack and whether they are held by work that may yield, on which `cpus` pods of the gang have room."""
    nodes = [host(f"z1/{rack}/x{number}", cpus) for number, (rack, _) in enumerate(racks, 1)]
    held = [number for number, (_, yields) in enumerate(racks, 1) if yields]
    low = [workload(10 + number, queue="urgent", phase=Phase.RUNNING) for number in held]
    wish = workload(1, queue="urgent", priority=90, phase=Phase.QUEUED, nodes=count, topology=topology)
    snapshot = world(
        nodes=nodes,
        workloads=[wish, *low],
        allocations=[allocation(10 + number, node_key=number, cpus=cpus) for number in held],
        queues=[URGENT],
    )
    level, at_most = topology.split("/")[1].split()

    def room(*, all_yield: bool) -> int:
        there: Counter[object] = Counter()
        for one, (_, yields) in zip(nodes, racks, strict=True):
            if domain(one, level) is not None and (all_yield or not yields):
                there[domain(one, level)] += cpus
        return sum(min(int(at_most), pods) for pods in there.values())

    found = preempt(snapshot)
    assert bool(found) == (room(all_yield=True) >= count > room(all_yield=False))
    for action in found:
        assert isinstance(action, Preempt)
        used = dict(Counter(nodes[slot.node_key - 1].name for slot in action.slots))
        assert max(by_domain(nodes, used, level)) <= int(at_most)
        victims = {victim.workload_key - 10 for victim in action.victims}
        assert {int(name[1:]) for name in used} & set(held) == victims


def test_no_second_one_yields_in_a_domain_that_is_full():
    """Queue b gives back two of its three: one of them on each host, though the second one on the first is the less urgent."""
    cpu = ("default", "cpu")
    queues = [
        QueueSpec(name="all", cohort=True),
        QueueSpec(
            name="a",
            parent="all",
            quotas={cpu: Quota(nominal=2_000)},
            preemption=PreemptionPolicy(reclaim=Reclaim.ANY),
        ),
        QueueSpec(name="b", parent="all", quotas={cpu: Quota(nominal=1_000)}),
    ]
    held = [
        workload(key, queue="b", priority=priority, phase=Phase.RUNNING)
        for key, priority in ((11, 10), (12, 10), (13, 20))
    ]
    snapshot = world(
        nodes=[host("//x", cpus=2), host("//y", cpus=1)],
        workloads=[workload(1, queue="a", phase=Phase.QUEUED, nodes=2, topology="/host 1"), *held],
        allocations=[allocation(11, node_key=1), allocation(12, node_key=1), allocation(13, node_key=2)],
        queues=queues,
    )
    (action,) = preempt(snapshot)
    assert isinstance(action, Preempt)
    assert sorted(slot.node_key for slot in action.slots) == [1, 2]
    assert len(action.victims) == 2
    assert 13 in {victim.workload_key for victim in action.victims}


# Growth

EARLIER = NOON - (PAUSE_SECONDS + 1) * SECOND
LIVES = st.lists(st.integers(0, 5), min_size=1, max_size=6)


@given(LIVES, st.integers(1, 9), st.sampled_from(("/host 1", "/host 2", "/rack 1", "/zone 3", "/zone 0")))
def test_a_run_that_grows_stays_apart(lives, most, topology):
    """`lives`: the nodes of its ranks, which may lie closer together than they must since a label has changed."""
    run = workload(1, phase=Phase.RUNNING, nodes=9, nodes_min=1, nodes_max=len(lives) + most, topology=topology)
    pods = [
        allocation(1, rank=rank, node_key=1 + at, created_at=EARLIER, started_at=EARLIER)
        for rank, at in enumerate(lives)
    ]
    (level, at_most), nodes = topology[1:].split(), [host(f"z{at // 2}/r{at}/x{at}") for at in range(6)]
    before = Counter(domain(nodes[at], level) for at in lives)
    after = before.copy()
    for action in grow(world(nodes=nodes, workloads=[run], allocations=pods)):
        for slot in action.slots:
            after[domain(nodes[slot.node_key - 1], level)] += 1
    grown, limit = after.total() - before.total(), int(at_most) or 99
    assert all(after[one] <= max(limit, before[one]) for one in after)
    assert grown == min(most, sum(max(0, limit - before[domain(one, level)]) for one in _first(nodes, level)))
    # Nobody who got more has more than one above those who could have had it.
    got = [after[one] for one in after if after[one] > before[one]]
    assert not got or max(got) - min(min(after[domain(one, level)], limit) for one in nodes) <= 1


def _first(nodes: Sequence[ANode], level: str) -> list[ANode]:
    """One node of each domain."""
    return list({domain(one, level): one for one in nodes}.values())


@pytest.mark.parametrize("lost", [{"key": 9}, {"topology": {}}])
def test_where_nobody_knows_where_a_rank_lies_none_is_added(lost):
    fields = {"name": "x1", "cpus": 8, "topology": {"zone": "z1"}, **lost}
    nodes = [host("z0//x0"), ANode(**fields), host("z2//x2")]
    run = workload(1, phase=Phase.RUNNING, nodes=3, nodes_min=1, nodes_max=3, topology="/zone 1")
    pods = [allocation(1, rank=rank, node_key=1 + rank, created_at=EARLIER, started_at=EARLIER) for rank in range(2)]
    assert grow(world(nodes=nodes, workloads=[run], allocations=pods)) == ()


# What always holds

PLACES = st.tuples(st.sampled_from(("z1", "z2", "")), st.sampled_from(("r1", "r2", "")), st.integers(0, 3))
TREES = st.lists(PLACES, min_size=1, max_size=10)
NEEDS = st.builds(
    "{}/{} {}".format,
    st.sampled_from(("", "", "required zone", "preferred zone")),
    st.sampled_from(("rack", "host")),
    st.integers(0, 3),
) | st.builds("/zone {}".format, st.integers(0, 3))


def tree(places: Sequence[tuple[str, str, int]]) -> list[ANode]:
    """Names are those of the places: they stay when these are shuffled."""
    return [host(f"{zone}/{rack}/x{number}", cpus) for number, (zone, rack, cpus) in enumerate(places)]


@given(TREES, st.integers(2, 9), NEEDS, st.sampled_from(sorted(POLICIES)))
def test_no_policy_breaks_a_spread_and_each_finds_what_there_is(places, count, topology, policy):
    nodes, (near_by, apart) = tree(places), topology.split("/")
    level, at_most = apart.split()[0], int(apart.split()[1])
    snapshot = world(nodes=nodes, workloads=[workload(1, nodes=count, topology=topology)])
    free = free_of(snapshot, rankings=rankings_of([POLICIES[policy]]), heeds=POLICIES[policy].heeds)
    found = place(free, shape_of(snapshot, 0).requests[0], count=count, policy=POLICIES[policy])

    def room(inside: Sequence[ANode]) -> Counter[object]:
        there: Counter[object] = Counter()
        for one in inside:
            if domain(one, level) is not None or not at_most:
                there[domain(one, level)] += int(one.cpus)
        return Counter({key: min(pods, at_most or pods) for key, pods in there.items()})

    zones = {domain(one, "zone") for one in nodes} - {None}
    whole = [[one for one in nodes if domain(one, "zone") == zone] for zone in zones]
    must = whole if near_by.startswith("required") else [nodes]
    assert (found is not None) == any(room(inside).total() >= count for inside in must)
    if found is None:
        return
    used = Counter(nodes[row].name for row in found.tolist())
    assert used.total() == count
    assert all(used[one.name] <= one.cpus for one in nodes)
    pods = dict.fromkeys(room(nodes), 0)
    for one in nodes:
        if used[one.name]:
            assert domain(one, level) is not None or not at_most
            pods[domain(one, level)] += used[one.name]
    assert not at_most or max(pods.values()) <= at_most
    if not near_by and None not in pods:
        # As even as can be: who has fewer than another has no room for more.
        assert all(pods[key] >= max(pods.values()) - 1 or pods[key] == room(nodes)[key] for key in pods)


@given(TREES, st.integers(2, 9), NEEDS, st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_does_not_matter(places, count, topology, random):
    nodes = tree(places)
    once, again = (placed(listed, count, topology) for listed in (nodes, random.sample(nodes, len(nodes))))
    level = topology.split("/")[1].split()[0]
    assert (once is None) == (again is None)
    if once is not None and again is not None:
        assert by_domain(nodes, once, level) == by_domain(nodes, again, level)


@given(TREES, st.integers(2, 9), NEEDS)
def test_what_explain_says_would_do_does(places, count, topology):
    nodes = tree(places)
    explained = explain(world(nodes=nodes, workloads=[workload(1, nodes=count, topology=topology)]), 1)
    close = topology.split("/")[0]
    assert (explained.reason.code is Code.PLACED) == (placed(nodes, count, topology) is not None)
    for one in explained.alternatives:
        words = one.after.split()
        changed = {
            "spread": lambda words=words: placed(nodes, count, f"{close}/{words[-1]} {words[2]}"),
            "nodes": lambda words=words: placed(nodes, int(words[0]), topology),
        }
        if one.change in changed:
            assert changed[one.change]() is not None
