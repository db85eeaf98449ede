"""What queues used lately: what has ended is added in the commit that records the end, so nothing is lost or counted twice."""

from __future__ import annotations

import numpy as np

from mainstay.domain.history import HistoryPolicy, with_ended
from mainstay.domain.plan import SetQueueHistory
from mainstay.domain.queue import ALL_QUEUES, DEFAULT_QUEUE
from mainstay.domain.reason import Reason
from mainstay.store.rows import AllocationRow, HistoryPolicyRow, QueueHistoryRow
from mainstay.store.world import World


def set_queue_history(world: World, action: SetQueueHistory) -> Reason | None:
    """What is on record has faded by the old half-life until now, and does by the new one from now on. Off forgets it."""
    before, wanted = world.history_policy, action.policy
    if wanted == before:
        return None
    for row in list(world.history.values()):
        if wanted.on:
            world.put_history(_with(row, before, world.now))
        else:
            world.drop_history(row["name"])
    on_record = HistoryPolicyRow(
        one=1,
        half_life_seconds=wanted.half_life_seconds,
        weight=float(wanted.weight),
        entry_seconds=wanted.entry_seconds,
        set_at=world.now,
        set_by=world.actor,
    )
    world.history_policy = wanted
    world.changes.history_policy = [on_record]
    world.log("queue", ALL_QUEUES, action.reason)
    return None


def remember(world: World, pod: AllocationRow) -> None:
    """This allocation has just ended: its queue held so much, from when it was given its place until then."""
    policy = world.history_policy
    if not policy.on:
        return
    queue = world.workloads[pod["workload_key"]]["queue"]
    name = queue if queue in world.history_queues else DEFAULT_QUEUE
    none = QueueHistoryRow(name=name, cpu_milli=0.0, memory_bytes=0.0, gpus=0.0, at=world.now)
    world.put_history(_with(world.history.get(name, none), policy, world.now, pod))


def _with(row: QueueHistoryRow, policy: HistoryPolicy, now: int, pod: AllocationRow | None = None) -> QueueHistoryRow:
    """The row as of now, with what one more pod adds that has ended."""
    used = np.array([row["cpu_milli"], row["memory_bytes"], row["gpus"]])
    amounts = np.zeros(3, dtype=np.int64)
    if pod is not None:
        amounts[:] = pod["cpu_milli"], pod["memory_bytes"], pod["gpus"]
    begin, end = (pod["created_at"], pod["ended_at"]) if pod is not None else (now, now)
    after = with_ended(policy, used, at=row["at"], amounts=amounts, begin=begin, end=end, now=now)
    cpu_milli, memory_bytes, gpus = after.tolist()
    return QueueHistoryRow(name=row["name"], cpu_milli=cpu_milli, memory_bytes=memory_bytes, gpus=gpus, at=now)
