"""An API server in the process of the test that answers as it is told, wrongly above all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.sources import Fixed, Source
from tests.clock import ManualClock

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Server:
    """Answers requests in the order of `answers`, the last one for ever; keeps what it was asked."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        self.bodies.append(await request.read())
        self.tokens.append(request.headers.get("Authorization", ""))
        now = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await now(request)


class Renewing:
    """A source whose credentials change when they are refused."""

    def __init__(self, server: str, *tokens: str) -> None:
        self._made = [Credentials(server=server, token=token) for token in tokens]

    async def current(self) -> Credentials:
        return self._made[0]

    async def renewed(self, refused: Credentials) -> Credentials:
        if len(self._made) > 1 and self._made[0] is refused:
            self._made.pop(0)
        return self._made[0]


@asynccontextmanager
async def serving(*answers: Answer) -> AsyncIterator[Server]:
    server = Server(answers=list(answers))
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", server.answer)
    async with TestServer(app) as started:
        server.url = str(started.make_url("")).rstrip("/")
        yield server


@asynccontextmanager
async def connected(*answers: Answer, source: Source | None = None) -> AsyncIterator[tuple[Connection, Server]]:
    """A connection to a server that answers so."""
    async with serving(*answers) as server:
        connection = Connection(source or Fixed(Credentials(server=server.url, token="secret")), clock=ManualClock())
        try:
            yield connection, server
        finally:
            await connection.close()


def says(body: Any, *, status: int = 200, content_type: str = "application/json", **headers: str) -> Answer:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=text, status=status, content_type=content_type, headers=names)

    return answer


def refuses(code: int, reason: str = "", message: str = "", *, causes: tuple[str, ...] = (), **headers: str) -> Answer:
    details = {"causes": [{"reason": cause} for cause in causes]}
    status = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return says(status | {"details": details}, status=code, **headers)


def streams(*parts: bytes | float, cut: bool = False) -> Answer:
    """Parts of a body, waiting where a number stands; at the end the connection breaks if it is `cut`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for part in parts:
            if isinstance(part, bytes):
                await response.write(part)
            else:
                await asyncio.sleep(part)
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


async def breaks(request: web.Request) -> web.StreamResponse:
    """The request has arrived; no answer goes back."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def pod(name: str, *, version: str = "1", uid: str = "", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "a", "name": name, "uid": uid or name, "resourceVersion": version, **metadata}}


def pods(*items: Any, version: str = "1", following: str = "") -> dict[str, Any]:
    return {"kind": "PodList", "metadata": {"resourceVersion": version, "continue": following}, "items": list(items)}


def event(change: str, item: Any) -> bytes:
    return json.dumps({"type": change, "object": item}).encode() + b"\n"
