"""What queues have used lately, and whether that counts.

Revision: 0017. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Nobody has asked for a history so far, so none was kept."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    real: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
    op.create_table(
        "history_policy",
        sa.Column("one", whole, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("half_life_seconds", whole, nullable=False),
        sa.Column("weight", real, nullable=False),
        sa.Column("entry_seconds", whole, nullable=False),
        sa.Column("set_at", whole, nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.CheckConstraint("one = 1", name="history_policy_is_one_row"),
        sqlite_strict=True,
    )
    op.create_table(
        "queue_history",
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("cpu_milli", real, nullable=False),
        sa.Column("memory_bytes", real, nullable=False),
        sa.Column("gpus", real, nullable=False),
        sa.Column("at", whole, nullable=False),
        sqlite_strict=True,
    )
