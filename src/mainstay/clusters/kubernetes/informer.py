"""A local view of one kind of object: listed in pages, kept current by a watch, and listed again whenever in doubt.

LIST is the truth, a watch is a hint (R9): events get lost, doubled and reordered, and versions go back when a cluster is
restored. So every ten minutes, after a gap, and where a version looks older than one seen before, all is listed anew and
compared. Versions are opaque: equal or not; that one *looks* older only ever leads to a list, which is safe either way.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, Never, TypeVar

from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.kinds import Kind
from mainstay.clusters.kubernetes.objects import Object
from mainstay.ports import Clock

T = TypeVar("T", bound=Object)
U = TypeVar("U")

Key = tuple[str, str]
"""(namespace, name)"""

RELIST_SECONDS = 600.0


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


class Informer(Generic[T, U]):
    """The view: `objects` by (namespace, name), each as `project` makes it. Run as a task of its owner's group."""

    def __init__(
        self,
        api: KubeApi,
        kind: Kind[T],
        *,
        clock: Clock,
        project: Callable[[T], U],
        on_change: Callable[[Key, U | None, U | None], None] = lambda _key, _old, _new: None,
        namespace: str = "",
        selector: str = "",
        fields: str = "",
        relist_seconds: float = RELIST_SECONDS,
        dice: random.Random | None = None,
    ) -> None:
        """`on_change(key, old, new)` is called for every change, at once; old is None for a new object, new for a gone one.

        It is not called where `project` makes the same value of both.
        """
        self._source = (api, kind, namespace, selector, fields)
        self._clock, self._project, self._on_change = clock, project, on_change
        self._relist_seconds, self._dice = relist_seconds, dice or random.Random()
        self._objects: dict[Key, U] = {}
        self.objects: Mapping[Key, U] = MappingProxyType(self._objects)
        self.synced = asyncio.Event()
        """Set once all has been listed; from then on the view is at most late, never half."""
        self.last_contact = 0.0
        """Monotonic seconds of the last page, event or bookmark; 0 before the first."""
        self.server_time_seen = 0
        """Server's time of the last contact, UTC microseconds; 0 before the first."""
        self.counters = Counters()

    async def run(self) -> Never:
        """Until it is cancelled; no fault of the cluster ends it. `last_error` says what the last one was."""
        raise NotImplementedError
