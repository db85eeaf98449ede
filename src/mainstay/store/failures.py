"""A driver's error as one of ours: what the caller can do next, with a hint."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

from mainstay.domain.errors import Conflict, MainstayError, StateUnusable, StorageFull, Unavailable

WAIT_SECONDS = 5.0
"""How long a write waits for another writer before it is told to come back."""

SERIALIZATION_FAILURES = frozenset({"40001", "40P01"})
"""PostgreSQL: serialization failure, deadlock detected. The only errors after which the same transaction may be tried
again by itself."""


def translated(error: sa.exc.SQLAlchemyError) -> MainstayError:
    """Our error for a driver's; `numbers["fatal"]` is 1 if the process must end before it may write again (R8)."""
    original = getattr(error, "orig", None)
    if isinstance(original, sqlite3.Error):
        return of_sqlite(original)
    if isinstance(error, sa.exc.IntegrityError):
        return Conflict("the database refused the change: it contradicts what is stored", hint="read again")
    return _of_postgresql(error)


def of_sqlite(error: sqlite3.Error) -> MainstayError:
    """By SQLite's primary result code. Source: https://www.sqlite.org/rescode.html."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_FULL:
            return StorageFull("the disk under the state is full", hint="free some space; reading goes on meanwhile")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return busy()
        case sqlite3.SQLITE_IOERR:
            # After a failed fsync the kernel may have dropped the pages, so a second try would lie. Source: R8.
            return Unavailable(
                "the disk under the state failed", hint="look at the kernel log, then restart", numbers={"fatal": 1}
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StateUnusable(
                "the state cannot be written", hint="make the directory and its files writable for this user"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StateUnusable("the database is damaged", hint="restore the state from a backup")
        case sqlite3.SQLITE_CONSTRAINT:
            return Conflict("the database refused the change: it contradicts what is stored", hint="read again")
        case _:
            return Unavailable(f"the database failed: {error}", hint="try again")


def busy() -> Unavailable:
    """Somebody else holds the write lock for longer than we wait."""
    return Unavailable(
        "another program holds the lock on the database",
        hint="end what else has the state open, then try again",
        numbers={"waited_seconds": WAIT_SECONDS},
    )


def may_repeat(error: sa.exc.SQLAlchemyError) -> bool:
    """Whether nothing was written and the same transaction may simply run again."""
    return _sqlstate(error) in SERIALIZATION_FAILURES


def _of_postgresql(error: sa.exc.SQLAlchemyError) -> MainstayError:
    match _sqlstate(error):
        case "53100":
            return StorageFull("the disk of the database is full", hint="free some space; reading goes on meanwhile")
        case "55P03" | "57014":
            return busy()
        case "25006":
            return Unavailable("the database is a read-only standby", hint="connect to the primary")
        case "":
            return Unavailable("the database cannot be reached", hint="check that PostgreSQL runs, then try again")
        case state:
            return Unavailable(f"the database failed ({state})", hint="look at the log of PostgreSQL, then try again")


def _sqlstate(error: sa.exc.SQLAlchemyError) -> str:
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""
