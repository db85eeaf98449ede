"""What every request is held to, and what every answer carries: body size, and headers that keep browsers in check."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mainstay.api import problems
from mainstay.wire.views import Problem

BODY_BYTES_MAX: Final = 1 << 20
BULK_BYTES_MAX: Final = 16 << 20
BLOB_BYTES_MAX: Final = 1 << 30
PAGE_MAX: Final = 1_000
STREAMS_MAX: Final = 500
"""Open event and log streams; one more is asked to come back."""

SECURITY_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class TooLargeError(Exception):
    """The body is larger than this route takes."""


class Guarded:
    """ASGI middleware. Counts what actually arrives: a Content-Length may be missing or wrong."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses with 413 before the route has seen a byte too many."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = _body_bytes_max(scope["path"])
        arrived = 0
        begun = False

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > most:
                raise TooLargeError
            return message

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            announced = Headers(scope=scope).get("content-length", "0")
            if announced.isdecimal() and int(announced) > most:
                raise TooLargeError
            await self._app(scope, counted, with_headers)
        except TooLargeError:
            if not begun:
                await problems.response(_too_large(most))(scope, receive, with_headers)


def _body_bytes_max(path: str) -> int:
    if path.startswith("/v1/blobs/"):
        return BLOB_BYTES_MAX
    return BULK_BYTES_MAX if path in {"/v1/workloads/bulk", "/v1/trees"} else BODY_BYTES_MAX


def _too_large(most: int) -> Problem:
    return Problem(
        title="too large",
        status=413,
        detail=f"the body is larger than {most} bytes",
        code="too_large",
        numbers={"bytes_max": most},
        hint="put files into the workdir; submit many jobs in several requests",
    )
