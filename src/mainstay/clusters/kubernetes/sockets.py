"""Shells and tunnels: the channels that the API server multiplexes over one WebSocket.

A message is a byte that names the channel, then data. Processes speak v5.channel.k8s.io (KEP-4006; it alone can end standard
input) or v4. Ports speak v4.channel.k8s.io: channel 0 is data, 1 is errors, and each begins with the port as two bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, Final

import aiohttp
import msgspec

from mainstay.clusters.kubernetes import kubelet_words
from mainstay.clusters.kubernetes.errors import Garbled, Unreachable
from mainstay.clusters.kubernetes.objects import Status
from mainstay.domain.errors import Invalid
from mainstay.ports import Channel

WebSocket = aiohttp.ClientWebSocketResponse[Any]  # Any: aiohttp's flag for whether text is decoded

PROCESS_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
PORT_PROTOCOLS = ("v4.channel.k8s.io",)

_STDIN, _STDOUT, _STDERR, _RESULT, _SIZE = range(5)
_CLOSE: Final = 255
_OUTPUT = {_STDOUT: Channel.STDOUT, _STDERR: Channel.STDERR}
_NOT_STARTED = -1
HEARTBEAT_SECONDS = 30.0
"""After so long without a word we ping, which keeps load balancers from cutting an idle shell; after twice that it is dead.

Only who waits for a message asks: while nobody reads what a process says, its answer to a ping is stuck behind that.
"""
WORDS_MAX = 500
_CLOSED = {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED}


class Process:
    """`ports.Process` over a WebSocket."""

    def __init__(self, socket: WebSocket, program: str) -> None:
        """`program` is what was to be run, for who is told that it was not."""
        self._socket = socket
        self._program = program
        self._exit_status: int | None = None
        self._failure = ""

    @property
    def exit_status(self) -> int | None:
        """None until it has ended."""
        return self._exit_status

    @property
    def failure(self) -> str:
        """Why it did not run, or not to its end."""
        return self._failure

    async def send(self, data: bytes) -> None:
        """To its standard input."""
        await _send(self._socket, _STDIN, data)

    async def end_input(self) -> None:
        """No more input will come. Raises Invalid on servers before v5 of the protocol (Kubernetes 1.30)."""
        if self._socket.protocol != PROCESS_PROTOCOLS[0]:
            msg = "this API server cannot be told that input has ended"
            raise Invalid(msg, hint="use a command that does not wait for the end of its input")
        await _send(self._socket, _CLOSE, bytes([_STDIN]))

    async def receive(self) -> tuple[Channel, bytes] | None:
        """Output as it comes; None when the process has ended."""
        while (message := await _receive(self._socket)) is not None:
            channel, data = message
            if channel == _RESULT:
                self._exit_status, said = _result(data)
                self._failure = kubelet_words.of_command(self._program, said)
                return None
            if channel in _OUTPUT and data:
                return _OUTPUT[channel], data
        if self._exit_status is None:
            msg = "the connection to a process ended before the process did"
            raise Unreachable(msg)
        return None

    async def resize(self, *, columns: int, rows: int) -> None:
        """Of its terminal."""
        await _send(self._socket, _SIZE, msgspec.json.encode({"Width": columns, "Height": rows}))

    async def close(self) -> None:
        """Let go."""
        await self._socket.close()


class Port:
    """`ports.Stream` over a WebSocket."""

    def __init__(self, socket: WebSocket, *, pod: str, port: int) -> None:
        self._socket = socket
        self._pod, self._port = pod, port
        self._greeted: set[int] = set()

    async def send(self, data: bytes) -> None:
        """All of it is handed to the network."""
        await _send(self._socket, 0, data)

    async def end(self) -> None:
        """The protocol has no word for it: the pod is not told."""

    async def receive(self) -> bytes | None:
        """What came; None at the end. Raises Unreachable."""
        while (message := await _receive(self._socket)) is not None:
            channel, data = message
            if channel not in self._greeted:  # the number of the port
                self._greeted.add(channel)
                data = data[2:]
            if channel == 1 and data:
                said = " ".join(data.decode(errors="replace").split())[:WORDS_MAX]
                msg = kubelet_words.of_port(self._pod, self._port, said)
                raise Unreachable(msg)
            if channel == 0 and data:
                return data
        return None

    async def close(self) -> None:
        """Let go."""
        await self._socket.close()


async def _send(socket: WebSocket, channel: int, data: bytes) -> None:
    try:
        await socket.send_bytes(bytes([channel]) + data)
    except (aiohttp.ClientError, OSError) as error:
        msg = "the connection to the pod has ended"
        raise Unreachable(msg) from error


async def _receive(socket: WebSocket) -> tuple[int, bytes] | None:
    """A message of a channel; None at the end. Raises Unreachable, also if the other side is silent when it is asked."""
    asked = False
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                message = await socket.receive()
        except TimeoutError:
            if asked:
                msg = "the connection to the pod is dead: nothing answers"
                raise Unreachable(msg) from None
            asked = True
            await _answer(socket.ping())
            continue
        asked = False
        if message.type is aiohttp.WSMsgType.PING:
            await _answer(socket.pong(message.data))
        elif message.type is not aiohttp.WSMsgType.PONG:
            break
    if message.type is aiohttp.WSMsgType.ERROR:
        msg = f"the connection to the pod broke: {message.data}"
        raise Unreachable(msg)
    if message.type in _CLOSED:
        return None
    data = message.data if isinstance(message.data, bytes) else str(message.data).encode()
    if not data:
        msg = "a message without a channel came from the pod"
        raise Garbled(msg)
    return data[0], data[1:]


async def _answer(sending: Awaitable[None]) -> None:
    """A ping or pong that cannot be sent is no news of its own: the next message says how the connection ended."""
    with contextlib.suppress(aiohttp.ClientError, OSError):
        await sending


def _result(result: bytes) -> tuple[int, str]:
    """The exit status of a Status, and its words if nothing ran to its end: Success, or a Failure with the cause ExitCode."""
    try:
        status = msgspec.json.decode(result, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _NOT_STARTED, "the kubelet did not say how it ended"
    if status.status == "Success":
        return 0, ""
    codes = [cause.message for cause in status.details.causes if cause.reason == "ExitCode"]
    if codes and codes[0].isdigit():
        return int(codes[0]), ""
    return _NOT_STARTED, " ".join(status.message.split())[:WORDS_MAX] or "the kubelet did not say why"
