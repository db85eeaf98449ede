"""Which replicas hold lines of agents.

Revision: 0008. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Every replica says so of the lines that it holds."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.create_table(
        "lines",
        sa.Column("cluster", sa.Text(), primary_key=True, nullable=False),
        sa.Column("replica", sa.Text(), primary_key=True, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("number", whole, nullable=False),
        sqlite_strict=True,
    )
