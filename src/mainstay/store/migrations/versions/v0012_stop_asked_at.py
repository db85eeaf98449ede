"""When a pod was told to stop, so that one that does not end is known from one that is about to; who yields, by node.

Revision: 0012. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Of pods that were told before, nobody knows when: they count as told long ago."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.add_column("allocations", sa.Column("stop_asked_at", whole, nullable=False, server_default="0"))
    open_ = sa.text("preempted > 0 AND closed = 0")
    op.create_index("allocations_yielding", "allocations", ["node_key"], sqlite_where=open_, postgresql_where=open_)
