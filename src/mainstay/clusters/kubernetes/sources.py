"""Where credentials come from: fixed ones, or a local configuration whose tokens are short-lived and read anew."""

from __future__ import annotations

from typing import Protocol

from mainstay.clusters.kubernetes.credentials import Credentials


class Source(Protocol):
    """Credentials as they are now. Raises Invalid or Unauthenticated with what to do."""

    async def current(self) -> Credentials:
        """Cheap: asked before every request."""

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
