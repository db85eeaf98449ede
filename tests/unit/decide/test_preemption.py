"""Who yields for whom: tables for what is known, properties for what must always hold."""

from __future__ import annotations

from typing import Any

from mainstay.decide.preemption import preempt
from mainstay.domain.preemption import (
    PreemptionPolicy,
    Rule,
    WithinQueue,
)
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, AnAllocation, AWorkload, allocation, node, workload, world

HOUR = 3_600 * SECOND
LOWER = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)


def queue(name: str, policy: PreemptionPolicy = LOWER, *, own: int | None = None, **values: Any) -> QueueSpec:
    """A queue with so many GPUs as its own, if any."""
    quotas = {} if own is None else {("default", "gpu"): Quota(nominal=own)}
    return QueueSpec(name=name, preemption=policy, quotas=quotas, **values)


def waits(key: int, **values: Any) -> AWorkload:
    """It has been looked for a place, and there was none."""
    return workload(key, **{"phase": Phase.QUEUED, "queue": "a", **values})


def runs(key: int, **values: Any) -> AWorkload:
    return workload(key, **{"phase": Phase.RUNNING, "queue": "a", **values})


def holds(key: int, **values: Any) -> AnAllocation:
    """It was placed two hours ago, and has run since."""
    return allocation(key, **{"created_at": NOON - 2 * HOUR, "started_at": NOON - 2 * HOUR, **values})


def victims(snapshot: Snapshot) -> list[tuple[int, ...]]:
    """Of each workload that displaces: who yields, by key."""
    return [tuple(sorted(one.workload_key for one in action.victims)) for action in preempt(snapshot)]


def full(*held: tuple[AWorkload, AnAllocation], waiting: AWorkload, policy: PreemptionPolicy = LOWER) -> Snapshot:
    """One node of 16 CPUs, one queue."""
    return world(
        nodes=[node()],
        workloads=[*(work for work, _ in held), waiting],
        allocations=[pod for _, pod in held],
        queues=[queue("a", policy)],
    )


def test_less_urgent_work_of_its_queue_yields() -> None:
    low = runs(1, priority=10, cpus=16), holds(1, cpus=16)
    (action,) = preempt(full(low, waiting=waits(2, priority=50, cpus=8)))
    assert action.workload_key == 2
    assert [(one.workload_key, one.rule) for one in action.victims] == [(1, Rule.WITHIN_QUEUE)]
    assert [(slot.rank, slot.node_key, slot.resources.cpu_milli) for slot in action.slots] == [(0, 1, 8_000)]


def test_by_default_nobody_yields() -> None:
    low = runs(1, priority=10, cpus=16), holds(1, cpus=16)
    assert not preempt(full(low, waiting=waits(2, priority=50), policy=PreemptionPolicy()))
