"""Who is displaced for whom, and the places that are kept for those who wait for it.

Revision: 0010. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Nothing was ever displaced so far, and no queue lets anything be."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    for name in ("nominated", "displaced_by"):
        op.add_column("workloads", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    for name in ("nominated_until", "checkpoint_seconds"):
        op.add_column("workloads", sa.Column(name, whole, nullable=False, server_default="0"))
    some = sa.text("nominated <> ''")
    op.create_index("workloads_nominated", "workloads", ["key"], sqlite_where=some, postgresql_where=some)
    op.add_column("allocations", sa.Column("preempted", whole, nullable=False, server_default="0"))
    op.add_column("queues", sa.Column("preemption", sa.Text(), nullable=False, server_default=""))
