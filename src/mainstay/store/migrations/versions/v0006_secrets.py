"""Secrets of tenants, sealed.

Revision: 0006. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """There were none."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.create_table(
        "secrets",
        sa.Column("tenant", sa.Text(), primary_key=True, nullable=False),
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("set_at", whole, nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sqlite_strict=True,
    )
