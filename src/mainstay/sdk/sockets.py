"""WebSockets to pods: what the bytes mean, without a network; and the two ways to wait for them.

The answer to the opening request brings the raw connection, over which wsproto speaks. A message is read when somebody asks
for one, so whoever reads slowly slows the other side down instead of filling our memory.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import threading
from collections import deque
from collections.abc import Mapping

import httpcore2
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import ProtocolError

from mainstay.sdk.errors import Unreachable
from mainstay.wire.sockets import DONE, GOING, MESSAGE_BYTES_MAX

READ_BYTES = 1 << 16
FAILURES = (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError)


def opening(protocol: str) -> Mapping[str, str]:
    """The headers that ask for a WebSocket. Source: RFC 6455, 4.1."""
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
        "Sec-WebSocket-Protocol": protocol,
    }


class Dialogue:
    """One side of a WebSocket: bytes in, messages out."""

    def __init__(self) -> None:
        self._connection = Connection(ConnectionType.CLIENT)
        self._half = b""
        self._messages: deque[bytes] = deque()
        self._end: CloseConnection | None = None

    def next(self) -> tuple[bool, bytes | None]:
        """Whether something is there, and the message; None at the end. Raises Unreachable for an end that is none."""
        if self._messages:
            return True, self._messages.popleft()
        if self._end is None:
            return False, None
        if self._end.code == DONE:
            return True, None
        hint = "try again in a moment" if self._end.code == GOING else ""
        reason = "the platform is being restarted" if self._end.code == GOING else self._end.reason
        raise Unreachable(reason or f"the connection was closed ({self._end.code})", hint=hint)

    def heard(self, data: bytes) -> bytes:
        """Take what came; what must be sent for it. Raises Unreachable if that is no WebSocket any more."""
        if not data:
            raise broken()
        answers = b""
        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                match event:
                    case BytesMessage():
                        self._take(bytes(event.data), whole=event.message_finished)
                    case Ping():
                        answers += self._connection.send(event.response())
                    case CloseConnection():
                        self._end = event
                        if self._connection.state is ConnectionState.REMOTE_CLOSING:
                            answers += self._connection.send(event.response())
                    case TextMessage():
                        raise broken()
                    case _:
                        continue
        except ProtocolError as error:
            raise broken(error) from error
        return answers

    def message(self, data: bytes) -> bytes:
        """What a message is on its way. Raises Unreachable once either side has closed."""
        try:
            return self._connection.send(BytesMessage(data))
        except ProtocolError as error:
            raise broken(error) from error

    def close(self) -> bytes:
        """What says that we leave; nothing if that has been said."""
        if self._connection.state is not ConnectionState.OPEN:
            return b""
        return self._connection.send(CloseConnection(DONE))

    def _take(self, part: bytes, *, whole: bool) -> None:
        self._half += part
        if len(self._half) > MESSAGE_BYTES_MAX:
            raise broken()
        if whole:
            self._messages.append(self._half)
            self._half = b""


def broken(error: Exception | None = None) -> Unreachable:
    """The connection is of no use any more."""
    detail = f" ({error})" if error is not None and str(error) else ""
    return Unreachable(f"the connection to the platform broke{detail}")


class Socket:
    """A WebSocket for ordinary code: one thread may send while another receives."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        self._dialogue = Dialogue()
        self._sending = threading.Lock()

    def send(self, data: bytes) -> None:
        """A message."""
        with self._sending:
            self._write(self._dialogue.message(data))

    def receive(self) -> bytes | None:
        """The next message; None at the end. Raises Unreachable for an end that is none."""
        while True:
            with self._sending:
                there, message = self._dialogue.next()
            if there:
                return message
            try:
                data = self._stream.read(READ_BYTES)
            except FAILURES as error:
                raise broken(error) from error
            with self._sending:
                self._write(self._dialogue.heard(data))

    def close(self) -> None:
        """Say goodbye, once."""
        with self._sending:
            try:
                self._stream.write(self._dialogue.close(), timeout=1.0)
            except FAILURES:
                return

    def _write(self, data: bytes) -> None:
        try:
            self._stream.write(data)
        except FAILURES as error:
            raise broken(error) from error


class AsyncSocket:
    """A WebSocket for `async` code: any task may send while another receives."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._dialogue = Dialogue()
        self._sending = asyncio.Lock()

    async def send(self, data: bytes) -> None:
        """A message."""
        await self._write(self._dialogue.message(data))

    async def receive(self) -> bytes | None:
        """The next message; None at the end. Raises Unreachable for an end that is none."""
        while True:
            there, message = self._dialogue.next()
            if there:
                return message
            try:
                data = await self._stream.read(READ_BYTES)
            except FAILURES as error:
                raise broken(error) from error
            await self._write(self._dialogue.heard(data))

    async def close(self) -> None:
        """Say goodbye, once."""
        try:
            async with asyncio.timeout(1.0), self._sending:
                await self._stream.write(self._dialogue.close())
        except (*FAILURES, TimeoutError):
            return

    async def _write(self, data: bytes) -> None:
        """The stream refuses who writes while somebody else does."""
        try:
            async with self._sending:
                await self._stream.write(data)
        except FAILURES as error:
            raise broken(error) from error
