"""Answers what is asked over a WebSocket: the agent of a cluster, to a replica; and a replica whose line that is, to the others.

A connection into a pod is a few questions more, each a method of `ports.Stream` or `ports.Process`. None is asked before the one
like it was answered, which holds back whoever says more than the other side takes. What is open ends with the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import aiohttp
import structlog

from mainstay.agent import convert
from mainstay.domain.errors import Gone, Invalid, MainstayError, Unavailable
from mainstay.ports import Cluster, Process, Stream
from mainstay.wire import agent_line

if TYPE_CHECKING:
    from aiohttp.web import WebSocketResponse

log = structlog.get_logger()

HEARTBEAT_SECONDS = 15.0
"""Pings: they find a dead peer, and keep what stands between from cutting an idle line."""
MESSAGE_BYTES_MAX = 4 << 20
LOGS_AT_ONCE = 32
"""Logs that are read at the same time; more wait."""
STREAMS_MAX = 1_000
T = TypeVar("T")
Answer = tuple[agent_line.Said, bytes]
Socket: TypeAlias = "aiohttp.ClientWebSocketResponse[bool] | WebSocketResponse[bool]"


class Answers:
    """One socket, and what is open over it."""

    def __init__(self, socket: Socket, cluster: Callable[[], Cluster]) -> None:
        """`cluster` is asked for with each question. Raises Unavailable while there is none."""
        self._socket = socket
        self._cluster = cluster
        self._logs = asyncio.Semaphore(LOGS_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[int, asyncio.Task[None]] = {}
        """Connections and processes, by the question that opened them."""
        self._ports: dict[int, Stream] = {}
        self._processes: dict[int, Process] = {}
        self._rest: dict[int, Answer] = {}
        """What came in one piece that is too long for one message."""

    async def answer(self) -> None:
        """Until the socket ends; then everything that is open over it does."""
        async with asyncio.TaskGroup() as group:
            try:
                async for message in self._socket:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        self._take(group, message.data)
            finally:
                for task in self._tasks:
                    task.cancel()

    def _take(self, group: asyncio.TaskGroup, message: bytes) -> None:
        header, data = agent_line.parts(message)
        try:
            number = convert.decoded(header, agent_line.Numbered).id
        except Invalid:
            return
        try:
            what = convert.decoded(header, agent_line.Asked).what
        except Invalid as error:
            self._start(group, self._say(number, convert.failed(error)))
            return
        match what:
            case agent_line.Close(stream=stream):
                if stream in self._held:
                    self._held[stream].cancel()
            case agent_line.Connect() | agent_line.Exec():
                held = self._start(group, self._reply(number, lambda: self._kept_open(number, what)))
                self._held[number] = held
                held.add_done_callback(lambda _: self._let_go(number))
            case _:
                self._start(group, self._reply(number, lambda: self._said(what, data)))

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _kept_open(self, number: int, what: agent_line.Connect | agent_line.Exec) -> Answer:
        """Open it, say so, and keep it open until this task is cancelled."""
        if len(self._held) > STREAMS_MAX:
            msg = f"too many connections into pods are open: {STREAMS_MAX}"
            raise Unavailable(msg, object_=what.pod, hint="try again in a moment")
        if isinstance(what, agent_line.Connect):
            async with self._cluster().connect(what.pod, what.port) as stream:
                self._ports[number] = stream
                await self._say(number, agent_line.Done())
                await asyncio.Event().wait()
        else:
            async with self._cluster().exec(what.pod, what.argv, stdin=what.stdin, tty=what.tty) as process:
                self._processes[number] = process
                await self._say(number, agent_line.Done())
                await asyncio.Event().wait()
        raise AssertionError

    def _let_go(self, number: int) -> None:
        for known in (self._held, self._ports, self._processes, self._rest):
            known.pop(number, None)

    async def _said(self, what: agent_line.Question, data: bytes) -> Answer:
        match what:
            case agent_line.ReadLog(pod=pod, offset=offset, limit=limit):
                async with self._logs:
                    chunk = await self._cluster().read_log(pod, offset=offset, limit=min(limit, agent_line.CHUNK_BYTES))
                said = agent_line.LogSaid(next_offset=chunk.next_offset, dropped=chunk.dropped, ended=chunk.ended)
                return said, chunk.data
            case agent_line.Receive(stream=number):
                return await self._received(number)
            case agent_line.Send(stream=number):
                await self._open(number).send(data)
            case agent_line.EndInput(stream=number) if number in self._ports:
                await self._ports[number].end()
            case agent_line.EndInput(stream=number):
                await _known(self._processes, number).end_input()
            case agent_line.Resize(stream=number, columns=columns, rows=rows):
                await _known(self._processes, number).resize(columns=columns, rows=rows)
        return agent_line.Done(), b""

    def _open(self, number: int) -> Stream | Process:
        return self._ports[number] if number in self._ports else _known(self._processes, number)

    async def _received(self, number: int) -> Answer:
        said, data = self._rest.pop(number) if number in self._rest else await self._next(number)
        if len(data) > agent_line.CHUNK_BYTES:
            self._rest[number] = said, data[agent_line.CHUNK_BYTES :]
        return said, data[: agent_line.CHUNK_BYTES]

    async def _next(self, number: int) -> Answer:
        if number in self._ports:
            heard = await self._ports[number].receive()
            return agent_line.Received(ended=heard is None), heard or b""
        process = _known(self._processes, number)
        message = await process.receive()
        if message is None:
            return agent_line.Received(ended=True, exit_status=process.exit_status, failure=process.failure), b""
        channel, data = message
        return agent_line.Received(channel=channel.value), data

    async def _reply(self, number: int, answer: Callable[[], Awaitable[Answer]]) -> None:
        try:
            said, data = await answer()
        except MainstayError as error:
            said, data = convert.failed(error), b""
        except Exception as error:  # of one question: the line and what is open over it outlive it
            log.exception("question_failed")
            said, data = convert.failed(Unavailable(f"the agent failed: {type(error).__name__}")), b""
        await self._say(number, said, data)

    async def _say(self, number: int, said: agent_line.Said, data: bytes = b"") -> None:
        try:
            await self._socket.send_bytes(
                agent_line.frame(convert.encoded(agent_line.Answered(id=number, what=said)), data)
            )
        except (aiohttp.ClientError, OSError):
            return  # whoever reads from it finds out


def _known(opened: Mapping[int, T], number: int) -> T:
    if number not in opened:
        msg = "the connection into the pod has ended"
        raise Gone(msg)
    return opened[number]
