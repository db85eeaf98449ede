"""Each action of a turn of preemption stands for itself, and what is kept is only taken once its quota is free, too."""

from __future__ import annotations

from dataclasses import replace

from mainstay.decide.nomination import settle
from mainstay.decide.preemption import preempt
from mainstay.domain.plan import Allocate
from mainstay.domain.preemption import Nomination, PreemptionPolicy, Rule, Slot, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, AWorkload, allocation, node, workload, world

LOWER = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)


def running(key: int, *, cpus: int) -> AWorkload:
    return workload(key, queue="q", priority=10, cpus=cpus, phase=Phase.RUNNING)


def urgent(key: int, **values: object) -> AWorkload:
    return workload(key, queue="q", priority=100 - key, phase=Phase.QUEUED, **values)


def who(snapshot: Snapshot) -> list[tuple[int, list[int]]]:
    """Who displaces whom."""
    return [(action.workload_key, [one.workload_key for one in action.victims]) for action in preempt(snapshot)]


def test_nobody_yields_for_a_gang_that_also_needs_what_is_left_where_another_displaces() -> None:
    """If that one were refused, half of the gang would have no place, and whoever had yielded had done so in vain."""
    snapshot = world(
        nodes=[node(cpus=8), node(cpus=2)],
        queues=[QueueSpec(name="q", preemption=LOWER)],
        workloads=[running(8, cpus=8), running(9, cpus=2), urgent(1, cpus=5), urgent(2, cpus=2, nodes=2)],
        allocations=[allocation(8, node_key=1, cpus=8), allocation(9, node_key=2, cpus=2)],
    )
    assert who(snapshot) == [(1, [8])]


def test_nobody_yields_for_one_that_also_needs_the_quota_that_another_leaves() -> None:
    snapshot = world(
        nodes=[node(cpus=32)],
        queues=[QueueSpec(name="q", preemption=LOWER, quotas={("default", "cpu"): Quota(nominal=10_000)})],
        workloads=[running(8, cpus=8), running(9, cpus=2), urgent(1, cpus=5), urgent(2, cpus=5)],
        allocations=[allocation(8, cpus=8), allocation(9, cpus=2)],
    )
    assert who(snapshot) == [(1, [8])]


def test_those_who_need_nothing_of_each_other_displace_in_one_turn() -> None:
    quotas = {("default", "cpu"): Quota(nominal=10_000)}
    snapshot = world(
        nodes=[node(cpus=8), node(cpus=2)],
        queues=[QueueSpec(name="q", preemption=LOWER, quotas=quotas)],
        workloads=[running(8, cpus=8), running(9, cpus=2), urgent(1, cpus=8), urgent(2, cpus=2)],
        allocations=[allocation(8, node_key=1, cpus=8), allocation(9, node_key=2, cpus=2)],
    )
    assert who(snapshot) == [(1, [8]), (2, [9])]


def test_what_is_kept_is_not_taken_while_those_who_leave_hold_its_quota() -> None:
    """Its node has room already."""
    kept = Slot(rank=0, node_key=1, resources=Resources(cpu_milli=4_000, memory_bytes=BYTES_PER_GIB))
    leaves = allocation(8, node_key=2, cpus=8, stop=True, moves=True, preempted=int(Rule.WITHIN_QUEUE))
    snapshot = world(
        nodes=[node(cpus=8), node(cpus=8)],
        queues=[QueueSpec(name="q", preemption=LOWER, quotas={("default", "cpu"): Quota(nominal=8_000)})],
        workloads=[running(8, cpus=8), urgent(1, cpus=4)],
        allocations=[leaves],
        nominations={1: Nomination(slots=(kept,), until=NOON + 60 * SECOND)},
        displaced_by={8: (1,)},
    )
    assert list(settle(snapshot)) == []
    gone = replace(snapshot, allocations=world(nodes=[node(), node()]).allocations)
    (action,) = settle(gone)
    assert isinstance(action, Allocate)
    assert action.workload_key == 1
