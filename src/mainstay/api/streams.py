"""Server-sent events: bounded in number, kept alive, and never buffering more than one chunk for a slow reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import StreamingResponse

from mainstay.api.limits import STREAMS_MAX
from mainstay.domain.errors import MainstayError, Unavailable

HEARTBEAT_SECONDS = 10.0
HEARTBEAT = ": still here\n\n"
"""A comment line: proxies see traffic, clients see nothing."""


async def stream_slot(request: Request) -> asyncio.Semaphore:
    """The counter of open streams. Raises Unavailable where too many are open."""
    state = request.app.state
    if not hasattr(state, "streams"):
        state.streams = asyncio.Semaphore(STREAMS_MAX)
    if state.streams.locked():
        msg = f"too many open streams: {STREAMS_MAX}"
        raise Unavailable(msg, hint="close some, or ask for pages instead")
    slots: asyncio.Semaphore = state.streams
    return slots


Stream = Annotated[asyncio.Semaphore, Depends(stream_slot)]


def event_stream(text: AsyncIterator[str], slots: asyncio.Semaphore) -> StreamingResponse:
    """Send events as they come. The generator only goes on when the client has taken the last one."""

    async def counted() -> AsyncIterator[str]:
        async with slots:
            try:
                async for piece in text:
                    yield piece
            except MainstayError as error:
                yield f"event: error\ndata: {error.code}\n\n"

    return StreamingResponse(counted(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
