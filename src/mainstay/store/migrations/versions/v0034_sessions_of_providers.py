"""At which identity provider, and in which session there, somebody signed in for a token.

Revision: 0034. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    """Of those that are there nobody knows: they end by themselves within twelve hours."""
    for name in ("issuer", "provider_session"):
        op.add_column("tokens", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    op.create_index("tokens_by_provider_session", "tokens", ["provider_session"])
