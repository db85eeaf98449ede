"""Whose work a queue takes.

Revision: 0031. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    """Everybody's, as so far."""
    op.add_column("queues", sa.Column("users", sa.Text(), nullable=False, server_default=""))
