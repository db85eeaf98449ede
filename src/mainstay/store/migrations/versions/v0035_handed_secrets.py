"""Which values of secrets pods were handed, and those of them that were changed since.

Revision: 0035. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0035"
down_revision = "0034"


def upgrade() -> None:
    """What pods were handed before is not known: of them the values of now are masked, as so far."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.add_column("secrets", sa.Column("version", whole, nullable=False, server_default="0"))
    op.create_table(
        "handed_secrets",
        sa.Column("allocation_key", whole, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("tenant", sa.Text(), primary_key=True, nullable=False),
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("version", whole, primary_key=True, autoincrement=False, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("handed_secrets_by_version", "handed_secrets", ["tenant", "name", "version"])
    op.create_table(
        "earlier_secrets",
        sa.Column("tenant", sa.Text(), primary_key=True, nullable=False),
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("version", whole, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sqlite_strict=True,
    )
