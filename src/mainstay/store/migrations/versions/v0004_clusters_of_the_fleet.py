"""Clusters that are added while the platform runs, and jobs that must run in one of them.

Revision: 0004. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0004"
down_revision = "0003"

READY = '["ClusterReady","",{}]'


def upgrade() -> None:
    """What was witnessed so far are machines that replicas bring along; no job was bound to one."""
    for name, before in (
        *(("kind", "local"), ("settings", "{}"), ("sealed", ""), ("identity", "")),
        *(("wanted", "kept"), ("wanted_reason", READY), ("seen", "ready"), ("seen_reason", READY)),
    ):
        _add("clusters", sa.Column(name, sa.Text(), nullable=False, server_default=before))
    _add("clusters", _whole("added_at"))
    _add("clusters", sa.Column("added_by", sa.Text(), nullable=False, server_default=""))
    _add("clusters", _whole("version"))
    _add("workloads", sa.Column("cluster", sa.Text(), nullable=False, server_default=""))


def _add(table: str, column: sa.Column[int] | sa.Column[str]) -> None:
    op.add_column(table, column)


def _whole(name: str) -> sa.Column[int]:
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    return sa.Column(name, whole, nullable=False, server_default="0")
