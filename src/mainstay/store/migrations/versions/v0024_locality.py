"""Which images nodes have, and which one a workload asks for; by which policy queues place their work.

Revision: 0024. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Nothing is known of any node before its cluster is looked at again, and what was submitted before prefers none."""
    op.add_column("nodes", sa.Column("images", sa.Text(), nullable=False, server_default=""))
    op.add_column("workloads", sa.Column("image", sa.Text(), nullable=False, server_default=""))
    op.add_column("queues", sa.Column("placement", sa.Text(), nullable=False, server_default=""))
