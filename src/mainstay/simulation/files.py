"""`ArtifactStore` in memory: what the pods of a simulation write."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable

from mainstay.artifacts.objects import SLOT, checked_owner
from mainstay.domain.allocation import Owner
from mainstay.domain.artifact import DIGEST, Tree
from mainstay.domain.errors import Fenced, Invalid, NotFound, NotYet


class MemoryArtifactStore:
    """Implements `ports.ArtifactStore`. Outlives every process, as a bucket does."""

    def __init__(self) -> None:
        self._owners: dict[str, MemoryArtifacts] = {}
        self.logs = MemoryArtifacts()

    def of(self, owner: Owner) -> MemoryArtifacts:
        """The same for the same owner."""
        return self._owners.setdefault(checked_owner(owner), MemoryArtifacts())


class MemoryArtifacts:
    """Implements `ports.Artifacts`."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._trees: dict[str, Tree] = {}
        self._slots: dict[str, tuple[int, str]] = {}

    async def missing(self, digests: Iterable[str]) -> tuple[str, ...]:
        """In the order given, each once."""
        return tuple(name for name in dict.fromkeys(map(_checked, digests)) if name not in self._blobs)

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> int:
        """Kept only if it is what its name says."""
        content = b"".join([chunk async for chunk in chunks])
        if hashlib.sha256(content).hexdigest() != _checked(digest):
            msg = f"the content has another digest than {digest}"
            raise Invalid(msg, object_=digest)
        self._blobs[digest] = content
        return len(content)

    async def get(self, digest: str) -> AsyncIterator[bytes]:
        """In one chunk."""
        if _checked(digest) not in self._blobs:
            msg = f"no such blob: {digest}"
            raise NotFound(msg, object_=digest)
        yield self._blobs[digest]

    async def put_tree(self, tree: Tree) -> str:
        """Only over blobs that are there."""
        missing = await self.missing(entry.digest for entry in tree.entries)
        if missing:
            msg = f"{len(missing)} files of the tree are not stored"
            raise NotYet(msg, object_=tree.digest, numbers={"missing": " ".join(missing)})
        for entry in tree.entries:
            size = len(self._blobs[entry.digest])
            if size != entry.size:
                msg = f"{entry.path} has {size} bytes, not {entry.size}"
                raise Invalid(msg, object_=tree.digest)
        self._trees[tree.digest] = tree
        return tree.digest

    async def tree(self, digest: str) -> Tree:
        """By its digest."""
        if _checked(digest) not in self._trees:
            msg = f"no such tree: {digest}"
            raise NotFound(msg, object_=digest)
        return self._trees[digest]

    async def commit(self, slot: str, *, attempt: int, tree: str) -> None:
        """Fenced by attempt."""
        if not SLOT.match(slot):
            msg = f"not a slot: {slot!r}"
            raise Invalid(msg, object_=slot)
        newest, _ = self._slots.get(slot, (0, ""))
        if newest > attempt:
            msg = f"attempt {newest} of {slot} has committed; attempt {attempt} is too late"
            raise Fenced(msg, object_=slot, numbers={"newest": newest, "attempt": attempt})
        self._slots[slot] = (attempt, _checked(tree))

    async def head(self, slot: str) -> tuple[int, str]:
        """What the highest attempt committed."""
        if slot not in self._slots:
            msg = f"nothing was committed to {slot}"
            raise NotFound(msg, object_=slot)
        return self._slots[slot]


def _checked(digest: str) -> str:
    if not DIGEST.match(digest):
        msg = f"not a SHA-256 digest: {digest!r}"
        raise Invalid(msg)
    return digest
