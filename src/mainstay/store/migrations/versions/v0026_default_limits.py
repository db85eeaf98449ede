"""A time limit that a queue gives to what says none, how long runs of the same shape took, and names of namespaces for queues.

Revision: 0026. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """No queue gives one so far, and no name stands for any."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.add_column("queues", sa.Column("default_max_duration_seconds", whole, nullable=False, server_default="0"))
    succeeded = sa.text("phase = 10 AND attempt = 1")
    op.create_index(
        "workloads_succeeded_of_shape",
        "workloads",
        ["tenant", "queue", "cpu_milli", "memory_bytes", "gpus", "gpu_model", "nodes", "key"],
        sqlite_where=succeeded,
        postgresql_where=succeeded,
    )
    op.create_table(
        "local_queues",
        sa.Column("cluster", sa.Text(), primary_key=True, nullable=False),
        sa.Column("namespace", sa.Text(), primary_key=True, nullable=False),
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("set_at", whole, nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sqlite_strict=True,
    )
