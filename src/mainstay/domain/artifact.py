"""Trees of files by content: code, outputs and models are all a list of (path, size, digest)."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from mainstay.domain.errors import Invalid

DIGEST = re.compile(r"[0-9a-f]{64}\Z")
TREE_FILES_MAX = 20_000
PATH_BYTES_MAX = 1_024
NAME_BYTES_MAX = 255
"""Of one part of a path: no file system of ours makes a longer name."""
PATH_RULE = (
    f"a path is relative, without `..` and `\\`, of printable characters, and has at most {PATH_BYTES_MAX} bytes,"
    f" {NAME_BYTES_MAX} in each part"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a tree. `path` is relative, with `/`, without `.` or `..`; `digest` is its SHA-256 in hex."""

    path: str
    size: int
    digest: str
    executable: bool = False

    def __post_init__(self) -> None:
        if not safe_path(self.path):
            msg = f"not a path of a tree: {self.path!r}"
            raise Invalid(msg, hint=PATH_RULE)
        if not DIGEST.match(self.digest) or self.size < 0:
            msg = f"not a SHA-256 digest and a size: {self.digest!r}, {self.size}"
            raise Invalid(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Files in the order of their paths, no path twice, none inside another's file."""

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        paths = [entry.path for entry in self.entries]
        files = set(paths)
        if paths != sorted(files):
            msg = "the paths of a tree are sorted and each occurs once"
            raise Invalid(msg)
        if any(parent in files for path in paths for parent in _parents(path)):
            msg = "a path of a tree is both a file and a folder"
            raise Invalid(msg)
        if len(paths) > TREE_FILES_MAX:
            msg = f"a tree holds at most {TREE_FILES_MAX} files: {len(paths)}"
            raise Invalid(msg)

    @property
    def manifest(self) -> bytes:
        """The canonical JSON of the tree: same files, same bytes."""
        rows = [[entry.path, entry.size, entry.digest, entry.executable] for entry in self.entries]
        return json.dumps(rows, separators=(",", ":"), ensure_ascii=True).encode()

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest: the name of the tree."""
        return hashlib.sha256(self.manifest).hexdigest()

    @classmethod
    def of_manifest(cls, manifest: bytes) -> Tree:
        """Inverse of `manifest`. Raises Invalid if it is not one."""
        try:
            rows: object = json.loads(manifest)
        except (ValueError, RecursionError) as error:
            msg = "not the manifest of a tree"
            raise Invalid(msg) from error
        tree = cls(entries=tuple(map(_entry, rows if isinstance(rows, list) else [rows])))
        if tree.manifest != manifest:
            msg = "a manifest that is not in its canonical form"
            raise Invalid(msg)
        return tree


def safe_path(path: str) -> bool:
    """Whether `path` is relative, plain and stays below where it is put. Source: CWE-22, security.md E1."""
    parts = path.split("/")
    return (
        0 < _bytes(path) <= PATH_BYTES_MAX
        and "\\" not in path
        and path.isprintable()
        and all(part not in {"", ".", ".."} and _bytes(part) <= NAME_BYTES_MAX for part in parts)
    )


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def _entry(row: object) -> Entry:
    """JSON has few types and Python compares them generously: `true` equals 1 and must still not be a size."""
    match row:
        case [str(path), int(size), str(digest), bool(executable)] if not isinstance(size, bool):
            return Entry(path=path, size=size, digest=digest, executable=executable)
    msg = "not the manifest of a tree"
    raise Invalid(msg)
