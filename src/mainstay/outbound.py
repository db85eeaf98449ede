"""Requests to addresses that tenants and registries give: https to a checked address, and to that very one (security.md E3).

A name is resolved once for each connection, all of its answers are judged, and the connection goes to one of those. Whoever
answers something else a moment later changes nothing. TLS and the header `Host` keep the name. Nothing is followed, nothing is
taken from the environment, nothing is remembered from one request to the next.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import httpcore2

from mainstay import __version__
from mainstay.domain.errors import Invalid, Unavailable
from mainstay.domain.outbound import Address, Range, Target, address_of, is_loopback, refusal, target_of
from mainstay.ports import Heard

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
"""For the whole of a request. Source: Standard Webhooks, "Request timeouts": 15 to 30."""
ANSWER_BYTES_MAX = 16 << 10
"""Of an answer so much is read; nobody needs more of it than to see what went wrong."""
SIGNED_URL_CHARACTERS_MAX = 8_000
"""Object stores take requests whose permission, a token and a signature, is in the URL."""
RESOLVERS = 16
"""Threads in which names are looked up: a slow name server of one tenant takes none of those that others need."""

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) -> addresses. Raises OSError."""


class Outbound:
    """`ports.Outbound` over the network of this machine."""

    def __init__(
        self,
        *,
        allowed: Sequence[Range] = (),
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`allowed`: ranges beside the public network. With one of loopback, plain http to this machine is allowed too."""
        self._allowed = tuple(allowed)
        self._plain = any(one.is_loopback for one in self._allowed)
        self._pool = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve")
        self._resolve = resolve or self._looked_up
        self._given_tls = tls

    async def check(self, url: str) -> None:
        """As in `ports.Outbound`."""
        target = target_of(url, plain=self._plain)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._addresses(target)
        except TimeoutError as error:
            msg = f"url: no name server has said within {CONNECT_SECONDS:.0f} s where {target.host} is"
            raise Unavailable(msg, object_="url", hint="try again") from error
        except OSError as error:
            msg = f"url: nobody knows where {target.host} is"
            raise Invalid(msg, object_="url", hint="is the name right?") from error

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Heard:
        """As in `ports.Outbound`."""
        return await self._heard("POST", target_of(url, plain=self._plain), headers, body, ANSWER_BYTES_MAX)

    async def get(self, url: str, *, headers: Mapping[str, str], most: int) -> Heard:
        """As in `ports.Outbound`."""
        target = target_of(url, plain=self._plain, characters_max=SIGNED_URL_CHARACTERS_MAX)
        return await self._heard("GET", target, headers, None, most)

    async def _heard(
        self, method: str, target: Target, headers: Mapping[str, str], body: bytes | None, most: int
    ) -> Heard:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._sent(method, target, headers, body, most)
        except TimeoutError as error:
            msg = f"{target.host} did not answer within {ANSWER_SECONDS:.0f} s"
            raise Unavailable(msg, object_="url") from error
        except (OSError, httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
            msg = f"{target.host} cannot be reached: {str(error)[:200] or type(error).__name__}"
            raise Unavailable(msg, object_="url") from error

    def close(self) -> None:
        """Look up no more names."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _sent(
        self, method: str, target: Target, headers: Mapping[str, str], body: bytes | None, most: int
    ) -> Heard:
        """On a connection of its own: one that was kept open would go to where the name led before."""
        lines = {"Host": target.authority, "User-Agent": f"mainstay/{__version__}", "Connection": "close", **headers}
        backend = _Pinned(functools.partial(self._addresses, target))
        waits = dict.fromkeys(("read", "write", "pool"), ANSWER_SECONDS) | {"connect": CONNECT_SECONDS}
        async with httpcore2.AsyncConnectionPool(
            ssl_context=self._tls, max_connections=1, max_keepalive_connections=0, network_backend=backend
        ) as pool:
            url = httpcore2.URL(
                scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
            )
            async with pool.stream(
                method, url, headers=list(lines.items()), content=body, extensions={"timeout": waits}
            ) as answer:
                content = bytearray()
                async for part in answer.aiter_stream():
                    content += part
                    if len(content) >= most:
                        break
                return Heard(status=answer.status, content=bytes(content[:most]))

    async def _addresses(self, target: Target) -> Sequence[Address]:
        """All that the host leads to, or Invalid if any of them is refused: a name with two faces is trusted in neither."""
        found = [address_of(text) for text in await self._resolve(target.host, target.port)]
        if not found:
            msg = f"{target.host} has no address"
            raise OSError(msg)
        for address in found:
            why = refusal(address, self._allowed)
            if not why and target.scheme == "http" and not is_loopback(address):
                why = "http is for this machine only, https is needed"
            if why:
                msg = f"url: {target.host} leads to an address that is refused: {why}"
                hint = "give a public one; for others the operator starts the platform with --outbound-allow RANGE"
                raise Invalid(msg, object_="url", hint=hint)
        return found

    async def _looked_up(self, host: str, port: int) -> Sequence[str]:
        look = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        answers = await asyncio.get_running_loop().run_in_executor(self._pool, look)
        return list(dict.fromkeys(str(answer[4][0]) for answer in answers))

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """Of the system. Loaded with the first request: most platforms send none."""
        return self._given_tls or ssl.create_default_context()


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Connects to an address that has just been checked. The host of the request is used for TLS only."""

    def __init__(self, addresses: Callable[[], Awaitable[Sequence[Address]]]) -> None:
        self._addresses = addresses
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 it was looked up by ourselves
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,  # Any: of the interface
    ) -> httpcore2.AsyncNetworkStream:
        """The first that answers."""
        failed: Exception = OSError("there is no address")
        for address in await self._addresses():
            try:
                return await self._network.connect_tcp(
                    str(address), port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._network.sleep(seconds)
