"""How fast somebody may go: a token bucket for each key, as the moment at which it is full again. No clock in here.

Source: the generic cell rate algorithm, ITU-T I.371, in its form as a virtual schedule.
"""

from __future__ import annotations

from typing import Final

BURST_SECONDS: Final = 2.0
"""What somebody did not use of so many seconds may be used at once: pages and commands ask several things together."""
KEPT_MAX: Final = 10_000


class Buckets:
    """So much a second for each key, in memory: what is left of it is forgotten with the process."""

    def __init__(self, *, per_second: float, largest: float = 0.0) -> None:
        """`largest`: what is spent at once, where that may be more than a burst."""
        self._per_second = per_second
        self._ahead = BURST_SECONDS + max(BURST_SECONDS, largest / per_second)
        """Seconds until a bucket is full again, at most."""
        self._full_at: dict[str, float] = {}

    def wait(self, key: str, *, now: float) -> float:
        """Seconds until the key may spend again; 0 if it may. `now`: by a monotonic clock."""
        return max(0.0, self._full(key, now) - now - BURST_SECONDS)

    def spend(self, key: str, amount: float, *, now: float) -> None:
        """Take from what the key has left, once it may. A last amount may be more than that: it is waited for afterwards.

        It is at most what a burst may be, or `largest`.
        """
        self._full_at[key] = self._full(key, now) + amount / self._per_second
        if len(self._full_at) > KEPT_MAX:
            self._full_at = {each: full_at for each, full_at in self._full_at.items() if full_at > now}

    def _full(self, key: str, now: float) -> float:
        """When the bucket is full, now at the earliest.

        A moment to which no spending leads is one of another time: the clock went back, which monotonic ones do not. The bucket
        counts as empty then, so that the key goes on at its pace.
        """
        full_at = self._full_at.get(key, now)
        return max(full_at, now) if full_at <= now + self._ahead else now + BURST_SECONDS
