"""Webhooks, and what is on its way to them.

Revision: 0029. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """There were none."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.create_table(
        "webhooks",
        sa.Column("tenant", sa.Text(), primary_key=True, nullable=False),
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("types", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("sealed_before", sa.Text(), nullable=False),
        sa.Column("before_until", whole, nullable=False),
        sa.Column("cursor", whole, nullable=False),
        sa.Column("disabled", sa.Text(), nullable=False),
        sa.Column("failing_since", whole, nullable=False),
        sa.Column("failures", whole, nullable=False),
        sa.Column("made_at", whole, nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "deliveries",
        sa.Column("tenant", sa.Text(), primary_key=True, nullable=False),
        sa.Column("webhook", sa.Text(), primary_key=True, nullable=False),
        sa.Column("seq", whole, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("made_at", whole, nullable=False),
        sa.Column("attempts", whole, nullable=False),
        sa.Column("next_at", whole, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("status", whole, nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("attempted_at", whole, nullable=False),
        sqlite_strict=True,
    )
    pending, ended = sa.text("outcome = 'pending'"), sa.text("outcome <> 'pending'")
    op.create_index(
        "deliveries_due",
        "deliveries",
        ["tenant", "webhook", "next_at", "seq"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    op.create_index("deliveries_ended", "deliveries", ["attempted_at"], sqlite_where=ended, postgresql_where=ended)
