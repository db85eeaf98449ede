"""What nodes could give if nobody else used them and all of them worked: what never fits is refused by that.

Revision: 0014. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Until each cluster says more in its next look, that is what it gives."""
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    for name in ("cpu_milli", "memory_bytes", "gpus"):
        op.add_column("nodes", sa.Column(f"whole_{name}", whole, nullable=False, server_default="0"))
    op.add_column("nodes", sa.Column("whole_shapes", sa.Text(), nullable=False, server_default=""))
    op.execute(
        "UPDATE nodes SET whole_cpu_milli = cpu_milli, whole_memory_bytes = memory_bytes, whole_gpus = gpus,"
        " whole_shapes = shapes"
    )
