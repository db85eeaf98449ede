"""Queues, names of priorities, workloads that are held.

Revision: 0009. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Nobody has set a queue so far: all that waits, whatever queue it names, counts in the one that is always there."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    real: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
    op.add_column("head", sa.Column("queues_at", whole, nullable=False, server_default="0"))
    op.add_column("workloads", sa.Column("held", whole, nullable=False, server_default="0"))
    op.add_column("workloads", sa.Column("preemptible", whole, nullable=False, server_default="1"))
    op.create_table(
        "queues",
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("parent", sa.Text(), nullable=False),
        sa.Column("cohort", whole, nullable=False),
        sa.Column("weight", real, nullable=False),
        sa.Column("quotas", sa.Text(), nullable=False),
        sa.Column("set_at", whole, nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("version", whole, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "priority_classes",
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("priority", whole, nullable=False),
        sa.Column("preemptible", whole, nullable=False),
        sa.Column("set_at", whole, nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sqlite_strict=True,
    )
