"""Labels and taints of nodes, and whether they are spot.

Revision: 0021. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Nothing is known of any node before its cluster is looked at again."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.create_table(
        "node_traits",
        sa.Column("digest", sa.Text(), primary_key=True, nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("taints", sa.Text(), nullable=False),
        sa.Column("spot", whole, nullable=False),
        sqlite_strict=True,
    )
    op.add_column("nodes", sa.Column("traits", sa.Text(), nullable=False, server_default=""))
    op.add_column("nodes", sa.Column("barred", whole, nullable=False, server_default="0"))
