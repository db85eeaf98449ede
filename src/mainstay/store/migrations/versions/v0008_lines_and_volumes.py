"""Which replicas hold lines of agents, where volumes lie and which workloads name them, and events by what they are about.

Revision: 0008. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0008"
down_revision = "0007"

_WHOLE = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")


def upgrade() -> None:
    """Every replica says which lines it holds, and the next look of each cluster where volumes lie."""
    op.create_table(
        "lines",
        *_texts("cluster", "replica", key=True),
        *_texts("address"),
        *_wholes("number"),
        sqlite_strict=True,
    )
    op.create_table(
        "volumes",
        *_texts("cluster", "tenant", "project", "name", key=True),
        *_wholes("size_bytes"),
        *_texts("access", "storage_class"),
        *_wholes("bound", "leaving"),
        *_texts("reach", "place"),
        *_wholes("removed"),
        sqlite_strict=True,
    )
    op.create_index("volumes_by_tenant", "volumes", ["tenant", "cluster", "project", "name"])
    op.add_column("head", sa.Column("volumes_at", _WHOLE, nullable=False, server_default="0"))
    op.add_column("workloads", sa.Column("volumes", sa.Text(), nullable=False, server_default=""))
    _name_volumes(op.get_bind())
    # Of what belongs to no workload: few, beside the others.
    few = sa.text("workload = ''")
    op.create_index("events_by_object", "events", ["object", "seq"], sqlite_where=few, postgresql_where=few)


def _texts(*names: str, key: bool = False) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), primary_key=key, nullable=False) for name in names]


def _wholes(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, _WHOLE, nullable=False) for name in names]


def _name_volumes(connection: sa.Connection) -> None:
    """Of workloads that are not final: the others name nothing any more."""
    text = sa.text("SELECT key, spec FROM workloads WHERE phase < 10")
    for key, spec in connection.execute(text).all():
        names = dict.fromkeys(one["name"] for one in json.loads(spec).get("volumes", ()) if one.get("name"))
        if names:
            update = sa.text("UPDATE workloads SET volumes = :names WHERE key = :key")
            connection.execute(update, {"names": " ".join(names), "key": key})
