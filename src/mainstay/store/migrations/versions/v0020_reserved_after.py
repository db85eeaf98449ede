"""How long the work of a queue waits before a start is reserved for it.

Revision: 0020. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Ten minutes, as it was for all."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.add_column("queues", sa.Column("reserved_after_seconds", whole, nullable=False, server_default="600"))
