"""Virtual time: one line of monotonic seconds, and wall clocks on it that may be set wrong."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

START_US = 1_767_229_140_000_000
"""2026-01-01T00:59:00Z: the same for every seed, a minute before the first usage of whole hours is to be recorded."""


@dataclass(slots=True)
class VirtualTime:
    """Seconds since the beginning; moved on by the scheduler alone."""

    seconds: float = 0.0


@dataclass(slots=True)
class VirtualClock:
    """`ports.Clock` of one machine. `offset_us` is how wrong its wall clock is."""

    time: VirtualTime
    offset_us: int = 0

    def now(self) -> int:
        """UTC microseconds, as this machine believes."""
        return START_US + self.offset_us + round(self.time.seconds * 1_000_000)

    def monotonic(self) -> float:
        """Seconds that never go back, whatever happens to the wall clock."""
        return self.time.seconds

    async def sleep(self, seconds: float) -> None:  # noqa: ARG002
        """Nobody sleeps in a simulation: who waits is scheduled."""
        await asyncio.sleep(0)
