"""With which token a run was submitted, and what the runs of a token take of its caps.

Revision: 0033. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    """Of runs that are there nobody knows the token: they count for none. A token begins with nothing used."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.add_column("workloads", sa.Column("attempts_max", whole, nullable=False, server_default="0"))
    op.add_column("workloads", sa.Column("token", sa.Text(), nullable=False, server_default=""))
    op.add_column("tokens", sa.Column("root", sa.Text(), nullable=False, server_default=""))
    op.add_column("tokens", sa.Column("spent_micros", whole, nullable=False, server_default="0"))
    op.create_table(
        "cap_uses",
        sa.Column("workload_key", whole, primary_key=True, autoincrement=False, nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("gpus", whole, nullable=False),
        sa.Column("cost_micros", whole, nullable=False),
        sa.ForeignKeyConstraint(["workload_key"], ["workloads.key"], name="cap_use_of_workload"),
        sqlite_strict=True,
    )
    op.create_index("cap_uses_by_token", "cap_uses", ["token"])
    # Links and sessions have the caps of the token that they were made with, through however many of them.
    op.execute(
        "WITH RECURSIVE made (id, root) AS ("
        " SELECT id, id FROM tokens WHERE parent = ''"
        " UNION ALL SELECT tokens.id, made.root FROM tokens JOIN made ON tokens.parent = made.id)"
        " UPDATE tokens SET root = (SELECT made.root FROM made WHERE made.id = tokens.id)"
        " WHERE parent <> '' AND id IN (SELECT id FROM made)"
    )
