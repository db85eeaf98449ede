"""In which order the work of a queue goes, and how many workloads of each tenant are open.

Revision: 0025. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Whoever submits to a queue takes turns; what is open is counted once, here."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.add_column("queues", sa.Column("ordering", sa.Text(), nullable=False, server_default="fair"))
    op.create_table(
        "open_work",
        sa.Column("tenant", sa.Text(), primary_key=True, nullable=False),
        sa.Column("workloads", whole, nullable=False),
        sqlite_strict=True,
    )
    op.execute(
        "INSERT INTO open_work (tenant, workloads) SELECT tenant, count(*) FROM workloads WHERE phase < 10 GROUP BY tenant"
    )
