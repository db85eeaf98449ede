"""A local view of one kind of object: listed in pages, kept current by a watch, and listed again whenever in doubt.

LIST is the truth, a watch is a hint (R9): events get lost, doubled and reordered, and versions go back when a cluster is
restored. So all is listed anew and compared every ten minutes, after a gap, after the server was away, and where a version looks
older than one seen before. Answers to our own requests are taken in as well (`learn`), so that nobody decides by what was before
them; they may come before the watch tells the same, or long after it has told more.

Versions are opaque: equal or not. That one *looks* older is a hint, and only ever leads to a list, or decides until the next
list between two states of one object of which either may be the newer one. That an object is gone is known by its UID,
which no other object ever has: an answer that shows it later is late, whatever its version looks like.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Generic, Never, TypeVar

import structlog

from mainstay.clusters.kubernetes.api import Change, KubeApi, Unreadable, WatchEvent
from mainstay.clusters.kubernetes.errors import ApiError, Expired, Unreachable
from mainstay.clusters.kubernetes.kinds import Kind
from mainstay.clusters.kubernetes.objects import Object
from mainstay.ports import Clock

T = TypeVar("T", bound=Object)
U = TypeVar("U")

Key = tuple[str, str]
"""(namespace, name)"""

RELIST_SECONDS = 600.0
REST_SECONDS_MIN, REST_SECONDS_MAX = 0.25, 30.0
"""The most that is waited after the first failure, and after many: each time up to twice as long, at random."""
GONE_SECONDS = 120.0
"""So long is the UID of a deleted object remembered: twice as long as any answer is waited for (`transport.ANSWER_SECONDS`)."""
FREEZE_OBJECTS_MIN = 5_000
"""A list that brought so many new objects is kept from the garbage collector, which would visit them for ever."""

log = structlog.get_logger()


@dataclass(slots=True)
class Counters:
    """What an informer has been through since its start."""

    lists: int = 0
    events: int = 0
    bookmarks: int = 0
    reconnects: int = 0
    failures: int = 0
    unreadable: int = 0
    bytes: int = 0


async def _trust() -> None:
    """The cluster is the one that it was."""


class Informer(Generic[T, U]):
    """The view: `objects` by (namespace, name), each as `project` makes it. Run as a task of its owner's group."""

    def __init__(
        self,
        api: KubeApi,
        kind: Kind[T],
        *,
        clock: Clock,
        project: Callable[[T], U | None],
        on_change: Callable[[Key, U | None, U | None], None] = lambda _key, _old, _new: None,
        confirm: Callable[[], Awaitable[None]] = _trust,
        namespace: str = "",
        selector: str = "",
        fields: str = "",
        relist_seconds: float = RELIST_SECONDS,
        dice: random.Random | None = None,
    ) -> None:
        """`project` makes of an object what is kept of it; None keeps nothing. It must not fail.

        `on_change(key, old, new)` is called at once for every change of a kept value (by `==`); old is None for a new object,
        new is None for a gone one. `confirm` is awaited before each list and may raise ApiError: a view of another cluster at
        the same address must not replace this one.
        """
        self._api, self._kind, self._clock = api, kind, clock
        self._project, self._on_change, self._confirm = project, on_change, confirm
        self._list_pages = partial(api.list_pages, kind, namespace=namespace, selector=selector, fields=fields)
        self._open_watch = partial(api.watch, kind, namespace=namespace, selector=selector, fields=fields)
        self._relist_seconds, self._dice = relist_seconds, dice or random.Random()
        self._objects: dict[Key, U] = {}
        self._uids: dict[Key, str] = {}
        self._learnt: dict[Key, str] = {}
        """What a request has shown since the last list began, with its version, as long as nothing else was put over it."""
        self._gone: OrderedDict[str, tuple[float, str]] = OrderedDict()
        """UIDs of objects whose end the watch has told: when (monotonic seconds), and its version, if no list came since."""
        self._version = ""
        self._failures_in_a_row = 0
        self.objects: Mapping[Key, U] = MappingProxyType(self._objects)
        self.synced = asyncio.Event()
        """Set once all has been listed; from then on the view is at most late, never half."""
        self.tried = asyncio.Event()
        """Set once the first list has come or failed."""
        self.last_contact = 0.0
        """Monotonic seconds of the last page, event or bookmark; 0 before the first."""
        self.server_time_seen = 0
        """The server's time up to which the view is complete, but for what is still on its way; UTC microseconds, 0 at first."""
        self.last_error: ApiError | None = None
        """Why there is no contact now; None while there is."""
        self.unbroken_since = float("-inf")
        """Monotonic seconds since when there has been contact without a failure."""
        self.counters = Counters()

    def learn(self, item: T) -> U | None:
        """Take in what a request has shown, without waiting for the watch to tell of it; what is kept of it.

        An answer may come after the watch has told of later changes: what is known by then is not set back. Of an object whose
        end it has told, what would be kept is returned, and nothing is.
        """
        key = item.metadata.key
        self._forget_long_gone()
        if item.metadata.uid in self._gone:
            return self._project(item)
        if key not in self._objects or looks_newer(item.metadata.resource_version, self._version):
            self._put(item)
            self._learnt[key] = item.metadata.resource_version
        return self._objects.get(key)

    async def run(self) -> Never:
        """Until it is cancelled. No fault of the cluster ends it: `last_error` says what is wrong, `last_contact` since when."""
        while True:
            await self._list_until_done()
            await self._follow_until_in_doubt()

    async def _list_until_done(self) -> None:
        while True:
            try:
                await self._confirm()
                await self._list()
            except ApiError as error:
                await self._rest(error)
            else:
                self.synced.set()
                self.tried.set()
                return

    async def _list(self) -> None:
        """Take over a whole list. What is not in it is gone, once its last page has come."""
        self._learnt.clear()
        self._gone = OrderedDict((uid, (at, "")) for uid, (at, _) in self._gone.items())
        listed: set[Key] = set()
        unreadable: list[Unreadable] = []
        version, size_before, began = "", len(self._objects), self._api.server_time()
        async with aclosing(self._list_pages()) as pages:
            async for page in pages:
                # From the first page on: a late answer that is older than the list must not be put over it.
                version = self._version = version or page.resource_version
                for item in page.items:
                    key = item.metadata.key
                    listed.add(key)
                    if not looks_older(version, self._learnt.get(key, "")):  # else the watch will tell of it
                        self._put(item)
                unreadable += page.unreadable
                self.counters.bytes += page.size
                self._heard(began)
        self._drop_missing(listed, unreadable)
        self.counters.lists += 1
        if len(self._objects) - size_before >= FREEZE_OBJECTS_MIN:
            gc.freeze()

    async def _follow_until_in_doubt(self) -> None:
        """Watch, and watch again from the last version seen, until only a list can tell what is true."""
        period = self._relist_seconds * self._dice.uniform(0.9, 1.1)
        due = asyncio.get_running_loop().time() + period
        was_cut = False
        while True:
            try:
                async with asyncio.timeout_at(due):
                    if was_cut and await self._went_back():
                        return
                    was_cut = False
                    await self._watch()
            except TimeoutError:
                return
            except Expired as error:
                await self._rest(error)
                return
            except ApiError as error:
                was_cut = True
                await self._rest(error)
                if isinstance(error, Unreachable) and self._failures_in_a_row > 1:
                    return  # the server was away, not only a connection: it may come back in another state
            self.counters.reconnects += 1

    async def _watch(self) -> None:
        """One watch, until the server ends it."""
        began = self._clock.monotonic()
        told = False
        try:
            async with aclosing(self._open_watch(self._version)) as events:
                async for event in events:
                    told = True
                    self._failures_in_a_row = 0
                    self._take(event)
        finally:
            if self._clock.monotonic() - began > REST_SECONDS_MAX:  # it held: the next failure is a first one
                self._failures_in_a_row = 0
        if not told:
            msg = "a watch ended without a word"
            raise Unreachable(msg)

    async def _went_back(self) -> bool:
        """Whether the cluster seems to have been set back while we were cut off.

        A watch from a version that it has not reached again would be silent, and lose what happens until then.
        """
        await self._confirm()
        async with aclosing(self._list_pages(limit=1)) as pages:
            async for page in pages:
                return looks_older(page.resource_version, self._version)
        return True

    def _take(self, event: WatchEvent[T]) -> None:
        self._heard(self._api.server_time())
        self.counters.bytes += event.size
        match event.change:
            case Change.ADDED | Change.MODIFIED:
                if not self._is_known(event.object) and not self._is_late(event.object):
                    self._put(event.object)
            case Change.DELETED:
                self._remember_gone(event.object)
                self._drop(event.object)
            case Change.UNREADABLE:
                self._report_unreadable(event.object.metadata.name)
            case Change.BOOKMARK:
                self.counters.bookmarks += 1
                if looks_older(event.resource_version, self._version):
                    msg = f"the versions of {self._kind.plural} went back: the cluster was restored"
                    raise Expired(msg)
        if event.change is not Change.BOOKMARK:
            self.counters.events += 1
        self._version = event.resource_version or self._version

    def _is_known(self, item: T) -> bool:
        """Whether the answer to a request has shown just this already."""
        meta = item.metadata
        return self._learnt.get(meta.key) == meta.resource_version != "" and self._uids.get(meta.key) == meta.uid

    def _put(self, item: T) -> None:
        key, new = item.metadata.key, self._project(item)
        self._learnt.pop(key, None)
        self._gone.pop(item.metadata.uid, None)  # set back: there it is again
        if new is None:
            self._forget(key)
            return
        old = self._objects.get(key)
        self._uids[key] = item.metadata.uid
        if old != new:
            self._objects[key] = new
            self._on_change(key, old, new)

    def _drop(self, item: T) -> None:
        """Late news of a deleted object say nothing of another one that has its name by now."""
        key = item.metadata.key
        if self._uids.get(key) == item.metadata.uid:
            self._forget(key)

    def _remember_gone(self, item: T) -> None:
        """Only what was told: that a list does not show an object may be a lie of the list, which the next answer corrects."""
        self._forget_long_gone()
        self._gone[item.metadata.uid] = self._clock.monotonic(), item.metadata.resource_version
        self._gone.move_to_end(item.metadata.uid)

    def _forget_long_gone(self) -> None:
        now = self._clock.monotonic()
        while self._gone and now - next(iter(self._gone.values()))[0] > GONE_SECONDS:
            self._gone.popitem(last=False)

    def _is_late(self, item: T) -> bool:
        """Whether it is told out of order, or once more, after its end."""
        _, ended = self._gone.get(item.metadata.uid, (0.0, ""))
        return looks_older(item.metadata.resource_version, ended)

    def _forget(self, key: Key) -> None:
        self._uids.pop(key, None)
        if (old := self._objects.pop(key, None)) is not None:
            self._on_change(key, old, None)

    def _drop_missing(self, listed: set[Key], unreadable: list[Unreadable]) -> None:
        """An object that is there but cannot be read is not gone; if one does not even say its name, none is."""
        for odd in unreadable:
            listed.add((odd.namespace, odd.name))
            self._report_unreadable(odd.name)
        if all(odd.name for odd in unreadable):
            kept = listed | {key for key, version in self._learnt.items() if looks_newer(version, self._version)}
            for key in [key for key in self._objects if key not in kept]:
                self._forget(key)

    def _report_unreadable(self, name: str) -> None:
        self.counters.unreadable += 1
        log.warning("unreadable_object", kind=self._kind.name, name=name)

    def _heard(self, told_at: int) -> None:
        self.last_contact = self._clock.monotonic()
        self.server_time_seen = told_at
        if self.last_error is not None:
            self.last_error, self.unbroken_since = None, self.last_contact

    async def _rest(self, error: ApiError) -> None:
        """Longer after each failure, at random so that many do not come back at once, and never before we are asked to."""
        self.last_error = error
        self.tried.set()
        self.counters.failures += 1
        longest = min(REST_SECONDS_MAX, REST_SECONDS_MIN * 2 ** min(self._failures_in_a_row, 10))
        self._failures_in_a_row += 1
        await self._clock.sleep(error.retry_after + self._dice.uniform(0.0, longest))


def looks_older(version: str, other: str) -> bool:
    """Whether a version seems to come before another. A hint: versions are opaque, and so far numbers of 64 bits."""
    return _is_number(version) and _is_number(other) and int(version) < int(other)


def looks_newer(version: str, other: str) -> bool:
    """Whether a version seems to come after another, or nobody can say. A hint, as above."""
    return not (_is_number(version) and _is_number(other)) or int(version) > int(other)


def _is_number(version: str) -> bool:
    return version.isascii() and version.isdecimal() and len(version) <= 20
