"""Requests of an agent to its control plane: its token, its protocol, refusals as errors of ours. Sync and async."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx2

from mainstay import __version__
from mainstay.agent.convert import decoded, encoded, raised
from mainstay.domain.errors import StateUnusable, Unavailable
from mainstay.wire.agent import PATHS, PROTOCOL, PROTOCOL_HEADER, Message
from mainstay.wire.views import Problem

M = TypeVar("M", bound=Message)
Params = Mapping[str, str | int]
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
"""A request that writes waits for a lock and a disk; nothing takes longer than that."""
STORE_SECONDS = 300.0
"""The answer to a large file comes when it is safe on the disk."""
_STORING = httpx2.Timeout(STORE_SECONDS, connect=CONNECT_SECONDS, pool=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the control plane is reached. The token is read whenever it was refused: it may be replaced meanwhile."""

    url: str
    """Without a trailing slash."""
    token: Callable[[], str] = field(repr=False)
    ca: Path | None = None
    """Of certificates that the system does not trust."""

    def headers(self) -> dict[str, str]:
        """Who asks, in which protocol."""
        return {
            "Authorization": f"Bearer {self.token()}",
            PROTOCOL_HEADER: str(PROTOCOL),
            "User-Agent": f"mainstay-agent/{__version__}",
        }

    def tls(self) -> ssl.SSLContext:
        """Trusts the system's authorities, or the one that is given. Raises StateUnusable for a file that holds none."""
        try:
            return ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        except OSError as error:
            msg = f"there are no certificates of authorities in {self.ca}: {error.strerror or error}"
            raise StateUnusable(msg, hint="let --ca-file name a file with certificates as PEM") from error


class Connection:
    """Keeps connections open, for threads (`call`) and for the loop (`acall`, `sending`, `reading`).

    Nothing is tried again here: whoever asked knows what a second time means.
    """

    def __init__(
        self,
        way: Way,
        *,
        transport: httpx2.BaseTransport | None = None,
        async_transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """The transports stand for the network; without them it is the real one."""
        self.way = way
        tls = way.tls() if way.url.startswith("https:") else False
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._http = httpx2.Client(base_url=way.url, timeout=timeout, verify=tls, transport=transport)
        self._ahttp = httpx2.AsyncClient(base_url=way.url, timeout=timeout, verify=tls, transport=async_transport)

    def call(
        self, method: str, path: str, answer: type[M], *, body: Message | None = None, params: Params | None = None
    ) -> M:
        """From a worker thread. Raises what the control plane raised; Unavailable where the outcome is not known."""
        try:
            response = self._http.request(
                method, PATHS + path, params=params, headers=self.way.headers(), content=_bytes(body)
            )
        except httpx2.HTTPError as error:
            raise _unreachable(self.way.url, error) from error
        return decoded(_content(response.status_code, response.content), answer)

    async def acall(
        self, method: str, path: str, answer: type[M], *, body: Message | None = None, params: Params | None = None
    ) -> M:
        """As `call`, on the loop."""
        try:
            response = await self._ahttp.request(
                method, PATHS + path, params=params, headers=self.way.headers(), content=_bytes(body)
            )
        except httpx2.HTTPError as error:
            raise _unreachable(self.way.url, error) from error
        return decoded(_content(response.status_code, response.content), answer)

    async def sending(self, path: str, chunks: AsyncIterator[bytes], answer: type[M], *, params: Params) -> M:
        """PUT a body of any size."""
        try:
            response = await self._ahttp.put(
                PATHS + path, params=params, content=chunks, headers=self.way.headers(), timeout=_STORING
            )
        except httpx2.HTTPError as error:
            raise _unreachable(self.way.url, error) from error
        return decoded(_content(response.status_code, response.content), answer)

    @asynccontextmanager
    async def reading(self, path: str, params: Params) -> AsyncIterator[AsyncIterator[bytes]]:
        """GET a body of any size."""
        try:
            async with self._ahttp.stream("GET", PATHS + path, params=params, headers=self.way.headers()) as response:
                if response.status_code >= 400:
                    _content(response.status_code, await response.aread())
                yield response.aiter_bytes()
        except httpx2.HTTPError as error:
            raise _unreachable(self.way.url, error) from error

    async def close(self) -> None:
        """Let go of all connections."""
        self._http.close()
        await self._ahttp.aclose()


def _bytes(body: Message | None) -> bytes | None:
    return None if body is None else encoded(body)


def _content(status: int, content: bytes) -> bytes:
    """Raises the refusal under the name that it had at the other end."""
    if status < 300:
        return content
    try:
        problem = Problem.model_validate_json(content)
    except ValueError as error:
        msg = f"what answers (status {status}) is not a mainstay platform"
        raise Unavailable(msg, hint="check the address of the server, and proxies on the way") from error
    raise raised(problem.code, problem.detail, object_=problem.object, hint=problem.hint, numbers=problem.numbers)


def _unreachable(url: str, error: Exception) -> Unavailable:
    msg = f"the control plane at {url} does not answer ({error or type(error).__name__})"
    return Unavailable(msg, hint="the agent goes on trying; what runs runs on")
