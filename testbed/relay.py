"""`python -m testbed.relay HOST:PORT HOST:PORT`: what connects to the first is carried to the second, byte by byte.

So the API server listens on loopback only, and a node with a network of its own reaches it all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

CHUNK_BYTES = 65_536


def main() -> None:
    """Until it is ended."""
    listening, target = (_address(word) for word in sys.argv[1:3])
    asyncio.run(_serve(listening, target))


async def _serve(listening: tuple[str, int], target: tuple[str, int]) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*target)
            with contextlib.closing(far_writer):
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    server = await asyncio.start_server(carry, *listening)
    async with server:
        await server.serve_forever()


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
