"""Opening the database, and transactions on it: one write at a time, any number of consistent reads.

SQLite (reliability.md R8): WAL, synchronous=FULL, one connection that writes, under a lock and BEGIN IMMEDIATE, so
that neither a stale read (SQLITE_BUSY_SNAPSHOT) nor a deadlock can occur. Readers have connections of their own with
`query_only`. Versions 3.7.0 to 3.51.2 can damage a WAL when two connections write or checkpoint at once, so only the
writer checkpoints: readers have `wal_autocheckpoint=0` and are closed before it.

PostgreSQL: writes at READ COMMITTED, serialised by the lock of the row in `head`; reads at REPEATABLE READ, so that
every statement of one read sees the same world.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from mainstay.domain.errors import DiskFailed, StateUnusable
from mainstay.store.failures import WAIT_SECONDS, busy, disk_failed, may_repeat, of_sqlite, translated

T = TypeVar("T")

READERS_MAX = 8
ATTEMPTS_MAX = 5
"""How often PostgreSQL may send a transaction back (deadlock, serialization) before we give up."""
IDLE_SECONDS_MAX = 10.0
"""Between two statements of a transaction pass milliseconds; after so many seconds PostgreSQL ends it and frees its locks."""
KEPT_ALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
"""Of libpq: a server that is gone without a word is noticed within half a minute. The last is in milliseconds."""
APPLICATION_ID = 0x6D_73_74_79
"""`msty` in the header of a SQLite file: how it says that it is ours."""


class Database(Protocol):
    """Transactions. A work function may run more than once; what it raises rolls back."""

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """One consistent read."""

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """One write, serialised with all others. Returns after it is durable."""

    def close(self) -> None:
        """Release all connections."""


class Sqlite:
    """A database in a file. `durable` False gives up safety against power loss, for simulations."""

    def __init__(self, path: Path, *, durable: bool = True, wait_seconds: float = WAIT_SECONDS) -> None:
        self._path = path
        self._wait_seconds = wait_seconds
        self._synchronous = "FULL" if durable else "OFF"
        self._turn = threading.Lock()
        self._failed = False
        _check_file(path)
        self._writer = sa.create_engine(
            "sqlite://", creator=self._writing_connection, poolclass=sa.QueuePool, pool_size=1, max_overflow=0
        )
        self._reader = sa.create_engine(
            "sqlite://", creator=self._reading_connection, poolclass=sa.QueuePool, pool_size=READERS_MAX, max_overflow=0
        )
        sa.event.listen(self._writer, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        sa.event.listen(self._reader, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Never waits for a writer."""
        try:
            with self._reader.connect() as connection, connection.begin():
                return work(connection)
        except sa.exc.SQLAlchemyError as error:
            raise translated(error) from error

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Raises Unavailable after a bounded wait for the lock, and for good once the disk has failed.

        A transaction that SQLite has rolled back by itself (disk full) is not rolled back again: the driver's rollback
        looks whether one is open (reliability.md M4).
        """
        if not self._turn.acquire(timeout=self._wait_seconds):
            raise busy()
        try:
            if self._failed:
                raise disk_failed()
            with self._writer.connect() as connection, connection.begin():
                return work(connection)
        except sa.exc.SQLAlchemyError as error:
            ours = translated(error)
            self._failed = isinstance(ours, DiskFailed)
            raise ours from error
        finally:
            self._turn.release()

    def close(self) -> None:
        """Readers first: the connection that is closed last checkpoints, and that must be the writer."""
        self._reader.dispose()
        self._writer.dispose()

    def _writing_connection(self) -> sqlite3.Connection:
        connection = self._connection()
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _reading_connection(self) -> sqlite3.Connection:
        connection = self._connection()
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA query_only=ON")
        return connection

    def _connection(self) -> sqlite3.Connection:
        """In autocommit mode: transactions begin where we say so. Threads take turns through the pools."""
        return sqlite3.connect(
            self._path, timeout=self._wait_seconds, isolation_level=None, check_same_thread=False, cached_statements=256
        )


class Postgresql:
    """A database on a server, shared by several replicas."""

    def __init__(self, url: str, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_milliseconds = int(wait_seconds * 1_000)
        address = sa.make_url(url).set(drivername="postgresql+psycopg")
        self._writer = self._engine(address, isolation_level="READ COMMITTED")
        self._reader = self._engine(address, isolation_level="REPEATABLE READ")

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Once more on a fresh connection if the one from the pool turns out to be dead."""
        try:
            return self._read(work)
        except sa.exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise translated(error) from error
        except sa.exc.SQLAlchemyError as error:
            raise translated(error) from error
        try:
            return self._read(work)
        except sa.exc.SQLAlchemyError as error:
            raise translated(error) from error

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Repeated only where PostgreSQL says that nothing was done.

        After a lost connection the outcome is unknown, and the caller finds out by its idempotency key.
        """
        for last in (False,) * (ATTEMPTS_MAX - 1) + (True,):
            try:
                with self._writer.connect() as connection, connection.begin():
                    return work(connection)
            except sa.exc.SQLAlchemyError as error:
                if last or not may_repeat(error):
                    raise translated(error) from error
        raise AssertionError

    def close(self) -> None:
        """Close the pooled connections."""
        self._reader.dispose()
        self._writer.dispose()

    def _read(self, work: Callable[[sa.Connection], T]) -> T:
        with self._reader.connect() as connection, connection.begin():
            return work(connection)

    def _engine(self, address: sa.URL, *, isolation_level: str) -> sa.Engine:
        engine = sa.create_engine(
            address,
            isolation_level=isolation_level,
            pool_size=READERS_MAX,
            max_overflow=0,
            connect_args={"connect_timeout": 5, **KEPT_ALIVE},
        )
        sa.event.listen(engine, "connect", self._bound_waits)
        return engine

    def _bound_waits(self, connection: Any, _record: object) -> None:
        """A statement waits for a lock only so long, and a transaction of which nothing is heard holds one only so long: a
        replica that is stopped or cut off within one would stop all others. Set for the session, outside of any transaction.

        `Any`: the driver is an optional dependency and must not be imported for its types.
        """
        before, connection.autocommit = connection.autocommit, True
        connection.execute(f"SET lock_timeout = {self._wait_milliseconds}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {round(IDLE_SECONDS_MAX * 1_000)}")
        connection.autocommit = before


def _check_file(path: Path) -> None:
    """Whether the file is ours, or not there yet. Raises StateUnusable with what to do."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, timeout=WAIT_SECONDS)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    try:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and application_id != APPLICATION_ID:
            msg = f"not a database of mainstay: {path}"
            raise StateUnusable(msg, object_=str(path), hint="choose another state directory with --state")
        # Nothing is changed by this, but a directory or a file that cannot be written says so now and not at the first job.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    finally:
        connection.close()


def _unusable(path: Path, error: sqlite3.Error) -> StateUnusable:
    ours = of_sqlite(error)
    return StateUnusable(f"cannot open {path}: {ours.message}", object_=str(path), hint=ours.hint, numbers=ours.numbers)
