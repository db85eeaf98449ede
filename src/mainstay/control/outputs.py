"""Fetches the output files of ended pods into the artifacts, in the background, and commits them under their attempt."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from typing import IO

import structlog

from mainstay.domain.allocation import Allocation
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.errors import Fenced, Invalid
from mainstay.ports import Artifacts, Cluster

log = structlog.get_logger()

FETCHES_MAX = 4
"""Pods whose files are fetched at the same time."""
SPOOL_BYTES = 4 << 20
"""A file up to this size is hashed in memory before it is stored under its digest; a larger one through a temporary file."""
CHUNK_BYTES = 1 << 20


class Outputs:
    """Fetches by pod. Lost with the process and started again: storing by content twice is storing once."""

    def __init__(self, cluster: Cluster, artifacts: Artifacts) -> None:
        self._cluster = cluster
        self._artifacts = artifacts
        self._slots = asyncio.Semaphore(FETCHES_MAX)
        self._fetches: dict[str, asyncio.Task[str]] = {}

    def collected(self, allocation: Allocation) -> str | None:
        """Digest of the tree of a pod's output, empty if it wrote none; None while it is still being fetched.

        A fetch that failed is logged and started again by the next call.
        """
        task = self._fetches.get(allocation.pod)
        if task is None:
            self._fetches[allocation.pod] = asyncio.create_task(self._fetch(allocation))
            return None
        if not task.done():
            return None
        del self._fetches[allocation.pod]
        error = task.exception()
        if error is None:
            return task.result()
        log.warning("output_not_stored", pod=allocation.pod, error=str(error))
        return "" if isinstance(error, Invalid) else None

    async def close(self) -> None:
        """Cancel what is under way."""
        for task in self._fetches.values():
            task.cancel()
        await asyncio.gather(*self._fetches.values(), return_exceptions=True)

    async def _fetch(self, allocation: Allocation) -> str:
        async with self._slots:
            entries = [
                await self._store_file(path, executable=executable, content=content)
                async for path, _, executable, content in self._cluster.outputs(allocation.pod)
            ]
            if not entries:
                return ""
            tree = await self._artifacts.put_tree(Tree(entries=tuple(sorted(entries, key=lambda entry: entry.path))))
            try:
                await self._artifacts.commit(f"{allocation.workload}/output", attempt=allocation.attempt, tree=tree)
            except Fenced:
                # A newer attempt has spoken: this one's files are kept as blobs but are nobody's output (R6).
                return ""
            return tree

    async def _store_file(self, path: str, *, executable: bool, content: AsyncIterator[bytes]) -> Entry:
        digest, size = hashlib.sha256(), 0
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            async for chunk in content:
                digest.update(chunk)
                size += len(chunk)
                spool.write(chunk)
            name = digest.hexdigest()
            if await self._artifacts.missing([name]):
                spool.seek(0)
                await self._artifacts.put(name, _chunks(spool))
        return Entry(path=path, size=size, digest=name, executable=executable)


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
