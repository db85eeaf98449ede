"""Asks an ASGI app one thing, streams and WebSockets included, and lets go as soon as it is known whether it was refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

SECONDS_MAX = 20.0


@dataclass
class Answer:
    """The status (101: a WebSocket was opened), and the body unless it is a stream."""

    status: int = 0
    body: bytes = b""


async def asked(
    app: Any,
    method: str,
    target: str,
    *,
    token: str,
    body: bytes = b"",
    protocol: str = "",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """`method` SOCKET opens a WebSocket that speaks `protocol`, and closes it at once."""
    path, _, query = target.partition("?")
    given = {"host": "platform.test", "content-type": "application/json", **(headers or {})}
    if token:
        given["authorization"] = f"Bearer {token}"
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1),
        "server": ("platform.test", 80),
        "state": {},
    }
    if method == "SOCKET":
        del scope["method"]
        scope |= {"type": "websocket", "scheme": "ws", "subprotocols": [protocol]}
        scope["extensions"] = {"websocket.http.response": {}}
    exchange = _Exchange(body=body, socket=method == "SOCKET")
    async with asyncio.timeout(SECONDS_MAX):
        await app(scope, exchange.receive, exchange.send)
    return exchange.answer


class _Exchange:
    """Our side of the connection."""

    def __init__(self, *, body: bytes, socket: bool) -> None:
        self.answer = Answer()
        self._over = asyncio.Event()
        self._kind = "websocket" if socket else "http"
        self._first = [{"type": "websocket.connect"} if socket else {"type": "http.request", "body": body}]

    async def receive(self) -> dict[str, Any]:
        if self._first:
            return self._first.pop()
        await self._over.wait()
        return {"type": f"{self._kind}.disconnect", "code": 1000}

    async def send(self, message: dict[str, Any]) -> None:
        kind = message["type"].rpartition(".")[2]
        if kind == "start":
            self.answer.status = message["status"]
        elif kind == "accept":
            self.answer.status = 101
        elif kind == "close":
            self.answer.status = self.answer.status or 403
        self.answer.body += message.get("body", b"")
        if kind in {"accept", "close"} or _is_stream(message) or (kind == "body" and not message.get("more_body")):
            self._over.set()


def _is_stream(message: dict[str, Any]) -> bool:
    return dict(message.get("headers", ())).get(b"content-type", b"").startswith(b"text/event-stream")
