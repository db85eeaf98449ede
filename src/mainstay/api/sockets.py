"""WebSockets: what is refused before one is opened, and two ways at once until either side ends.

Each way takes a message only when the one before has been handed on, so whoever is slow slows the other side down and holds
one message. Nothing is ever dropped for slowness: a pager may stand still for an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog
from fastapi import WebSocket, WebSocketDisconnect

from mainstay.api.problems import explained
from mainstay.domain.errors import Invalid, MainstayError
from mainstay.ports import Clock
from mainstay.wire import sockets as wire

log = structlog.get_logger()

IDLE_SECONDS = 4 * 3_600.0
"""As long as kubelets leave a connection open over which nothing is said."""
LAST_WORD_SECONDS = 2.0
"""Who could not hand something on waits so long for the other way to say how it ended."""
REASON_BYTES_MAX = 123
"""Of a close frame. Source: RFC 6455, 5.5."""


GONE = (OSError, RuntimeError, WebSocketDisconnect)
"""What sending raises once the other side has closed, or we have."""


class Misused(Exception):
    """The other side said what the protocol does not know."""


class Left(Exception):
    """The other side closed the connection, or it broke."""


def spoken(protocol: str) -> Callable[[WebSocket], Awaitable[None]]:
    """A dependency that refuses who does not offer the subprotocol."""

    async def check(socket: WebSocket) -> None:
        if protocol not in socket.scope.get("subprotocols", ()):
            msg = f"this is a WebSocket that speaks {protocol}"
            raise Invalid(msg, object_="Sec-WebSocket-Protocol", hint="offer it in the header Sec-WebSocket-Protocol")

    return check


class Talk:
    """An open WebSocket, and when something was last said over it."""

    def __init__(self, socket: WebSocket, clock: Clock) -> None:
        self._socket = socket
        self._clock = clock
        self._spoken_at = clock.monotonic()

    async def hear(self) -> bytes:
        """The next message. Raises Left, and Misused for text."""
        message = await self._socket.receive()
        self._spoken_at = self._clock.monotonic()
        if message["type"] != "websocket.receive":
            raise Left
        data = message.get("bytes")
        if data is None:
            msg = "messages are binary"
            raise Misused(msg)
        return bytes(data)

    async def say(self, data: bytes) -> None:
        """Send a message, once there is room for it. Raises Left.

        Others get their turn each time: with room, and a pod that says more and more, none of these calls would ever wait.
        """
        await asyncio.sleep(0)
        try:
            await self._socket.send({"type": "websocket.send", "bytes": data})
        except GONE as error:
            raise Left from error
        self._spoken_at = self._clock.monotonic()

    async def end(self, code: int, reason: str = "") -> None:
        """Close it. Nothing happens if the other side has left."""
        shown = reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
        with contextlib.suppress(*GONE):
            await self._socket.close(code, shown)

    async def until_idle(self) -> None:
        """Returns once nothing has been said for too long."""
        while (left := self._spoken_at + IDLE_SECONDS - self._clock.monotonic()) > 0:
            await self._clock.sleep(left)


async def both_ways(
    talk: Talk,
    inward: Coroutine[Any, Any, None],
    outward: Coroutine[Any, Any, None],
    *,
    until: Coroutine[Any, Any, MainstayError],
) -> tuple[int, str]:
    """Until the outward way ends, the other side leaves or may no more (`until`), or neither says anything: the code and the
    reason to close with.
    """
    coming, going = asyncio.create_task(inward), asyncio.create_task(outward)
    refused = asyncio.create_task(until)
    idle = asyncio.create_task(talk.until_idle())
    try:
        await asyncio.wait({coming, going, idle, refused}, return_when=asyncio.FIRST_COMPLETED)
        if refused.done():
            return wire.REFUSED, refused.result().message
        if coming.done() and not going.done() and isinstance(coming.exception(), MainstayError):
            await asyncio.wait({going}, timeout=LAST_WORD_SECONDS)
        return _verdict(coming=coming, going=going)
    finally:
        for task in (coming, going, idle, refused):
            task.cancel()
        await asyncio.gather(coming, going, idle, refused, return_exceptions=True)


def _verdict(*, coming: asyncio.Task[None], going: asyncio.Task[None]) -> tuple[int, str]:
    ended = next((task for task in (going, coming) if task.done()), None)
    if ended is None:
        return wire.IDLE, f"nothing was said for {IDLE_SECONDS / 3_600:g} hours"
    match ended.exception():
        case None | Left():
            return wire.DONE, ""
        case Misused() as error:
            return wire.MISUSED, str(error)
        case MainstayError() as error:
            return wire.FAILED, error.message
        case BaseException() as error:
            return wire.FAILED, explained(error)
