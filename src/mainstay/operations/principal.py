"""Who asks, and under which key a request is done at most once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller. The tenant of everything it touches comes from here, never from the path."""

    name: str
    tenant: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """The Idempotency-Key of a write: scope (tenant, route, key) and the SHA-256 of the body. Source: reliability.md R10."""

    route: str
    key: str
    body_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a write answers: the reply as sent the first time, and whether this was a repetition."""

    reply: str
    replayed: bool
