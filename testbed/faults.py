"""What may go wrong between a client and an API server, as values; a proxy makes it happen."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

EVERY_KIND = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK"})
DROPS_PER_SECOND = 10
REASONS = {410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}
"""What the API server calls them."""


class Cut(Exception):
    """The connection ends here, as it is meant to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The request is not passed on: this is the answer."""

    status: int
    retry_after_seconds: int | None = None
    content: bytes = b""

    def written(self) -> bytes:
        """The content, or else what an API server says with this status."""
        return self.content or _status(self.status)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseRequest:
    """The connection is cut, and the server hears nothing of the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseReply:
    """The server does what it was asked; the connection is cut before a byte of its answer arrives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """The request is passed on later."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowBody:
    """The answer begins at once and then comes in drops."""

    bytes_per_second: int

    async def changed(self, pieces: AsyncIterator[bytes], _: random.Random) -> AsyncIterator[bytes]:
        """What arrives of a body."""
        size = max(1, self.bytes_per_second // DROPS_PER_SECOND)
        async for piece in pieces:
            for start in range(0, len(piece), size):
                drop = piece[start : start + size]
                yield drop
                await asyncio.sleep(len(drop) / self.bytes_per_second)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutBody:
    """The connection is cut within the answer."""

    after_bytes: int

    async def changed(self, pieces: AsyncIterator[bytes], _: random.Random) -> AsyncIterator[bytes]:
        """What arrives of a body. Raises Cut."""
        left = self.after_bytes
        async for piece in pieces:
            if len(piece) >= left:
                yield piece[:left]
                raise Cut
            left -= len(piece)
            yield piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A watch stays open, and nothing more arrives: what a network does that lost a route."""

    after_events: int = 0

    async def changed(self, events: AsyncIterator[bytes], _: random.Random) -> AsyncIterator[bytes]:
        """What arrives of the events of one watch."""
        left = self.after_events
        async for event in events:
            if left == 0:
                break
            left -= 1
            yield event
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expire:
    """A watch ends with the event that its version is too old."""

    after_events: int = 0

    async def changed(self, events: AsyncIterator[bytes], _: random.Random) -> AsyncIterator[bytes]:
        """What arrives of the events of one watch."""
        left = self.after_events
        if left:
            async for event in events:
                yield event
                left -= 1
                if left == 0:
                    break
        yield json.dumps({"type": "ERROR", "object": json.loads(_status(410))}).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Events of a watch do not arrive. Without bookmarks: `Drop(kinds=frozenset({"BOOKMARK"}))`."""

    kinds: frozenset[str] = EVERY_KIND
    probability: float = 1.0

    async def changed(self, events: AsyncIterator[bytes], chance: random.Random) -> AsyncIterator[bytes]:
        """What arrives of the events of one watch."""
        async for event in events:
            if _kind(event) not in self.kinds or chance.random() >= self.probability:
                yield event


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """Events of a watch arrive twice."""

    probability: float = 1.0

    async def changed(self, events: AsyncIterator[bytes], chance: random.Random) -> AsyncIterator[bytes]:
        """What arrives of the events of one watch."""
        async for event in events:
            yield event
            if chance.random() < self.probability:
                yield event


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorder:
    """An event of a watch waits and arrives after the next one."""

    probability: float = 1.0

    async def changed(self, events: AsyncIterator[bytes], chance: random.Random) -> AsyncIterator[bytes]:
        """What arrives of the events of one watch."""
        waiting = b""
        async for event in events:
            if not waiting and chance.random() < self.probability:
                waiting = event
                continue
            yield event
            if waiting:
                yield waiting
            waiting = b""
        if waiting:
            yield waiting


Ending = Answer | LoseRequest | LoseReply
OfBody = SlowBody | CutBody
OfWatch = Stall | Expire | Drop | Duplicate | Reorder
Fault = Ending | Delay | OfBody | OfWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which requests meet a fault.

    `method` is an expression that fits the method as a whole, `path` one that is found in the path with its query.
    The first `after` requests are spared; of the others each meets the fault with a probability, at most `times` ones.
    """

    fault: Fault
    method: str = ".*"
    path: str = ""
    probability: float = 1.0
    times: int | None = None
    after: int = 0


class Active:
    """A rule that is in force, and what has become of it."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.matched = 0
        """Requests that it is about."""
        self.happened = 0
        """Those of them that met the fault."""

    def strikes(self, method: str, target: str, chance: random.Random) -> bool:
        """Whether this request meets the fault. To be asked once for each request."""
        rule = self.rule
        if not re.fullmatch(rule.method, method) or not re.search(rule.path, target):
            return False
        if isinstance(rule.fault, OfWatch) and not is_watch(target):
            return False
        self.matched += 1
        spared = self.matched <= rule.after or (rule.times is not None and self.happened >= rule.times)
        if spared or chance.random() >= rule.probability:
            return False
        self.happened += 1
        return True


def is_watch(target: str) -> bool:
    """Whether a request asks for events."""
    return re.search(r"[?&]watch=(true|1)(&|$)", target) is not None


def _kind(event: bytes) -> str:
    return str(json.loads(event)["type"])


def _status(code: int) -> bytes:
    """As the API server words it, with less to read."""
    reason = REASONS.get(code, "Unknown")
    content = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": "made by the proxy of the test bed",
    }
    return json.dumps(content | {"reason": reason, "code": code}).encode()
