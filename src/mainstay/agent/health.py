"""Whether an agent is alive and hears its control plane, said over HTTP to whoever keeps it running."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from mainstay.domain.errors import StateUnusable


@asynccontextmanager
async def answering(port: int, *, hears: Callable[[], bool]) -> AsyncIterator[None]:
    """`/healthz` and `/readyz` on every address of this machine, within the block. Raises StateUnusable if the port is taken."""

    async def is_alive(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def is_ready(_: web.Request) -> web.Response:
        if hears():
            return web.Response(text="ok\n")
        return web.Response(text="the control plane is not heard\n", status=503)

    app = web.Application()
    app.add_routes([web.get("/healthz", is_alive), web.get("/readyz", is_ready)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, port=port).start()
        except OSError as error:
            msg = f"cannot listen on port {port}: {error.strerror}"
            raise StateUnusable(msg, hint="choose another with --health-port") from error
        yield
    finally:
        await runner.cleanup()
