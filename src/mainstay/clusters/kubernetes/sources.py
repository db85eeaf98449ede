"""Where credentials come from: fixed ones, or a local configuration whose tokens are short-lived and read anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.ports import Clock


class Source(Protocol):
    """Credentials as they are now. Raises ApiError with what to do."""

    async def current(self) -> Credentials:
        """The same object until they change. Cheap: asked before every request."""

    async def renewed(self, refused: Credentials) -> Credentials:
        """After the server refused some: newer ones, or the same if there are none."""


class Fixed:
    """Registered credentials: they change when they are registered again."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def current(self) -> Credentials:
        """The same always."""
        return self._credentials

    async def renewed(self, refused: Credentials) -> Credentials:
        """There are no others."""
        return refused


class Reread:
    """Credentials that are read again when their time is over, and when they are refused; never by two at once."""

    def __init__(self, read: Callable[[], Awaitable[tuple[Credentials, float]]], *, clock: Clock) -> None:
        """`read` answers with credentials and for how many seconds they are good."""
        self._read, self._clock = read, clock
        self._held: Credentials | None = None
        self._until = 0.0
        self._reading = asyncio.Lock()

    async def current(self) -> Credentials:
        """Raises what `read` raises."""
        if self._held is None or self._clock.monotonic() >= self._until:
            async with self._reading:
                if self._held is None or self._clock.monotonic() >= self._until:
                    return await self._read_again()
        return self._held

    async def renewed(self, refused: Credentials) -> Credentials:
        """Whoever comes second gets what the first has read."""
        async with self._reading:
            if self._held is None or self._held is refused:
                return await self._read_again()
            return self._held

    async def _read_again(self) -> Credentials:
        read, seconds = await self._read()
        self._until = self._clock.monotonic() + seconds
        if self._held is None or read != self._held:
            self._held = read
        return self._held
