"""Leases: who leads, under which epoch. A compare-and-set of one row, under the lock that all writers take."""

from __future__ import annotations

import sqlalchemy as sa

from mainstay.domain.plan import Epoch
from mainstay.ports import Held
from mainstay.store import tables
from mainstay.store.commit import locked_head


def acquire_in(connection: sa.Connection, lease: str, *, holder: str, now: int, until: int) -> Epoch | None:
    """The same holder keeps its epoch; another one takes over after the expiry, under the next of all.

    No lease has a number that another one has had: a Kubernetes cluster that comes back under another name has seen those of
    the old one, and refuses them (clusters/kubernetes/fence.py).

    Times in UTC microseconds, as the callers see them: a wrong clock costs availability, never safety, because the
    epoch is compared in the transaction of every decision (reliability.md M6, R7). A lease that ends later than two
    of its lengths from now was taken under a clock that was far ahead, and counts as expired.
    """
    # The lock of `head` keeps a tenure from passing while a plan under the old epoch is between check and commit.
    locked_head(connection)
    table = tables.leases
    row = connection.execute(sa.select(table).where(table.c.name == lease)).mappings().one_or_none()
    if row is None:
        number = _next(connection)
        connection.execute(sa.insert(table).values(name=lease, holder=holder, epoch=number, expires_at=until))
        return Epoch(name=lease, number=number)
    if row["holder"] != holder and now < row["expires_at"] <= now + 2 * (until - now):
        return None
    epoch = int(row["epoch"]) if row["holder"] == holder else _next(connection)
    connection.execute(
        sa.update(table).where(table.c.name == lease).values(holder=holder, epoch=epoch, expires_at=until)
    )
    return Epoch(name=lease, number=epoch)


def _next(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(sa.func.max(tables.leases.c.epoch))).scalar() or 0) + 1


def held_in(connection: sa.Connection, lease: str) -> Held | None:
    """As it stands, whether it has run out or not."""
    table = tables.leases
    row = connection.execute(sa.select(table).where(table.c.name == lease)).mappings().one_or_none()
    return None if row is None else Held(holder=row["holder"], epoch=row["epoch"], until=row["expires_at"])
