"""Several charges of one SKU in a usage record; look-ups of what is open by tenant, and of old idempotency keys.

Revision: 0003. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """The primary key of `charges` changes, which SQLite can do only by making the table anew."""
    op.execute("CREATE TEMPORARY TABLE charges_before AS SELECT * FROM charges")
    op.drop_table("charges")
    op.create_table(
        "charges",
        _whole("allocation_key", key=True),
        _whole("usage_start_at", key=True),
        _text("sku", key=True),
        _whole("start_at", key=True),
        _whole("end_at"),
        _whole("quantity"),
        _whole("unit_price_micros"),
        _whole("cost_micros"),
        _text("currency"),
        sa.ForeignKeyConstraint(
            ["allocation_key", "usage_start_at"], ["usage.allocation_key", "usage.start_at"], name="charge_of_usage"
        ),
        sqlite_strict=True,
    )
    op.execute(
        "INSERT INTO charges"
        " SELECT allocation_key, start_at, sku, start_at, end_at, quantity, unit_price_micros, cost_micros, currency"
        " FROM charges_before"
    )
    op.execute("DROP TABLE charges_before")
    open_ = sa.text("phase < 10")
    op.create_index(
        "workloads_open_of_tenant", "workloads", ["tenant", "key"], sqlite_where=open_, postgresql_where=open_
    )
    op.create_index("idempotency_by_time", "idempotency", ["at"])


def _whole(name: str, *, key: bool = False) -> sa.Column[int]:
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    return sa.Column(name, whole, primary_key=key, autoincrement=False, nullable=False)


def _text(name: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), primary_key=key, nullable=False)
