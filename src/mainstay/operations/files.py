"""Files that stand in a job itself: kept by content like its code, and delivered with it. No part of a job hides another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

from mainstay.domain.artifact import Tree
from mainstay.domain.errors import Invalid
from mainstay.ports import Artifacts


async def keep(
    artifacts: Artifacts, tree: Tree, blobs: Mapping[str, bytes], *, code: str, volumes: Iterable[str] = ()
) -> str:
    """Store a tree and its blobs, by digest; the digest of the tree, empty if it has no files.

    Raises Invalid if the code has a file of the same path, or one where a volume of one of the paths `volumes` is to be: none may
    hide the other.
    """
    files = [entry.path for entry in tree.entries]
    places = list(volumes)
    if code and (files or places):
        there = [entry.path for entry in (await artifacts.tree(code)).entries]
        for path in files:
            if any(_collide(path, other) for other in there):
                msg = f"files: {path} is in `workdir` too"
                raise Invalid(msg, object_="files", hint="rename one of them, or leave one out")
        for path in places:
            if hidden := next((other for other in there if _collide(path, other)), ""):
                msg = f"volumes: {path} would hide {hidden} of `workdir`"
                raise Invalid(msg, object_="volumes", hint="choose another path for the volume, or leave the file out")
    if not files:
        return ""
    for digest in await artifacts.missing(blobs):
        await artifacts.put(digest, _whole(blobs[digest]))
    return await artifacts.put_tree(tree)


def _collide(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content
