"""Shells and tunnels: the channels that the API server multiplexes over one WebSocket.

A message is a byte that names the channel, then data. Processes speak v5.channel.k8s.io (KEP-4006; it alone can end standard
input) or v4. Ports speak v4.channel.k8s.io: channel 0 is data, 1 is errors, and each begins with the port as two bytes.
"""

from __future__ import annotations

from typing import Any, Final

import aiohttp
import msgspec

from mainstay.clusters.kubernetes.api import Channel
from mainstay.clusters.kubernetes.errors import Garbled, Unreachable
from mainstay.clusters.kubernetes.objects import Status
from mainstay.domain.errors import Invalid

WebSocket = aiohttp.ClientWebSocketResponse[Any]  # Any: aiohttp's flag for whether text is decoded

PROCESS_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
PORT_PROTOCOLS = ("v4.channel.k8s.io",)

_STDIN, _STDOUT, _STDERR, _RESULT, _SIZE = range(5)
_CLOSE: Final = 255
_OUTPUT = {_STDOUT: Channel.STDOUT, _STDERR: Channel.STDERR}
_NOT_STARTED = -1
_CLOSED = {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED}


class Process:
    """`api.Exec` over a WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._exit_status: int | None = None

    @property
    def exit_status(self) -> int | None:
        """None until it has ended."""
        return self._exit_status

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
                self._exit_status = _exit_status(data)
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
    """`api.Stream` over a WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._greeted: set[int] = set()

    async def send(self, data: bytes) -> None:
        """All of it is handed to the network."""
        await _send(self._socket, 0, data)

    async def receive(self) -> bytes | None:
        """What came; None at the end. Raises Unreachable with the words of the kubelet."""
        while (message := await _receive(self._socket)) is not None:
            channel, data = message
            if channel not in self._greeted:  # the number of the port
                self._greeted.add(channel)
                data = data[2:]
            if channel == 1 and data:
                msg = f"the port cannot be reached: {data.decode(errors='replace')[:500]}"
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
    """A message of a channel; None at the end."""
    message = await socket.receive()
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


def _exit_status(result: bytes) -> int:
    """A Status: Success, or a Failure with the cause ExitCode; anything else means that nothing ran to its end."""
    try:
        status = msgspec.json.decode(result, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _NOT_STARTED
    if status.status == "Success":
        return 0
    codes = [cause.message for cause in status.details.causes if cause.reason == "ExitCode"]
    return int(codes[0]) if codes and codes[0].isdigit() else _NOT_STARTED
