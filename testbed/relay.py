"""`python -m testbed.relay HOST:PORT HOST:PORT`: what connects to the first is carried to the second, byte by byte.

So the API server listens on loopback only, and a node with a network of its own reaches it all the same. The second may be the
path of a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

CHUNK_BYTES = 65_536


def main() -> None:
    """Until it is ended."""
    asyncio.run(_serve(_address(sys.argv[1]), sys.argv[2]))


async def _serve(listening: tuple[str, int], target: str) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            far_reader, far_writer = await _opened(target)
            with contextlib.closing(far_writer):
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    server = await asyncio.start_server(carry, *listening)
    async with server:
        await server.serve_forever()


async def _opened(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if target.startswith("/"):
        return await asyncio.open_unix_connection(target)
    return await asyncio.open_connection(*_address(target))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end of what is sent, which is told to the other side."""
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()


def _address(word: str) -> tuple[str, int]:
    host, _, port = word.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    main()
