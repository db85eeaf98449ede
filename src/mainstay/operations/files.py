"""Files that stand in a job itself: kept by content like its code, and delivered with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from mainstay.domain.artifact import Tree
from mainstay.domain.errors import Invalid
from mainstay.ports import Artifacts


async def keep(artifacts: Artifacts, tree: Tree, blobs: Mapping[str, bytes], *, code: str) -> str:
    """Store a tree and its blobs, by digest; the digest of the tree, empty if it has no files.

    Raises Invalid if the code has a file of the same path: neither may hide the other.
    """
    if not tree.entries:
        return ""
    if code:
        there = {entry.path for entry in (await artifacts.tree(code)).entries}
        for entry in tree.entries:
            if any(_collide(entry.path, path) for path in there):
                msg = f"files: {entry.path} is in `workdir` too"
                raise Invalid(msg, object_="files", hint="rename one of them, or leave one out")
    for digest in await artifacts.missing(blobs):
        await artifacts.put(digest, _whole(blobs[digest]))
    return await artifacts.put_tree(tree)


def _collide(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content
