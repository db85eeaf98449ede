"""When tenants and projects were removed.

Revision: 0032. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    """None was, so far."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    for table in ("tenants", "projects"):
        op.add_column(table, sa.Column("removed_at", whole, nullable=False, server_default="0"))
