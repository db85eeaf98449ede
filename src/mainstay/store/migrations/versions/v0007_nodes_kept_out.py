"""Nodes that are kept out, what is wrong with them, slices of their GPUs, and pods that are stopped to be moved.

Revision: 0007. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Nobody has kept a node out so far, and the next look of each cluster says the rest."""
    for name in (
        *("problem", "complaints", "strangers", "shapes", "used_shapes", "unhealthy"),
        *("closure", "closure_reason"),
    ):
        op.add_column("nodes", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    for name in ("cordoned", "closed_at", "closed_until", "drains", "wait_seconds"):
        op.add_column("nodes", _whole(name))
    op.add_column("allocations", _whole("moves"))
    few = sa.text("closure <> ''")
    op.create_index("nodes_kept_out", "nodes", ["cluster", "name"], sqlite_where=few, postgresql_where=few)


def _whole(name: str) -> sa.Column[int]:
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    return sa.Column(name, whole, nullable=False, server_default="0")
