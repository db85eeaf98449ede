"""Runs the loops: when a turn is due, at what pace, and what happens when it fails. No business rule lives here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from mainstay.control import decisions
from mainstay.control.decisions import DECISIONS, Decision
from mainstay.control.effects import BUSY_SECONDS, IDLE_SECONDS, EffectLoop
from mainstay.control.tenure import Tenure
from mainstay.domain.errors import DiskFailed, Fenced, MainstayError
from mainstay.operations.pulse import Listener
from mainstay.operations.services import Services
from mainstay.ports import Clock, Cluster

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
    close: Callable[[], Awaitable[None]] | None = None
    """Lets go of what is under way when the loop ends."""


def loops(services: Services, *, holder: str) -> tuple[Loop, ...]:
    """Every loop of this process: one per decision, one per cluster. This list is all that runs."""
    return (
        *(_decision_loop(services, decision, holder=holder) for decision in DECISIONS),
        *(_effect_loop(services, cluster, holder=holder) for cluster in services.clusters.values()),
    )


async def run(all_loops: tuple[Loop, ...], services: Services) -> None:
    """Run until cancelled. A turn that fails is logged and tried again later; a loop never dies.

    Unless the disk has failed: then the process must end, and another one read what is truly stored (reliability.md R8).
    Raises that error, in a group.
    """
    async with asyncio.TaskGroup() as group:
        for loop in all_loops:
            group.create_task(_forever(loop, services), name=loop.name)


async def _forever(loop: Loop, services: Services) -> None:
    try:
        await _turns(loop, services)
    finally:
        if loop.close:
            await loop.close()


async def _turns(loop: Loop, services: Services) -> None:
    failures = 0
    with services.pulse.listener() as listener:
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
                await services.clock.sleep(_backoff_seconds(failures))
            else:
                await _pause(services.clock, listener, began=began, due=due)


async def _pause(clock: Clock, listener: Listener, *, began: float, due: Due) -> None:
    """Until the next commit or until it is due, but never computing for more than a third of the time."""
    computed = clock.monotonic() - began - due.waited
    await clock.sleep(max(PAUSE_SECONDS_MIN, REST * computed))
    await listener.wait(due.wait)


def _backoff_seconds(failures: int) -> float:
    """Exponential with jitter, so that replicas that failed together do not come back together."""
    return min(BACKOFF_SECONDS * 2.0 ** min(failures - 1, 10), BACKOFF_SECONDS_MAX) * random.uniform(0.5, 1.0)


def _decision_loop(services: Services, decision: Decision, *, holder: str) -> Loop:
    tenure = Tenure(services.store, services.clock, lease=f"{decisions.LEASE}/{decision.name}", holder=holder)

    async def turn() -> Due:
        try:
            result = await services.offload(decisions.turn, services.store, services.clock, tenure, decision)
        except Fenced:
            tenure.lost()
            raise
        if result is None:
            return Due(wait=decision.period_seconds)
        for refusal in result.refused:
            log.debug("action_refused", loop=decision.name, reason=refusal.reason.sentence)
        if result.applied:
            services.pulse.beat()
            log.debug("committed", loop=decision.name, applied=result.applied, version=result.version)
        return Due(wait=0.0 if result.applied else decision.period_seconds)

    return Loop(name=decision.name, turn=turn)


def _effect_loop(services: Services, cluster: Cluster, *, holder: str) -> Loop:
    tenure = Tenure(services.store, services.clock, lease=f"cluster/{cluster.name}", holder=holder)
    effects = EffectLoop(services.store, cluster, services.artifacts, services.clock, services.offload)
    number = 0

    async def turn() -> Due:
        nonlocal effects, number
        epoch = await services.offload(tenure.epoch)
        if epoch is None:
            return Due(wait=IDLE_SECONDS)
        if epoch.number != number:
            await effects.close()
            effects = EffectLoop(services.store, cluster, services.artifacts, services.clock, services.offload)
            number = epoch.number
        try:
            turned = await effects.turn(epoch)
        except Fenced:
            tenure.lost()
            raise
        if turned.committed:
            services.pulse.beat()
        return Due(wait=BUSY_SECONDS if turned.busy else IDLE_SECONDS, waited=turned.acted_seconds)

    async def close() -> None:
        await effects.close()

    return Loop(name=f"cluster/{cluster.name}", turn=turn, close=close)
