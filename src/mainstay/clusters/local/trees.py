"""Trees of files between the artifacts and a run: in before it starts, out after it ended."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from mainstay.domain.artifact import TREE_FILES_MAX, Entry, Tree, safe_path
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

    Links, devices and names that a tree cannot hold are left out. Raises Invalid beyond the size of a tree.
    """
    for path in await asyncio.to_thread(_paths, directory):
        descriptor = await asyncio.to_thread(_open_beneath, directory, path)
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
    found = list(_walk(directory))
    return sorted(found)


def _walk(directory: Path) -> Iterator[str]:
    count = 0
    for folder, _, names, descriptor in os.fwalk(directory, follow_symlinks=False):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), directory)  # noqa: PTH118 a plain string is wanted
            if not safe_path(path) or not stat.S_ISREG(os.lstat(name, dir_fd=descriptor).st_mode):
                continue
            count += 1
            if count > TREE_FILES_MAX:
                msg = f"the output has more than {TREE_FILES_MAX} files"
                raise Invalid(msg, hint="pack them into one archive")
            yield path


def _open_beneath(directory: Path, path: str) -> int | None:
    """Open a regular file without following a link in any part of its path (CWE-59). None if it is none any more."""
    here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        *folders, name = path.split("/")
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    except OSError:
        return None
    finally:
        os.close(here)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None
