"""`Anchors` over obstore: one small object per anchor, named by its row, never written over.

    anchors/SYSTEM/00000000000000001234.json

Where whoever owns the database may not write, nobody can shorten or rewrite the audit unseen (security.md G2). The platform
itself only adds: a bucket that forbids to change and to delete objects is the best place.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import ObjectStore

from mainstay.artifacts.objects import flush, opened_place
from mainstay.chain import anchors as chain
from mainstay.domain.errors import Conflict, Unavailable

READ_AT_ONCE = 32


class ObjectAnchors:
    """Implements `ports.Anchors`."""

    def __init__(self, store: ObjectStore, *, system: str, directory: Path | None = None) -> None:
        """`directory`: where `store` keeps its files if it is local: they are then flushed to disk."""
        self._store, self._folder, self._directory = store, f"anchors/{system}", directory

    async def keep(self, anchor: chain.Anchor) -> None:
        """As a new object. One that is there already is the same, or Conflict."""
        path = f"{self._folder}/{anchor.head.seq:020d}.json"
        try:
            await obstore.put_async(self._store, path, anchor.text().encode(), mode="create")
        except (AlreadyExistsError, FileExistsError) as error:
            if (await self._read(path)).head != anchor.head:
                msg = f"row {anchor.head.seq} of the audit was anchored as another one before"
                raise Conflict(msg, object_=path, hint="mainstay audit verify") from error
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        if self._directory is not None:
            await asyncio.to_thread(flush, self._directory, path)

    async def newest(self, limit: int) -> tuple[chain.Anchor, ...]:
        """Oldest first. What is no anchor is left out: whoever verifies counts what is there."""
        try:
            found = [row["path"] async for page in obstore.list(self._store, self._folder) for row in page]
            reading = asyncio.Semaphore(READ_AT_ONCE)

            async def one(path: str) -> chain.Anchor:
                async with reading:
                    return await self._read(path)

            paths = sorted(path for path in found if path.endswith(".json"))[-limit:]
            read = await asyncio.gather(*map(one, paths), return_exceptions=True)
        except (BaseError, OSError) as error:
            raise _unavailable(error) from error
        for failure in read:
            if isinstance(failure, BaseError | OSError):
                raise _unavailable(failure) from failure
        return tuple(anchor for anchor in read if isinstance(anchor, chain.Anchor))

    async def _read(self, path: str) -> chain.Anchor:
        return chain.read(bytes(await (await obstore.get_async(self._store, path)).bytes_async()))


def open_anchors(url: str, *, system: str) -> ObjectAnchors:
    """`url` as for artifacts. Raises StateUnusable."""
    store, directory = opened_place(url)
    return ObjectAnchors(store, system=system, directory=directory)


def _unavailable(error: BaseException) -> Unavailable:
    said = str(error).partition("\n")[0]
    msg = f"the place of the anchors of the audit does not answer: {said}"
    return Unavailable(msg, hint="check --audit-anchor and its credentials")
