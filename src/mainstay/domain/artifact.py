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


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a tree. `path` is relative, with `/`, without `.` or `..`; `digest` is its SHA-256 in hex."""

    path: str
    size: int
    digest: str
    executable: bool = False

    def __post_init__(self) -> None:
        if not safe_path(self.path):
            msg = f"a path in a tree must be relative and stay inside it: {self.path!r}"
            raise Invalid(msg)
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
            rows = json.loads(manifest)
            entries = tuple(Entry(path=row[0], size=row[1], digest=row[2], executable=row[3]) for row in rows)
        except (ValueError, TypeError, IndexError, KeyError) as error:
            msg = "not the manifest of a tree"
            raise Invalid(msg) from error
        tree = cls(entries=entries)
        if tree.manifest != manifest:
            msg = "a manifest that is not in its canonical form"
            raise Invalid(msg)
        return tree


def safe_path(path: str) -> bool:
    """Whether `path` is relative, plain and stays below where it is put. Source: CWE-22, security.md E1."""
    parts = path.split("/")
    return (
        0 < len(path.encode("utf-8", "surrogatepass")) <= PATH_BYTES_MAX
        and "\x00" not in path
        and "\\" not in path
        and path.isprintable()
        and all(part not in {"", ".", ".."} for part in parts)
    )


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
