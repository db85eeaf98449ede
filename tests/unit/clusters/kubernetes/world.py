"""A cluster in memory that lists and watches as an API server does, and that can be told to do it wrongly.

What it does rightly was seen on the real one: a watch from a version that is yet to come is silent, not refused.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from mainstay.clusters.kubernetes.api import Change, Page, Unreadable, WatchEvent
from mainstay.clusters.kubernetes.errors import ApiError, Expired
from mainstay.clusters.kubernetes.objects import Meta, Pod, PodStatus

PAGE = 2
TOO_OLD = Expired("too old")


@dataclass(slots=True)
class World:
    """Pods by name in one namespace. `phase` stands for everything that can change of them."""

    objects: dict[str, Pod] = field(default_factory=dict)
    history: list[WatchEvent[Pod]] = field(default_factory=list)
    version: int = 10
    oldest: int = 0
    uids: int = 0
    lies: set[str] = field(default_factory=set)
    list_failures: list[ApiError] = field(default_factory=list)
    page_failures: list[ApiError] = field(default_factory=list)
    watch_failures: list[ApiError] = field(default_factory=list)
    lists: int = 0
    watches: list[asyncio.Queue[WatchEvent[Pod] | ApiError | None]] = field(default_factory=list)
    lose: int = 0
    double: int = 0
    held_back: WatchEvent[Pod] | None = None
    swap: bool = False

    # What happens

    def put(self, name: str, phase: str, *, anew: bool = False) -> Pod:
        """Create or change, and what the answer shows; `anew`: deleted and created again between two looks."""
        if anew:
            self.delete(name)
        before = self.objects.get(name)
        self.uids += before is None
        uid = before.metadata.uid if before else f"uid-{self.uids}"
        self.version += 1
        meta = Meta(namespace="a", name=name, uid=uid, resource_version=str(self.version))
        self.objects[name] = Pod(metadata=meta, status=PodStatus(phase=phase))
        self._tell(Change.MODIFIED if before else Change.ADDED, self.objects[name])
        return self.objects[name]

    def delete(self, name: str) -> None:
        if (gone := self.objects.pop(name, None)) is not None:
            self.version += 1
            meta = gone.metadata
            last = Meta(namespace="a", name=name, uid=meta.uid, resource_version=str(self.version))
            self._tell(Change.DELETED, Pod(metadata=last, status=gone.status))

    def bookmark(self) -> None:
        self._send(_event(Change.BOOKMARK, Pod(metadata=Meta(resource_version=str(self.version)))))

    def compact(self) -> None:
        """Forget the past: who asks for it is told to list."""
        self.oldest, self.history = self.version, []

    def end(self, error: ApiError | None = None) -> None:
        """Every open watch ends: so, or with an error."""
        for queue in self.watches:
            queue.put_nowait(error)
        self.watches = []

    def saved(self) -> tuple[Any, ...]:
        return copy.copy(self.objects), list(self.history), self.version, self.oldest

    def restore(self, saved: tuple[Any, ...], error: ApiError) -> None:
        """Back to an older state; nobody stays connected."""
        objects, history, self.version, self.oldest = saved
        self.objects, self.history = copy.copy(objects), list(history)
        self.end(error)

    # How it is told

    async def list_pages(self, _kind: Any, *, limit: int = PAGE, **_: Any) -> AsyncGenerator[Page[Pod], None]:
        self.lists += 1
        if self.list_failures:
            raise self.list_failures.pop(0)
        readable = [pod for name, pod in self.objects.items() if name not in self.lies]
        odd = tuple(Unreadable(namespace="a", name=name, uid="", why="a lie") for name in self.lies & set(self.objects))
        version = str(self.version)
        for start in range(0, max(len(readable), 1), min(limit, PAGE)):
            if start and self.page_failures:
                raise self.page_failures.pop(0)
            part = readable[start : start + min(limit, PAGE)]
            yield Page(items=part, unreadable=odd if not start else (), resource_version=version, size=1)
            await asyncio.sleep(0)

    async def watch(self, _kind: Any, since: str, **_: Any) -> AsyncGenerator[WatchEvent[Pod], None]:
        if self.watch_failures:
            raise self.watch_failures.pop(0)
        if int(since) < self.oldest:
            raise TOO_OLD
        queue: asyncio.Queue[WatchEvent[Pod] | ApiError | None] = asyncio.Queue()
        for event in self.history:
            if int(event.resource_version) > int(since):
                queue.put_nowait(event)
        self.watches.append(queue)
        while (told := await queue.get()) is not None:
            if isinstance(told, ApiError):
                raise told
            if told.change is Change.BOOKMARK or int(told.resource_version) > int(since):
                yield told

    def server_time(self) -> int:
        return 1

    def _tell(self, change: Change, item: Pod) -> None:
        event = _event(change, item)
        self.history.append(event)
        if self.lose:
            self.lose -= 1
            return
        self._send(event)
        if self.double:
            self.double -= 1
            self._send(event)

    def _send(self, event: WatchEvent[Pod]) -> None:
        if self.swap:
            self.swap, self.held_back = False, event
            return
        for queue in self.watches:
            queue.put_nowait(event)
            if self.held_back is not None:
                queue.put_nowait(self.held_back)
        self.held_back = None


def _event(change: Change, item: Pod) -> WatchEvent[Pod]:
    return WatchEvent(change=change, object=item, resource_version=item.metadata.resource_version, size=1)
