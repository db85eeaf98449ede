"""Fetches the output files of ended pods into the artifacts, in the background, and commits them under their attempt."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import IO

import structlog

from mainstay.domain.allocation import Allocation
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.errors import Fenced, Invalid, MainstayError
from mainstay.ports import Artifacts, ArtifactStore, Clock, Cluster

log = structlog.get_logger()

FETCHES_MAX = 4
"""Pods whose files are fetched at the same time."""
SPOOL_BYTES = 4 << 20
"""A file up to this size is hashed in memory before it is stored under its digest; a larger one through a temporary file."""
CHUNK_BYTES = 1 << 20
RETRY_SECONDS, RETRY_SECONDS_MAX = 0.25, 30.0
FAILURES_TOLD = 3
"""One that fails more often does not pass within a second or two: users are told why they wait."""
PATIENCE_SECONDS = 3_600.0
"""So long may the artifacts be away before a run that waits for its output is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What became of the output of a pod."""

    tree: str = ""
    """Its digest; empty if it wrote none, or it cannot be kept."""
    fault: str = ""
    """Why it cannot be kept."""
    copy_fault: str = ""
    """Why what it left for object stores was not copied there."""


class Outputs:
    """Fetches by pod. Lost with the process and started again: storing by content twice is storing once."""

    def __init__(self, cluster: Cluster, artifacts: ArtifactStore, clock: Clock) -> None:
        self._cluster = cluster
        self._artifacts = artifacts
        self._clock = clock
        self._slots = asyncio.Semaphore(FETCHES_MAX)
        self._fetches: dict[str, _Fetch] = {}

    def collected(self, allocation: Allocation) -> Output | None:
        """What became of a pod's output; None while that is not known: call again.

        What can never be kept is told at once. Any other failure is tried again, less and less often, for an hour.
        """
        now = self._clock.monotonic()
        fetch = self._fetches.setdefault(allocation.pod, _Fetch(began=now))
        if fetch.task is None:
            if now >= fetch.again_at:
                patient = now - fetch.began < PATIENCE_SECONDS
                fetch.task = asyncio.create_task(self._fetch(allocation, patient=patient))
            return None
        if not fetch.task.done():
            return None
        task, fetch.task = fetch.task, None
        error = task.exception()
        if error is None:
            del self._fetches[allocation.pod]
            return task.result()
        log.warning("output_not_stored", pod=allocation.pod, error=str(error))
        if isinstance(error, Invalid) or now - fetch.began >= PATIENCE_SECONDS:
            del self._fetches[allocation.pod]
            return Output(fault=_words(error))
        fetch.failures += 1
        if fetch.failures >= FAILURES_TOLD:
            fetch.news = _words(error)
        fetch.again_at = now + min(RETRY_SECONDS * 2.0 ** min(fetch.failures, 10), RETRY_SECONDS_MAX)
        return None

    def news(self, pod: str) -> str:
        """Why it could not be fetched so far, in words; empty if nothing has failed since this was asked last."""
        fetch = self._fetches.get(pod)
        if fetch is None:
            return ""
        news, fetch.news = fetch.news, ""
        return news

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = [fetch.task for fetch in self._fetches.values() if fetch.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, allocation: Allocation, *, patient: bool) -> Output:
        """Copies go first: a store that is away holds up the end. What one refuses for good costs nothing but the copy."""
        async with self._slots:
            copy_fault = await self._copied(allocation.pod, patient=patient)
            return Output(tree=await self._tree(allocation), copy_fault=copy_fault)

    async def _copied(self, pod: str, *, patient: bool) -> str:
        """Why that was refused, empty if it was not; `patient`: what may pass is raised."""
        try:
            await self._cluster.copy_out(pod)
        except MainstayError as error:
            if patient and not isinstance(error, Invalid):
                raise
            log.warning("copy_refused", pod=pod, error=error.message)
            return _words(error)
        return ""

    async def _tree(self, allocation: Allocation) -> str:
        files = self._artifacts.of(allocation.owner)
        entries = [
            await _store_file(files, path, executable=executable, content=content)
            async for path, _, executable, content in self._cluster.outputs(allocation.pod)
        ]
        if not entries:
            return ""
        tree = await files.put_tree(Tree(entries=tuple(sorted(entries, key=lambda entry: entry.path))))
        try:
            await files.commit(f"{allocation.workload}/output", attempt=allocation.attempt, tree=tree)
        except Fenced:
            # A newer attempt has spoken: this one's files are kept as blobs but are nobody's output (R6).
            return ""
        return tree


@dataclass(slots=True, kw_only=True)
class _Fetch:
    """Since when, how often in vain, and not again before; by the monotonic clock."""

    began: float
    task: asyncio.Task[Output] | None = None
    failures: int = 0
    again_at: float = 0.0
    news: str = ""


async def _store_file(artifacts: Artifacts, path: str, *, executable: bool, content: AsyncIterator[bytes]) -> Entry:
    digest, size = hashlib.sha256(), 0
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
        async for chunk in content:
            digest.update(chunk)
            size += len(chunk)
            spool.write(chunk)
        name = digest.hexdigest()
        if await artifacts.missing([name]):
            spool.seek(0)
            await artifacts.put(name, _chunks(spool))
    return Entry(path=path, size=size, digest=name, executable=executable)


def _words(error: BaseException) -> str:
    if isinstance(error, MainstayError):
        return f"{error.message}; {error.hint}" if error.hint else error.message
    return f"{type(error).__name__}: {error}"


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
