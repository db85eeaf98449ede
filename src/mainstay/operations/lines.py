"""Lines: the sockets that agents hold open, and the questions that go over them.

A line ends at one replica. Another one asks that one over a socket between the two, which is a line as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from mainstay.agent import convert
from mainstay.domain.errors import Invalid, Unavailable
from mainstay.domain.fleet import MACHINE
from mainstay.wire import agent_line

ANSWER_SECONDS = 15.0
QUESTIONS_MAX = 2_048
"""Under way on one line: two for each connection into a pod, of which some 700 may be open (docs/decisions/0009)."""
LINES_MAX = 4
"""Of one cluster: of two agents, one of which is being replaced, and some that are not known to be dead yet."""
WATCH_SECONDS = 10.0
"""So often a line is asked whether anybody is there: a machine that lost its power says nothing, and ends nothing."""
A = TypeVar("A", bound=agent_line.Said)


class Line:
    """One socket of the agent of a cluster. Questions carry numbers; answers come in any order, and each counts once."""

    def __init__(self, cluster: str, send: Callable[[bytes], Awaitable[None]]) -> None:
        """`send` raises OSError once the socket has ended."""
        self._cluster = cluster
        self._send = send
        self._number = 0
        self._waiting: dict[int, asyncio.Future[tuple[agent_line.Said, bytes]]] = {}
        self._hung_up = asyncio.Event()
        self.ended = asyncio.Event()
        """Nothing will be answered any more."""

    def new_number(self) -> int:
        """Of a question to come."""
        self._number += 1
        return self._number

    async def ask(
        self,
        what: agent_line.Question,
        data: bytes = b"",
        *,
        answer: type[A],
        number: int = 0,
        seconds: float | None = ANSWER_SECONDS,
    ) -> tuple[A, bytes]:
        """Raises Unavailable if the line breaks or `seconds` go by (None: as long as it takes), and what the agent raises."""
        if len(self._waiting) >= QUESTIONS_MAX:
            msg = f"too many questions to the agent of {self._cluster} are under way"
            raise Unavailable(msg, object_=self._cluster, hint="ask again in a moment")
        number = number or self.new_number()
        waiting: asyncio.Future[tuple[agent_line.Said, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            # An agent always reads: where nothing can be sent any more, nobody is there.
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._send(_asked(number, what, data))
            async with asyncio.timeout(seconds):
                said, content = await waiting
        except (TimeoutError, OSError) as error:
            msg = f"the agent of {self._cluster} does not answer"
            hint = "it calls again by itself; try again in a moment"
            raise Unavailable(msg, object_=self._cluster, hint=hint) from error
        finally:
            del self._waiting[number]
        if isinstance(said, agent_line.Failed):
            raise convert.raised_by_cluster(said)
        if not isinstance(said, answer):
            msg = f"the agent of {self._cluster} answers something else than it was asked"
            raise Unavailable(msg, object_=self._cluster)
        return said, content

    async def tell(self, what: agent_line.Close) -> None:
        """Nobody waits for an answer. Nothing happens on a line that has ended: all that was open there has ended with it."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._send(_asked(self.new_number(), what))

    def heard(self, message: bytes) -> None:
        """An answer; nobody waits for one that comes late or twice. Raises Invalid for what is none."""
        header, data = agent_line.parts(message)
        said = convert.decoded(header, agent_line.Answered)
        waiting = self._waiting.get(said.id)
        if waiting is not None and not waiting.done():
            waiting.set_result((said.what, data))

    async def watch(self) -> None:
        """Returns once nobody answers any more, or it is to end."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_SECONDS):
                    await self._hung_up.wait()
                    return
            try:
                await self.ask(agent_line.Ping(), answer=agent_line.Done)
            except Unavailable:
                return
            except Invalid:
                continue  # an older one, which does not know the question, and is there

    def hang_up(self) -> None:
        """Let it end."""
        self._hung_up.set()

    def broke(self) -> None:
        """Nothing will be answered any more."""
        self.ended.set()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError("the line broke"))


def not_reached(cluster: str) -> Unavailable:
    """Nobody has a line to it: the agent of a cluster is away, or the replica whose machine it is."""
    if MACHINE.match(cluster):
        msg = f"this replica does not reach {cluster}, the machine of another one"
        hint = "is that replica running? For each other's machines replicas need --replica-address"
    else:
        msg = f"the agent of cluster {cluster} is not connected"
        hint = f"is `mainstay agent` running beside it? It calls again by itself; its state: mainstay cluster show {cluster}"
    return Unavailable(msg, object_=cluster, hint=hint)


class Ways(Protocol):
    """How a replica asks the agents of clusters."""

    async def reach(self, cluster: str) -> Line:
        """The line of its agent. Raises Unavailable."""

    def hang_up(self, cluster: str) -> None:
        """End all of them: whoever may call again does."""

    async def changed(self, cluster: str) -> None:
        """A line of its agent has opened here, or ended."""

    async def keep(self, cluster: str) -> None:
        """Look after what was made known of its lines: asked again and again."""


class Lines:
    """The lines that end in this process, by cluster. The only ways there are where it is the only replica."""

    def __init__(self) -> None:
        self._open: dict[str, list[Line]] = defaultdict(list)

    def opened(self, cluster: str, line: Line) -> None:
        """An agent has called. Of too many lines the oldest ends."""
        lines = self._open[cluster]
        lines.append(line)
        for old in lines[:-LINES_MAX]:
            old.hang_up()

    def ended(self, cluster: str, line: Line) -> None:
        """It is gone."""
        self._open[cluster].remove(line)
        line.broke()

    def any(self, cluster: str) -> bool:
        """Whether an agent is there to be asked."""
        return bool(self._open.get(cluster))

    def of(self, cluster: str) -> Line:
        """The newest: an older one may be half dead. Raises Unavailable."""
        lines = self._open.get(cluster)
        if not lines:
            raise not_reached(cluster)
        return lines[-1]

    async def until_none(self, cluster: str) -> None:
        """Returns once the last of a cluster has ended."""
        while lines := self._open.get(cluster):
            await lines[-1].ended.wait()

    async def reach(self, cluster: str) -> Line:
        """As `of`."""
        return self.of(cluster)

    def hang_up(self, cluster: str) -> None:
        """End all lines of a cluster: whoever may call again does."""
        for line in self._open.get(cluster, ()):
            line.hang_up()

    async def changed(self, cluster: str) -> None:
        """Nobody else is there to know."""

    async def keep(self, cluster: str) -> None:
        """As `changed`."""


def _asked(number: int, what: agent_line.Question, data: bytes = b"") -> bytes:
    return agent_line.frame(convert.encoded(agent_line.Asked(id=number, what=what)), data)
