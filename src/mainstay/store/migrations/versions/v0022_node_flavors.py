"""Flavors of nodes, of which queues have quotas.

Revision: 0022. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Nobody has named any so far."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.create_table(
        "node_flavors",
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("place", whole, nullable=False),
        sa.Column("requirements", sa.Text(), nullable=False),
        sa.Column("set_at", whole, nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sqlite_strict=True,
    )
