"""Which replicas hold lines of agents. Hints, and no more: a replica that was killed takes nothing back."""

from __future__ import annotations

import sqlalchemy as sa

from mainstay.ports import LineRecord
from mainstay.store import tables
from mainstay.store.commit import locked_head

LINES_MAX = 4
"""Of one cluster: what a replica that was killed has left goes once there are so many newer ones."""


def lines_in(connection: sa.Connection, cluster: str) -> tuple[LineRecord, ...]:
    """The newest first."""
    table = tables.lines
    query = sa.select(table).where(table.c.cluster == cluster).order_by(table.c.number.desc())
    return tuple(
        LineRecord(cluster=cluster, replica=row["replica"], address=row["address"])
        for row in connection.execute(query).mappings()
    )


def open_in(connection: sa.Connection, line: LineRecord) -> None:
    """It becomes the newest of its cluster."""
    locked_head(connection)
    table = tables.lines
    of_cluster = table.c.cluster == line.cluster
    newest = connection.execute(sa.select(sa.func.max(table.c.number)).where(of_cluster)).scalar() or 0
    gone = (table.c.replica == line.replica) | (table.c.number <= newest + 1 - LINES_MAX)
    connection.execute(sa.delete(table).where(of_cluster, gone))
    connection.execute(
        sa.insert(table).values(cluster=line.cluster, replica=line.replica, address=line.address, number=newest + 1)
    )


def end_in(connection: sa.Connection, cluster: str, replica: str) -> None:
    """Nothing happens if it is not there."""
    table = tables.lines
    connection.execute(sa.delete(table).where(table.c.cluster == cluster, table.c.replica == replica))
