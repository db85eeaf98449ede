"""The folders of test beds: each is held by its process, and what a killed one left behind is cleared by the next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from testbed import cgroups

PREFIX = "mainstay-testbed-"
HOLDER = "held"
"""A file in each folder; its lock goes with the process that made the folder."""
MARK = "MAINSTAY_TESTBED"
"""The environment of every program of a test bed names its folder."""
END_SECONDS_MAX = 10.0


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A folder until the end of the block. Folders whose process is gone are cleared first."""
    with _turn():
        for left in abandoned():
            clear(left)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        held = (folder / HOLDER).open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    with held:
        try:
            yield folder
        finally:
            clear(folder)


def abandoned() -> list[Path]:
    """Folders of ours that no process holds."""
    found = Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{HOLDER}")
    return sorted(path.parent for path in found if path.stat().st_uid == os.getuid() and not _is_held(path))


def clear(folder: Path) -> None:
    """End what still runs for a folder, and remove all that it has made."""
    deadline = time.monotonic() + END_SECONDS_MAX
    while (left := processes(folder)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    cgroups.remove(folder.name)
    for path in folder.iterdir():
        if path.name != HOLDER:  # the last: a folder without it is nobody's, and would stay
            _remove(path)
    shutil.rmtree(folder)


def processes(folder: Path) -> list[int]:
    """Programs that were started for a folder and run."""
    mark = f"{MARK}={folder}".encode()
    return [pid for pid in _pids() if any(word.startswith(mark) for word in _environment(pid))]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _pids() -> Iterator[int]:
    return (
        int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and int(path.name) != os.getpid()
    )


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has just ended, or is another user's
        return []


def _is_held(path: Path) -> bool:
    with path.open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def _turn() -> Iterator[IO[str]]:
    """One process at a time makes or clears folders: a new one is not held yet for an instant."""
    with (Path(tempfile.gettempdir()) / f".{PREFIX}{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
