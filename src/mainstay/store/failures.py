"""A driver's error as one of ours: what the caller can do next, with a hint."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

from mainstay.domain.errors import Conflict, DiskFailed, MainstayError, StateUnusable, StorageFull, Unavailable

WAIT_SECONDS = 5.0
"""How long a write waits for another writer before it is told to come back."""

SERIALIZATION_FAILURES = frozenset({"40001", "40P01"})
"""PostgreSQL: serialization failure, deadlock detected. The only errors after which the same transaction may be tried
again by itself."""


class Contradiction(Conflict):
    """The database itself refused a row. Our own checks come first, so this is a fault in one of them."""

    def __init__(self) -> None:
        super().__init__("the database refused the change: it contradicts what is stored", hint="read again")


def translated(error: sa.exc.SQLAlchemyError) -> MainstayError:
    """Our error for a driver's."""
    original = getattr(error, "orig", None)
    if isinstance(original, sqlite3.Error):
        return of_sqlite(original)
    if isinstance(error, sa.exc.IntegrityError):
        return Contradiction()
    return _of_postgresql(error)


def of_sqlite(error: sqlite3.Error) -> MainstayError:
    """By SQLite's primary result code. Source: https://www.sqlite.org/rescode.html."""
    extended = getattr(error, "sqlite_errorcode", 0)
    if extended == sqlite3.SQLITE_IOERR_SHMSIZE:
        # The index of the WAL cannot grow: nothing of it was ever durable, and a full disk is why.
        return _disk_full()
    match extended & 0xFF:
        case sqlite3.SQLITE_FULL:
            return _disk_full()
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return busy()
        case sqlite3.SQLITE_IOERR:
            # After a failed fsync the kernel may have dropped the pages, so a second try would lie. Source: R8.
            return disk_failed()
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return StateUnusable(
                "the state cannot be written", hint="make the directory and its files writable for this user"
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StateUnusable("the database is damaged", hint="restore the state from a backup")
        case sqlite3.SQLITE_CONSTRAINT:
            return Contradiction()
        case _:
            return Unavailable(f"the database failed: {error}", hint="try again")


def disk_failed() -> DiskFailed:
    """The same at the first failure and at every write after it."""
    return DiskFailed(
        "the disk under the state failed; nothing is written any more", hint="look at the kernel log, then restart"
    )


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


def _disk_full() -> StorageFull:
    return StorageFull("the disk under the state is full", hint="free some space; nothing that is stored is lost")


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
