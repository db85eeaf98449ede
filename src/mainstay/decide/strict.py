"""Strict queues: nothing starts past the head of one, be there room or not (Kueue's StrictFIFO).

The head is what goes first of what waits, by priority and age. Where it finds no place, over its quota or for want of nodes, its
queue has no more turns in the cycle (`Waiting.strict`); also where a start is reserved for it. While places are kept for it until
those have ended that yield to it, those behind it wait, too. Other queues go on.
"""

from __future__ import annotations

import numpy as np

from mainstay.decide.rows import rows_by_key
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.queue import STRICT, QueueTree
from mainstay.domain.snapshot import Snapshot


def strict_queues(tree: QueueTree) -> Bools:
    """[queues] Which are strict."""
    return np.array([name == STRICT for name in tree.orders], dtype=np.bool_)


def not_held_up(snapshot: Snapshot, rows: Ints) -> Ints:
    """Those of these workloads, in their order, that are not behind one for which places are kept."""
    kept = _keeping(snapshot)
    if not kept.size:
        return rows
    table = snapshot.workloads
    behind = np.zeros(rows.size, dtype=np.bool_)
    for head in kept.tolist():
        behind |= (table.queue[rows] == table.queue[head]) & _goes_before(snapshot, head, rows)
    return rows[~behind]


def heads(snapshot: Snapshot, rows: Ints) -> Ints:
    """Those of these workloads, in their order, that are in no strict queue or the first of theirs."""
    queue = snapshot.workloads.queue[rows]
    first = np.zeros(rows.size, dtype=np.bool_)
    first[np.unique(queue, return_index=True)[1]] = True
    return rows[first | ~strict_queues(snapshot.queues)[queue]]


def held_up_by(snapshot: Snapshot, order: Ints, started: Bools, row: int) -> int | None:
    """The row of the one that holds up this one, whatever there is room for; None if its queue is not strict or it is the head.

    `order`: of admission, with what is behind places that are kept or without; `started` [workloads] those that found a place.
    """
    table, queue = snapshot.workloads, int(snapshot.workloads.queue[row])
    if snapshot.queues.orders[queue] != STRICT:
        return None
    mine = np.append(_keeping(snapshot), order[~started[order]])
    mine = mine[table.queue[mine] == queue]
    before = mine[~_goes_before(snapshot, row, mine) & (mine != row)]
    return int(before[0]) if before.size else None


def _keeping(snapshot: Snapshot) -> Ints:
    """Rows of those in strict queues for which places are kept."""
    if not snapshot.nominations:
        return np.zeros(0, dtype=np.int64)
    table = snapshot.workloads
    rows = rows_by_key(table.key, np.fromiter(snapshot.nominations, dtype=np.int64, count=len(snapshot.nominations)))
    rows = rows[rows >= 0]
    return rows[strict_queues(snapshot.queues)[table.queue[rows]]]


def _goes_before(snapshot: Snapshot, row: int, rows: Ints) -> Bools:
    """[rows] Whether this one goes before them, by priority, then age."""
    table = snapshot.workloads
    priority, age, key = table.priority[rows], table.submitted_at[rows], table.key[rows]
    same = priority == table.priority[row]
    older = (table.submitted_at[row] < age) | ((table.submitted_at[row] == age) & (table.key[row] < key))
    before: Bools = (table.priority[row] > priority) | (same & older)
    return before
