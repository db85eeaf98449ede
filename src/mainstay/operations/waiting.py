"""Why what waits does so, as lists and pages show it: worked out where somebody asks, and kept for a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import structlog

from mainstay.decide.why import Whys
from mainstay.domain.workload import WAITING, Workload
from mainstay.ports import Store

log = structlog.get_logger()

PART_OF_A_CORE = 0.1
"""However often it is asked: an answer serves for so long that working out the next one takes no more."""
BEHIND_SECONDS = 1.0
"""What is older by so much, or by as long as it served, is told to nobody: whoever asks waits for the next one."""

Later = Callable[[Callable[[], object]], None]
"""Has something done by somebody else, whom nobody waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    whys: Whys
    serves_until: float
    told_until: float
    turn: threading.Lock = field(default_factory=threading.Lock)
    """What it has worked out for one shape serves all: one asks at a time."""

    def tell(self, work: Workload) -> Workload:
        with self.turn:
            return _with_reason(work, self.whys)


class WaitingReasons:
    """One for each process: pages ask again after every event, and a cycle of a large fleet takes a second.

    While many ask, nobody waits for a look: the one before serves while the next is taken. Only who asks after a pause does.
    """

    def __init__(self, store: Store, *, later: Later, seconds: Callable[[], float] = time.monotonic) -> None:
        """`seconds` never goes back, whatever happens to the clock."""
        self._store, self._later, self._seconds = store, later, seconds
        self._turn = threading.Lock()
        """Held by who looks since there is nothing to tell: others wait for what it finds."""
        self._look: _Look | None = None
        self._is_next_taken = False

    def told(self, workloads: Iterable[Workload], *, now: int) -> list[Workload]:
        """The same, with what keeps each waiting now as its reason. What has changed since the last look keeps its own."""
        found = list(workloads)
        if not any(work.phase in WAITING for work in found):
            return found
        look = self._current(found, now)
        return [look.tell(work) for work in found]

    def _current(self, found: list[Workload], now: int) -> _Look:
        look, seconds = self._look, self._seconds()
        if look is None or seconds >= look.told_until:
            with self._turn:
                newer = self._look  # of somebody else who has looked meanwhile
                return self._take(found, now) if newer is None or newer is look else newer
        if seconds >= look.serves_until:
            self._take_later(found, now)
        return self._look or look

    def _take_later(self, found: list[Workload], now: int) -> None:
        """Unless somebody does so already."""
        with self._turn:
            if self._is_next_taken:
                return
            self._is_next_taken = True

        def take() -> None:
            try:
                self._take(found, now)
            except Exception as error:
                log.warning("look_failed", kind=type(error).__name__, reason=str(error))
                raise
            finally:
                self._is_next_taken = False

        self._later(take)

    def _take(self, found: list[Workload], now: int) -> _Look:
        """Look, and work out what these ask, which the next who ask will ask too."""
        began = self._seconds()
        whys = Whys(self._store.snapshot(now=now, seed=0))
        for work in found:
            _with_reason(work, whys)
        ended = self._seconds()
        serves = (ended - began) / PART_OF_A_CORE
        look = _Look(whys=whys, serves_until=ended + serves, told_until=ended + serves + max(serves, BEHIND_SECONDS))
        self._look = look
        return look


def _with_reason(work: Workload, whys: Whys) -> Workload:
    reason = whys.of(work.key, work.version) if work.phase in WAITING else None
    return work if reason is None else replace(work, reason=reason)
