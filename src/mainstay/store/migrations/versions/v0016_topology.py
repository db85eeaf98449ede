"""In which racks and blocks nodes are, and how near to each other the pods of a workload are to lie.

Revision: 0016. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Nobody has asked for it so far, and the next look of each cluster says where its nodes are."""
    for table in ("nodes", "workloads"):
        op.add_column(table, sa.Column("topology", sa.Text(), nullable=False, server_default=""))
