"""Logs of pods: followed while they run, kept by content after they are gone.

The kubelet knows no offsets and keeps the newest 10 MiB or so. So a log is followed from its start into a file of ours,
whose offsets are the log's; once the pod has ended, the whole goes to the artifacts, where every replica finds it. A stream that
breaks is taken up again by the timestamps of its lines (`log_lines.py`).
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import inf
from typing import IO, TypeAlias

import structlog

from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.errors import Invalid, NotFound
from mainstay.clusters.kubernetes.log_lines import GAP, Lines, Place
from mainstay.clusters.kubernetes.names import MAIN
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.capacity import LogChunk
from mainstay.domain.errors import MainstayError
from mainstay.domain.masking import Masks, Stream, patterns_of
from mainstay.ports import Artifacts, Clock

log = structlog.get_logger()

KEPT_BYTES_MAX = 128 << 20
"""Of one pod, the newest; as on this machine."""
HELD_BYTES_MAX = 4 << 30
"""Of all logs of a cluster here together: beyond that those are let go of that were read longest ago."""
FOLLOWED_MAX = 256
"""Followed from their start on; beyond that a log is followed once somebody reads it, in the place of one that nobody reads."""
READ_SECONDS = 60.0
"""So long after it was read last, somebody may still be reading a log."""
AGAIN_SECONDS = 1.0
CHUNK_BYTES = 1 << 20
LOG_FILE = "log"
"""The name of a kept log; behind a dot, how many of its first bytes are gone."""
REMOVED_BYTES_MAX = 200
"""Of the words and the name of a container, which has 64 letters."""

HandedTo: TypeAlias = Callable[[str], Awaitable[tuple[bytes, ...]]]
"""What a pod was handed, which is masked in what it says. Where that cannot be told, nothing that it says is passed on."""


def slot_of(cluster: str, pod: str) -> str:
    """Where the log of a pod is kept in the artifacts."""
    return f"log-{cluster}/{pod}"


@dataclass(slots=True)
class Followed:
    """A log as far as it has come."""

    file: IO[bytes]
    task: asyncio.Task[None] | None = None
    size: int = 0
    """Bytes of the log so far, those dropped included."""
    dropped: int = 0
    place: Place = field(default_factory=Place)
    broke: bool = False
    """The last stream did, so that there may be more than is here."""
    whole: bool = False
    """Its container has ended, and all that the kubelet has is here."""
    read_at: float = 0.0
    """Monotonic seconds: when it was read last, or begun."""
    failures: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    masks: Stream | None = None
    """None until its pod has said something: what it was handed is on record by then."""

    @property
    def held(self) -> int:
        """Bytes of it that are here."""
        return self.size - self.dropped


class Logs:
    """The logs of one cluster in this process."""

    def __init__(self, api: KubeApi, artifacts: Artifacts, clock: Clock, *, cluster: str, handed: HandedTo) -> None:
        self._api, self._artifacts, self._clock, self._cluster = api, artifacts, clock, cluster
        self._handed = handed
        self._followed: dict[str, Followed] = {}
        self._let_go: dict[str, bytes] = {}
        """Pods whose log was here, and the timestamp of its first line: if that is not there any more, readers are told."""

    @property
    def followed(self) -> AbstractSet[str]:
        """The pods whose logs are followed, or were to their end."""
        return self._followed.keys()

    @property
    def known(self) -> AbstractSet[str]:
        """The pods whose log is here, on its way, or was."""
        return self._followed.keys() | self._let_go.keys()

    def follow(self, pod: str, namespace: str, *, ended: bool, wanted: bool = False) -> Followed | None:
        """Follow a log, if there is room or somebody wants it; None if not. `ended`: what there is now is all."""
        known = self._followed.get(pod)
        if known is None:
            now = self._clock.monotonic()
            if len(self._followed) >= FOLLOWED_MAX:
                if not wanted:
                    return None
                self._let_one_go(read_before=now - READ_SECONDS)
            file = tempfile.TemporaryFile()  # noqa: SIM115 closed by `drop`
            place = Place(first=self._let_go.pop(pod, b""))
            known = self._followed[pod] = Followed(file=file, read_at=now, place=place)
        if known.task is None and not known.whole:
            known.task = asyncio.create_task(self._copy(pod, namespace, known, ended=ended))
        return known

    async def read(self, pod: str, namespace: str, *, offset: int, limit: int, ended: bool) -> LogChunk:
        """A piece of the log of a pod that is there."""
        followed = self.follow(pod, namespace, ended=ended, wanted=True)
        assert followed is not None
        followed.read_at = self._clock.monotonic()
        start = max(offset, followed.dropped)
        data = _piece(followed, start, limit)
        over = followed.whole and start + len(data) >= followed.size
        return LogChunk(data=data, next_offset=start + len(data), dropped=start - offset, ended=over)

    async def read_kept(self, pod: str, *, offset: int, limit: int) -> LogChunk:
        """A piece of a log that is kept. Raises NotFound."""
        _, digest = await self._artifacts.head(slot_of(self._cluster, pod))
        tree = await self._artifacts.tree(digest)
        gone = sum(int(entry.path.partition(".")[2] or 0) for entry in tree.entries)
        dropped = max(0, gone - offset)
        offset = max(0, offset - gone)
        size, data, position = 0, bytearray(), 0
        for entry in tree.entries:
            size += entry.size
            async for chunk in self._artifacts.get(entry.digest):
                low, high = max(offset - position, 0), offset + limit - position
                if high <= 0:
                    break
                data += chunk[low:high]
                position += len(chunk)
        end = min(offset, size) + len(data)
        return LogChunk(data=bytes(data), next_offset=gone + max(offset, end), dropped=dropped, ended=end >= size)

    async def keep(self, pod: str, namespace: str) -> bool:
        """Store the log of a pod that has ended; whether that is done. Call again until it is."""
        followed = self.follow(pod, namespace, ended=True, wanted=True)
        assert followed is not None
        followed.read_at = self._clock.monotonic()
        if not followed.whole:
            return False
        async with followed.turn:
            await self._store(pod, followed)
        return True

    def drop(self, pod: str) -> None:
        """Let go of a log that is kept, or of a pod that is gone."""
        self._let_go.pop(pod, None)
        followed = self._followed.pop(pod, None)
        if followed is not None:
            if followed.task:
                followed.task.cancel()
            followed.file.close()

    async def close(self) -> None:
        """Let go of all."""
        tasks = [followed.task for followed in self._followed.values() if followed.task]
        for pod in tuple(self.known):
            self.drop(pod)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _copy(self, pod: str, namespace: str, into: Followed, *, ended: bool) -> None:
        """One try. A stream that broke is taken up where it was, as far as the kubelet still has that."""
        lines = Lines(into.place)
        try:
            stream = self._api.log(namespace, pod, MAIN, follow=not ended, timestamps=True, since_time=into.place.since)
            async for chunk in _true_log(stream):
                if into.masks is None:
                    into.masks = Stream(Masks(patterns_of(await self._handed(pod))))
                if fresh := lines.fresh(chunk):
                    _append(into, into.masks.passed(fresh))
                    self._make_room(into)
            if ended:
                _end(into, certain=not lines.seeking)
            into.broke = False
            into.failures = 0
        except NotFound:
            if ended:
                _end(into, certain=False)
        except MainstayError as error:
            # A container that never ran has none, and is not asked for it again.
            if ended and isinstance(error, Invalid):
                into.whole = True
                return
            into.broke = True
            into.failures += 1
            log.debug("log_stream_broke", pod=pod, reason=error.message)
            await self._clock.sleep(min(AGAIN_SECONDS * 2.0**into.failures, 30.0))
        finally:
            into.task = None

    def _make_room(self, growing: Followed) -> None:
        """For one that grows: its own size has a bound."""
        while sum(followed.held for followed in self._followed.values()) > HELD_BYTES_MAX:
            if not self._let_one_go(besides=growing):
                return

    def _let_one_go(self, *, read_before: float = inf, besides: Followed | None = None) -> bool:
        """Of the one that was read longest ago, unless it is being stored; whether there was one.

        Whoever reads it next gets what its kubelet still has, and is told if that is not all.
        """
        others = [
            (followed.read_at, pod)
            for pod, followed in self._followed.items()
            if followed is not besides and followed.read_at < read_before and not followed.turn.locked()
        ]
        if not others:
            return False
        _, pod = min(others)
        log.info("log_let_go", pod=pod)
        first = self._followed[pod].place.first
        self.drop(pod)
        self._let_go[pod] = first
        return True

    async def _store(self, pod: str, followed: Followed) -> None:
        digest, size = await asyncio.to_thread(_digest, followed.file)
        entries: tuple[Entry, ...] = ()
        if size:
            await self._artifacts.put(digest, _chunks(followed.file))
            path = f"{LOG_FILE}.{followed.dropped}" if followed.dropped else LOG_FILE
            entries = (Entry(path=path, size=size, digest=digest),)
        tree = await self._artifacts.put_tree(Tree(entries=entries))
        await self._artifacts.commit(slot_of(self._cluster, pod), attempt=1, tree=tree)


async def _true_log(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A log without the words that a kubelet sends in its place, and as a success, once it has removed the container.

    Source: `GetContainerLogs` of pkg/kubelet/kuberuntime. What cannot be the beginning of them is passed on at once.
    """
    held = b""
    async for chunk in stream:
        held += chunk
        if _REMOVED.startswith(held) or (held.startswith(_REMOVED) and len(held) < REMOVED_BYTES_MAX):
            continue
        yield held
        held = b""
        break
    async for chunk in stream:
        yield chunk
    if held and not held.startswith(_REMOVED):
        yield held


_REMOVED = b"unable to retrieve container logs for "


def _end(followed: Followed, *, certain: bool) -> None:
    """There is no more to be had. If the last stream broke, and its last line is not there any more, more may have been lost."""
    if followed.masks is not None:
        _append(followed, followed.masks.rest())
    if followed.broke and not certain:
        _append(followed, b"\n" * followed.place.open + GAP)
    followed.whole = True


def _append(followed: Followed, chunk: bytes) -> None:
    file = followed.file
    file.seek(0, 2)
    file.write(chunk)
    followed.size += len(chunk)
    held = followed.held
    if held > 2 * KEPT_BYTES_MAX:
        file.seek(held - KEPT_BYTES_MAX)
        newest = file.read()
        file.seek(0)
        file.truncate()
        file.write(newest)
        followed.dropped = followed.size - len(newest)


def _piece(followed: Followed, start: int, limit: int) -> bytes:
    followed.file.seek(start - followed.dropped)
    return followed.file.read(limit)


def _digest(file: IO[bytes]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    file.seek(0)
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield chunk
