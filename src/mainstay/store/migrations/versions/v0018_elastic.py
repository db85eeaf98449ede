"""Elastic workloads: how many ranks they have at least and at most, how many an attempt has, and which it goes on without.

Revision: 0018. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """All that is there has as many ranks as it was submitted with, and every attempt of it had."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    for table, name in (("workloads", "nodes_min"), ("workloads", "nodes_max"), ("allocations", "ranks")):
        op.add_column(table, sa.Column(name, whole, nullable=False, server_default="1"))
    for name in ("yields_to", "surplus"):
        op.add_column("allocations", sa.Column(name, whole, nullable=False, server_default="0"))
    _fill(op.get_bind())


_WORKLOADS = sa.table("workloads", *map(sa.column, ("key", "nodes", "nodes_min", "nodes_max", "displaced_by")))
_PODS = sa.table("allocations", *map(sa.column, ("workload_key", "ranks", "yields_to", "preempted", "closed")))


def _fill(connection: sa.Connection) -> None:
    """Of gangs, and of what yields just now: what was on its workload is on its pods."""
    gang, mine = _WORKLOADS.c.nodes > 1, _PODS.c.workload_key == _WORKLOADS.c.key
    nodes = _WORKLOADS.c.nodes
    connection.execute(_WORKLOADS.update().where(gang).values(nodes_min=nodes, nodes_max=nodes))
    ranks = sa.select(nodes).where(mine).scalar_subquery()
    gangs = sa.select(_WORKLOADS.c.key).where(gang)
    connection.execute(_PODS.update().where(_PODS.c.workload_key.in_(gangs)).values(ranks=ranks))
    yields = sa.exists().where(mine, _PODS.c.preempted > 0, _PODS.c.closed == 0)
    yielding = sa.select(_WORKLOADS.c.key, _WORKLOADS.c.displaced_by).where(_WORKLOADS.c.displaced_by != "", yields)
    for key, displaced_by in connection.execute(yielding).all():
        told = (_PODS.c.workload_key == key) & (_PODS.c.preempted > 0)
        connection.execute(_PODS.update().where(told).values(yields_to=int(displaced_by.split()[-1])))
