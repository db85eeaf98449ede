"""Whose turn it is at the threads of the store: calls wait in lanes, one for each who asks, and the lanes take turns.

A tenant that floods makes its own lane longer and nobody else's: any other waits for one call of each lane at most. Nor does it
take all threads, since they share one interpreter: a call beside three others takes four times as long. The lane of the
platform itself has every second turn, since leases are renewed in it. Pure: no clock, no threads.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import Final, Generic, TypeVar

from mainstay.domain.errors import TooFast

J = TypeVar("J")

PLATFORM: Final = ""
"""The lane of the loops. They ask one after the other and are never refused."""
WAITING_MAX: Final = 256
"""So many calls of one lane wait. At some milliseconds each, the last of them is answered within a second or two."""
RETRY_SECONDS: Final = 1
ALONE_TURNS: Final = 64
"""A lane that had all of the last turns is alone: nobody is held up where it takes every thread."""


class Lanes(Generic[J]):
    """Calls that wait, and how many of each lane are under way."""

    def __init__(self, *, threads: int, waiting_max: int = WAITING_MAX) -> None:
        """So many calls are under way at a time. Of one lane that is not alone they are a quarter of these, and one at least."""
        self._threads = threads
        self._share = max(1, threads // 4)
        self._waiting_max = waiting_max
        self._waiting: OrderedDict[str, deque[J]] = OrderedDict()
        """The lane that waits longest for its turn is first."""
        self._under_way: Counter[str] = Counter()
        self._was_platform = False
        self._last = deque[str](maxlen=ALONE_TURNS)
        """Who had the last turns, without the platform."""

    def add(self, lane: str, call: J) -> None:
        """Let a call wait. Raises TooFast where as many of its lane do as may."""
        waiting = self._waiting.setdefault(lane, deque())
        if lane != PLATFORM and len(waiting) >= self._waiting_max:
            msg = f"{len(waiting)} requests of yours wait already"
            raise TooFast(
                msg,
                hint="come back in a moment, and ask less at a time",
                numbers={"waiting": len(waiting), "retry_after_seconds": RETRY_SECONDS},
            )
        waiting.append(call)

    def next(self) -> tuple[str, J] | None:
        """The call whose turn it is, with its lane, which is under way from now on; None where none may be."""
        lane = self._lane()
        if lane is None:
            return None
        waiting = self._waiting.pop(lane)
        call = waiting.popleft()
        if waiting:
            self._waiting[lane] = waiting
        self._under_way[lane] += 1
        self._was_platform = lane == PLATFORM
        if lane != PLATFORM:
            self._last.append(lane)
        return lane, call

    def done(self, lane: str) -> None:
        """A call of the lane is under way no longer."""
        assert self._under_way[lane] > 0, "what is done was begun"
        self._under_way[lane] -= 1
        if not self._under_way[lane]:
            del self._under_way[lane]

    def _lane(self) -> str | None:
        if PLATFORM in self._waiting and not self._was_platform:
            return PLATFORM
        others = (lane for lane in self._waiting if lane != PLATFORM and self._under_way[lane] < self._most(lane))
        return next(others, PLATFORM if PLATFORM in self._waiting else None)

    def _most(self, lane: str) -> int:
        """So many calls of it may be under way."""
        alone = all(each == lane for each in self._last) and set(self._waiting) <= {lane, PLATFORM}
        return self._threads if alone else self._share
