"""What runs of a name take, the middle and the spread of it: when a place is expected to be free is drawn from that.

Revision: 0019. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Of what waits or has its place already nobody knows."""
    for column in ("typical_seconds", "spread_permille"):
        whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
        op.add_column("workloads", sa.Column(column, whole, nullable=False, server_default="0"))
