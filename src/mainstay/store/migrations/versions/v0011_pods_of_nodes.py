"""How many pods a node takes, and has.

Revision: 0011. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """No limit is known until each cluster says it in its next look; what is there holds its place already."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.add_column("nodes", sa.Column("pods_max", whole, nullable=False, server_default="-1"))
    op.add_column("nodes", sa.Column("used_pods", whole, nullable=False, server_default="0"))
    _count(op.get_bind())


def _count(connection: sa.Connection) -> None:
    connection.exec_driver_sql("""
        UPDATE nodes SET used_pods = found.pods
        FROM (
            SELECT node_key, count(*) AS pods FROM allocations WHERE closed = 0 AND seen <> 10 GROUP BY node_key
        ) AS found
        WHERE found.node_key = nodes.key
    """)
