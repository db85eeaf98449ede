"""Turns within a queue: between those who submit to it, or by another order that it names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide import admission
from mainstay.decide.cycle import Cycle
from mainstay.decide.explain import explain, preview
from mainstay.decide.placement import POLICIES
from mainstay.decide.schedule import schedule
from mainstay.decide.turn_order import turn_order
from mainstay.domain.plan import Allocate
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Kind, Phase, WorkloadSpec, submitter_of
from tests.worlds import NOON, SECOND, allocation, node, workload, world

CPU = ("default", "cpu")


def by(submitter: str, *keys: int, **values: object) -> list:
    return [workload(key, submitter=submitter, submitted_at=NOON + key, gib=0, **values) for key in keys]


def started(snapshot: Snapshot, limit: int | None = None) -> list[int]:
    """Keys of what a cycle starts."""
    cycle = Cycle(snapshot, POLICIES["best-fit"])
    rows = [row for placed in cycle.placements(limit=limit) for row in placed.rows.tolist()]
    return sorted(snapshot.workloads.key[rows].tolist())


def in_order(snapshot: Snapshot) -> list[int]:
    return snapshot.workloads.key[admission.order(snapshot)].tolist()


def test_whoever_submits_ten_thousand_jobs_lets_99_others_start_in_the_same_cycle():
    flood, others = range(1, 10_001), range(10_001, 10_100)
    waiting = by("ann", *flood) + [one for key in others for one in by(f"user-{key}", key)]
    placed = {
        one.workload_key
        for one in schedule(world(nodes=[node(cpus=198)], workloads=waiting))
        if isinstance(one, Allocate)
    }
    assert set(others) <= placed
    assert len(placed) == 198


def test_what_is_more_urgent_goes_first_whoever_submitted_it():
    waiting = by("ann", 1, 2, 3, priority=60) + by("bob", 4, 5, 6)
    snapshot = world(nodes=[node(cpus=4)], workloads=waiting)
    assert started(snapshot) == [1, 2, 3, 4]
    assert in_order(snapshot) == [1, 2, 3, 4, 5, 6]


def test_what_submitters_hold_already_counts_of_their_queue_alone():
    running = [
        workload(100, submitter="ann", phase=Phase.RUNNING),
        workload(101, submitter="bob", queue="other", phase=Phase.RUNNING),
    ]
    held = [allocation(100, cpus=2, gib=0), allocation(101, cpus=8, gib=0)]
    waiting = by("ann", 1, 2, 3, 4) + by("bob", 5, 6, 7, 8)
    snapshot = world(
        nodes=[node(cpus=14)], queues=[QueueSpec(name="other")], workloads=[*waiting, *running], allocations=held
    )
    assert started(snapshot) == [1, 5, 6, 7]


def test_turns_go_by_the_resource_of_which_each_has_the_largest_part():
    waiting = by("ann", 1, 2, 3, 4, cpus=1, gpus=2) + by("bob", 5, 6, 7, 8, cpus=1)
    fleet = [node(cpus=100, gpus=8), node(cpus=100)]
    assert in_order(world(nodes=fleet, workloads=waiting)) == [1, 5, 6, 7, 8, 2, 3, 4]


def test_the_whole_is_what_the_quota_of_the_queue_lets_it_have():
    quota = {("default", "cpu"): Quota(nominal=4_000), ("default", "gpu"): Quota(nominal=80)}
    waiting = by("ann", 1, 2, queue="a", cpus=1, gpus=8) + by("bob", 3, 4, queue="a", cpus=1)
    snapshot = world(nodes=[node(cpus=100, gpus=80)], queues=[QueueSpec(name="a", quotas=quota)], workloads=waiting)
    assert in_order(snapshot) == [1, 3, 2, 4]


def test_what_cannot_start_costs_its_submitter_no_turn():
    waiting = by("ann", 1, cpus=64) + by("ann", 2, 3, 4) + by("bob", 5, 6, 7)
    snapshot = world(nodes=[node(cpus=4)], workloads=waiting)
    assert started(snapshot) == [2, 3, 5, 6]


def test_over_the_quota_in_one_line_is_over_it_in_all():
    quota = {("default", "gpu"): Quota(nominal=1)}
    waiting = by("ann", 1, 2, queue="a", gpus=1) + by("bob", 3, 4, queue="a", gpus=1) + by("cho", 5, queue="a")
    snapshot = world(nodes=[node(cpus=9, gpus=8)], queues=[QueueSpec(name="a", quotas=quota)], workloads=waiting)
    cycle = Cycle(snapshot, POLICIES["best-fit"])
    placed = [row for one in cycle.placements() for row in one.rows.tolist()]
    assert sorted(snapshot.workloads.key[placed].tolist()) == [1, 5]
    assert len(cycle.failed) == 1


JOB = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from(["", "ann", "bob", "cho", "dan"]),
    st.integers(1, 4),
    st.integers(0, 2),
    st.integers(0, 3),
)


@given(jobs=st.lists(JOB, min_size=1, max_size=12), seed=st.randoms(use_true_random=False))
def test_where_all_find_a_place_the_order_of_a_queue_is_that_of_its_turns(jobs, seed):
    keys = list(range(1, len(jobs) + 1))
    seed.shuffle(keys)
    waiting = [
        workload(key, queue=queue, submitter=who, cpus=cpus, gib=cpus % 3, priority=priority, submitted_at=NOON + at)
        for key, (queue, who, cpus, priority, at) in zip(keys, jobs, strict=True)
    ]
    snapshot = world(nodes=[node(cpus=64, gib=64)], queues=[QueueSpec(name=name) for name in "ab"], workloads=waiting)
    of_queue = {one.key: one.queue for one in waiting}
    turns, before = [], set[int]()
    for limit in range(1, len(jobs) + 1):
        now = set(started(snapshot, limit))
        turns += now - before
        before = now
    for name in "ab":
        assert [key for key in in_order(snapshot) if of_queue[key] == name] == [
            key for key in turns if of_queue[key] == name
        ]
    priorities = snapshot.workloads.priority[admission.order(snapshot)]
    assert (np.diff(priorities) <= 0).all()


TREES = st.fixed_dictionaries(
    {name: st.tuples(st.integers(0, 3), st.sampled_from(["", "x", "y"]), st.integers(0, 4)) for name in "abc"}
)


@given(
    jobs=st.lists(JOB, min_size=1, max_size=12), tree=TREES, above=st.sampled_from(["", "x"]), weight=st.integers(0, 2)
)
def test_where_all_find_a_place_the_order_of_all_is_that_of_their_turns(jobs, tree, above, weight):
    """Queues of a cohort have something of their own, and may borrow as much as they like."""
    queues = [
        QueueSpec(name="x", cohort=True, quotas={CPU: Quota(nominal=10**6)}),
        QueueSpec(name="y", cohort=True, parent=above, weight=weight, quotas={CPU: Quota(nominal=10**6)}),
        *(
            QueueSpec(
                name=name, parent=parent, weight=weight, quotas={CPU: Quota(nominal=1_000 * own)} if parent else {}
            )
            for name, (weight, parent, own) in tree.items()
        ),
    ]
    waiting = [
        workload(key, queue=queue, submitter=who, cpus=cpus, gib=cpus % 3, priority=priority, submitted_at=NOON + at)
        for key, (queue, who, cpus, priority, at) in enumerate(jobs, 1)
    ]
    held = [allocation(100, cpus=3, gib=0)]
    waiting.append(workload(100, queue="a", submitter="ann", phase=Phase.RUNNING))
    snapshot = world(nodes=[node(cpus=64, gib=64)], queues=queues, workloads=waiting, allocations=held)
    turns = snapshot.workloads.key[turn_order(snapshot)].tolist()
    for count in range(1, len(jobs) + 1):
        assert started(snapshot, count) == sorted(turns[:count])


def test_a_job_of_an_idle_queue_does_not_stand_behind_all_that_is_older_elsewhere():
    waiting = by("ann", *range(1, 41)) + by("bob", 41, queue="other")
    snapshot = world(nodes=[node(cpus=1)], queues=[QueueSpec(name="other")], workloads=waiting)
    assert explain(snapshot, 41).position == 2
    assert explain(snapshot, 3).position == 4


def short_ones(order: str) -> Snapshot:
    """1 is the oldest; 2 takes the least time; 3 has the least of time x GPUs; of 4 nobody knows."""
    waiting = [
        workload(1, submitter="ann", max_duration_seconds=900, typical_seconds=700, gpus=2),
        workload(2, submitter="ann", max_duration_seconds=500, gpus=3),
        workload(3, submitter="bob", max_duration_seconds=1_000, gpus=1),
        workload(4, submitter="bob", gpus=1),
        workload(5, submitter="ann", max_duration_seconds=2_000, priority=60),
    ]
    waiting = [replace(one, queue="a", submitted_at=NOON + one.key) for one in waiting]
    return world(nodes=[node(cpus=9, gpus=9)], queues=[QueueSpec(name="a", order=order)], workloads=waiting)


@pytest.mark.parametrize(
    ("order", "keys"),
    [("fifo", [5, 1, 2, 3, 4]), ("srtf", [5, 2, 1, 3, 4]), ("srsf", [5, 3, 1, 2, 4]), ("fair", [5, 3, 1, 4, 2])],
)
def test_a_queue_orders_what_is_as_urgent_by_the_name_of_its_order(order, keys):
    assert in_order(short_ones(order)) == keys


def test_each_queue_keeps_its_places_in_the_order_of_all():
    queues = [QueueSpec(name="a", order="srtf"), QueueSpec(name="b", order="fifo")]
    waiting = [
        workload(key, queue=queue, max_duration_seconds=seconds, submitted_at=NOON + key)
        for key, (queue, seconds) in enumerate([("a", 900), ("b", 900), ("a", 100), ("b", 100)], 1)
    ]
    assert in_order(world(nodes=[node()], queues=queues, workloads=waiting)) == [3, 2, 1, 4]


def flooded() -> Snapshot:
    return world(
        nodes=[node(cpus=3)],
        workloads=by("acme/ann", *range(1, 41)) + by("acme/bob", 41, 42, 43),
        now=NOON + 60 * SECOND,
    )


def test_explain_counts_turns_and_says_so():
    snapshot = flooded()
    assert started(snapshot) == [1, 2, 41]
    told = explain(snapshot, 42)
    assert (told.reason.code, told.position) == (Code.WAITS_BEHIND, 4)
    assert told.turn == (
        "queue default takes turns between those who submit to it, by what each holds there: of the 3 as urgent that go"
        " before it, 1 are of the same submitter"
    )
    assert explain(snapshot, 4).position == 7


def test_a_preview_stands_where_the_turns_of_its_submitter_put_it():
    spec = WorkloadSpec(
        kind=Kind.JOB, name="j", run=("true",), choices=(Resources(cpu_milli=1_000, memory_bytes=1 << 30),)
    )
    asked = {who: preview(flooded(), spec=spec, priority=0, submitter=f"acme/{who}") for who in ("ann", "bob", "cho")}
    assert {who: told.position for who, told in asked.items()} == {"ann": 44, "bob": 8, "cho": 3}
    assert asked["cho"].starts_now
    assert not asked["bob"].starts_now


def test_submitters_are_told_apart_by_tenant_and_name_and_pods_of_a_cluster_by_their_project():
    names = [
        submitter_of(tenant=tenant, project=project, submitted_by="cluster/x", kind=kind)
        for tenant in ("a", "b")
        for project in ("p", "q")
        for kind in (Kind.JOB, Kind.POD)
    ]
    assert len(set(names)) == 6
