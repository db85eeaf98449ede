"""Layers of images as tar archives: small ones in memory, large ones kept in the cache under what they are made of."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from testbed import programs

Entry = tuple[tarfile.TarInfo, Path | bytes]
"""A file of a layer: its header, and where its content is or the content itself."""
UNUSED_DAYS_MAX = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A part of an image, named by its content: in memory, or in a file."""

    digest: str
    size_bytes: int
    path: Path | None = None
    content: bytes = b""

    @classmethod
    def of(cls, content: bytes) -> Blob:
        """A small one."""
        return cls(digest=_named(hashlib.sha256(content)), size_bytes=len(content), content=content)

    def opened(self) -> IO[bytes]:
        """To be read once."""
        return self.path.open("rb") if self.path else io.BytesIO(self.content)


def layer(entries: Iterable[Entry]) -> Blob:
    """In memory."""
    content = io.BytesIO()
    _write(content, entries)
    return Blob.of(content.getvalue())


def kept(name: str, made_of: Iterable[str], entries: Callable[[], Iterable[Entry]]) -> Blob:
    """In the cache. It is made again only if it is made of something else."""
    key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    folder = programs.folder().parent / "layers"
    folder.mkdir(parents=True, exist_ok=True)
    archive, named = folder / f"{name}-{key}.tar", folder / f"{name}-{key}.digest"
    if not named.exists():
        _forget_unused(folder)
        _keep(archive, named, entries())
    named.touch()
    return Blob(digest=named.read_text(), size_bytes=archive.stat().st_size, path=archive)


def directory(name: str, *, mode: int = 0o755) -> Entry:
    """An empty one."""
    header = tarfile.TarInfo(name)
    header.type, header.mode = tarfile.DIRTYPE, mode
    return header, b""


def file(name: str, content: bytes, *, mode: int = 0o644) -> Entry:
    """Of this content."""
    header = tarfile.TarInfo(name)
    header.size, header.mode = len(content), mode
    return header, content


def link(name: str, target: str) -> Entry:
    """A symbolic one."""
    header = tarfile.TarInfo(name)
    header.type, header.linkname, header.mode = tarfile.SYMTYPE, target, 0o777
    return header, b""


def copied(path: Path, name: str) -> Entry:
    """A file of this machine under another name, for everyone to read. Links to files become files.

    The time of its last change stays: Python compares it with its compiled form.
    """
    found = path.stat()
    header = tarfile.TarInfo(name)
    header.size, header.mtime = found.st_size, int(found.st_mtime)
    header.mode = 0o755 if found.st_mode & 0o111 else 0o644
    return header, path


def tree(source: Path, name: str, *, without: frozenset[str] = frozenset()) -> Iterator[Entry]:
    """A directory of this machine with all below it, but for what has one of these names."""
    for place, folders, files in os.walk(source, followlinks=True):
        folders[:] = sorted(set(folders) - without)
        inside = Path(name) / Path(place).relative_to(source)
        yield from (copied(Path(place) / file, str(inside / file)) for file in sorted(set(files) - without))


def _keep(archive: Path, named: Path, entries: Iterable[Entry]) -> None:
    """Whole or not at all: another process may do the same."""
    new = archive.with_suffix(f".{os.getpid()}")
    with new.open("w+b") as content:
        _write(content, entries)
        content.seek(0)
        digest = _named(hashlib.file_digest(content, "sha256"))
    new.rename(archive)
    new.write_text(digest)
    new.rename(named)


def _write(stream: IO[bytes], entries: Iterable[Entry]) -> None:
    """With all directories, and nothing of who made it."""
    seen: set[str] = set()
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        for header, content in entries:
            header.name = header.name.strip("/")
            for parent in reversed(Path(header.name).parents[:-1]):
                if str(parent) not in seen:
                    archive.addfile(directory(str(parent))[0])
                    seen.add(str(parent))
            seen.add(header.name)
            with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as opened:
                archive.addfile(header, opened)


def _forget_unused(folder: Path) -> None:
    oldest = time.time() - UNUSED_DAYS_MAX * 86_400
    for named in folder.glob("*.digest"):
        if named.stat().st_mtime < oldest:
            named.unlink()
            named.with_suffix(".tar").unlink(missing_ok=True)


def _named(found: hashlib._Hash) -> str:
    return f"sha256:{found.hexdigest()}"
