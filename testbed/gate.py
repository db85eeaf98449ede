"""A way for bytes that can be shut: between a process and the database that it needs, say.

Either end believes of the other what it would believe in a network: that it refuses, or that it is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Literal, TypeAlias

CHUNK_BYTES = 65_536
How: TypeAlias = Literal["refuse", "hang"]
"""`refuse`: connections are cut and refused; `hang`: they stay, and nothing arrives."""


class Gate:
    """From a port of loopback to a socket or an address. Everything happens in the event loop in which it was opened."""

    def __init__(self, *targets: str) -> None:
        """Each is the path of a socket, or `host:port`. Connections go to them by turns, past those that refuse."""
        self.port = 0
        self._targets = deque(targets)
        self._server: asyncio.Server | None = None
        self._passable = asyncio.Event()
        self._ways: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Let bytes pass, those that were held up as well."""
        if self._server is None:
            self._server = await asyncio.start_server(self._carried, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        self._passable.set()

    async def shut(self, how: How) -> None:
        """Nothing passes."""
        self._passable.clear()
        if how == "refuse":
            await self.close()

    async def close(self) -> None:
        """Cut everything."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for way in self._ways:
            way.cancel()
        await asyncio.gather(*self._ways, return_exceptions=True)

    async def _carried(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = asyncio.current_task()
        assert way is not None
        self._ways.add(way)
        try:
            await self._passable.wait()
            far_reader, far_writer = await self._reached()
            with contextlib.closing(far_writer):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._copied(reader, far_writer))
                    group.create_task(self._copied(far_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass  # one end has gone
        finally:
            self._ways.discard(way)
            writer.transport.abort()

    async def _reached(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises OSError if all refuse."""
        refusals: list[OSError] = []
        for target in tuple(self._targets):
            self._targets.rotate(-1)
            try:
                return await _connected(target)
            except OSError as refusal:
                refusals.append(refusal)
        raise refusals[-1]

    async def _copied(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the end of what is sent; then the connection has ended for both."""
        while chunk := await reader.read(CHUNK_BYTES):
            await self._passable.wait()
            writer.write(chunk)
            await writer.drain()
        raise ConnectionResetError


async def _connected(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if target.startswith("/"):
        return await asyncio.open_unix_connection(target)
    host, _, port = target.rpartition(":")
    return await asyncio.open_connection(host, int(port))
