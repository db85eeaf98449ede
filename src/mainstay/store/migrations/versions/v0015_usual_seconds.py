"""How long runs of a name usually take, for those that have no limit: when their places will be free is known by that.

Revision: 0015. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Of what has its place already nobody knows."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.add_column("workloads", sa.Column("usual_seconds", whole, nullable=False, server_default="0"))
    at_once = sa.text("phase = 10 AND attempt = 1")
    op.create_index(
        "workloads_succeeded_at_once",
        "workloads",
        ["tenant", "project", "name", "key"],
        sqlite_where=at_once,
        postgresql_where=at_once,
    )
