"""Receivers on this machine: an HTTP server that answers as a test tells it and remembers what it was sent."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Answering = Callable[["Got"], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Got:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes
    peer: str


@dataclass
class Receiver:
    """What arrived, and what to answer next. `status` holds until it is changed."""

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: it has what it was sent and says nothing yet."""
    got: list[Got] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    port: int = 0
    scheme: str = "http"
    waiting: int = 0
    waiting_most: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [one.headers["webhook-id"] for one in self.got]

    async def until(self, count: int) -> None:
        """So many requests have arrived."""
        async with asyncio.timeout(20), self.arrived:
            await self.arrived.wait_for(lambda: len(self.got) >= count)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        async with self.arrived:
            self.got.append(Got(path=request.path_qs, headers=headers, body=body, peer=request.remote or ""))
            self.arrived.notify_all()
        self.waiting += 1
        self.waiting_most = max(self.waiting, self.waiting_most)
        try:
            await self.open.wait()
        finally:
            self.waiting -= 1
        return web.Response(status=self.status, headers=self.headers, text=self.text if self.status != 204 else None)


@asynccontextmanager
async def receiving(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a free port of this machine, until the end of the block."""
    receiver = Receiver(scheme="https" if tls else "http")
    receiver.open.set()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver._answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        receiver.open.set()
        await runner.cleanup()
