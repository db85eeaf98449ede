"""What a request may cost: the size of its body, of a page and of a piece of log, and the number of open streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from fastapi import Query, Request, Response
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mainstay.api.problems import problem_response
from mainstay.domain.errors import Invalid, Unavailable
from mainstay.operations.principal import Principal
from mainstay.wire.views import Problem

BODY_BYTES_MAX: Final = 1 << 20
BULK_BYTES_MAX: Final = 16 << 20
BLOB_BYTES_MAX: Final = 1 << 30
AGENT_BLOB_BYTES_MAX: Final = 1 << 40
"""What a run leaves may be as large as on a cluster that we reach: nothing but the disk limits it there."""
PREDICTION_BYTES_MAX: Final = 8 << 20
"""As much as the model server takes."""
BULK_PATHS: Final = frozenset(
    {"/v1/workloads/bulk", "/v1/trees", "/v1/agent/trees", "/v1/agent/plans", "/v1/agent/closed"}
)

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000
LOG_BYTES_DEFAULT: Final = 256 << 10
LOG_BYTES_MAX: Final = 1 << 20

LOG_BYTES_PER_SECOND: Final = 32 << 20
"""Of all logs of one tenant, by one replica: some tenths of what it can send at all."""

STREAMS_MAX: Final = 500
STREAMS_OF_TENANT_MAX: Final = 250
STREAMS_RETRY_SECONDS: Final = 5
SOCKETS_MAX: Final = 500
SOCKETS_OF_TENANT_MAX: Final = 250
SOCKETS_OF_ONE_MAX: Final = 100
"""A browser opens a dozen connections through a forwarded port."""
KEY_MAX: Final = (1 << 62) - 1

Cursor = Annotated[str, Query(max_length=400, description="`next` of the page before; empty: from the start.")]
PageLimit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="At most so many items.")]


def cursor_key(cursor: str) -> int:
    """The key that a cursor stands for; 0 for the start. Raises Invalid."""
    if not cursor:
        return 0
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 19 and 0 < int(cursor) <= KEY_MAX):
        msg = f"not a cursor: {cursor!r}"
        raise Invalid(msg, object_="cursor", hint="pass `next` of the page before, unchanged")
    return int(cursor)


class TooLarge(HTTPException):
    """The body is larger than its route takes."""

    def __init__(self, path: str) -> None:
        super().__init__(413)
        self.path = path


async def on_too_large(_: Request, error: Exception) -> Response:
    """The refusal as a problem. The connection is closed: the rest of the body is not worth reading."""
    assert isinstance(error, TooLarge)
    most, hint = _limit(error.path)
    problem = Problem(
        title="Content Too Large",
        status=413,
        detail=f"the body is larger than {most} bytes",
        code="too_large",
        numbers={"bytes_max": most},
        hint=hint,
    )
    return problem_response(problem, {"Connection": "close"})


class BodyLimit:
    """Counts the bytes that arrive: a Content-Length may be missing or wrong, and is believed only if it is too large."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        most, _ = _limit(path)
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > most:
            response = await on_too_large(Request(scope), TooLarge(path))
            await response(scope, receive, send)
            return
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > most:
                raise TooLarge(path)
            return message

        await self._app(scope, counted, send)


def _limit(path: str) -> tuple[int, str]:
    """The largest body that a path takes, and what to do with a larger one."""
    if path.startswith("/v1/agent/blobs/"):
        return AGENT_BLOB_BYTES_MAX, "split the file"
    if path.startswith("/v1/blobs/"):
        return BLOB_BYTES_MAX, "split the file"
    if path.startswith("/endpoints/"):
        return PREDICTION_BYTES_MAX, "ask for fewer rows at a time"
    if path in BULK_PATHS:
        return BULK_BYTES_MAX, "send it in several requests"
    return BODY_BYTES_MAX, "put files into the workdir"


class Sockets:
    """Counts the open WebSockets of this process, of each tenant, and of each who asks."""

    def __init__(self) -> None:
        self._open: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def one(self, principal: Principal) -> Iterator[None]:
        """Count one for the block. Raises Unavailable when there are as many as we hold."""
        who = (principal.tenant, principal.name)
        everybodys, theirs = self._open.total(), self._open[who]
        tenants = sum(count for (tenant, _), count in self._open.items() if tenant == principal.tenant)
        if everybodys >= SOCKETS_MAX or tenants >= SOCKETS_OF_TENANT_MAX or theirs >= SOCKETS_OF_ONE_MAX:
            msg = f"too many open connections to pods: {theirs} of yours, {tenants} of your tenant, {everybodys} in all"
            raise Unavailable(
                msg,
                hint="close some, or come back in a moment",
                numbers={"open": theirs, "retry_after_seconds": STREAMS_RETRY_SECONDS},
            )
        self._open[who] += 1
        try:
            yield
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]


class Streams:
    """Counts the open event and log streams of this process, and of each tenant."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @property
    def open(self) -> int:
        """Of all tenants."""
        return self._open.total()

    def require_room(self, tenant: str) -> None:
        """Raises Unavailable when there are as many as we hold; a reader comes back with its last id."""
        theirs = self._open[tenant]
        if self.open >= STREAMS_MAX or theirs >= STREAMS_OF_TENANT_MAX:
            msg = f"too many open streams: {theirs} of your tenant, {self.open} in all"
            raise Unavailable(
                msg,
                hint="close some, or come back in a moment",
                numbers={"open": theirs, "retry_after_seconds": STREAMS_RETRY_SECONDS},
            )

    @contextmanager
    def one(self, tenant: str) -> Iterator[None]:
        """Count one for the block."""
        self._open[tenant] += 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]
