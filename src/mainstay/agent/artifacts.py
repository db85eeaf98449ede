"""The artifacts as a cluster needs them, far away: what its pods mount comes in, what they leave goes out.

The control plane shows only what belongs to the cluster, so each question says on what ground it is asked: a blob is read
as one of a tree, a tree as what a pod of an owner mounts or a slot of the cluster holds. Whether that is so the record says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar
from urllib.parse import quote

from mainstay.agent.connection import Connection
from mainstay.domain.allocation import Owner
from mainstay.domain.artifact import Tree
from mainstay.domain.errors import NotYet
from mainstay.wire import agent as wire

V = TypeVar("V")
KNOWN_MAX = 200_000
"""Of blobs whose tree was read, and of receipts; some tens of MB. What is forgotten is refused: read the tree, or send, again."""


class RemoteArtifactStore:
    """Implements `ports.ArtifactStore`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, RemoteArtifacts] = {}

    def of(self, owner: Owner) -> RemoteArtifacts:
        """The same for the same owner: it remembers what it has sent."""
        return self._named(wire.owner_said(tenant=owner.tenant, project=owner.project))

    @property
    def logs(self) -> RemoteArtifacts:
        """Of the pods of the cluster."""
        return self._named(wire.LOGS)

    def _named(self, owner: str) -> RemoteArtifacts:
        if owner not in self._known:
            self._known[owner] = RemoteArtifacts(self._connection, owner=owner)
        return self._known[owner]


class RemoteArtifacts:
    """Implements `ports.Artifacts`."""

    def __init__(self, connection: Connection, *, owner: str) -> None:
        self._connection = connection
        self._owner = {"owner": owner}
        self._grounds: OrderedDict[str, dict[str, str]] = OrderedDict()
        """Of blobs and trees: the parameters that say where we have them from."""
        self._receipts: OrderedDict[str, str] = OrderedDict()
        """Of blobs and trees that we have sent."""

    async def missing(self, digests: Iterable[str]) -> tuple[str, ...]:
        """In the order given, each once. Also those that others have stored: what we refer to we must have sent."""
        return tuple(digest for digest in dict.fromkeys(digests) if digest not in self._receipts)

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> int:
        """Raises Invalid if the content has another digest."""
        size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in chunks:
                size += len(chunk)
                yield chunk

        said = await self._connection.sending(
            f"blobs/{quote(digest, safe='')}", counted(), wire.BlobStored, params=self._owner
        )
        _remember(self._receipts, digest, said.receipt)
        return size

    async def get(self, digest: str) -> AsyncIterator[bytes]:
        """Raises NotFound, also for what is not ours to see."""
        async with self._connection.reading(
            f"blobs/{quote(digest, safe='')}", {**self._owner, **self._grounds.get(digest, {})}
        ) as content:
            async for chunk in content:
                yield chunk

    async def put_tree(self, tree: Tree) -> str:
        """Raises NotYet, naming them, while blobs are missing."""
        digests = {entry.digest for entry in tree.entries} & self._receipts.keys()
        receipts = {digest: self._receipts[digest] for digest in digests}
        body = wire.TreeSaid(manifest=tree.manifest.decode(), receipts=receipts)
        said = await self._connection.acall("POST", "trees", wire.TreeStored, body=body, params=self._owner)
        if said.missing:
            for digest in said.missing:
                self._receipts.pop(digest, None)
            msg = f"{len(said.missing)} files of the tree are not stored"
            numbers = {"missing": " ".join(said.missing)}
            raise NotYet(msg, object_=said.digest, hint="send the blobs first", numbers=numbers)
        _remember(self._receipts, said.digest, said.receipt)
        return said.digest

    async def tree(self, digest: str) -> Tree:
        """Raises NotFound, also for what is not ours to see."""
        ground = self._grounds.get(digest, {})
        said = await self._connection.acall(
            "GET", f"trees/{quote(digest, safe='')}", wire.TreeSaid, params={**self._owner, **ground}
        )
        tree = Tree.of_manifest(said.manifest.encode())
        for entry in tree.entries:
            _remember(self._grounds, entry.digest, {"tree": digest, **ground})
        return tree

    async def commit(self, slot: str, *, attempt: int, tree: str) -> None:
        """Raises Fenced if a newer attempt has committed."""
        receipt = self._receipts.get(tree, "")
        body = wire.SlotFilled(slot=slot, attempt=attempt, tree=tree, receipt=receipt)
        await self._connection.acall("POST", "slots", wire.Message, body=body)

    async def head(self, slot: str) -> tuple[int, str]:
        """Raises NotFound."""
        said = await self._connection.acall("GET", "slots", wire.SlotSaid, params={"slot": slot})
        _remember(self._grounds, said.tree, {"slot": slot})
        return said.attempt, said.tree


def _remember(known: OrderedDict[str, V], digest: str, value: V) -> None:
    known[digest] = value
    known.move_to_end(digest)
    while len(known) > KNOWN_MAX:
        known.popitem(last=False)
