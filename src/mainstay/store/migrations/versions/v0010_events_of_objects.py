"""Events of what belongs to no workload, such as nodes and clusters, are found by its name.

Revision: 0010. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """They are few beside those of workloads, which the index leaves out."""
    few = sa.text("workload = ''")
    op.create_index("events_by_object", "events", ["object", "seq"], sqlite_where=few, postgresql_where=few)
