"""Who may start now, and in which order."""

from __future__ import annotations

import numpy as np

from mainstay.decide.submitters import in_turn
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase


def order(snapshot: Snapshot) -> Ints:
    """Rows of `snapshot.workloads` that may start now: higher priority first, then the older, then the lower key; within a
    queue and priority as that queue orders them.

    O(n log n) in the waiting workloads, a few tens of milliseconds for 100,000.
    """
    rows, table = _may_start(snapshot), snapshot.workloads
    ranking = np.lexsort((table.key[rows], table.submitted_at[rows], -table.priority[rows]))
    return in_turn(snapshot, rows[ranking])


def waiting(snapshot: Snapshot) -> Bools:
    """Which workloads wait for a place, whether or not they may have one now."""
    phase = snapshot.workloads.phase
    waits: Bools = (phase == Phase.PENDING) | (phase == Phase.QUEUED)
    return waits


def due(snapshot: Snapshot) -> Bools:
    """Whose back-off is over."""
    return _over(snapshot, np.arange(snapshot.workloads.key.size))


def _over(snapshot: Snapshot, rows: Ints) -> Bools:
    """[rows] Whether the back-off of these is.

    A back-off never lasts longer than the workload's own maximum. One that seems to has been written before the
    clock was set back, and a workload must not wait for the clock to catch up.
    """
    table = snapshot.workloads
    left = table.not_before[rows] - snapshot.now
    over: Bools = (left <= 0) | (left > table.backoff_seconds_max[rows] * MICROSECONDS_PER_SECOND)
    return over


def may_start(snapshot: Snapshot) -> Bools:
    """[workloads] Which wait and may have a place now."""
    found = np.zeros(snapshot.workloads.key.size, dtype=np.bool_)
    found[_may_start(snapshot)] = True
    return found


def _may_start(snapshot: Snapshot) -> Ints:
    """Rows of the workload table, ascending. Most of it runs: whoever does not wait is looked at once."""
    table, held = snapshot.workloads, snapshot.allocations
    rows = np.flatnonzero(waiting(snapshot) & ~table.stop_requested & ~table.held)
    rows = rows[_over(snapshot, rows)]
    # A pod that is not proven dead may still run: no later attempt starts beside it (R5).
    alive = held.workload_key[held.seen != Seen.ENDED]
    return rows[~np.isin(table.key[rows], alive)]
