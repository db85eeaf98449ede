"""A cluster whose loop runs beside it, in an agent or another replica, as this one has it: the rest is asked over its line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from mainstay.domain.allocation import ClusterAction
from mainstay.domain.capacity import ClusterState, LogChunk
from mainstay.domain.errors import MainstayError, Unavailable
from mainstay.operations.lines import Line, Ways
from mainstay.ports import Channel, Process, Stream
from mainstay.wire import agent_line

OPEN_SECONDS = 70.0
"""No cluster waits longer than a minute for whoever is behind it (`ports.Cluster`)."""


class RemoteCluster:
    """Implements `ports.Cluster` as far as it is asked of from here."""

    def __init__(self, name: str, ways: Ways) -> None:
        self.name = name
        self.acts_at_once = 1
        self._ways = ways

    async def observe(self) -> ClusterState:
        """Its agent looks at it."""
        raise self._beyond_reach()

    async def act(self, action: ClusterAction, *, epoch: int) -> None:  # noqa: ARG002
        """Its agent acts."""
        raise self._beyond_reach()

    async def read_log(self, pod: str, *, offset: int, limit: int) -> LogChunk:
        """Asked of the agent. Raises Unavailable while it has no line, and whatever it raises there."""
        asked = agent_line.ReadLog(pod=pod, offset=offset, limit=limit)
        line = await self._ways.reach(self.name)
        said, data = await line.ask(asked, answer=agent_line.LogSaid)
        return LogChunk(data=data, next_offset=said.next_offset, dropped=said.dropped, ended=said.ended)

    async def copy_out(self, pod: str) -> None:  # noqa: ARG002
        """Its agent has them copied."""
        raise self._beyond_reach()

    async def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:  # noqa: ARG002
        """Its agent fetches them."""
        nothing: tuple[tuple[str, int, bool, AsyncIterator[bytes]], ...] = ()
        for file in nothing:
            yield file
        raise self._beyond_reach()

    @asynccontextmanager
    async def connect(self, pod: str, port: int) -> AsyncIterator[Stream]:
        """Through the agent."""
        async with self._opened(agent_line.Connect(pod=pod, port=port)) as opened:
            yield RemoteStream(opened)

    @asynccontextmanager
    async def exec(
        self, pod: str, argv: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> AsyncIterator[Process]:
        """Through the agent."""
        async with self._opened(agent_line.Exec(pod=pod, argv=tuple(argv), stdin=stdin, tty=tty)) as opened:
            yield RemoteProcess(opened)

    async def close(self) -> None:
        """End its lines: an agent whose token still holds calls again."""
        self._ways.hang_up(self.name)

    @asynccontextmanager
    async def _opened(self, what: agent_line.Connect | agent_line.Exec) -> AsyncIterator[Opened]:
        line = await self._ways.reach(self.name)
        opened = Opened(line)
        try:
            await line.ask(what, answer=agent_line.Done, number=opened.number, seconds=OPEN_SECONDS)
            yield opened
        finally:
            await opened.close()

    def _beyond_reach(self) -> MainstayError:
        msg = f"cluster {self.name} is carried elsewhere: by its agent, or by the replica on its machine"
        return Unavailable(msg, object_=self.name)


class Opened:
    """What is open over a line, under the number of the question that opened it. Its questions take as long as they take."""

    def __init__(self, line: Line) -> None:
        self.number = line.new_number()
        self._line = line

    async def send(self, data: bytes) -> None:
        """In parts, each of which is handed on before the next is sent."""
        for start in range(0, len(data), agent_line.CHUNK_BYTES):
            part = data[start : start + agent_line.CHUNK_BYTES]
            await self._line.ask(agent_line.Send(stream=self.number), part, answer=agent_line.Done, seconds=None)

    async def end_input(self) -> None:
        """No more will be sent."""
        await self._line.ask(agent_line.EndInput(stream=self.number), answer=agent_line.Done, seconds=None)

    async def receive(self) -> tuple[agent_line.Received, bytes]:
        """What comes next. Who gives up waiting for it has lost it."""
        return await self._line.ask(agent_line.Receive(stream=self.number), answer=agent_line.Received, seconds=None)

    async def resize(self, *, columns: int, rows: int) -> None:
        """Of a terminal."""
        asked = agent_line.Resize(stream=self.number, columns=columns, rows=rows)
        await self._line.ask(asked, answer=agent_line.Done, seconds=None)

    async def close(self) -> None:
        """Let go, also of what is still being opened."""
        await self._line.tell(agent_line.Close(stream=self.number))


class RemoteStream:
    """`ports.Stream` over a line."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.send, self.end, self.close = opened.send, opened.end_input, opened.close

    async def receive(self) -> bytes | None:
        """What came; None at the end."""
        said, data = await self._opened.receive()
        return None if said.ended else data


class RemoteProcess:
    """`ports.Process` over a line."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._ended = agent_line.Received()
        self.send, self.end_input = opened.send, opened.end_input
        self.resize, self.close = opened.resize, opened.close

    @property
    def exit_status(self) -> int | None:
        """As its cluster says."""
        return self._ended.exit_status

    @property
    def failure(self) -> str:
        """In the words of its cluster."""
        return self._ended.failure

    async def receive(self) -> tuple[Channel, bytes] | None:
        """Output as it comes; None when the process has ended."""
        said, data = await self._opened.receive()
        if said.ended:
            self._ended = said
            return None
        return Channel.STDERR if said.channel == Channel.STDERR else Channel.STDOUT, data
