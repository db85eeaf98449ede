"""Starts that are reserved, and who displaces others: what is kept for a start is taken by nobody whose turn comes after it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mainstay.decide.cycle import Cycle
from mainstay.decide.explain import explain
from mainstay.decide.nomination import reserved
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES
from mainstay.decide.preemption import preempt
from mainstay.domain.preemption import FairShare, Nomination, PreemptionPolicy, WithinQueue
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import RESERVED_AFTER_SECONDS, QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, ANode, AWorkload, allocation, gang_of, node, pods, workload, world

LONG_AGO = NOON - (RESERVED_AFTER_SECONDS + 1) * SECOND
LOWER = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)


SETS = pytest.mark.parametrize("sets", [False, True], ids=["alike", "in sets"])
"""Whether what waits is of one shape, or the same in two pod sets."""


def queue(name: str = "a", policy: PreemptionPolicy = LOWER, **values) -> QueueSpec:
    return QueueSpec(name=name, preemption=policy, **values)


def waits(key: int, **values) -> AWorkload:
    return workload(key, **{"phase": Phase.QUEUED, "queue": "a", "stop_grace_seconds": 0, **values})


def in_sets(work: AWorkload, *, sets: bool) -> AWorkload:
    """The same in all, half of it in each of two pod sets."""
    if not sets:
        return work
    each = work.cpus * work.nodes / 2
    first, second = pods("one", 1, cpus=each), pods("other", 1, cpus=each)
    return replace(work, sets=(first, second), nodes=2)


def runs(key: int, *, seconds: int = 0, **values) -> AWorkload:
    """It ends so long after noon; 0: nobody knows when."""
    given = {"phase": Phase.RUNNING, "queue": "a", "stop_grace_seconds": 0, "started_at": NOON, **values}
    return workload(key, max_duration_seconds=seconds, **given)


def starts(snapshot: Snapshot) -> dict[int, int]:
    """Seconds from now of each that is reserved, by key."""
    seen = reserved(snapshot)
    cycle = Cycle(seen, POLICIES[DEFAULT_POLICY])
    for _ in cycle.placements():
        pass
    return {int(seen.workloads.key[row]): (one.starts_at - seen.now) // SECOND for row, one in cycle.reserved.items()}


def yields(snapshot: Snapshot) -> dict[int, list[int]]:
    """By key of who displaces: who yields."""
    return {one.workload_key: [victim.workload_key for victim in one.victims] for one in preempt(snapshot)}


def gang(key: int = 1, **values) -> AWorkload:
    """It needs two nodes, and gets them when run 8, which yields to nobody, has ended after 100 seconds."""
    return waits(key, **{"cpus": 4, "nodes": 2, "priority": 50, "submitted_at": LONG_AGO, **values})


def two_nodes(*waiting: AWorkload, more: tuple[ANode, ...] = (), second: AWorkload | None = None, **values) -> Snapshot:
    second = second or runs(9, seconds=90, cpus=4, priority=10)
    held = [runs(8, seconds=100, cpus=4, preemptible=False), second]
    places = [allocation(8, cpus=4, started_at=NOON), allocation(9, node_key=2, cpus=second.cpus, started_at=NOON)]
    if more:
        held.append(runs(7, cpus=4, priority=10))
        places.append(allocation(7, node_key=3, cpus=4, started_at=NOON))
    return world(
        nodes=[node(cpus=4), node(cpus=max(4, second.cpus)), *more],
        workloads=[*held, *waiting],
        allocations=places,
        **{"queues": [queue()], **values},
    )


@SETS
@pytest.mark.parametrize("reserved_sets", [False, True], ids=["for alike", "for sets"])
def test_whoever_comes_after_a_reserved_start_displaces_nobody_in_its_places(*, sets: bool, reserved_sets: bool):
    late, first = in_sets(waits(2, priority=30, cpus=4), sets=sets), in_sets(gang(), sets=reserved_sets)
    assert starts(two_nodes(first, late)) == {1: 100}
    assert yields(two_nodes(late)) == {2: [9]}, "were there no start"
    assert yields(two_nodes(first, late)) == {}
    assert yields(two_nodes(first, replace(late, max_duration_seconds=1))) == {}, (
        "nobody knows when it will have started"
    )


@SETS
def test_whoever_comes_before_it_does(*, sets: bool):
    assert yields(two_nodes(gang(), in_sets(waits(2, priority=90, cpus=4), sets=sets))) == {2: [9]}


@pytest.mark.parametrize(("order", "found"), [("fair", {2: [9]}), ("fifo", {})])
def test_within_a_queue_its_order_says_who_comes_before(order: str, found: dict[int, list[int]]):
    late, second = (
        waits(2, priority=50, cpus=4, submitter="bob"),
        runs(9, seconds=90, cpus=4, priority=10, submitter="ann"),
    )
    snapshot = two_nodes(gang(submitter="ann"), late, second=second, queues=[queue(order=order)])
    assert yields(snapshot) == found


@SETS
@pytest.mark.parametrize(("cpus", "found"), [(2, {2: [9]}), (4, {})])
def test_of_each_node_as_much_is_kept_as_the_set_asks_for_that_is_to_lie_there(
    cpus: float, found: dict[int, list[int]], *, sets: bool
):
    """Of two nodes of 4 the start needs all of the first, and 2 of the second."""
    first = gang_of(
        1, pods("large", 1, cpus=4), pods("small", 1, cpus=2), queue="a", priority=50, submitted_at=LONG_AGO
    )
    snapshot = two_nodes(
        replace(first, phase=Phase.QUEUED, stop_grace_seconds=0), in_sets(waits(2, priority=30, cpus=cpus), sets=sets)
    )
    assert starts(snapshot) == {1: 100}
    assert yields(snapshot) == found


def test_elsewhere_it_displaces_as_ever():
    assert yields(two_nodes(gang(), waits(2, priority=30, cpus=4), more=(node(cpus=4, cluster="other"),))) == {2: [7]}


def test_the_place_of_one_that_would_still_run_then_is_none_of_the_start():
    """A node of 12, of which the start needs 8 once two short ones have ended. The place of one of these would be cheaper."""
    snapshot = world(
        nodes=[node(cpus=12)],
        workloads=[
            runs(7, cpus=4, priority=10),
            runs(8, seconds=100, cpus=4, preemptible=False),
            runs(9, seconds=90, cpus=4, priority=5),
            waits(1, cpus=8, queue="b", submitted_at=LONG_AGO),
            waits(2, cpus=4, priority=30),
        ],
        allocations=[allocation(key, cpus=4, started_at=NOON) for key in (7, 8, 9)],
        queues=[queue(), queue("b", PreemptionPolicy())],
    )
    assert starts(snapshot) == {1: 100}
    assert yields(snapshot) == {2: [7]}


@pytest.mark.parametrize(
    ("order", "submitter", "found"),
    [("fair", "ann", {2: [9]}), ("fair", "bob", {}), ("fifo", "bob", {2: [9]}), ("srtf", "ann", {})],
)
def test_newer_work_yields_where_age_is_what_counts(order: str, submitter: str, found: dict[int, list[int]]):
    """Of another submitter it runs by their turn: to displace it would undo that."""
    policy = PreemptionPolicy(within_queue=WithinQueue.LOWER_OR_NEWER_EQUAL_PRIORITY)
    older, newer = waits(2, cpus=4, submitter="ann"), runs(9, cpus=4, submitter=submitter, submitted_at=NOON + SECOND)
    snapshot = world(
        nodes=[node(cpus=4)],
        queues=[queue(policy=policy, order=order)],
        workloads=[older, newer],
        allocations=[allocation(9, cpus=4)],
    )
    assert yields(snapshot) == found


def test_whose_start_is_reserved_displaces_where_it_may():
    held = two_nodes(gang(cpus=2, nodes=1), second=runs(9, seconds=90, cpus=4, priority=10))
    assert starts(held) == {1: 90}
    assert yields(held) == {1: [9]}


@SETS
@pytest.mark.parametrize(("weight", "found"), [(1.0, {}), (9.0, {2: [9]})])
def test_between_queues_the_turn_decides(weight: float, found: dict[int, list[int]], *, sets: bool):
    """Queue b, of which the start is, would hold 8 CPUs for its weight; queue a 8 with what it holds, and 4 more."""
    policy = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY, fair_share=FairShare.NEVER)
    held = two_nodes(
        in_sets(gang(queue="b"), sets=sets),
        in_sets(waits(2, priority=30, cpus=4), sets=sets),
        queues=[queue(policy=policy, weight=weight), queue("b", PreemptionPolicy())],
    )
    assert starts(held) == {1: 100}
    assert yields(held) == found


@SETS
@pytest.mark.parametrize(("quota", "found"), [(14, {}), (16, {2: [9]})])
def test_the_quota_of_a_reserved_start_is_used(quota: int, found: dict[int, list[int]], *, sets: bool):
    """Both queues have it together: 4 that run, 4 of the start, and 8 of what displaces, in another cluster."""
    own = {name: {("default", "cpu"): Quota(nominal=1_000 * amount)} for name, amount in (("all", quota), ("none", 0))}
    snapshot = world(
        nodes=[node(cpus=4, cluster="x"), node(cpus=8, cluster="y")],
        workloads=[
            runs(8, seconds=100, cpus=4, preemptible=False),
            runs(9, cpus=6, priority=10),
            in_sets(waits(1, cpus=4, queue="b", cluster="x", submitted_at=LONG_AGO), sets=sets),
            in_sets(waits(2, cpus=8, priority=30, cluster="y"), sets=sets),
        ],
        allocations=[allocation(8, cpus=4, started_at=NOON), allocation(9, node_key=2, cpus=6, started_at=NOON)],
        queues=[
            queue(parent="all", quotas=own["none"]),
            queue("b", PreemptionPolicy(), parent="all", quotas=own["none"]),
            QueueSpec(name="all", cohort=True, quotas=own["all"]),
        ],
    )
    assert starts(snapshot) == {1: 100}
    assert yields(snapshot) == found


def test_it_is_said_that_a_start_is_in_the_way():
    told = explain(two_nodes(gang(), waits(2, priority=30, cpus=4)), 2).preemption
    assert "it delays no start that is reserved before its turn" in told
    assert "reserved" not in explain(two_nodes(waits(2, priority=5, cpus=4)), 2).preemption


@SETS
def test_a_start_stays_reserved_while_others_yield_beside_it(*, sets: bool):
    """Run 9 holds 7, and yields; 3 of it are kept for run 2, and the rest is the start's once it has ended."""
    second, urgent = runs(9, cpus=7, priority=10, seconds=90), in_sets(waits(2, priority=90, cpus=3), sets=sets)
    assert starts(two_nodes(gang(), second=second)) == {1: 100}
    kept = preempt(two_nodes(gang(), urgent, second=second))[0].slots
    during = world(
        nodes=[node(cpus=4), node(cpus=7)],
        workloads=[runs(8, seconds=100, cpus=4, preemptible=False), second, gang(), urgent],
        allocations=[
            allocation(8, cpus=4, started_at=NOON),
            allocation(9, node_key=2, cpus=7, started_at=NOON, stop=True, preempted=1),
        ],
        queues=[queue()],
        nominations={2: Nomination(slots=kept, until=NOON + 600 * SECOND)},
        displaced_by={9: (2,)},
    )
    assert starts(during) == {1: 100}


def test_nothing_is_reserved_in_a_place_that_is_kept_for_another():
    kept = two_nodes(gang(), waits(2, priority=90, cpus=4))
    slots = preempt(kept)[0].slots
    assert slots[0].resources == Resources(cpu_milli=4_000, memory_bytes=1 << 30)
    during = world(
        nodes=[node(cpus=4), node(cpus=4)],
        workloads=[
            runs(8, seconds=100, cpus=4, preemptible=False),
            runs(9, seconds=90, cpus=4, priority=10),
            gang(),
            waits(2, priority=90, cpus=4),
        ],
        allocations=[
            allocation(8, cpus=4, started_at=NOON),
            allocation(9, node_key=2, cpus=4, started_at=NOON, stop=True, preempted=1),
        ],
        queues=[queue()],
        nominations={2: Nomination(slots=slots, until=NOON + 600 * SECOND)},
        displaced_by={9: (2,)},
    )
    assert starts(during) == {}
