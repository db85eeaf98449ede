"""What runs of a name take on each kind of GPUs: of equal choices the one of the least expected cost is taken.

Revision: 0023. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    """Of what waits nobody knows."""
    op.add_column("workloads", sa.Column("typical_on", sa.Text(), nullable=False, server_default=""))
