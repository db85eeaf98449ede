"""An issuer of tokens: what it says of itself and its keys, fetched when they are needed and kept for a while.

An issuer that is down lets in whoever it has vouched for: its keys are good for a day without it. A token that names a key
nobody has heard of makes us look again, but not more often than every ten seconds, whatever is sent to us.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import httpx2

from mainstay.domain.errors import Unauthenticated, Unavailable
from mainstay.identity.tokens import (
    LOGOUT_TYPES,
    Claims,
    Header,
    SigningKey,
    header_of,
    key_for,
    signing_keys,
    verified,
    verified_logout,
)
from mainstay.ports import Clock

FRESH_SECONDS: Final = 600.0
"""Keys that are older are fetched again when they are next needed."""
STALE_SECONDS: Final = 24 * 3_600.0
"""Keys that are older are not believed any more, if the issuer does not answer."""
AGAIN_SECONDS: Final = 10.0
"""So long after a look, successful or not, before the next one."""
BYTES_MAX: Final = 1 << 20
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Document = Mapping[str, Any]
"""`Any`: JSON of somebody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What an issuer has said. `at` by the monotonic clock."""

    document: Document
    keys: tuple[SigningKey, ...]
    at: float


class Issuer:
    """One issuer, by its exact name."""

    def __init__(self, url: str, *, http: httpx2.AsyncClient, clock: Clock) -> None:
        self.url = url
        self._http, self._clock = http, clock
        self._known: Known | None = None
        self._looked = -AGAIN_SECONDS
        self._lock = asyncio.Lock()

    async def claims(self, token: str, *, audience: str) -> Claims:
        """What a token of this issuer says, once all of it has been verified. Raises Unauthenticated, Unavailable."""
        header = header_of(token)
        key = await self._key(header)
        return verified(token, header, key, issuer=self.url, audience=audience, now=self._clock.now())

    async def logout_claims(self, token: str, *, audience: str) -> Claims:
        """Likewise for a token that says that somebody has signed out. Raises Unauthenticated, Unavailable."""
        header = header_of(token, types=LOGOUT_TYPES)
        key = await self._key(header)
        return verified_logout(token, header, key, issuer=self.url, audience=audience, now=self._clock.now())

    async def address(self, name: str) -> str:
        """Where the issuer does `name`, e.g. `token_endpoint`; empty if it does not. Raises Unavailable."""
        known = await self._current()
        value = known.document.get(name, "")
        if not isinstance(value, str) or (value and not self._may_be_asked(value)):
            self._fail(f"{name} is no address that may be asked")
        return value

    async def offers(self, name: str) -> tuple[str, ...]:
        """A list of what the issuer says of itself. Raises Unavailable."""
        value = (await self._current()).document.get(name, ())
        return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()

    async def _key(self, header: Header) -> SigningKey:
        known = await self._current()
        key = key_for(header, known.keys)
        if key is None:
            key = key_for(header, (await self._current(newer_than=known.at)).keys)
        if key is None:
            msg = "this token is not valid: its issuer has no such key"
            raise Unauthenticated(msg, hint="ask its issuer for a new one")
        return key

    async def _current(self, *, newer_than: float = -1.0) -> Known:
        """What is known, fetched again where that is due. Raises Unavailable while nothing is known that may be believed."""
        async with self._lock:
            now, known = self._clock.monotonic(), self._known
            fresh = known is not None and known.at > newer_than and now - known.at < FRESH_SECONDS
            if not fresh and now - self._looked >= AGAIN_SECONDS:
                self._looked = now
                try:
                    self._known = known = await self._fetched(now)
                except Unavailable:
                    if known is None or now - known.at >= STALE_SECONDS:
                        raise
            if known is None or now - known.at >= STALE_SECONDS:
                self._fail("it did not answer a moment ago")
            return known

    async def _fetched(self, now: float) -> Known:
        """Source: OpenID Connect Discovery 1.0, section 4."""
        document = await self._json(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self.url:
            self._fail(f"it calls itself {str(document.get('issuer'))[:200]!r}")
        address = document.get("jwks_uri")
        if not isinstance(address, str) or not self._may_be_asked(address):
            self._fail("it does not say where its keys are")
        keys = signing_keys(await self._json(address))
        if not keys:
            self._fail("it has no key that we could use")
        return Known(document=document, keys=keys, at=now)

    async def _json(self, address: str) -> Document:
        try:
            async with self._http.stream("GET", address, headers={"Accept": "application/json"}) as response:
                if response.status_code != 200:
                    self._fail(f"it answered {response.status_code}")
                body = await limited(response)
        except httpx2.HTTPError as error:
            self._fail(f"it cannot be reached: {type(error).__name__}")
        document = parsed(body)
        if document is None:
            self._fail("its answer is not JSON")
        return document

    def _may_be_asked(self, address: str) -> bool:
        """Over TLS; without it only on this machine, and only by an issuer that lives here itself."""
        try:
            parts = urlsplit(address)
        except ValueError:
            return False
        if parts.scheme == "https":
            return bool(parts.hostname)
        here = urlsplit(self.url)
        return parts.scheme == here.scheme == "http" and parts.hostname in LOOPBACK and here.hostname in LOOPBACK

    def _fail(self, why: str) -> NoReturn:
        """Raises Unavailable."""
        msg = f"the identity provider {self.url}: {why}"
        raise Unavailable(msg, object_=self.url, hint="try again; `mainstay login --token-stdin` works without it")


async def limited(response: httpx2.Response) -> bytes:
    """The body, or nothing of one that is too large."""
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > BYTES_MAX:
            return b""
    return body


def parsed(body: bytes) -> Document | None:
    """A JSON object; None for anything else."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
