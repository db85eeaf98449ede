"""Who members are to identity providers, what groups of these may, and tokens that are sessions of browsers.

Revision: 0030. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    """Nobody has signed in at a provider yet, and all tokens are plain ones."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    for name, before in (("issuer", ""), ("subject", ""), ("groups", "[]")):
        op.add_column("members", sa.Column(name, sa.Text(), nullable=False, server_default=before))
    op.create_index("members_by_identity", "members", ["subject", "issuer"])
    for name, before in (("kind", "token"), ("parent", "")):
        op.add_column("tokens", sa.Column(name, sa.Text(), nullable=False, server_default=before))
    op.create_index("tokens_by_parent", "tokens", ["parent"])
    op.create_table(
        "group_roles",
        *(sa.Column(name, sa.Text(), primary_key=True, nullable=False) for name in ("tenant", "group_name", "project")),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("set_at", whole, nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sqlite_strict=True,
    )
    op.create_index("group_roles_by_group", "group_roles", ["group_name"])
