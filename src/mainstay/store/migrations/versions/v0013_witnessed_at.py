"""Up to when a pod was witnessed to run before it went out of sight: so long it is charged if it has vanished.

Revision: 0013. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Of pods that are out of sight already, nobody knows: they are charged up to their last record."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.add_column("allocations", sa.Column("witnessed_at", whole, nullable=False, server_default="0"))
