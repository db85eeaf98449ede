"""Requests over HTTPS: credentials, timeouts, the size of answers, refusals as errors, and the clock of the server."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from math import inf
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from mainstay import __version__
from mainstay.clusters.kubernetes import tls
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.errors import ApiError, Garbled, Unauthenticated, Unreachable, refusal
from mainstay.clusters.kubernetes.network import FAILURES, failure
from mainstay.clusters.kubernetes.objects import Status
from mainstay.clusters.kubernetes.sources import Source
from mainstay.domain.outbound import address_of, never_a_machine
from mainstay.ports import Clock

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
"""The API server itself gives up on a request after a minute."""
ANSWER_BYTES_MAX = 256 << 20
"""A page of 500 objects of the largest size that etcd takes (1.5 MB) is three times as much; nobody has such pods."""
REFUSAL_BYTES_MAX = 1 << 20
GOODBYE_SECONDS = 0.1
MESSAGE_BYTES_MAX = 4 << 20
DATE_READ_SECONDS = 1.0
"""`Date` has a resolution of a second; reading it more often is waste."""

Parameters = Iterable[tuple[str, str]]


class Transport:
    """One API server, one identity. Connections are kept and shared; every wait has an end."""

    def __init__(self, source: Source, *, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._credentials: Credentials | None = None
        self._options: dict[str, Any] = {}  # Any: arguments of aiohttp
        self._sessions: tuple[aiohttp.ClientSession, aiohttp.ClientSession] | None = None
        self._server_time = (0, 0.0)  # UTC microseconds by the server, at this monotonic time

    async def request(
        self,
        method: str,
        path: str,
        *,
        parameters: Parameters = (),
        body: bytes | None = None,
        content_type: str = "",
        not_after: float = inf,
    ) -> bytes:
        """The body of the answer. Raises ApiError. A request with a body is not sent after this monotonic second."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
        headers = {"Content-Type": content_type or "application/json"} if body is not None else {}
        data = (
            body
            if body is None or not_after == inf
            else _Timely(body, in_time=lambda: self._clock.monotonic() <= not_after)
        )
        async with self._answer(method, path, parameters, timeout=timeout, data=data, headers=headers) as answer:
            return await _content(answer, ANSWER_BYTES_MAX)

    @asynccontextmanager
    async def stream(
        self, path: str, *, parameters: Parameters = (), stall_seconds: float | None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The chunks of an answer that has no end. Raises ApiError; Silent after `stall_seconds` without a byte."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=stall_seconds)
        async with self._answer("GET", path, parameters, timeout=timeout) as answer:
            yield answer.content.iter_any()

    @asynccontextmanager
    async def websocket(
        self, path: str, *, parameters: Parameters, protocols: tuple[str, ...]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse[bool]]:
        """An open WebSocket that speaks one of the protocols. Raises ApiError."""
        for last in (False, True):
            server = await self._prepare()
            _, upgrading = self._open_sessions()
            headers = self._options["headers"] | {"Accept": "*/*"}  # kubelets give nothing to those who want JSON
            try:
                opened = await upgrading.ws_connect(
                    _url(server, path, parameters),
                    protocols=protocols,
                    autoping=False,  # `sockets.py` answers, and asks
                    max_msg_size=MESSAGE_BYTES_MAX,
                    **(self._options | {"headers": headers}),
                )
            except Unauthenticated:
                if last or not await self._renew():
                    raise
            except FAILURES as error:
                raise failure(error, method="GET", server=server) from error
            else:
                break
        async with opened:
            yield opened

    def server_time(self) -> int:
        """UTC microseconds by the server's clock; by ours until it has answered once."""
        seen, at = self._server_time
        return seen + round((self._clock.monotonic() - at) * 1_000_000) if seen else self._clock.now()

    async def close(self) -> None:
        """Let go of all connections."""
        if self._sessions is not None:
            for session in self._sessions:
                await session.close()
            self._sessions = None
            # A connection that was still being made when it was let go of needs a moment of the loop to be gone.
            await asyncio.sleep(GOODBYE_SECONDS)

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, parameters: Parameters, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer below 300. Credentials that are refused are renewed once: the request was not carried out."""
        for last in (False, True):
            server = await self._prepare()
            session, _ = self._open_sessions()
            arguments = {**self._options, **options}
            arguments["headers"] = {**self._options["headers"], **options.get("headers", {})}
            try:
                async with session.request(
                    method, _url(server, path, parameters), allow_redirects=False, **arguments
                ) as answer:
                    if answer.status == 401 and not last and await self._renew():
                        continue
                    await self._check(answer, method, path)
                    try:
                        yield answer
                    finally:
                        _hang_up(answer)
                    return
            except FAILURES as error:
                raise failure(error, method=method, server=server) from error

    async def _prepare(self) -> str:
        """Use the credentials of this moment; the server's address."""
        credentials = await self._source.current()
        if credentials is not self._credentials:
            self._use(credentials)
        return credentials.server

    async def _renew(self) -> bool:
        """Whether there are others than those that were refused."""
        used = self._credentials
        assert used is not None
        return await self._source.renewed(used) is not used

    def _use(self, credentials: Credentials) -> None:
        before = self._credentials
        headers = {"Accept": "application/json", "User-Agent": f"mainstay/{__version__}"}
        if credentials.token:
            headers["Authorization"] = f"Bearer {credentials.token}"
        options: dict[str, Any] = {"headers": headers}
        if credentials.server.startswith("https:"):
            kept = before is not None and _tls_parts(before) == _tls_parts(credentials)
            options["ssl"] = self._options["ssl"] if kept else tls.context(credentials)
            options["server_hostname"] = credentials.tls_server_name or None
        if credentials.proxy:
            options["proxy"] = credentials.proxy
        self._credentials, self._options = credentials, options

    def _open_sessions(self) -> tuple[aiohttp.ClientSession, aiohttp.ClientSession]:
        """One for requests, one for upgrades (where a refusal must be read before aiohttp throws it away)."""
        if self._sessions is None:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0, socket_factory=_socket)
            requests = aiohttp.ClientSession(
                connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True
            )
            upgrades = aiohttp.ClientSession(
                connector=connector,
                connector_owner=False,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
                middlewares=(self._refuse_upgrade,),
            )
            self._sessions = requests, upgrades
        return self._sessions

    async def _refuse_upgrade(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        answer = await handler(request)
        if answer.status != 101:
            await self._check(answer, "GET", request.url.path)
        return answer

    async def _check(self, answer: aiohttp.ClientResponse, method: str, path: str) -> None:
        self._read_clock(answer.headers)
        if answer.status < 300:
            return
        if answer.status < 400:
            msg = f"the answer is a redirect ({answer.status}), which an API server never gives"
            raise Unreachable(msg, hint="check the address in `server`")
        raise _refusal(answer, await _content(answer, REFUSAL_BYTES_MAX), method=method, path=path)

    def _read_clock(self, headers: Mapping[str, str]) -> None:
        now = self._clock.monotonic()
        seen, at = self._server_time
        if (not seen or now - at >= DATE_READ_SECONDS) and (date := headers.get("Date")):
            try:
                self._server_time = round(parsedate_to_datetime(date).timestamp() * 1_000_000), now
            except ValueError:  # no date: nothing is learnt
                return


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """One on which a dead peer is found within a minute, though a log or a shell may be silent for days.

    The address is the one to which the connection goes, whatever its name led to before: none where only a cloud's secrets are.
    Private ones are allowed, since only administrators of the platform register clusters (docs/decisions/0038). Raises OSError.
    """
    family, kind, protocol, _, where = address
    why = never_a_machine(address_of(str(where[0])))
    if why:
        msg = f"its name leads to an address of no API server: {why}"
        raise OSError(msg)
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


class _Timely(aiohttp.BytesPayload):
    """A body that is held back once it is too late, and with it the head that goes out in the same breath.

    It is asked when it has a connection: whoever is stopped after that finds this one closed by the server.
    """

    def __init__(self, body: bytes, *, in_time: Callable[[], bool]) -> None:
        super().__init__(body)
        self._in_time = in_time

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """As every body, in time."""
        if not self._in_time():
            msg = "too late to be sent"
            raise ConnectionAbortedError(msg)
        await super().write_with_length(writer, content_length)


def _tls_parts(credentials: Credentials) -> tuple[str, str, str]:
    return credentials.ca, credentials.certificate, credentials.key


def _url(server: str, path: str, parameters: Parameters) -> URL:
    """Encoded already: parsing it again would cost more than the rest of the request."""
    query = _query(tuple(parameters))
    return URL(f"{server}{path}?{query}" if query else f"{server}{path}", encoded=True)


@functools.lru_cache(maxsize=64)
def _query(parameters: tuple[tuple[str, str], ...]) -> str:
    """What creates and changes pods asks for the same again and again."""
    return urlencode([(name, value) for name, value in parameters if value])


async def _content(answer: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """The whole body. Raises Garbled before it fills our memory."""
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > bytes_max:
            msg = f"the answer has more than {bytes_max >> 20} MiB"
            raise Garbled(msg)
        parts.append(part)
    return b"".join(parts)


def _hang_up(answer: aiohttp.ClientResponse) -> None:
    """Leave an answer that has not ended. The goodbye of TLS would wait for half a minute for a peer that goes on talking."""
    if answer.connection is not None and answer.connection.transport is not None:
        answer.connection.transport.abort()


def _refusal(answer: aiohttp.ClientResponse, content: bytes, *, method: str, path: str) -> ApiError:
    """A load balancer answers without a Status, and any of them may lie: the HTTP status counts."""
    try:
        status = msgspec.json.decode(content, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        status = Status(message=content[:200].decode(errors="replace"))
    status = msgspec.structs.replace(status, code=answer.status)
    return refusal(status, method=method, path=path, retry_after=_seconds(answer.headers.get("Retry-After", "")))


def _seconds(header: str) -> float:
    """Retry-After in seconds; the form with a date is not used by API servers."""
    return float(header) if header.isascii() and header.isdigit() else 0.0
