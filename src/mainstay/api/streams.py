"""Server-sent events: frames, heartbeats, and what keeps a stream from costing more than it should.

A frame is made only when the one before it has been taken by the socket (the server pauses us while its buffer is
full), so a slow reader holds one frame and no more, however much there is to say. One that takes nothing for
`STALLED_SECONDS` is dropped; it comes back with the id of the last frame it has seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mainstay.api.limits import Streams
from mainstay.api.problems import refusal_response
from mainstay.domain.errors import Invalid, MainstayError

MEDIA_TYPE = "text/event-stream"
HEARTBEAT_SECONDS = 15.0
STALLED_SECONDS = 30.0
HEARTBEAT = b": still here\n\n"


def frame(event: str, data: str, *, id_: int | str | None = None) -> bytes:
    """One event. `data` is JSON, which has no line feeds."""
    first = "" if id_ is None else f"id: {id_}\n"
    return f"{first}event: {event}\ndata: {data}\n\n".encode()


def resume_after(request: Request, *, given: Sequence[int]) -> tuple[int, ...]:
    """Where to go on: what the browser saw last beats what the address says.

    An id is as many numbers as are `given`, with a colon between two. Raises Invalid for any other.
    """
    last = request.headers.get("last-event-id", "")
    if not last:
        return tuple(given)
    parts = last.split(":")
    if len(parts) != len(given) or not all(part.isascii() and part.isdecimal() and len(part) <= 18 for part in parts):
        msg = f"not an id of this stream: {last!r}"
        raise Invalid(msg, object_="Last-Event-ID", hint="send the `id` of the last frame, unchanged")
    return tuple(map(int, parts))


class EventStream(Response):
    """Sends frames until they end, the reader leaves or stops reading, or the platform stops."""

    media_type = MEDIA_TYPE

    def __init__(
        self, frames: AsyncIterator[bytes], *, streams: Streams, until: Callable[[], Coroutine[Any, Any, MainstayError]]
    ) -> None:
        """`until` returns why, once the reader may have it no more: that is the last frame, `event: refused` with a problem."""
        streams.require_room()
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._frames = frames
        self._streams = streams
        self._until = until

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        async with self._streams.one():
            sending = asyncio.create_task(self._send(send))
            leaving = asyncio.create_task(_left(receive))
            refused = asyncio.create_task(self._until())
            try:
                await asyncio.wait({sending, leaving, refused}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, leaving, refused):
                    task.cancel()
                results = await asyncio.gather(sending, leaving, refused, return_exceptions=True)
            if isinstance(results[2], MainstayError):
                await _say_last(send, refusal_response(results[2]))
            if isinstance(results[0], Exception) and not isinstance(results[0], (TimeoutError, OSError)):
                raise results[0]

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for part in self._frames:
                async with asyncio.timeout(STALLED_SECONDS):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        finally:
            await self._frames.aclose()  # type: ignore[attr-defined]
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _say_last(send: Send, refusal: Response) -> None:
    last = frame("refused", bytes(refusal.body).decode())
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(STALLED_SECONDS):
            await send({"type": "http.response.body", "body": last, "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
