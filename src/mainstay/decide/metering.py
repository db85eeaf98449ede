"""What allocations held, as usage records: one per hour of the calendar (UTC), the last one up to the end."""

from __future__ import annotations

import numpy as np

from mainstay.decide import billing
from mainstay.decide.rows import rows_by_key
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.billing import UsageRecord
from mainstay.domain.plan import RecordUsage, RowVersion
from mainstay.domain.quantity import MICROSECONDS_PER_HOUR, Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot


def meter(snapshot: Snapshot, *, changes_max: int = 1_000) -> tuple[RecordUsage, ...]:
    """Usage that is complete and not yet recorded, with its charges; at most one record per allocation and cycle.

    Key: allocation and start, so that recording twice is recording once. What is UNKNOWN is not recorded before it is
    known: it may have ended long ago, and a record is never taken back. For the same reason a full hour of what is
    RUNNING is recorded only up to where its cluster has been witnessed, whatever our clock says: during a downtime of
    ours, or after a jump of our clock, a pod may have ended long before now (docs/decisions/0004). A pod that never
    started costs nothing.
    """
    starts, ends = _intervals(snapshot)
    rows = np.flatnonzero(ends > starts)[:changes_max]
    return tuple(
        _record(snapshot, row, start=int(starts[row]), end=int(ends[row]))
        for row in rows.tolist()
        if int(snapshot.allocations.workload_key[row]) in snapshot.owners
    )


def _intervals(snapshot: Snapshot) -> tuple[Ints, Ints]:
    """What to record next of each allocation; empty or turned round where there is nothing."""
    table = snapshot.allocations
    starts = np.maximum(table.metered_until, table.started_at)
    hour_ends = (starts // MICROSECONDS_PER_HOUR + 1) * MICROSECONDS_PER_HOUR
    ended = table.seen == Seen.ENDED
    hour_over = (table.seen == Seen.RUNNING) & (hour_ends <= _witnessed(snapshot))
    ends = np.where(ended, np.minimum(table.ended_at, hour_ends), np.where(hour_over, hour_ends, 0))
    started: Bools = table.started_at > 0
    return starts, np.where(started, ends, 0)


def _witnessed(snapshot: Snapshot) -> Ints:
    """Per allocation, up to when its cluster has been witnessed; 0 if that is not known."""
    of_node = [snapshot.observed.get(cluster, 0) for cluster in snapshot.nodes.clusters]
    # A node that is not there has the row -1: the last one.
    witnessed: Ints = np.array([*of_node, 0], dtype=np.int64)[
        rows_by_key(snapshot.nodes.key, snapshot.allocations.node_key)
    ]
    return witnessed


def _record(snapshot: Snapshot, row: int, *, start: int, end: int) -> RecordUsage:
    table = snapshot.allocations
    tenant, project, workload = snapshot.owners[int(table.workload_key[row])]
    usage = UsageRecord(
        allocation_key=int(table.key[row]),
        tenant=tenant,
        project=project,
        workload=workload,
        resources=Resources(
            cpu_milli=int(table.cpu_milli[row]),
            memory_bytes=int(table.memory_bytes[row]),
            gpus=int(table.gpus[row]),
            gpu_model=snapshot.gpu_models[int(table.gpu_model[row])],
        ),
        start=start,
        end=end,
    )
    return RecordUsage(
        guards=(RowVersion(kind="allocation", key=usage.allocation_key, version=int(table.version[row])),),
        reason=Reason(code=Code.METERED, object=workload),
        usage=usage,
        charges=billing.charges(usage, since_start=int(table.started_at[row]), prices=snapshot.prices),
    )
