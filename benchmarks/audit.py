"""How fast the chain of the audit is verified: a million rows out of a database, against what SHA-256 alone would take.

The rows are those of submissions. The limit beside the figure is measured in the same run: as many digests of as many bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import secrets
import tempfile
import time
from pathlib import Path

from benchmarks.report import figure, progress, report
from mainstay.chain import GENESIS, Verifier, link, payload_of
from mainstay.store import SqlStore, open_sqlite, tables
from mainstay.store.engine import Sqlite

ROWS = 1_000_000
PAGE = 1_000
CHUNK = 20_000
NOON = 1_700_000_000_000_000


def filled(path: Path, rows: int) -> SqlStore:
    """A store whose audit has so many rows."""
    open_sqlite(path, durable=False).close()
    database, before = Sqlite(path, durable=False), GENESIS
    for first in range(1, rows + 1, CHUNK):
        made = []
        for seq in range(first, min(first + CHUNK, rows + 1)):
            made.append(row_of(seq, before))
            before = str(made[-1]["hash"])
        _insert_all(database, made)
    database.write(
        lambda connection: connection.execute(tables.head.update().values(audit_seq=rows, audit_hash=before))
    )
    database.close()
    return open_sqlite(path, durable=False)


def _insert_all(database: Sqlite, rows: list[dict[str, int | str]]) -> None:
    database.write(lambda connection: connection.execute(tables.audit.insert(), rows))


def row_of(seq: int, before: str) -> dict[str, int | str]:
    """A submission."""
    salt, detail, object_ = secrets.token_hex(16), "submitted", f"train-{seq:08d}"
    payload = payload_of(salt, detail)
    said: dict[str, int | str] = {"at": NOON + seq, "actor": "alice", "tenant": "physics", "action": "submit"}
    digest = link(
        before,
        seq=seq,
        at=NOON + seq,
        actor="alice",
        tenant="physics",
        action="submit",
        object_=object_,
        payload=payload,
    )
    return {"seq": seq, **said, "object": object_, "detail": detail, "salt": salt, "payload": payload, "hash": digest}


def verified(store: SqlStore) -> float:
    """Seconds to read and verify every row, a page in memory at a time."""
    began, chain = time.monotonic(), Verifier((store.audit_head(),))
    while page := store.audit(after=chain.head.seq, limit=PAGE):
        for row in page:
            chain.take(row)
        assert chain.fault is None, chain.fault
    assert chain.end(store.audit_head()) is None
    return time.monotonic() - began


def bare(rows: int) -> float:
    """Seconds of the two digests of each row, of as many bytes, and of nothing else."""
    link_bytes, detail_bytes = b"x" * 200, b"x" * 41
    began = time.monotonic()
    for _ in range(rows):
        hashlib.sha256(link_bytes).hexdigest()
        hashlib.sha256(detail_bytes).hexdigest()
    return time.monotonic() - began


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        progress(f"writing {rows:,} rows")
        store = filled(Path(folder) / "mainstay.db", rows)
        progress("verifying them")
        seconds = verified(store)
        store.close()
    limit = bare(rows)
    report(
        "audit",
        [
            figure("rows verified", "rows/s", [rows / seconds]),
            figure("digests alone, of as many bytes", "rows/s", [rows / limit]),
            figure("time of all rows", "s", [seconds], higher_is_better=False),
        ],
        notes=[f"{rows:,} rows out of SQLite, {PAGE:,} in memory at a time; no more of them than that is ever held"],
    )


if __name__ == "__main__":
    main()
