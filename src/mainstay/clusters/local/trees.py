"""Trees of files between the artifacts and a run: in before it starts, out after it ended."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

from mainstay.domain.artifact import PATH_BYTES_MAX, TREE_FILES_MAX, Entry, Tree, safe_path
from mainstay.domain.errors import Invalid, Unavailable
from mainstay.ports import Artifacts

CHUNK_BYTES = 1 << 20


async def materialise(artifacts: Artifacts, tree: Tree, target: Path) -> None:
    """Write the files of a tree under `target`, a directory of ours in which nothing runs yet.

    Raises Invalid if two mounts claim one path, Unavailable if a blob is not what its digest says.
    """
    for entry in tree.entries:
        path = target / entry.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o700 if entry.executable else 0o600
            )
        except (FileExistsError, NotADirectoryError) as error:
            msg = f"two mounts claim one path: {entry.path}"
            raise Invalid(msg) from error
        await _fill(artifacts, entry, descriptor)


async def _fill(artifacts: Artifacts, entry: Entry, descriptor: int) -> None:
    digest, size = hashlib.sha256(), 0
    with os.fdopen(descriptor, "wb") as file:
        async for chunk in artifacts.get(entry.digest):
            digest.update(chunk)
            size += len(chunk)
            await asyncio.to_thread(file.write, chunk)
    if size != entry.size or digest.hexdigest() != entry.digest:
        msg = f"a stored file is damaged: {entry.digest}"
        raise Unavailable(msg, hint="restore the artifacts from a backup, or upload the files again")


async def files_beneath(directory: Path) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:
    """Regular files under a directory that a job wrote: (path, size, executable, content), by path.

    Links and devices are left out. Raises Invalid for what a tree cannot hold: too many files, too deep, odd names.
    """
    for path in await asyncio.to_thread(_paths, directory):
        descriptor = await asyncio.to_thread(_open_file, directory, path)
        if descriptor is None:
            continue
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            found = os.fstat(descriptor)
            yield path, found.st_size, bool(found.st_mode & stat.S_IXUSR), _chunks(descriptor)
            file.close()


async def _chunks(descriptor: int) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(os.read, descriptor, CHUNK_BYTES):
        yield chunk


def _paths(directory: Path) -> list[str]:
    """The regular files, in order. Without recursion, however deep a job has gone."""
    found: list[str] = []
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        descriptor = _open_beneath(directory, folder, os.O_DIRECTORY) if folder else os.open(directory, _FOLDER)
        if descriptor is None:
            continue
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        _require_depth(path)
                        waiting.append(path)
                    elif entry.is_file(follow_symlinks=False):
                        _require_name(path)
                        found.append(path)
                    if len(found) > TREE_FILES_MAX:
                        msg = f"the output has more than {TREE_FILES_MAX} files"
                        raise Invalid(msg, hint="pack them into one archive")
        finally:
            os.close(descriptor)
    return sorted(found)


def _require_depth(path: str) -> None:
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        msg = f"the output holds a path of more than {PATH_BYTES_MAX} bytes: {path[:80]!a}..."
        raise Invalid(msg, hint="nest the folders less deep, or pack them into one archive")


def _require_name(path: str) -> None:
    if not safe_path(path):
        msg = f"the output holds a file whose name cannot be kept: {ascii(path)[:200]}"
        raise Invalid(msg, hint="give it a plain name, or pack it into an archive")


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _open_file(directory: Path, path: str) -> int | None:
    """Open a regular file. None if it is none any more."""
    descriptor = _open_beneath(directory, path, os.O_NONBLOCK)
    if descriptor is None or stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _open_beneath(directory: Path, path: str, flags: int) -> int | None:
    """Open without following a link in any part of the path (CWE-59). None if that cannot be done."""
    here = os.open(directory, _FOLDER)
    try:
        *folders, name = path.split("/")
        for folder in folders:
            below = os.open(folder, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=here)
    except OSError:
        return None
    finally:
        os.close(here)
