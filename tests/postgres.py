"""A real PostgreSQL server for the tests: in a temporary directory, on a socket, as an unprivileged user."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import sqlalchemy as sa
from psycopg import sql

START_SECONDS_MAX = 30
GUARDED = "guarded"
"""A user that has to give a password, once a test has made it."""
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
"""For contract tests; a durability experiment starts its own server without them."""
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 2 << 30
"""So much must be free there: a server takes 50 MiB of it, a busy one more, and each test process starts one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server. `socket` is the directory of its socket."""

    socket: Path
    process: subprocess.Popen[bytes]

    def url(self, database: str) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.socket}"

    def create_database(self, name: str, *, like: str = "template0") -> None:
        """An empty database, or a copy of another one to which nobody is connected."""
        with psycopg.connect(host=str(self.socket), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{like}" STRATEGY FILE_COPY')

    @contextlib.contextmanager
    def closed(self, url: str) -> Iterator[None]:
        """A database that throws everybody out and takes nobody, for the block."""
        name = sql.Identifier(sa.make_url(url).database or "")
        with psycopg.connect(host=str(self.socket), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [sa.make_url(url).database]
            )
            try:
                yield
            finally:
                connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))

    def drop_database(self, name: str) -> None:
        """With its connections."""
        with psycopg.connect(host=str(self.socket), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@contextlib.contextmanager
def running(settings: tuple[str, ...] = FAST) -> Iterator[Server]:
    """A server of our own until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="mainstay-pg-", dir=_place(settings)))
    try:
        owner = _unprivileged_user()
        if owner:
            shutil.chown(folder, owner)
        _initialise(folder / "data", owner)
        process = _start(folder, owner, settings)
        try:
            _wait_until_answering(folder, process)
            yield Server(socket=folder, process=process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def programs() -> Path:
    """Where initdb and postgres are. Raises FileNotFoundError with what to do."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    msg = "the PostgreSQL server is not installed; hint: scripts/ensure-postgresql"
    raise FileNotFoundError(msg)


def _place(settings: tuple[str, ...]) -> Path | None:
    """Memory, where a copy of a database does not wait for a disk: PostgreSQL has it written back whatever `fsync` says.

    None, the usual place, for who wants a disk, and where memory is no file system or is a small one, as in a container.
    """
    in_memory = settings == FAST and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES_MIN
    return MEMORY if in_memory else None


def _unprivileged_user() -> str | None:
    """The server refuses to run as root."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _initialise(data: Path, owner: str | None) -> None:
    command = [str(programs() / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
    subprocess.run([*command, "--locale=C"], check=True, stdout=subprocess.DEVNULL, user=owner, cwd="/")
    rules = data / "pg_hba.conf"
    rules.write_text(f"local all {GUARDED} scram-sha-256\n{rules.read_text()}")


def _start(folder: Path, owner: str | None, settings: tuple[str, ...]) -> subprocess.Popen[bytes]:
    options = [part for setting in (*settings, "max_connections=200") for part in ("-c", setting)]
    # A test process that is killed cannot stop its server: where the kernel can, it does so.
    guard = ["setpriv", "--pdeathsig", "INT"] if sys.platform == "linux" and shutil.which("setpriv") else []
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [*guard, str(programs() / "postgres"), "-D", str(folder / "data"), "-k", str(folder), "-h", "", *options],
            stdout=log,
            stderr=log,
            user=owner,
            cwd="/",
        )


def _wait_until_answering(folder: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            psycopg.connect(host=str(folder), user="postgres", dbname="postgres").close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text()) from None
            time.sleep(0.05)
        else:
            return
