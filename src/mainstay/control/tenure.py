"""Leadership: a lease saves work, the epoch it carries is what makes a late leader harmless (reliability.md R7)."""

from __future__ import annotations

from mainstay.domain.plan import Epoch
from mainstay.ports import Clock, LoopStore

LEASE_SECONDS = 6.0
"""A dead leader is replaced after so long. Safety does not depend on it: every commit checks the epoch."""


class Tenure:
    """Our hold on one lease. Renewed at half its length, so that most turns of a loop write nothing for it."""

    def __init__(
        self, store: LoopStore, clock: Clock, *, lease: str, holder: str, seconds: float = LEASE_SECONDS
    ) -> None:
        self._store = store
        self._clock = clock
        self._lease = lease
        self._holder = holder
        self._seconds = seconds
        self._epoch: Epoch | None = None
        self._renew_at = 0.0

    def epoch(self) -> Epoch | None:
        """Our epoch, or None while another holder leads. At most one short transaction."""
        now = self._clock.monotonic()
        if self._epoch is None or now >= self._renew_at:
            self._epoch = self._store.acquire(
                self._lease, holder=self._holder, now=self._clock.now(), seconds=self._seconds
            )
            self._renew_at = now + self._seconds / 2
        return self._epoch

    def lost(self) -> None:
        """A commit or an effect was fenced: ask for the lease anew before the next turn."""
        self._epoch = None
