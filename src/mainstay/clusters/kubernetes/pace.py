"""How fast one cluster is written to: as fast as it takes it, never faster than it was told to, and slower when it suffers.

A limited number of writes are in flight; the limit grows by one for each round of answers and is halved when the API server
refuses or fails (additive increase, multiplicative decrease: Chiu and Jain 1989, as TCP does). A bucket of tokens bounds the
rate on top. Nothing is repeated here: whether a failed write is tried again is decided where it is known what it means.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from mainstay.clusters.kubernetes.errors import ApiError, OutcomeUnknown, ServerFailed, TooManyRequests, Unreachable
from mainstay.ports import Clock

R = TypeVar("R")

IN_FLIGHT_MAX = 64
WRITES_PER_SECOND_MAX = 1_000.0
BURST_SECONDS = 0.1
"""What was not written for so long may be caught up with at once; more is forfeited."""
SLOW_SECONDS = 5.0
"""An API server that takes so long for one write is overloaded, whatever it says."""
DISTRESS = (TooManyRequests, ServerFailed, OutcomeUnknown, Unreachable)


class Pace:
    """The gate that all writes to one cluster pass. `limit` is how many may be in flight now."""

    def __init__(
        self,
        *,
        clock: Clock,
        in_flight_max: int = IN_FLIGHT_MAX,
        writes_per_second_max: float = WRITES_PER_SECOND_MAX,
    ) -> None:
        self._clock = clock
        self._in_flight_max, self._seconds_per_write = in_flight_max, 1.0 / writes_per_second_max
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._queue: deque[asyncio.Future[None]] = deque()
        self._in_flight = self._answers = 0
        self._next_start = self._not_before = self._slowed_at = 0.0
        self.limit = in_flight_max

    async def write(self, call: Callable[[], Awaitable[R]], *, urgent: bool = False) -> R:
        """The answer of one write, made when it is its turn: first come, first served. Raises what the call raises.

        What is urgent comes before all that is not: what keeps pods alive, or lets a new leader begin, must not wait behind
        any number of others. It waits for a place as they do, and for as long as the server asks. The call must not write
        through the gate itself.
        """
        await self._enter(self._urgent if urgent else self._queue)
        try:
            await self._wait_for_start()
            began = self._clock.monotonic()
            try:
                answer = await call()
            except DISTRESS as error:
                self._not_before = max(self._not_before, self._clock.monotonic() + error.retry_after)
                self._slow_down(began)
                raise
            self._answered(began)
            return answer
        finally:
            self._leave()

    async def run(self, calls: Iterable[Callable[[], Awaitable[R]]]) -> list[R | ApiError]:
        """Many writes at once: what became of each, in their order. Every one is tried, none is repeated."""
        numbered = enumerate(calls)
        outcomes: dict[int, R | ApiError] = {}

        async def work() -> None:
            for number, call in numbered:
                try:
                    outcomes[number] = await self.write(call)
                except ApiError as error:
                    outcomes[number] = error

        async with asyncio.TaskGroup() as group:
            for _ in range(self._in_flight_max):
                group.create_task(work())
        return [outcomes[number] for number in sorted(outcomes)]

    async def _enter(self, queue: deque[asyncio.Future[None]]) -> None:
        """Wait for a place."""
        if self._in_flight < self.limit:  # nobody waits then: who could be admitted has been
            self._in_flight += 1
            return
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # given a place in the same moment
                self._leave()
            raise

    def _leave(self) -> None:
        self._in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        """Who is admitted is counted here, so that nobody slips in between."""
        while (queue := self._urgent or self._queue) and self._in_flight < self.limit:
            turn = queue.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)

    async def _wait_for_start(self) -> None:
        """Each write has its own moment, evenly apart; a pause that the server asked for moves it."""
        now = self._clock.monotonic()
        start = max(self._next_start, now - BURST_SECONDS)
        self._next_start = start + self._seconds_per_write
        while (seconds := max(start, self._not_before) - self._clock.monotonic()) > 0:
            await self._clock.sleep(seconds)

    def _answered(self, began: float) -> None:
        if self._clock.monotonic() - began > SLOW_SECONDS:
            self._slow_down(began)
            return
        self._answers += 1
        if self._answers >= self.limit:
            self._answers = 0
            self._speed_up()

    def _slow_down(self, began: float) -> None:
        """Half as many; once for all that were in flight when the trouble began."""
        if began < self._slowed_at:
            return
        self._slowed_at = self._clock.monotonic()
        self.limit, self._answers = max(1, self.limit // 2), 0

    def _speed_up(self) -> None:
        if self.limit < self._in_flight_max:
            self.limit += 1
            self._admit()
