"""A strict queue: nothing of it starts past its head, and other queues go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainstay.decide.cycle import Cycle
from mainstay.decide.explain import explain
from mainstay.decide.placement import POLICIES
from mainstay.decide.preemption import preempt
from mainstay.decide.schedule import schedule
from mainstay.domain.plan import Advance, Allocate
from mainstay.domain.preemption import Nomination, PreemptionPolicy, Slot, WithinQueue
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import RESERVED_AFTER_SECONDS, QueueSpec, Quota
from mainstay.domain.reason import Code
from mainstay.domain.workload import Phase
from tests.unit.decide.test_kernel import a_world, plan
from tests.worlds import NOON, SECOND, allocation, node, workload, world

STRICT = QueueSpec(name="strict", order="strict")
FIFO = QueueSpec(name="strict", order="fifo")


def starts(snapshot) -> list[int]:
    return sorted(action.workload_key for action in schedule(snapshot) if isinstance(action, Allocate))


def wants(key: int, cpus: int, **more):
    return workload(key, queue=more.pop("queue", "strict"), cpus=cpus, submitted_at=NOON + key * SECOND, **more)


@pytest.mark.parametrize(("queue", "started"), [(STRICT, [1, 4]), (FIFO, [1, 3, 4])])
def test_nothing_starts_past_a_head_that_has_no_room(queue, started):
    jobs = [wants(1, 2), wants(2, 64), wants(3, 2), wants(4, 2, queue="default")]
    assert starts(world(nodes=[node(cpus=8)], workloads=jobs, queues=[queue])) == started


@pytest.mark.parametrize(("order", "started"), [("strict", [4]), ("fifo", [2, 4])])
def test_nothing_starts_past_a_head_that_has_no_quota(order, started):
    few = replace(STRICT, order=order, quotas={("default", "cpu"): Quota(nominal=2_000)})
    jobs = [wants(1, 4), wants(2, 2), wants(4, 2, queue="default")]
    assert starts(world(nodes=[node(cpus=8)], workloads=jobs, queues=[few])) == started


def test_what_others_of_another_queue_found_no_room_for_stops_it_too():
    """Its head asks for the same as one that was given up before."""
    jobs = [workload(1, queue="default", cpus=64), wants(2, 64), wants(3, 1)]
    assert starts(world(nodes=[node(cpus=8)], workloads=jobs, queues=[STRICT])) == []


def test_the_more_urgent_is_the_head():
    jobs = [wants(1, 64), wants(2, 2, priority=1)]
    assert starts(world(nodes=[node(cpus=8)], workloads=jobs, queues=[STRICT])) == [2]


def test_nothing_starts_past_a_head_whose_start_is_reserved():
    runs = workload(9, cpus=8, phase=Phase.RUNNING, max_duration_seconds=3_600)
    short = {"max_duration_seconds": 60}
    jobs = [wants(1, 10), wants(2, 1, **short), wants(3, 1, queue="default", **short)]
    snapshot = world(
        nodes=[node(cpus=10)],
        workloads=[runs, *jobs],
        allocations=[allocation(9, cpus=8, gib=1, started_at=NOON)],
        queues=[STRICT],
        now=NOON + (RESERVED_AFTER_SECONDS + 60) * SECOND,
    )
    assert starts(snapshot) == [3]
    assert starts(replace(snapshot, queues=replace(snapshot.queues, orders=("fifo",) * 2))) == [2, 3]


def kept_for(key: int, cpus: int) -> Nomination:
    slot = Slot(rank=0, node_key=1, resources=Resources(cpu_milli=1_000 * cpus, memory_bytes=1 << 30))
    return Nomination(slots=(slot,), until=NOON + 600 * SECOND)


def test_nothing_starts_past_a_head_for_which_places_are_kept():
    """Those that yield to it have not ended yet. What goes before it may start."""
    yields = workload(9, cpus=8, phase=Phase.RUNNING)
    jobs = [wants(2, 8, phase=Phase.QUEUED), wants(3, 1), wants(4, 1, priority=5), wants(5, 1, queue="default")]
    snapshot = world(
        nodes=[node(cpus=12)],
        workloads=[yields, *jobs],
        allocations=[allocation(9, cpus=8, gib=1, stop=True, stop_asked_at=NOON, preempted=True)],
        queues=[STRICT],
        nominations={2: kept_for(2, 8)},
        displaced_by={9: (2,)},
    )
    assert starts(snapshot) == [4, 5]
    assert explain(snapshot, 3, tenant="acme").reason.numbers == {"head": "another run"}


def test_only_the_head_displaces_others():
    policy = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)
    runs = [wants(8, 4, phase=Phase.RUNNING), wants(9, 4, phase=Phase.RUNNING)]
    held = [allocation(key, cpus=4, started_at=NOON - 3_600 * SECOND) for key in (8, 9)]
    jobs = [wants(1, 64, priority=9, phase=Phase.QUEUED), wants(2, 4, priority=5, phase=Phase.QUEUED)]
    for order, displacing in (("strict", []), ("fifo", [2])):
        queue = replace(STRICT, order=order, preemption=policy)
        found = preempt(world(nodes=[node(cpus=8)], workloads=[*runs, *jobs], allocations=held, queues=[queue]))
        assert [action.workload_key for action in found] == displacing


def test_who_is_held_up_is_told_so_and_the_head_is_known():
    snapshot = world(nodes=[node(cpus=8)], workloads=[wants(1, 64), wants(2, 2), wants(3, 2)], queues=[STRICT])
    found = explain(snapshot, 2, tenant="acme")
    words = "finds no place: queue strict is strict, so nothing of it starts past its head"
    assert (found.reason.code, found.reason.sentence) == (
        Code.WAITS_IN_STRICT,
        f"waits behind another run, which {words}",
    )
    assert found.head == explain(snapshot, 3, tenant="other").head == 1
    assert explain(snapshot, 1, tenant="acme").reason.code is Code.NEVER_FITS
    told = {action.workload_key: action.reason.code for action in schedule(snapshot) if isinstance(action, Advance)}
    assert told == {1: Code.NEVER_FITS, 2: Code.WAITS_IN_STRICT, 3: Code.WAITS_IN_STRICT}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(POLICIES)))
def test_what_starts_of_a_strict_queue_is_the_head_of_its_line(seed, policy):
    """Whatever is asked for, with reserved starts and by NumPy, too."""
    snapshot = a_world(seed)
    tree = snapshot.queues
    orders = tuple("strict" if name in "ab" else order for name, order in zip(tree.names, tree.orders, strict=True))
    snapshot = replace(snapshot, queues=replace(tree, orders=orders))
    cycle = Cycle(snapshot, POLICIES[policy])
    for _ in cycle.placements():
        pass
    for name in "ab":
        mine = cycle.order[snapshot.workloads.queue[cycle.order] == tree.names.index(name)]
        started = cycle.started[mine].astype(np.int64)
        assert (np.diff(started) <= 0).all(), f"{name}: {started.tolist()}"
    assert plan(snapshot, policy) == plan(snapshot, policy, by_numpy=True)
