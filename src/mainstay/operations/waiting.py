"""Why what waits does so, as lists and pages show it: worked out where somebody asks, and kept for a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from mainstay.decide.why import Whys
from mainstay.domain.workload import WAITING, Workload
from mainstay.ports import Store

PART_OF_A_CORE = 0.1
"""However often it is asked: an answer serves for so long that working out the next one takes no more."""


class WaitingReasons:
    """One for each process: pages ask again after every event, and a cycle of a large fleet takes a second."""

    def __init__(self, store: Store, *, seconds: Callable[[], float] = time.monotonic) -> None:
        """`seconds` never goes back, whatever happens to the clock."""
        self._store, self._seconds = store, seconds
        self._turn = threading.Lock()
        self._whys: Whys | None = None
        self._again_at = 0.0

    def told(self, workloads: Iterable[Workload], *, now: int) -> list[Workload]:
        """The same, with what keeps each waiting now as its reason. What has changed since the last look keeps its own."""
        found = list(workloads)
        if not any(work.phase in WAITING for work in found):
            return found
        with self._turn:
            began, whys = self._seconds(), self._whys
            if whys is None or began >= self._again_at:
                whys = Whys(self._store.snapshot(now=now, seed=0))
            told = [self._with_reason(work, whys) for work in found]
            if whys is not self._whys:
                ended = self._seconds()
                self._whys, self._again_at = whys, ended + (ended - began) / PART_OF_A_CORE
        return told

    def _with_reason(self, work: Workload, whys: Whys) -> Workload:
        reason = whys.of(work.key, work.version) if work.phase in WAITING else None
        return work if reason is None else replace(work, reason=reason)
