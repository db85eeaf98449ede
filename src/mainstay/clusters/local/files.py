"""Small files that appear whole or not at all, and directories that can be removed whatever a job did to them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mainstay.domain.errors import StorageFull, Unavailable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def write_whole(path: Path, content: bytes) -> None:
    """Write, fsync, rename, fsync the directory: after that it survives a power cut."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """`write_whole` of a JSON object."""
    write_whole(path, json.dumps(content).encode())


JSON_BYTES_MAX = 16 << 20
"""Far more than any file of ours: a job may have put another one in its place."""


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if there is no file or it is none.

    Our files appear whole, so one that cannot be parsed was put there by somebody else: as good as absent.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            content = json.loads(file.read(JSON_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a directory tree of any depth without following links, also where a job took our permissions away.

    Every folder that is found is first moved to the top, so that no path grows long and no recursion deep.
    """
    path.chmod(0o700)
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        waiting = _emptied(top, top)
        while waiting:
            name = waiting.pop()
            os.chmod(name, 0o700, dir_fd=top)
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
            try:
                waiting += _emptied(folder, top)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    path.rmdir()


def _emptied(folder: int, top: int) -> list[str]:
    """Empty a folder: remove its files and move its folders to the top. Their new names."""
    moved = []
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
            continue
        moved.append(secrets.token_hex(8))
        # Moving a folder writes its `..`: it must be ours to write first.
        os.chmod(name, 0o700, dir_fd=folder)
        os.rename(name, moved[-1], src_dir_fd=folder, dst_dir_fd=top)
    return moved


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Name a failure of the disk for what the caller can do. Raises StorageFull, Unavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            msg = f"the disk under the state directory is full: {error.strerror}"
            raise StorageFull(msg, hint="free some space; what runs goes on") from error
        msg = f"cannot write to the state directory: {error.strerror or error}"
        raise Unavailable(msg) from error
