"""A WebSocket to a pod over a real connection to a server that reads slowly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpcore2
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, Ping

from mainstay.sdk.sockets import AsyncSocket

LARGE = 4 << 20
"""Bytes: more than a connection takes at once."""


class Server:
    """The other side. It reads once it is let, and keeps what it hears."""

    def __init__(self) -> None:
        self.may_read = asyncio.Event()
        self.heard: list[bytes] = []
        self.pongs = 0
        self._half = b""
        self._connection = Connection(ConnectionType.SERVER)
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._connection.send(Ping(b"there?")) + self._connection.send(BytesMessage(b"hello")))
        await self.may_read.wait()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                self._take(data)
            writer.close()
            await writer.wait_closed()
        self.left.set()

    def _take(self, data: bytes) -> None:
        self._connection.receive_data(data)
        for event in self._connection.events():
            if isinstance(event, BytesMessage):
                self._half += bytes(event.data)
                if event.message_finished:
                    self.heard.append(self._half)
                    self._half = b""
            else:
                self.pongs += 1


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[Server, AsyncSocket]]:
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening, asyncio.timeout(60):
        stream = await httpcore2.AnyIOBackend().connect_tcp(*listening.sockets[0].getsockname())
        try:
            yield server, AsyncSocket(stream)
        finally:
            server.may_read.set()
            await stream.aclose()
            await server.left.wait()


async def test_tasks_that_send_at_the_same_time_all_get_through() -> None:
    """Keys are typed while the window is resized, and the server asks meanwhile whether anybody is there."""
    async with connected() as (server, socket):
        messages = [bytes([number]) * size for number, size in enumerate((LARGE, 5, LARGE, 5))]
        sending = [asyncio.create_task(socket.send(message)) for message in messages]
        hearing = asyncio.create_task(socket.receive())
        await asyncio.wait(sending, timeout=0.2)
        server.may_read.set()
        await asyncio.gather(*sending)
        assert await hearing == b"hello"
        while len(server.heard) < len(messages) or not server.pongs:
            await asyncio.sleep(0.01)
        assert server.heard == messages


async def test_a_goodbye_waits_only_a_second_for_who_does_not_read() -> None:
    async with connected() as (_, socket):
        sending = asyncio.create_task(socket.send(bytes(4 * LARGE)))
        await asyncio.wait([sending], timeout=0.2)
        assert not sending.done()
        await socket.close()
        assert not sending.done()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
