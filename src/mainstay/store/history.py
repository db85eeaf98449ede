"""Reading what queues used lately, and whether that counts."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import numpy as np
import sqlalchemy as sa

from mainstay.domain.history import NO_HISTORY, HistoryPolicy, HistoryRecord, HistoryTable
from mainstay.domain.queue import DEFAULT_QUEUE, QueueTree
from mainstay.store import queries, tables
from mainstay.store.columns import Column
from mainstay.store.rows import HistoryPolicyRow, QueueHistoryRow


def history_policy(connection: sa.Connection) -> HistoryRecord:
    """Off where nobody has set it."""
    for found in queries.fetch(connection, sa.select(tables.history_policy)):
        row = cast("HistoryPolicyRow", found)
        policy = HistoryPolicy(
            half_life_seconds=row["half_life_seconds"], weight=row["weight"], entry_seconds=row["entry_seconds"]
        )
        return HistoryRecord(policy=policy, set_at=row["set_at"], set_by=row["set_by"])
    return HistoryRecord(policy=NO_HISTORY)


def queue_history(connection: sa.Connection) -> dict[str, QueueHistoryRow]:
    """By name of the queue."""
    query = sa.select(tables.queue_history).order_by(tables.queue_history.c.name)
    return {row["name"]: cast("QueueHistoryRow", row) for row in queries.fetch(connection, query)}


def history_table(connection: sa.Connection, policy: HistoryPolicy, tree: QueueTree) -> HistoryTable:
    """As columns, one row a queue; none where no history is kept."""
    rows = list(queue_history(connection).values()) if policy.on else []
    amounts = [(row["cpu_milli"], row["memory_bytes"], row["gpus"]) for row in rows]
    history = HistoryTable(
        queue=rows_of(tree, [row["name"] for row in rows]),
        used=np.array(amounts, dtype=np.float64).reshape(-1, 3),
        at=np.array([row["at"] for row in rows], dtype=np.int64),
    )
    for column in (history.queue, history.used, history.at):
        column.flags.writeable = False
    return history


def rows_of(tree: QueueTree, names: Collection[str]) -> Column:
    """Of queues by name. What nobody has defined, or what has become a cohort, counts in the default queue."""
    row_of = {name: row for row, name in enumerate(tree.names) if not tree.cohort[row]}
    return np.array([row_of.get(name, row_of[DEFAULT_QUEUE]) for name in names], dtype=np.int64)
