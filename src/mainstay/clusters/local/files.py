"""Small files that appear whole or not at all, and directories that can be removed whatever a job did to them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
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
    """Remove a directory tree without following links, also where a job took our permissions away."""

    def unlock(_: object, name: str, __: object) -> None:
        folder = Path(name) if Path(name).is_dir() and not Path(name).is_symlink() else Path(name).parent
        with contextlib.suppress(OSError):
            folder.chmod(0o700)
            if folder == Path(name):
                shutil.rmtree(name, ignore_errors=True)
            else:
                Path(name).unlink(missing_ok=True)

    # `rmtree` walks by directory descriptors: a link put in its way is not followed (CWE-59).
    shutil.rmtree(path, onerror=unlock)
    if path.exists():
        shutil.rmtree(path, ignore_errors=True)


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
