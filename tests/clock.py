"""A clock in the hand of a test: time passes only when it is told to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

START_US = 1_700_000_000_000_000


@dataclass(slots=True)
class ManualClock:
    """Wall time and monotonic time, set apart, so that a test can make one jump and not the other."""

    wall_us: int = START_US
    seconds: float = 1_000.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> int:
        return self.wall_us

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall_us += round(seconds * 1_000_000)

    def jump(self, seconds: float) -> None:
        """The wall clock is set; nothing else changes."""
        self.wall_us += round(seconds * 1_000_000)


class WaitingClock(ManualClock):
    """Likewise, but whoever sleeps does so: for what waits beside real connections, and would never stop to ask."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
