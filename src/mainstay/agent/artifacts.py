"""The artifacts as a cluster needs them, far away: what its pods mount comes in, what they leave goes out.

The control plane shows only what belongs to the cluster, so each question says on what ground it is asked: a blob is read
as one of a tree, a tree as what a pod mounts or a slot of the cluster holds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from urllib.parse import quote

from mainstay.agent.connection import Connection
from mainstay.domain.artifact import Tree
from mainstay.domain.errors import NotYet
from mainstay.wire import agent as wire

GROUNDS_MAX = 200_000
"""Of blobs whose tree was read; a few MB. What is forgotten is asked for without a ground, and refused: read the tree again."""


class RemoteArtifacts:
    """Implements `ports.Artifacts`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._grounds: OrderedDict[str, dict[str, str]] = OrderedDict()
        """Of blobs and trees: the parameters that say where we have them from."""

    async def missing(self, digests: Iterable[str]) -> tuple[str, ...]:
        """In the order given, each once. Also those that others have stored: what we refer to we must have sent."""
        asked = wire.DigestsAsked(digests=tuple(dict.fromkeys(digests)))
        return (await self._connection.acall("POST", "missing", wire.DigestsSaid, body=asked)).missing

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> int:
        """Raises Invalid if the content has another digest."""
        size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in chunks:
                size += len(chunk)
                yield chunk

        await self._connection.sending(f"blobs/{quote(digest, safe='')}", counted())
        return size

    async def get(self, digest: str) -> AsyncIterator[bytes]:
        """Raises NotFound, also for what is not ours to see."""
        async with self._connection.reading(
            f"blobs/{quote(digest, safe='')}", self._grounds.get(digest, {})
        ) as content:
            async for chunk in content:
                yield chunk

    async def put_tree(self, tree: Tree) -> str:
        """Raises NotYet, naming them, while blobs are missing."""
        said = await self._connection.acall(
            "POST", "trees", wire.TreeStored, body=wire.TreeSaid(manifest=tree.manifest.decode())
        )
        if said.missing:
            msg = f"{len(said.missing)} files of the tree are not stored"
            numbers = {"missing": " ".join(said.missing)}
            raise NotYet(msg, object_=said.digest, hint="send the blobs first", numbers=numbers)
        return said.digest

    async def tree(self, digest: str) -> Tree:
        """Raises NotFound, also for what is not ours to see."""
        ground = self._grounds.get(digest, {})
        said = await self._connection.acall("GET", f"trees/{quote(digest, safe='')}", wire.TreeSaid, params=ground)
        tree = Tree.of_manifest(said.manifest.encode())
        for entry in tree.entries:
            self._remember(entry.digest, {"tree": digest, **ground})
        return tree

    async def commit(self, slot: str, *, attempt: int, tree: str) -> None:
        """Raises Fenced if a newer attempt has committed."""
        body = wire.SlotFilled(slot=slot, attempt=attempt, tree=tree)
        await self._connection.acall("POST", "slots", wire.Message, body=body)

    async def head(self, slot: str) -> tuple[int, str]:
        """Raises NotFound."""
        said = await self._connection.acall("GET", "slots", wire.SlotSaid, params={"slot": slot})
        self._remember(said.tree, {"slot": slot})
        return said.attempt, said.tree

    def _remember(self, digest: str, ground: dict[str, str]) -> None:
        self._grounds[digest] = ground
        self._grounds.move_to_end(digest)
        while len(self._grounds) > GROUNDS_MAX:
            self._grounds.popitem(last=False)
