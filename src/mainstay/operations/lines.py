"""Lines: the sockets that agents hold open, and the questions that go over them.

A line ends at one replica. Whoever asks another one is told so: an agent has no address at which replicas could meet it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mainstay.domain.errors import Unavailable

ANSWER_SECONDS = 15.0
QUESTIONS_MAX = 256
"""Under way on one line."""
A = TypeVar("A")

Answer = tuple[bytes, bytes]
"""Header and data of a frame."""


class Line:
    """One socket. Questions carry numbers; answers come in any order, and each counts once."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]], hang_up: Callable[[], Awaitable[None]]) -> None:
        self._send = send
        self._hang_up = hang_up
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Answer]] = {}

    async def ask(self, cluster: str, question: Callable[[int], bytes]) -> Answer:
        """Send what `question` makes of its number, and wait. Raises Unavailable."""
        if len(self._waiting) >= QUESTIONS_MAX:
            msg = f"too many questions to the agent of {cluster} are under way"
            raise Unavailable(msg, object_=cluster, hint="ask again in a moment")
        self._number += 1
        number = self._number
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._send(question(number))
                return await waiting
        except (TimeoutError, OSError, RuntimeError) as error:
            msg = f"the agent of {cluster} does not answer"
            raise Unavailable(msg, object_=cluster, hint="it calls again by itself; try again in a moment") from error
        finally:
            del self._waiting[number]

    def answered(self, number: int, answer: Answer) -> None:
        """Nobody waits for an answer that comes late or twice."""
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def broke(self) -> None:
        """Nothing will be answered any more."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError("the line broke"))

    async def hang_up(self) -> None:
        """End it from our side."""
        await self._hang_up()


class Lines:
    """The lines that end in this process, by cluster."""

    def __init__(self) -> None:
        self._open: dict[str, list[Line]] = defaultdict(list)

    def opened(self, cluster: str, line: Line) -> None:
        """An agent has called."""
        self._open[cluster].append(line)

    def ended(self, cluster: str, line: Line) -> None:
        """It is gone."""
        self._open[cluster].remove(line)
        line.broke()

    def of(self, cluster: str) -> Line | None:
        """The newest: an older one may be half dead."""
        lines = self._open.get(cluster)
        return lines[-1] if lines else None

    async def hang_up(self, cluster: str) -> None:
        """End all lines of a cluster: whoever may call again does."""
        for line in list(self._open.get(cluster, ())):
            await line.hang_up()
