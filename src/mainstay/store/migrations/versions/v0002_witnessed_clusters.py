"""Up to when each cluster has been witnessed.

Revision: 0002. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """A table without rows: what was witnessed before is not known, and the next look of each cluster says it."""
    op.create_table(
        "clusters",
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column(
            "observed_at",
            sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite"),
            primary_key=False,
            autoincrement=False,
            nullable=False,
        ),
        sqlite_strict=True,
    )
