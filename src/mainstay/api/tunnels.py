"""HTTP through a cluster: connections to pods whose addresses we cannot reach, under the same pool as any others.

Only the way to the first byte differs: keep-alive, timeouts, limits and streaming are httpcore's. A tunnel is an origin of
its own, `POD.CLUSTER.tunnel.invalid`: a name that nobody can own (RFC 6761, 6.4), and that is never looked up.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

import httpcore2
import httpx2

from mainstay.domain.addresses import Tunnel
from mainstay.domain.errors import MainstayError
from mainstay.ports import Cluster, Stream

DOMAIN = ".tunnel.invalid"
PATTERN = f"http://*{DOMAIN}"
"""Of the origins that a client is to reach through `TunnelTransport`."""


def origin(tunnel: Tunnel) -> str:
    """What stands for a tunnel in a URL: a host and a port."""
    return f"{tunnel.pod}.{tunnel.cluster}{DOMAIN}:{tunnel.port}"


class TunnelTransport(httpx2.AsyncHTTPTransport):
    """Requests to tunnels. `clusters` may change while it is used."""

    def __init__(self, clusters: Mapping[str, Cluster], *, limits: httpx2.Limits) -> None:
        super().__init__(verify=False, trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=_Clusters(clusters),
        )


class _Clusters(httpcore2.AsyncNetworkBackend):
    """Opens connections through the clusters."""

    def __init__(self, clusters: Mapping[str, Cluster]) -> None:
        self._clusters = clusters

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 of the interface
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore2.AsyncNetworkStream:
        pod, _, name = host.removesuffix(DOMAIN).rpartition(".")
        cluster = self._clusters.get(name)
        if cluster is None:
            msg = f"cluster {name} is not open here"
            raise httpcore2.ConnectError(msg)
        async with contextlib.AsyncExitStack() as opening:
            try:
                async with asyncio.timeout(timeout):
                    stream = await opening.enter_async_context(cluster.connect(pod, port))
            except TimeoutError as error:
                raise httpcore2.ConnectTimeout from error
            except MainstayError as error:
                raise httpcore2.ConnectError(error.message) from error
            return _Connection(stream, opening.pop_all())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Connection(httpcore2.AsyncNetworkStream):
    """A stream as httpcore has it. One message is always waited for: thus an idle connection knows when it has ended."""

    def __init__(self, stream: Stream, opened: contextlib.AsyncExitStack) -> None:
        self._stream = stream
        self._opened = opened
        self._rest = b""
        self._next: asyncio.Task[bytes | None] | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not self._rest:
            self._rest = await self._message(timeout)
        part, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._stream.send(buffer)
        except TimeoutError as error:
            raise httpcore2.WriteTimeout from error
        except MainstayError as error:
            raise httpcore2.WriteError(error.message) from error

    async def aclose(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        with contextlib.suppress(MainstayError):
            await self._opened.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise NotImplementedError

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return bool(self._rest) or (self._next is not None and self._next.done())
        return None

    async def _message(self, timeout: float | None) -> bytes:
        waiting = self._next or asyncio.create_task(self._stream.receive())
        self._next = waiting
        await asyncio.wait({waiting}, timeout=timeout)
        if not waiting.done():
            raise httpcore2.ReadTimeout
        try:
            message = waiting.result()
        except MainstayError as error:
            raise httpcore2.ReadError(error.message) from error
        if message is None:
            return b""
        self._next = asyncio.create_task(self._stream.receive())
        return message
