"""Starts that are reserved: what has waited long starts when it is told, and what starts before it delays it by nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide.alternatives import Alternative
from mainstay.decide.cycle import Cycle
from mainstay.decide.explain import explain, preview
from mainstay.decide.placement import POLICIES
from mainstay.decide.reservation import AHEAD_SECONDS_MAX, OVERDUE_SECONDS_MAX
from mainstay.decide.schedule import schedule
from mainstay.domain.allocation import Seen
from mainstay.domain.plan import Advance, Allocate
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import RESERVED_AFTER_SECONDS, QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Kind, Phase, WorkloadSpec
from tests.fleets import Fleet
from tests.worlds import NOON, SECOND, AWorkload, allocation, node, workload, world

LONG_AGO = NOON - (RESERVED_AFTER_SECONDS + 1) * SECOND


def job(key: int, **values) -> AWorkload:
    """Ends without last words."""
    return workload(key, **{"stop_grace_seconds": 0, **values})


def running(key: int, *, seconds: int = 0, **values) -> AWorkload:
    """One that ends so long after noon."""
    return job(key, phase=Phase.RUNNING, max_duration_seconds=seconds, started_at=NOON, **values)


def gang(key: int = 1, **values) -> AWorkload:
    return job(key, **{"submitted_at": LONG_AGO, "cpus": 4, "nodes": 2, **values})


def starts(snapshot: Snapshot) -> dict[int, list[int]]:
    return {
        action.workload_key: [slot.node_key for slot in action.slots]
        for action in schedule(snapshot)
        if isinstance(action, Allocate)
    }


def reserved(snapshot: Snapshot) -> dict[int, int]:
    """Seconds from now, by key."""
    cycle = Cycle(snapshot, POLICIES["best-fit"])
    for _ in cycle.placements():
        pass
    return {
        int(snapshot.workloads.key[row]): (one.starts_at - snapshot.now) // SECOND
        for row, one in cycle.reserved.items()
    }


def two_nodes(*waiting: AWorkload, queues=(), seconds: int = 100, **values) -> Snapshot:
    """One of two nodes is taken for so long."""
    return world(
        nodes=[node(cpus=4), node(cpus=4)],
        workloads=[running(9, seconds=seconds, **values), *waiting],
        allocations=[allocation(9, cpus=4, node_key=1, started_at=NOON)],
        queues=queues,
    )


def test_the_start_of_a_gang_that_has_waited_long_is_reserved_for_when_enough_has_ended():
    assert reserved(two_nodes(gang())) == {1: 100}
    assert reserved(two_nodes(gang(), stop_grace_seconds=30)) == {1: 130}


def test_what_ends_before_a_reserved_start_runs_in_its_places_and_what_does_not_waits():
    short, late, endless = job(2, max_duration_seconds=100), job(3, max_duration_seconds=101), job(4)
    assert starts(two_nodes(gang(), short, late, endless)) == {2: [2]}
    assert starts(two_nodes(gang(), job(2, max_duration_seconds=90, stop_grace_seconds=11))) == {}


def test_what_is_beside_a_reserved_start_is_for_everybody():
    assert starts(two_nodes(gang(cpus=3), job(2), job(3))) == {2: [2]}


def test_nothing_is_reserved_for_what_has_not_waited_long():
    assert starts(two_nodes(gang(submitted_at=NOON - SECOND), job(2))) == {2: [2]}


def test_how_long_is_long_is_for_the_queue_to_say():
    soon = QueueSpec(name="soon", reserved_after_seconds=1)
    at_once = QueueSpec(name="at-once", reserved_after_seconds=0)
    never = QueueSpec(name="never", reserved_after_seconds=30 * 86_400)
    young = gang(submitted_at=NOON - SECOND)
    queues = [soon, at_once, never]
    assert reserved(two_nodes(replace(young, queue="soon"), queues=queues)) == {1: 100}
    assert reserved(two_nodes(replace(young, queue="soon", submitted_at=NOON), queues=queues)) == {}
    assert reserved(two_nodes(replace(young, queue="at-once", submitted_at=NOON), queues=queues)) == {1: 100}
    assert reserved(two_nodes(gang(queue="never"), queues=queues)) == {}


@pytest.mark.parametrize(
    "held",
    [
        {"seconds": 0},
        {"seconds": AHEAD_SECONDS_MAX + 1},
    ],
)
def test_nothing_is_reserved_where_nobody_knows_when_there_will_be_room(held):
    snapshot = two_nodes(gang(), job(2), **held)
    assert (reserved(snapshot), starts(snapshot)) == ({}, {2: [2]})


def test_what_should_have_ended_counts_as_about_to_end_and_later_as_never_ending():
    at = replace(two_nodes(gang(), seconds=1), now=NOON + 2 * SECOND)
    assert reserved(at) == {1: 0}
    assert reserved(replace(at, now=NOON + (OVERDUE_SECONDS_MAX + 2) * SECOND)) == {}


def test_what_has_no_limit_ends_by_its_history():
    snapshot = world(
        nodes=[node(cpus=4), node(cpus=4)],
        workloads=[running(9, usual_seconds=70), gang()],
        allocations=[allocation(9, cpus=4, started_at=NOON)],
    )
    assert reserved(snapshot) == {1: 70}


def test_what_would_start_before_a_reserved_start_goes_by_its_own_limit_alone():
    assert starts(two_nodes(gang(), job(2, usual_seconds=10))) == {}


def test_what_is_not_heard_of_never_ends():
    lost = world(
        nodes=[node(cpus=4), node(cpus=4)],
        workloads=[running(9, seconds=100), gang()],
        allocations=[allocation(9, cpus=4, started_at=NOON, seen=Seen.UNKNOWN)],
    )
    assert reserved(lost) == {}


def test_who_has_their_turn_before_it_is_not_bound():
    urgent = job(2, priority=90)
    assert starts(two_nodes(gang(priority=50), urgent)) == {2: [2]}


def test_what_was_placed_before_its_turn_in_the_same_cycle_has_an_end_too():
    first = job(2, priority=90, max_duration_seconds=50)
    snapshot = two_nodes(gang(priority=50), first, job(3), job(4, max_duration_seconds=100))
    assert reserved(snapshot) == {1: 100}
    assert starts(snapshot) == {2: [2], 4: [2]}


def test_what_has_just_been_placed_with_a_limit_is_enough_to_reserve_a_start():
    """Nothing else runs: whoever asks for the same and takes longer must not hide behind it."""
    snapshot = world(
        nodes=[node(cpus=4), node(cpus=4)],
        workloads=[
            job(2, priority=90, cpus=4, max_duration_seconds=100),
            gang(priority=50),
            job(3),
            job(4, max_duration_seconds=90),
        ],
    )
    assert reserved(snapshot) == {1: 100}
    assert sorted(starts(snapshot)) == [2, 4]


def test_quota_is_kept_for_a_reserved_start():
    quotas = {("default", "cpu"): Quota(nominal=8_000)}
    rows = [QueueSpec(name="a", parent="all"), QueueSpec(name="b", parent="all"), QueueSpec(name="all", cohort=True)]
    rows = [replace(row, quotas={("default", "cpu"): Quota(nominal=0)}) for row in rows[:2]] + [
        QueueSpec(name="all", cohort=True, quotas=quotas)
    ]
    waiting = [gang(queue="a", cpus=2, gib=8), job(2, cpus=5, queue="b")]
    snapshot = world(
        nodes=[node(cpus=2), node(cpus=2), node(cpus=5, gib=1)],
        workloads=[running(9, seconds=100), *waiting],
        allocations=[allocation(9, cpus=2, gib=1, node_key=1, started_at=NOON)],
        queues=rows,
    )
    assert starts(snapshot) == {}
    assert reserved(snapshot) == {1: 100}


def test_several_starts_are_reserved_beside_each_other():
    full = two_nodes(gang(1), gang(2, nodes=1, submitted_at=LONG_AGO + 1), job(3, max_duration_seconds=60))
    assert reserved(full) == {1: 100}
    apart = world(
        nodes=[node(cpus=4, cluster=name) for name in ("a", "b") for _ in range(2)],
        workloads=[running(8, seconds=50), running(9, seconds=100), gang(1, cluster="a"), gang(2, cluster="b"), job(3)],
        allocations=[allocation(8 + at, cpus=4, node_key=1 + 2 * at, started_at=NOON) for at in range(2)],
    )
    assert (reserved(apart), starts(apart)) == ({1: 50, 2: 100}, {})


def test_volumes_choices_and_slices_are_bound_as_everything_else():
    slices = node(cpus=4, shapes={"1g.10gb": 2})
    held = allocation(9, cpus=1, gpus=2, gpu_model="1g.10gb", node_key=1, started_at=NOON)
    big = gang(nodes=2, cpus=1, gpus=2, gpu_model="1g.10gb")
    small = job(2, gpus=1, gpu_model="1g.10gb")
    snapshot = world(
        nodes=[slices, slices],
        workloads=[running(9, seconds=100), big, small, replace(small, key=3, max_duration_seconds=99)],
        allocations=[held],
    )
    assert reserved(snapshot) == {1: 100}
    assert starts(snapshot) == {3: [2]}


@dataclass
class Told(Fleet):
    """Which start was reserved first for each, once nobody was before it, in UTC microseconds."""

    told: dict[int, int] = field(default_factory=dict)

    def decide(self) -> None:
        waiting = [key for key in self.jobs if key not in self.started and self.jobs[key].submitted_at <= self.now]
        first = min(waiting, key=lambda key: (self.jobs[key].submitted_at, key), default=0)
        if first in (found := reserved(self.snapshot())):
            self.told.setdefault(first, self.now + found[first] * SECOND)
        super().decide()


def test_small_work_fills_the_gaps_and_the_gang_starts_when_it_was_told():
    jobs = {1: gang(1, submitted_at=NOON + 5 * SECOND, cpus=4, nodes=2, max_duration_seconds=600)}
    for number in range(90):
        at = NOON + 20 * number * SECOND
        jobs[10 + number] = job(10 + number, cpus=1, submitted_at=at, max_duration_seconds=60 + 50 * (number % 5))
    fleet = Told(nodes=[node(cpus=4), node(cpus=4)], jobs=jobs)
    fleet.play(until=NOON + 3_000 * SECOND)
    assert fleet.started[1] <= fleet.told[1] <= NOON + (5 + RESERVED_AFTER_SECONDS + 260) * SECOND
    filled = [key for key, at in fleet.started.items() if fleet.jobs[1].submitted_at < at < fleet.started[1]]
    assert len(filled) > 10


tasks = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 40), st.integers(0, 60))


@settings(max_examples=25, deadline=None)
@given(nodes=st.lists(st.integers(2, 4), min_size=1, max_size=3), wishes=st.lists(tasks, min_size=3, max_size=9))
def test_no_start_delays_a_start_that_was_reserved(nodes, wishes):
    """One queue and one priority: whoever came first has their turn first."""
    jobs = {
        key: job(
            key, cpus=cpus, nodes=ranks, max_duration_seconds=60 * minutes, submitted_at=NOON + 60 * after * SECOND
        )
        for key, (cpus, ranks, minutes, after) in enumerate(wishes, 1)
    }
    fleet = Told(nodes=[node(cpus=cpus) for cpus in nodes], jobs=jobs)
    fleet.play(until=NOON + 200_000 * SECOND)
    for key, at in fleet.told.items():
        assert fleet.started[key] <= at


pods = st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(1, 6))


@settings(max_examples=60, deadline=None)
@given(
    held=st.lists(pods, min_size=1, max_size=12),
    cpus=st.integers(1, 4),
    ranks=st.integers(1, 6),
    topology=st.sampled_from(
        [
            "",
            "required rack",
            "required host",
            "preferred rack",
            "/host 1",
            "/rack 2",
            "required rack/host 1",
            "/rack 0",
        ]
    ),
)
def test_the_first_instant_at_which_it_fits_is_found(held, cpus, ranks, topology):
    """The same is asked of each instant, one after the other: what if all that has ended by then were gone?"""
    racks = [("east", "r1"), ("east", "r1"), ("east", "r2"), ("east", ""), ("west", "r1"), ("west", "r1")]
    nodes = [
        node(cpus=4, cluster=cluster, topology={"block": "b", "rack": rack} if rack else {}) for cluster, rack in racks
    ]
    used, running_now = [0] * len(nodes), list[tuple[int, int, int]]()
    for at, size, minutes in held:
        if used[at] + size <= 4:
            used[at] += size
            running_now.append((at, size, minutes))

    def after(minutes: int) -> Snapshot:
        left = [(key, one) for key, one in enumerate(running_now, 10) if one[2] > minutes]
        return world(
            nodes=nodes,
            workloads=[
                *(running(key, seconds=60 * until) for key, (_, _, until) in left),
                gang(cpus=cpus, nodes=ranks, topology=topology),
            ],
            allocations=[allocation(key, node_key=1 + at, cpus=size, started_at=NOON) for key, (at, size, _) in left],
        )

    fits = [minutes for minutes in range(7) if 1 in starts(after(minutes))]
    if 0 not in fits[:1]:
        assert reserved(after(0)) == ({1: 60 * fits[0]} if fits else {})


def test_whoever_has_a_reserved_start_is_told_when_and_where():
    found = explain(two_nodes(gang()), 1)
    assert found.reason.code is Code.START_RESERVED
    assert "its start is reserved for 2023-11-07 12:01:40 UTC at the latest, on node-1, node-2" in found.reason.sentence
    assert Alternative(change="nodes", before="2", after="1") in found.alternatives


def test_whoever_would_delay_it_is_told_how_short_it_would_have_to_be():
    found = explain(two_nodes(gang(), job(2, stop_grace_seconds=30)), 2)
    assert found.reason.code is Code.WAITS_FOR_RESERVED
    assert found.alternatives == (
        Alternative(change="max_duration", before="none", after="1m10s"),
        Alternative(change="priority", before="0", after="low"),
    )
    limited = two_nodes(gang(), job(2, stop_grace_seconds=30, max_duration_seconds=70))
    assert starts(limited) == {2: [2]}


def test_whoever_could_get_none_is_told_why():
    found = explain(two_nodes(gang(), seconds=0), 1)
    assert found.reason.code is Code.WAITS_FOR_CAPACITY
    assert "no start can be reserved for it" in found.reason.sentence


def test_what_is_asked_about_before_it_is_submitted_is_bound_too():
    resources = Resources(cpu_milli=1_000, memory_bytes=1 << 30)
    spec = WorkloadSpec(kind=Kind.JOB, name="job", run=("true",), choices=(resources,), stop_grace_seconds=0)
    found = preview(two_nodes(gang()), spec=spec, priority=0)
    assert (found.starts_now, found.reason.code) == (False, Code.WAITS_FOR_RESERVED)
    assert preview(two_nodes(gang()), spec=replace(spec, max_duration_seconds=100), priority=0).starts_now


def test_both_are_told_so_once_they_are_queued():
    actions = schedule(two_nodes(gang(), job(2)))
    told = {action.workload_key: action.reason.code for action in actions if isinstance(action, Advance)}
    assert told == {1: Code.START_RESERVED, 2: Code.WAITS_FOR_RESERVED}
