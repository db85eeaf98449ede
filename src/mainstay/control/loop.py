"""One loop: a turn, again and again, at a pace that leaves room for others; and what happens when a turn fails."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from mainstay.domain.errors import DiskFailed, MainstayError
from mainstay.operations.pulse import OTHERS, Listener, News
from mainstay.operations.services import LoopServices
from mainstay.ports import Clock

log = structlog.get_logger()

PAUSE_SECONDS_MIN = 0.03
"""Turns of one loop are at least so far apart: a burst of commits becomes one turn, and submissions keep the cores.

Measured with `make bench-submit` on 2 cores: 0.005 gives 110 accepted jobs/s, 0.02 gives 280, 0.05 gives no more and
takes 60 ms longer to the first log line.
"""
BACKOFF_SECONDS = 0.2
BACKOFF_SECONDS_MAX = 15.0

REST = 2.0
"""Seconds of rest for each second that a turn has computed: a slow one makes room for others."""
REST_SECONDS_MAX = 2.0
"""What takes longer has waited (for a database, for an agent's control plane) or was stopped as a whole: to rest from that
would only cost its leases."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What a turn says when it has ended."""

    wait: float
    """Seconds after which the next one is due if nothing is committed before."""
    waited: float = 0.0
    """Seconds of this one in which it only waited for a cluster to act: nobody else was short of a core for them."""


Turn = Callable[[], Awaitable[Due]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A loop by name."""

    name: str
    turn: Turn
    woken_by: frozenset[News] = OTHERS
    close: Callable[[], Awaitable[None]] | None = None
    """Lets go of what is under way when the loop ends."""


async def forever(loop: Loop, services: LoopServices) -> None:
    """Turns without end. Raises DiskFailed only; what is under way is let go of when it is cancelled."""
    try:
        await _turns(loop, services)
    finally:
        if loop.close:
            await loop.close()


async def _turns(loop: Loop, services: LoopServices) -> None:
    failures = 0
    with services.pulse.listener(loop.woken_by) as listener:
        while True:
            began = services.clock.monotonic()
            try:
                due = await loop.turn()
                failures = 0
            except DiskFailed:
                raise
            except MainstayError as error:
                log.warning("turn_failed", loop=loop.name, code=error.code, reason=error.message)
                failures += 1
            except Exception:
                log.exception("turn_crashed", loop=loop.name)
                failures += 1
            if failures:
                await services.clock.sleep(backoff_seconds(failures))
            else:
                await _pause(services.clock, listener, began=began, due=due)


async def _pause(clock: Clock, listener: Listener, *, began: float, due: Due) -> None:
    """Until the next commit or until it is due, but short turns compute for no more than a third of the time."""
    computed = clock.monotonic() - began - due.waited
    await clock.sleep(min(max(PAUSE_SECONDS_MIN, REST * computed), REST_SECONDS_MAX))
    await listener.wait(due.wait)


def backoff_seconds(failures: int) -> float:
    """Exponential with jitter, so that replicas that failed together do not come back together."""
    return min(BACKOFF_SECONDS * 2.0 ** min(failures - 1, 10), BACKOFF_SECONDS_MAX) * random.uniform(0.5, 1.0)
