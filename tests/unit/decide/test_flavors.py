"""Quotas by flavors of nodes: which nodes work may use, in which order, and against what it counts once it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from mainstay.decide.allowance import FLAVORS_MAX, Allowance, held_by_queue
from mainstay.decide.condensing import Condenser
from mainstay.decide.cycle import Cycle
from mainstay.decide.explain import explain, preview
from mainstay.decide.flavors import groups_of
from mainstay.decide.growth import grow
from mainstay.decide.nomination import reserved
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES
from mainstay.decide.placement.sets import Part
from mainstay.decide.possible import impossible
from mainstay.decide.preemption import preempt
from mainstay.decide.schedule import schedule
from mainstay.decide.shapes import shape_of
from mainstay.decide.standing import standings
from mainstay.domain.affinity import NodeTraits, Requirement, traits
from mainstay.domain.flavor import NodeFlavor, flavor_numbers, placed_before
from mainstay.domain.plan import Advance, Allocate
from mainstay.domain.preemption import Nomination, PreemptionPolicy, Reclaim, Slot
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Kind, Phase, WorkloadSpec
from tests.unit.decide.test_kernel import plan
from tests.worlds import NOON, SECOND, ANode, allocation, flavor, gang_of, node, pods, workload, world

POLICY = POLICIES[DEFAULT_POLICY]
SPOT, OWNED = flavor("spot"), flavor("owned")
BOTH = (SPOT, OWNED)


def of(pool: str, name: str, **values: object) -> ANode:
    """A node of this flavor."""
    return node(name, labels={"pool": pool}, **values)


def team(name: str = "a", *, parent: str = "", preemption: PreemptionPolicy | None = None, **cpus: int) -> QueueSpec:
    """A queue with so many cores of each flavor."""
    quotas = {(flavor_, "cpu"): Quota(nominal=1_000 * count) for flavor_, count in cpus.items()}
    policy = {} if preemption is None else {"preemption": preemption}
    return QueueSpec(name=name, parent=parent, quotas=quotas, **policy)


def places(snapshot: Snapshot) -> dict[int, list[str]]:
    """Workload key -> the node of each rank, of all that a cycle places."""
    return {
        int(snapshot.workloads.key[row]): [snapshot.nodes.names[one] for one in nodes]
        for placed in Cycle(snapshot, POLICY).placements()
        for row, nodes in zip(placed.rows.tolist(), placed.nodes.tolist(), strict=True)
    }


def used(snapshot: Snapshot) -> dict[tuple[str, str], int]:
    """Cell -> what queue `a` holds of it."""
    row = snapshot.queues.names.index("a")
    return dict(zip(snapshot.queues.cells, held_by_queue(snapshot)[row].tolist(), strict=True))


def test_a_node_is_of_the_first_flavor_that_it_meets():
    ssd = NodeFlavor(name="ssd", requirements=(Requirement(key="disk", operator="Exists"),))
    licence = NodeFlavor(
        name="licence",
        requirements=(Requirement(key="disk", operator="Exists"), Requirement(key="n", operator="Gt", values=("4",))),
    )
    each = [traits(labels, ()) for labels in ({"disk": "ssd"}, {"disk": "ssd", "n": "5"}, {"n": "5"})]
    nodes = NodeTraits(number=np.array([1, 0, 2, 1]), each=tuple(each), barred=np.zeros(4, dtype=np.bool_))
    assert flavor_numbers(nodes, [licence, ssd]).tolist() == [1, 2, 0, 1]
    assert flavor_numbers(nodes, [ssd, licence]).tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize(
    ("name", "before", "order"),
    [("c", "", "abc"), ("c", "a", "cab"), ("a", "", "ab"), ("b", "a", "ba"), ("a", "b", "ab")],
)
def test_a_flavor_has_a_place_in_their_order(name, before, order):
    found = placed_before([flavor("a"), flavor("b")], flavor(name), before)
    assert "".join(one.name for one in found) == order


def test_a_queue_tries_the_flavors_of_its_quotas_in_their_order_and_all_other_nodes_last():
    queues = [team("a", owned=1, spot=1), team("b", spot=1), team("c", default=1), team("d", owned=0)]
    snapshot = world(nodes=[node()], flavors=BOTH, queues=queues)
    groups = groups_of(snapshot.queues, snapshot.flavors)
    tried = {name: groups.of(row) for row, name in enumerate(snapshot.queues.names)}
    assert tried == {
        "default": ((),),
        "a": ((1,), (2,), (0,)),
        "b": ((1,), (0, 2)),
        "c": ((),),
        "d": ((2,), (0, 1)),
    }


def test_work_takes_the_first_flavor_of_which_its_queue_may_use_enough_and_that_has_room():
    nodes = [node("plain", cpus=8), of("owned", "o", cpus=8), of("spot", "s", cpus=3)]
    waiting = [workload(key, queue="a", submitted_at=NOON + key) for key in range(1, 9)]
    snapshot = world(nodes=nodes, flavors=BOTH, queues=[team(spot=4, owned=2, default=1)], workloads=waiting)
    found = [names[0] for _, names in sorted(places(snapshot).items())]
    assert found == ["s", "s", "s", "o", "o", "plain"], "spot is full at 3, the quotas of the others at 2 and 1"


def test_a_queue_does_not_use_nodes_of_which_it_has_no_quota_if_it_has_any_of_the_resource():
    nodes = [node("plain"), of("owned", "o"), of("spot", "s", cpus=1)]
    waiting = [workload(key, queue="a", submitted_at=NOON + key) for key in (1, 2)]
    assert places(world(nodes=nodes, flavors=BOTH, queues=[team(spot=9)], workloads=waiting)) == {1: ["s"]}


def test_quotas_that_tell_no_flavors_apart_change_nothing():
    nodes = [node("plain", cpus=1), of("owned", "o", cpus=1), of("spot", "s", cpus=1)]
    gang = workload(1, queue="a", nodes=3)
    for queue in (team(default=3), team()):
        plain = world(nodes=nodes, queues=[queue], workloads=[gang])
        named = world(nodes=nodes, queues=[queue], workloads=[gang], flavors=BOTH)
        assert places(plain) == places(named) != {}


def test_a_gang_lies_on_nodes_of_one_flavor_or_on_nodes_that_the_queue_does_not_tell_apart():
    nodes = [of("spot", "s", cpus=2), node("plain", cpus=2), of("owned", "o", cpus=2)]
    gang = workload(1, queue="a", nodes=4)
    assert places(world(nodes=nodes, flavors=BOTH, queues=[team(spot=9, default=9)], workloads=[gang])) == {
        1: ["plain", "plain", "o", "o"]
    }
    apart = team(spot=9, owned=9, default=9)
    assert places(world(nodes=nodes, flavors=BOTH, queues=[apart], workloads=[gang])) == {}


def test_a_gang_that_one_queue_has_no_room_for_on_its_flavors_may_fit_for_another():
    nodes = [of("spot", "s", cpus=2), of("owned", "o", cpus=2)]
    gangs = [workload(key, queue=queue, nodes=4, submitted_at=NOON + key) for key, queue in ((1, "a"), (2, "b"))]
    queues = [team("a", spot=9, owned=9), QueueSpec(name="b")]
    snapshot = world(nodes=nodes, flavors=BOTH, queues=queues, workloads=gangs)
    assert set(places(snapshot)) == {2}
    (reason,) = [one.reason for one in schedule(snapshot) if isinstance(one, Advance)]
    assert reason.sentence == (
        "waits for capacity: needs 4 x (1 CPU, 1 GiB), the most that is free on one node is 0 CPUs, 62 GiB:"
        " tried spot: no room; owned: no room; other nodes: no quota"
    )


def test_every_choice_is_tried_on_every_flavor_before_the_next_choice():
    large = Resources(cpu_milli=4_000, memory_bytes=BYTES_PER_GIB)
    small = Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB)
    work = workload(1, queue="a", choices=(large, small))
    nodes = [of("spot", "s", cpus=2), of("owned", "o", cpus=4)]
    assert places(world(nodes=nodes, flavors=BOTH, queues=[team(spot=9, owned=9)], workloads=[work])) == {1: ["o"]}
    assert places(world(nodes=nodes, flavors=BOTH, queues=[team(spot=9, owned=3)], workloads=[work])) == {1: ["s"]}


def test_a_quota_of_the_nodes_goes_before_one_of_their_gpus_and_of_whatever_else():
    quotas = {
        ("spot", "cpu"): Quota(nominal=99_000),
        ("H100", "cpu"): Quota(nominal=99_000),
        ("H100", "gpu"): Quota(nominal=9),
        ("default", "gpu"): Quota(nominal=9),
        ("default", "memory"): Quota(nominal=99 << 30),
    }
    nodes = [of("spot", "s", gpus=8, gpu_model="H100"), node("plain", gpus=8, gpu_model="H100")]
    running = [allocation(1, node_key=key, gpus=1, gpu_model="H100") for key in (1, 2)]
    snapshot = world(
        nodes=nodes,
        flavors=BOTH,
        queues=[QueueSpec(name="a", quotas=quotas)],
        workloads=[workload(1, queue="a", phase=Phase.RUNNING, nodes=2, gpus=1)],
        allocations=running,
    )
    assert used(snapshot) == {
        ("spot", "cpu"): 1_000,
        ("H100", "cpu"): 1_000,
        ("H100", "gpu"): 2,
        ("default", "gpu"): 0,
        ("default", "memory"): 2 * BYTES_PER_GIB,
    }


def test_gpus_of_which_nobody_says_the_model_count_against_what_is_of_no_other_model():
    """Where quotas tell models apart they are tried last, by the loop and by NumPy."""
    nodes = [node("known", gpus=1, gpu_model="H100"), node("unknown", gpus=2)]
    queue = QueueSpec(name="a", quotas={("H100", "gpu"): Quota(nominal=1), ("default", "gpu"): Quota(nominal=1)})
    jobs = [workload(key, queue="a", gpus=1) for key in (1, 2, 3)]
    snapshot = world(nodes=nodes, workloads=jobs, queues=[queue])
    found, _, _ = plan(snapshot)
    assert found == [(1, (0,), "H100"), (2, (1,), "")]
    assert plan(snapshot, by_numpy=True)[0] == found
    held = {one.workload_key: one.slots[0].resources for one in schedule(snapshot) if isinstance(one, Allocate)}
    assert {key: one.gpu_model for key, one in held.items()} == {1: "H100", 2: ""}


def test_models_are_told_apart_on_the_nodes_of_each_flavor_by_themselves():
    """The first flavor has a quota of all GPUs, so a gang of any model may lie on both; other nodes have one of L4s alone."""
    quotas = {("spot", "gpu"): Quota(nominal=2), ("L4", "gpu"): Quota(nominal=2)}
    nodes = [
        of("spot", "s-h100", gpus=1, gpu_model="H100"),
        of("spot", "s-l4", gpus=1, gpu_model="L4"),
        node("h100", gpus=4, gpu_model="H100"),
        node("l4", gpus=4, gpu_model="L4"),
    ]
    gangs = [workload(key, queue="a", nodes=2, gpus=1, submitted_at=NOON + key) for key in (1, 2)]
    queue = QueueSpec(name="a", quotas=quotas)
    found = places(world(nodes=nodes, flavors=BOTH, queues=[queue], workloads=gangs))
    assert {key: sorted(names) for key, names in found.items()} == {1: ["s-h100", "s-l4"], 2: ["l4", "l4"]}


def test_pod_sets_may_lie_on_different_flavors():
    quotas = {("spot", "cpu"): Quota(nominal=4_000), ("owned", "cpu"): Quota(nominal=1_000)}
    nodes = [of("owned", "o", cpus=1), of("spot", "s", cpus=4)]
    gang = gang_of(1, pods("head", 1), pods("worker", 2, cpus=2), queue="a")
    snapshot = world(nodes=nodes, flavors=BOTH, queues=[QueueSpec(name="a", quotas=quotas)], workloads=[gang])
    assert places(snapshot) == {1: ["o", "s", "s"]}


def test_many_sets_are_tried_together_on_one_flavor_even_where_there_are_too_many_combinations():
    sets = [pods(f"s{number}", 1) for number in range(8)]
    snapshot = world(
        nodes=[of("owned", "o"), of("spot", "s", cpus=0)],
        flavors=BOTH,
        queues=[team(spot=99, owned=99)],
        workloads=[gang_of(1, *sets, queue="a")],
    )
    allowance, row = Allowance(snapshot), snapshot.queues.names.index("a")
    ways = list(allowance.flavors_of(row, shape_of(snapshot, 0).ways[0]))
    assert len(ways) == FLAVORS_MAX + 3
    assert places(snapshot) == {1: ["o"] * 8}


def test_what_runs_counts_as_its_node_is_now_whatever_it_was():
    def there(pool: str) -> dict[tuple[str, str], int]:
        return used(
            world(
                nodes=[of(pool, "n")],
                flavors=BOTH,
                queues=[team(spot=9, default=9)],
                workloads=[workload(1, queue="a", phase=Phase.RUNNING)],
                allocations=[allocation(1)],
            )
        )

    assert there("spot") == {("default", "cpu"): 0, ("spot", "cpu"): 1_000}
    assert there("owned") == there("") == {("default", "cpu"): 1_000, ("spot", "cpu"): 0}


def test_what_runs_on_a_node_that_is_gone_is_of_no_flavor():
    snapshot = world(
        nodes=[of("spot", "s")],
        flavors=BOTH,
        queues=[team(spot=9, default=9)],
        workloads=[workload(1, queue="a", phase=Phase.RUNNING)],
        allocations=[allocation(1, node_key=77)],
    )
    assert used(snapshot) == {("default", "cpu"): 1_000, ("spot", "cpu"): 0}


def test_what_is_kept_counts_against_the_flavor_of_its_node():
    kept = Slot(rank=0, node_key=1, resources=Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB))
    snapshot = world(
        nodes=[of("spot", "s")],
        flavors=BOTH,
        queues=[team(spot=9)],
        workloads=[workload(1, queue="a", phase=Phase.QUEUED)],
        nominations={1: Nomination(slots=(kept,), until=NOON + 60 * SECOND)},
    )
    assert used(reserved(snapshot)) == {("spot", "cpu"): 1_000}


def test_standings_show_each_flavor():
    snapshot = world(
        nodes=[of("spot", "s"), of("owned", "o")],
        flavors=BOTH,
        queues=[team(spot=4, owned=2)],
        workloads=[workload(1, queue="a", phase=Phase.RUNNING, nodes=3)],
        allocations=[allocation(1, node_key=key, rank=rank) for rank, key in enumerate((1, 1, 2))],
    )
    cells = standings(snapshot)[snapshot.queues.names.index("a")].cells
    assert {cell[0]: (use.used, use.available) for cell, use in cells.items()} == {
        "spot": (2_000, 2_000),
        "owned": (1_000, 1_000),
    }


def test_short_quota_names_the_flavor_and_all_that_were_tried():
    running = [allocation(9, node_key=1, cpus=2), allocation(9, node_key=2, cpus=1, rank=1)]
    snapshot = world(
        nodes=[of("spot", "s"), of("owned", "o"), node("plain")],
        flavors=BOTH,
        queues=[team(spot=2, owned=2)],
        workloads=[workload(9, queue="a", phase=Phase.RUNNING, nodes=2), workload(1, queue="a", cpus=2)],
        allocations=running,
    )
    (told,) = [action.reason for action in schedule(snapshot) if isinstance(action, Advance)]
    assert told.sentence == explain(snapshot, 1).reason.sentence
    assert told.sentence == (
        "waits for the quota of queue a: needs 2 CPUs, 1 GiB, and may use 0 CPUs more of cpu (spot): it uses 2 CPUs,"
        " 2 CPUs are its own: tried spot: 0 CPUs more of cpu; owned: 1 CPU more of cpu; other nodes: no quota"
    )


def test_no_room_on_the_nodes_that_the_queue_may_use_is_no_shortage_of_quota():
    snapshot = world(
        nodes=[of("spot", "s", cpus=1), node("plain")],
        flavors=BOTH,
        queues=[team(spot=9)],
        workloads=[workload(1, queue="a", cpus=2)],
    )
    (told,) = [action.reason for action in schedule(snapshot) if isinstance(action, Advance)]
    assert told.code is Code.WAITS_FOR_CAPACITY
    assert told.sentence.endswith("is 1 CPU, 64 GiB: tried spot: no room; other nodes: no quota")
    assert explain(snapshot, 1).reason.code is Code.WAITS_FOR_CAPACITY


def spec(cpus: int) -> WorkloadSpec:
    asked = Resources(cpu_milli=1_000 * cpus, memory_bytes=BYTES_PER_GIB)
    return WorkloadSpec(kind=Kind.JOB, name="w", run=("true",), choices=(asked,))


@pytest.mark.parametrize(
    ("queue", "nodes", "cpus", "code"),
    [
        (team(spot=4), [of("spot", "s"), node()], 8, Code.EXCEEDS_QUOTA),
        (team(spot=99), [of("spot", "s", cpus=4), node()], 8, Code.NEVER_FITS),
        (team(spot=99), [node()], 8, None),
        (team(spot=4, owned=8), [of("spot", "s"), of("owned", "o")], 8, None),
        (team(spot=99, default=99), [node(cpus=4)], 8, Code.NEVER_FITS),
    ],
    ids=["quota", "nodes", "no node of it yet", "the second flavor", "no node at all"],
)
def test_what_neither_quota_nor_nodes_of_any_flavor_could_hold_is_refused(queue, nodes, cpus, code):
    snapshot = world(nodes=nodes, flavors=BOTH, queues=[queue])
    found = impossible(snapshot, spec=spec(cpus), queue="a")
    assert (found.reason.code if found else None) is code


def test_a_plan_says_which_node_it_would_get():
    snapshot = world(nodes=[node("plain"), of("spot", "s")], flavors=BOTH, queues=[team(spot=9, default=9)])
    assert preview(snapshot, spec=spec(1), priority=0, queue="a").nodes == ("s",)


@pytest.mark.parametrize(
    ("own", "lent", "owned", "place"),
    [(0, 4, 4, "s"), (0, 0, 4, "o"), (2, 0, 4, "s"), (0, 1, 0, "s"), (0, 0, 0, "")],
    ids=["borrows before it tries the next", "next", "its own", "borrows what there is", "nothing"],
)
def test_what_may_be_borrowed_of_the_first_flavor_is_taken_before_the_next_is_tried(own, lent, owned, place):
    """Kueue's `whenCanBorrow: MayStopSearch`."""
    queues = [team("a", parent="all", spot=own, owned=owned), team("b", parent="all", spot=lent)]
    snapshot = world(
        nodes=[of("owned", "o"), of("spot", "s")],
        flavors=BOTH,
        queues=queues,
        workloads=[workload(1, queue="a")],
    )
    assert places(snapshot) == ({1: [place]} if place else {})


def test_who_has_lent_of_a_flavor_gets_it_back_on_its_nodes_alone():
    rules = PreemptionPolicy(reclaim=Reclaim.ANY)
    queues = [team("a", parent="all", preemption=rules, spot=2), team("b", parent="all", spot=0, default=4)]
    running = [
        allocation(10, node_key=1, cpus=2),
        allocation(11, node_key=2, cpus=2),
    ]
    snapshot = world(
        nodes=[of("spot", "s", cpus=2), node("plain", cpus=2)],
        flavors=BOTH,
        queues=queues,
        workloads=[
            workload(10, queue="b", phase=Phase.RUNNING, cpus=2, priority=9),
            workload(11, queue="b", phase=Phase.RUNNING, cpus=2),
            workload(1, queue="a", phase=Phase.QUEUED, cpus=2),
        ],
        allocations=running,
    )
    (action,) = preempt(snapshot)
    assert [victim.workload_key for victim in action.victims] == [10], "that on the plain node holds nothing of spot"
    assert [slot.node_key for slot in action.slots] == [1]


def test_nobody_is_displaced_where_another_flavor_has_room():
    rules = PreemptionPolicy(reclaim=Reclaim.ANY)
    queues = [team("a", parent="all", preemption=rules, spot=2, owned=2), team("b", parent="all", spot=0)]
    snapshot = world(
        nodes=[of("spot", "s", cpus=2), of("owned", "o", cpus=2)],
        flavors=BOTH,
        queues=queues,
        workloads=[
            workload(10, queue="b", phase=Phase.RUNNING, cpus=2),
            workload(1, queue="a", phase=Phase.QUEUED, cpus=2),
        ],
        allocations=[allocation(10, node_key=1, cpus=2)],
    )
    assert preempt(snapshot) == ()
    assert places(snapshot) == {1: ["o"]}


def test_an_elastic_run_grows_as_far_as_quotas_of_flavors_let_it():
    elastic = workload(1, queue="a", phase=Phase.RUNNING, nodes=8, nodes_min=1, nodes_max=8)
    long_ago = NOON - 3_600 * SECOND
    snapshot = world(
        nodes=[of("spot", "s"), node("plain")],
        flavors=BOTH,
        queues=[team(spot=3)],
        workloads=[elastic],
        allocations=[allocation(1, created_at=long_ago, started_at=long_ago)],
    )
    (action,) = grow(snapshot)
    assert [slot.node_key for slot in action.slots] == [1, 1]


def test_a_start_is_reserved_on_a_flavor_that_may_be_used():
    nodes = [of("spot", "s", cpus=2), node("plain", cpus=2)]
    running = [
        workload(10, phase=Phase.RUNNING, max_duration_seconds=900),
        workload(11, phase=Phase.RUNNING, max_duration_seconds=300),
    ]
    snapshot = world(
        nodes=nodes,
        flavors=BOTH,
        queues=[team(spot=9)],
        workloads=[*running, workload(1, queue="a", cpus=2, submitted_at=NOON - 3_600 * SECOND)],
        allocations=[
            allocation(10, node_key=1, cpus=2, started_at=NOON),
            allocation(11, node_key=2, cpus=2, started_at=NOON),
        ],
    )
    cycle = Cycle(snapshot, POLICY)
    assert list(cycle.placements()) == []
    (start,) = cycle.reserved.values()
    assert start.nodes.tolist() == [0], "the plain node is free sooner, and not for it"


def test_what_a_part_of_a_fleet_leaves_out_counts_against_its_flavor_all_the_same():
    nodes = [of("spot", "s1", cpus=1), of("spot", "s2", cpus=1), node("plain", cpus=4)]
    held = [(10, 1), (11, 2), (12, 3)]
    snapshot = world(
        nodes=nodes,
        flavors=BOTH,
        queues=[team(spot=9, default=9)],
        workloads=[
            *(workload(key, queue="a", phase=Phase.RUNNING) for key, _ in held),
            workload(1, queue="a", phase=Phase.QUEUED, cpus=4),
        ],
        allocations=[allocation(key, node_key=at) for key, at in held],
    )
    row = int(np.flatnonzero(snapshot.workloads.key == 1)[0])
    part = Condenser(snapshot, row, POLICY, nodes_max=1).part(np.zeros(snapshot.workloads.key.size))
    assert part.snapshot.nodes.key.size == 1
    assert used(part.snapshot) == used(snapshot)


def shuffled(nodes: list[ANode], order: list[int]) -> list[ANode]:
    numbered = [replace(one, key=key) for key, one in enumerate(nodes, 1)]
    return [numbered[at] for at in order]


def test_the_order_of_flavors_decides_and_not_the_order_of_rows():
    nodes: list[ANode] = [node("plain"), of("owned", "o"), of("spot", "s")]
    queue, work = team(spot=9, owned=9, default=9), workload(1, queue="a")

    def found(order: list[int], flavors: tuple[NodeFlavor, ...]) -> Mapping[int, list[str]]:
        return places(world(nodes=shuffled(nodes, order), flavors=flavors, queues=[queue], workloads=[work]))

    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        assert found(order, (SPOT, OWNED)) == {1: ["s"]}
        assert found(order, (OWNED, SPOT)) == {1: ["o"]}


def test_all_parts_of_one_flavor_are_asked_for_together():
    snapshot = world(nodes=[of("spot", "s")], flavors=BOTH, queues=[team(spot=9)], workloads=[workload(1, queue="a")])
    allowance, request = Allowance(snapshot), shape_of(snapshot, 0).requests[0]
    row = snapshot.queues.names.index("a")
    asked = [
        part.request.flavors for way in allowance.flavors_of(row, (Part(ranks=1, request=request),)) for part in way
    ]
    assert asked == [(1,), (0, 2)]
    assert [allowance.words_of(replace(request, flavors=one)) for one in asked] == ["spot", "other nodes"]


def test_every_place_that_a_cycle_gives_is_written_down_with_the_amounts_asked_for():
    snapshot = world(nodes=[of("spot", "s")], flavors=BOTH, queues=[team(spot=1)], workloads=[workload(1, queue="a")])
    (action,) = schedule(snapshot)
    assert isinstance(action, Allocate)
    assert [(slot.node_key, slot.resources.cpu_milli) for slot in action.slots] == [(1, 1_000)]
