"""The audit is chained: each row has a hash of itself and of the hash before it.

Revision: 0028. Frozen: what the tables are now is in `tables.py`, how rows are chained in `mainstay.chain`.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
GENESIS = "0" * 64
CHUNK = 10_000
"""Rows in memory at a time."""
_ROWS = sa.text("SELECT * FROM audit WHERE seq > :after ORDER BY seq LIMIT :most")
_CHAIN = sa.text("UPDATE audit SET salt = :salt, payload = :payload, hash = :hash WHERE seq = :seq")


def upgrade() -> None:
    """Rows that are there are chained as they stand: from here on nobody changes them unseen. Some 20 µs for each."""
    op.add_column("head", sa.Column("audit_hash", sa.Text(), nullable=False, server_default=GENESIS))
    for name in ("salt", "payload", "hash"):
        op.add_column("audit", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    connection = op.get_bind()
    before, after = GENESIS, 0
    while rows := connection.execute(_ROWS, {"after": after, "most": CHUNK}).mappings().all():
        chained = []
        for row in rows:
            chained.append(_chained(before, row))
            before, after = chained[-1]["hash"], row["seq"]
        connection.execute(_CHAIN, chained)
    connection.execute(sa.text("UPDATE head SET audit_hash = :hash"), {"hash": before})
    if connection.dialect.name == "postgresql":
        # A replica of an older version that still runs cannot add rows outside of the chain: its writes fail.
        for name in ("salt", "payload", "hash"):
            op.alter_column("audit", name, server_default=None)


def _chained(before: str, row: Any) -> dict[str, Any]:
    """`Any`: a row of the audit."""
    salt = secrets.token_hex(16)
    payload = _digest(salt + row["detail"])
    said = [*(row[name] for name in ("seq", "at", "actor", "tenant", "action", "object")), payload]
    encoded = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
    return {"seq": row["seq"], "salt": salt, "payload": payload, "hash": _digest(before + encoded)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
