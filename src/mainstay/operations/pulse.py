"""A pulse says "something was committed": loops and streams wait for it instead of polling.

A submission is the most frequent of all commits, and each turn of a loop costs the cores of those who submit. So what came is
told in three words, and a loop waits for those that may give it something to do.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Final, Self


class News(enum.Enum):
    """What was committed."""

    SUBMITTED = enum.auto()
    """Work that has not had its turn."""
    QUEUED = enum.auto()
    """Work has had its turn, and waits on: nothing else has changed."""
    OTHER = enum.auto()


ALL: Final = frozenset(News)
OTHERS: Final = frozenset({News.OTHER})
NOTHING: Final = frozenset[News]()


class Pulse:
    """A wake-up for any number of waiters. A beat is a hint: who misses one finds the change at its next timeout."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Event, frozenset[News]] = {}

    def beat(self, news: News = News.OTHER) -> None:
        """Wake everybody who waits for such news or is about to. Call on the event loop's thread."""
        for event, wanted in self._waiters.items():
            if news in wanted:
                event.set()

    def listener(self, wanted: frozenset[News] = ALL) -> Listener:
        """A new waiter; use it as a context manager, so that it is dropped at the end."""
        return Listener(self._waiters, wanted)


class Listener:
    """One waiter. A beat between two waits is remembered, so that nothing is slept through."""

    def __init__(self, waiters: dict[asyncio.Event, frozenset[News]], wanted: frozenset[News]) -> None:
        self._waiters, self._wanted = waiters, wanted
        self._event = asyncio.Event()

    def __enter__(self) -> Self:
        self._waiters[self._event] = self._wanted
        return self

    def __exit__(self, *_: object) -> None:
        self._waiters.pop(self._event, None)

    async def wait(self, seconds: float) -> bool:
        """Until the next beat, or at most so long. True if there was a beat.

        `asyncio.wait_for` would swallow a cancellation that meets a beat (CPython issue 86296, until 3.12).
        """
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        finally:
            self._event.clear()
        return True
