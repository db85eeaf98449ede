"""The gate between two processes: it lets through, refuses, falls silent, and finds whoever is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from testbed.gate import Gate

SILENCE_SECONDS = 0.05


@contextlib.asynccontextmanager
async def saying(word: bytes) -> AsyncIterator[asyncio.Server]:
    """A server that says its word and ends."""

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(word)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(say, "127.0.0.1") as server:
        yield server


def address(server: asyncio.Server) -> str:
    return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def heard(gate: Gate) -> bytes:
    """Empty if nobody is there. Raises OSError if the gate refuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.port)
    with contextlib.closing(writer), contextlib.suppress(ConnectionResetError):
        return await reader.read(1)
    return b""


async def test_connections_go_to_all_by_turns_past_those_that_refuse() -> None:
    async with saying(b"a") as one, saying(b"b") as other:
        gate = Gate(address(one), address(other))
        await gate.open()
        assert sorted([await heard(gate) for _ in range(4)]) == [b"a", b"a", b"b", b"b"]
        one.close()
        assert [await heard(gate) for _ in range(3)] == [b"b"] * 3
        other.close()
        assert await heard(gate) == b""
        await gate.close()


async def test_a_shut_gate_refuses_or_is_silent_and_opens_again() -> None:
    async with saying(b"a") as one:
        gate = Gate(address(one))
        await gate.open()
        await gate.shut("hang")
        waiting = asyncio.create_task(heard(gate))
        await asyncio.sleep(SILENCE_SECONDS)
        assert not waiting.done()
        await gate.open()
        assert await waiting == b"a"
        await gate.shut("refuse")
        with pytest.raises(ConnectionRefusedError):
            await heard(gate)
        await gate.open()
        assert await heard(gate) == b"a"
        await gate.close()
