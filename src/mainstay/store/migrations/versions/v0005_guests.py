"""Pods that others made: which nodes admit which of them.

Revision: 0005. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Nothing was restricted so far, and the next look of each cluster says what its nodes admit."""
    for table, name in (("nodes", "admits"), ("workloads", "restriction")):
        op.add_column(table, sa.Column(name, sa.Text(), nullable=False, server_default=""))
