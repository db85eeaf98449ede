"""Folders to trees and back: what is sent, what is left out, and nothing outside the folder is ever touched."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from mainstay.sdk.errors import FilesRefused, FolderRefused
from mainstay.wire.views import TreeEntry

IGNORE_FILE = ".mainstayignore"
ALWAYS_IGNORED = (".git/", "__pycache__/", ".venv/", ".mainstay/")
FILES_MAX = 20_000
CHUNK_BYTES = 1 << 20
PATH_BYTES_MAX = 1_024
"""As of the trees of a platform: what announces longer ones is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The files of a folder as they are sent: entries by path, and where each digest can be read."""

    entries: tuple[TreeEntry, ...]
    files: dict[str, Path]

    @property
    def manifest(self) -> str:
        """JSON of the request that announces them."""
        return json.dumps({"entries": [entry.model_dump() for entry in self.entries]})


def scan(folder: Path) -> Folder:
    """Read and hash a folder, without what its `.mainstayignore` names (gitignore syntax). Raises FolderRefused."""
    if not folder.is_dir():
        msg = f"workdir is not a folder: {folder}"
        raise FolderRefused(msg, hint="`workdir` is relative to the job file")
    entries, files = [], {}
    for path in sorted(_kept(folder), key=lambda path: path.relative_to(folder).as_posix()):
        digest, size = _digest(path)
        executable = bool(path.stat().st_mode & stat.S_IXUSR)
        relative = path.relative_to(folder).as_posix()
        entries.append(TreeEntry(path=relative, size=size, digest=digest, executable=executable))
        files[digest] = path
        if len(entries) > FILES_MAX:
            msg = f"{folder} has more than {FILES_MAX} files"
            raise FolderRefused(msg, hint=f"name what is not needed in {folder / IGNORE_FILE}")
    return Folder(entries=tuple(entries), files=files)


def _kept(folder: Path) -> Iterator[Path]:
    import pathspec  # noqa: PLC0415 only who sends files waits for it

    ignore_file = folder / IGNORE_FILE
    lines = ignore_file.read_text(errors="replace").splitlines() if ignore_file.is_file() else []
    spec = pathspec.GitIgnoreSpec.from_lines([*ALWAYS_IGNORED, *lines])
    root = folder.resolve()
    for where, folders, names in os.walk(folder):
        here = Path(where)
        inside = here.relative_to(folder)
        folders[:] = sorted(name for name in folders if not spec.match_file(f"{(inside / name).as_posix()}/"))
        for name in folders:
            if (here / name).is_symlink():
                msg = f"a link to a folder cannot be sent: {here / name}"
                raise FolderRefused(msg, hint=f"copy the folder, or name the link in {ignore_file}")
        for name in names:
            path = here / name
            if spec.match_file((inside / name).as_posix()):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                msg = f"a link leaves the folder: {path}"
                raise FolderRefused(msg, hint=f"copy the file, or name the link in {ignore_file}")
            if not path.is_file():
                msg = f"not a file that can be sent: {path}"
                raise FolderRefused(msg, hint=f"remove it, or name it in {ignore_file}")
            yield path


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def destination(folder: Path, entry: TreeEntry) -> Path:
    """Where a file of a tree goes. Raises FilesRefused for a path that leaves the folder (CWE-22)."""
    parts = PurePosixPath(entry.path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in entry.path or "\x00" in entry.path or not entry.path:
        msg = f"refusing a path that leaves the folder: {entry.path!r}"
        raise FilesRefused(msg)
    if len(entry.path.encode("utf-8", "surrogatepass")) > PATH_BYTES_MAX:
        msg = f"refusing a path of more than {PATH_BYTES_MAX} bytes: {entry.path[:80]!r}..."
        raise FilesRefused(msg)
    target = folder / parts
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        msg = f"refusing to write through a link: {target}"
        raise FilesRefused(msg, hint="choose an empty folder")
    return target


class FileSink:
    """Writes what arrives beside its destination and moves it there once its digest is right: whole files or none."""

    def __init__(self, target: Path, entry: TreeEntry) -> None:
        self._target, self._entry = target, entry
        self._digest = hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = tempfile.NamedTemporaryFile(dir=target.parent, prefix=".mainstay-", delete=False)  # noqa: SIM115

    def begin(self) -> None:
        """Start again."""
        self._file.seek(0)
        self._file.truncate()
        self._digest = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        """The next piece."""
        self._digest.update(chunk)
        self._file.write(chunk)

    def keep(self) -> Path:
        """Put the file in its place. Raises FilesRefused if its content is not what was announced."""
        self._file.close()
        if self._digest.hexdigest() != self._entry.digest:
            self.drop()
            msg = f"{self._entry.path} arrived damaged"
            raise FilesRefused(msg, hint="download it again")
        path = Path(self._file.name)
        path.chmod(0o755 if self._entry.executable else 0o644)
        path.replace(self._target)
        return self._target

    def drop(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)
