"""Locks of the kernel on files: who is alive, who owns the state, whose tenure counts. They end with their process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mainstay.clusters.local.files import write_whole
from mainstay.domain.errors import Fenced, StateUnusable


def is_held(path: Path) -> bool:
    """Whether a process holds the lock. Looks by taking a shared lock for microseconds; shims know and try again."""
    with try_lock(path, exclusive=False) as taken:
        return not taken


@contextlib.contextmanager
def try_lock(path: Path, *, exclusive: bool = True) -> Iterator[bool]:
    """Hold a lock for the block if it is free: whether it was. A missing file counts as free."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def lock_state_directory(path: Path) -> Iterator[None]:
    """Own a state directory for the block. Raises StateUnusable, naming the holder, if another process does."""
    try:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        msg = f"cannot use the state directory {path}: {error.strerror}"
        raise StateUnusable(msg, hint="choose another directory, or make this one writable") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            msg = f"the state directory {path} is in use by another mainstay: process {holder}"
            raise StateUnusable(msg, hint="stop that process, or choose another directory") from error
        with contextlib.suppress(OSError):  # the number is a courtesy; on a full disk the lock alone has to do
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


class Fence:
    """Lets only the newest tenure act (I11): the highest epoch that ever acted is kept in a file."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "epoch"
        self._lock = directory / "epoch.lock"

    @contextlib.contextmanager
    def admit(self, epoch: int) -> Iterator[None]:
        """Run the block as the holder of `epoch`. Raises Fenced if a higher one has acted.

        The lock is held for the whole block: when a newer holder acts, nothing of an older one is still on its way.
        """
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            highest = self._highest()
            if epoch < highest:
                msg = f"a newer holder of this cluster has acted: epoch {highest}, ours is {epoch}"
                raise Fenced(msg, numbers={"held": epoch, "now": highest})
            if epoch > highest:
                write_whole(self._path, str(epoch).encode())
            yield
        finally:
            os.close(descriptor)

    def _highest(self) -> int:
        try:
            return int(self._path.read_text())
        except FileNotFoundError:
            return 0
        except ValueError as error:
            msg = f"the epoch file of the local cluster is damaged: {self._path}"
            raise StateUnusable(msg, hint="write the highest epoch of the cluster's lease into it") from error
