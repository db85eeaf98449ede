"""What every queue and cohort has used lately, and how that counts towards its share (decision 0019).

Sources: KAI's time-based fair share (a half-life, and `kValue` by which usage lowers what a queue gets beyond its quota; what
is within the quota is not affected), Kueue's admission fair sharing (the decayed average, and a penalty at the entry).
"""

from __future__ import annotations

import numpy as np

from mainstay.decide.rows import rows_by_key
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Floats, Ints
from mainstay.domain.history import counted, fading
from mainstay.domain.queue import QueueTree
from mainstay.domain.snapshot import Snapshot

PARTS = np.array([1_000, 1, 1_000_000], dtype=np.int64)
"""[resources] What was used lately is counted in so many parts of a thousandth of a core, a byte, a GPU. In whole numbers,
so that sums do not depend on their order; finer than what anybody holds, since an average may be a tenth of a GPU."""


def used_lately(snapshot: Snapshot, *, kept: Ints | None = None) -> Floats:
    """[queues, resources] in the units of a ledger; a cohort has used what all below it have, beyond what each of them has `kept`
    to itself. All 0 where no history is kept.

    O(allocations + queues).
    """
    tree = snapshot.queues
    found = np.zeros((len(tree.names), PARTS.size))
    if not snapshot.history_policy.on:
        return found
    policy, past = snapshot.history_policy, snapshot.history
    np.add.at(found, past.queue, past.used * fading(policy, since=past.at, now=snapshot.now)[:, np.newaxis])
    rows, queue = held_rows(snapshot)
    held = snapshot.allocations
    begin = held.created_at[rows]
    parts = counted(policy, begin=begin, end=np.full_like(begin, snapshot.now), now=snapshot.now)
    for number, column in enumerate((held.cpu_milli, held.memory_bytes, held.gpus)):
        found[:, number] += np.bincount(queue, weights=column[rows] * parts, minlength=found.shape[0])
    whole: Ints = np.rint(found * PARTS).astype(np.int64)
    return with_all_below(tree, whole, kept=None if kept is None else kept * PARTS) / PARTS


def held_now(snapshot: Snapshot, *, kept: Ints | None = None) -> Ints:
    """[queues, resources] What the pods that have not ended hold, in the units of a ledger; a cohort all below it, beyond what
    each of them has `kept` to itself.
    """
    tree, held = snapshot.queues, snapshot.allocations
    rows, queue = held_rows(snapshot)
    found = np.zeros((PARTS.size, len(tree.names)), dtype=np.int64)
    for number, column in enumerate((held.cpu_milli, held.memory_bytes, held.gpus)):
        np.add.at(found[number], queue, column[rows])  # column by column NumPy knows a fast way
    return with_all_below(tree, np.ascontiguousarray(found.T), kept=kept)


def with_all_below(tree: QueueTree, amounts: Ints, *, kept: Ints | None = None) -> Ints:
    """[queues, ...] The same array, in which every cohort has in addition what all below it have, beyond what each has `kept`."""
    for row in range(tree.parent.size - 1, -1, -1):  # Children come after their parents.
        if tree.parent[row] >= 0:
            amounts[tree.parent[row]] += amounts[row] if kept is None else np.maximum(0, amounts[row] - kept[row])
    return amounts


def held_rows(snapshot: Snapshot) -> tuple[Ints, Ints]:
    """The rows of the allocations that have not ended, and the queue of each."""
    held, workloads = snapshot.allocations, snapshot.workloads
    row = rows_by_key(workloads.key, held.workload_key)
    rows = np.flatnonzero((held.seen != Seen.ENDED) & (row >= 0))
    return rows, workloads.queue[row[rows]]
