"""A driver's error as one of ours: what the caller can do next, with a hint."""

from __future__ import annotations

import re
import sqlite3

import sqlalchemy as sa

from mainstay.domain.errors import (
    Conflict,
    DiskFailed,
    MainstayError,
    ShutOut,
    StateUnusable,
    StorageFull,
    Unavailable,
)

WAIT_SECONDS = 5.0
"""How long a write waits for another writer before it is told to come back."""

WORDS_MAX = 400
SERIALIZATION_FAILURES = frozenset({"40001", "40P01"})
"""PostgreSQL: serialization failure, deadlock detected. The only errors after which the same transaction may be tried
again by itself."""

_ADDRESS = "correct the address of the database: --database, or $MAINSTAY_DATABASE"
_REFUSALS: tuple[tuple[str, str, str], ...] = (
    (
        r"authentication failed|no password supplied|role .* does not exist|not permitted to log in|no such user",
        "the database does not accept this user or its password",
        _ADDRESS,
    ),
    (
        r"database .* does not exist|no such database",
        "the server has no such database",
        f"create it (CREATE DATABASE mainstay OWNER mainstay), or {_ADDRESS}",
    ),
    (
        r"pg_hba\.conf",
        "the server lets this user in from elsewhere only, or only with TLS",
        "let pg_hba.conf of the server allow it, or give sslmode in the address of the database",
    ),
    (
        r"does not support SSL|certificate verify failed|certificate .*(expired|does not match|not exist)|root certificate file",
        "the server and we cannot agree on TLS",
        "look at sslmode and sslrootcert in the address of the database, and at the certificate of the server",
    ),
    (
        r"invalid (connection option|[\w ]*(value|number))",
        "the address of the database says what there is not",
        _ADDRESS,
    ),
    (
        r"permission denied for database",
        "this user may not connect to the database",
        "let it own the database: ALTER DATABASE mainstay OWNER TO mainstay",
    ),
)
"""By the words of libpq, which names no SQLSTATE while it connects. What a server says in another language is in none of them
and passes for one that is away: waited for in vain, but with its words in the log."""


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


def words_of_driver(error: BaseException | None) -> str:
    """What the driver said when it failed to connect, in one line. It names hosts and users: only for who runs the platform."""
    original = getattr(error, "orig", None)
    return " ".join(str(original or "").split())[:WORDS_MAX]


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
            return _not_connected(words_of_driver(error))
        case "42501":
            return ShutOut(
                "this user may not do in the database what is needed",
                hint="let it own the database: ALTER DATABASE mainstay OWNER TO mainstay",
            )
        case state:
            return Unavailable(f"the database failed ({state})", hint="look at the log of PostgreSQL, then try again")


def _not_connected(words: str) -> Unavailable:
    for pattern, message, hint in _REFUSALS:
        if re.search(pattern, words):
            return ShutOut(message, hint=hint)
    return Unavailable("the database cannot be reached", hint="check that PostgreSQL runs, then try again")


def _sqlstate(error: sa.exc.SQLAlchemyError) -> str:
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""
