"""A pulse says "something was committed": loops and streams wait for it instead of polling."""

from __future__ import annotations

import asyncio
from typing import Self


class Pulse:
    """A wake-up for any number of waiters. A beat is a hint: who misses one finds the change at its next timeout."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Event] = set()

    def beat(self) -> None:
        """Wake everybody who waits or is about to. Call on the event loop's thread."""
        for event in self._waiters:
            event.set()

    def listener(self) -> Listener:
        """A new waiter; use it as a context manager, so that it is dropped at the end."""
        return Listener(self._waiters)


class Listener:
    """One waiter. A beat between two waits is remembered, so that nothing is slept through."""

    def __init__(self, waiters: set[asyncio.Event]) -> None:
        self._waiters = waiters
        self._event = asyncio.Event()

    def __enter__(self) -> Self:
        self._waiters.add(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        self._waiters.discard(self._event)

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
