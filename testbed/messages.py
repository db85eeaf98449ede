"""HTTP/1.1 messages over streams (RFC 9112): as much as a proxy needs that may change every part of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

HEAD_BYTES_MAX = 65_536
CHUNK_BYTES = 65_536
_END = b"\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The first line and the headers of a message, as they came."""

    first: str
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str:
        """Its value; empty if it is not there."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    def with_headers(self, **values: str) -> Head:
        """These instead of those that are there; underscores stand for dashes, and an empty value takes one out."""
        new = {name.replace("_", "-"): value for name, value in values.items()}
        kept = [(key, value) for key, value in self.headers if key.lower() not in new]
        return Head(first=self.first, headers=(*kept, *((key, value) for key, value in new.items() if value)))

    def written(self) -> bytes:
        """As it goes over the wire."""
        lines = [self.first, *(f"{key}: {value}" for key, value in self.headers), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    @property
    def method(self) -> str:
        """Of a request."""
        return self.first.split(" ", 1)[0]

    @property
    def target(self) -> str:
        """The path of a request with its query."""
        return self.first.split(" ")[1]

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.first.split(" ")[1])


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """None at the end of the stream. Raises IncompleteReadError if it ends within one."""
    try:
        raw = await reader.readuntil(_END * 2)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Head(first=first, headers=tuple((key, value.strip()) for key, _, value in pairs))


async def body(head: Head, reader: asyncio.StreamReader, *, of_answer_to: str = "") -> AsyncIterator[bytes]:
    """What follows a head, piece by piece as it comes. `of_answer_to`: the method of the request, for an answer."""
    if of_answer_to == "HEAD" or (of_answer_to and head.status in {204, 304}):
        return
    if "chunked" in head.header("transfer-encoding").lower():
        while size := int((await reader.readuntil(_END)).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(len(_END))
        await reader.readuntil(_END)
        return
    length = head.header("content-length")
    left = int(length) if length else (-1 if of_answer_to else 0)  # an answer without one goes to the end of the stream
    while left:
        piece = await reader.read(CHUNK_BYTES if left < 0 else min(left, CHUNK_BYTES))
        if not piece:
            if left > 0:
                raise asyncio.IncompleteReadError(piece, left)
            return
        left -= len(piece) if left > 0 else 0
        yield piece


def chunk(piece: bytes) -> bytes:
    """One piece of a body of unknown length; an empty one ends it."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def answer(status: int, content: bytes, **headers: str) -> Iterator[bytes]:
    """A whole one, JSON."""
    lengths = {"content_type": "application/json", "content_length": str(len(content))}
    yield Head(first=f"HTTP/1.1 {status} Fault", headers=()).with_headers(**lengths, **headers).written()
    yield content
