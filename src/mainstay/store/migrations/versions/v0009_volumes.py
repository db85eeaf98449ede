"""Where volumes lie, and which workloads name them.

Revision: 0009. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0009"
down_revision = "0008"

_NAMES = ("cluster", "tenant", "project", "name")


def upgrade() -> None:
    """Where they lie the next look of each cluster says. What waits and runs is found again by what it names."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.create_table(
        "volumes",
        *(sa.Column(name, sa.Text(), primary_key=True, nullable=False) for name in _NAMES),
        sa.Column("size_bytes", whole, nullable=False),
        sa.Column("access", sa.Text(), nullable=False),
        sa.Column("storage_class", sa.Text(), nullable=False),
        sa.Column("bound", whole, nullable=False),
        sa.Column("leaving", whole, nullable=False),
        sa.Column("reach", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("removed", whole, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("volumes_by_tenant", "volumes", ["tenant", "cluster", "project", "name"])
    op.add_column("head", sa.Column("volumes_at", whole, nullable=False, server_default="0"))
    op.add_column("workloads", sa.Column("volumes", sa.Text(), nullable=False, server_default=""))
    _name_volumes(op.get_bind())


def _name_volumes(connection: sa.Connection) -> None:
    """Of workloads that are not final: the others name nothing any more."""
    text = sa.text("SELECT key, spec FROM workloads WHERE phase < 10")
    for key, spec in connection.execute(text).all():
        names = dict.fromkeys(one["name"] for one in json.loads(spec).get("volumes", ()) if one.get("name"))
        if names:
            update = sa.text("UPDATE workloads SET volumes = :names WHERE key = :key")
            connection.execute(update, {"names": " ".join(names), "key": key})
