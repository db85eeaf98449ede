"""Commands in pods and connections to their ports, over either kind of WebSocket."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mainstay.sdk.calls import segment
from mainstay.sdk.errors import CommandTooLong, Unreachable
from mainstay.sdk.request import Request, plain
from mainstay.sdk.sockets import AsyncSocket, Socket
from mainstay.wire.sockets import CHUNK_BYTES, COMMAND_BYTES_MAX, ExecEnd, Frame, TerminalSize, framed

Channel = Literal["stdout", "stderr"]
_CHANNELS: dict[int, Channel] = {Frame.STDOUT: "stdout", Frame.STDERR: "stderr"}


def command_request(ref: str, argv: Sequence[str], *, rank: int, stdin: bool, tty: bool) -> Request:
    """What opens a command. Raises CommandTooLong."""
    if sum(len(part.encode()) + 1 for part in argv) > COMMAND_BYTES_MAX:
        msg = f"the command is longer than {COMMAND_BYTES_MAX} bytes"
        raise CommandTooLong(msg, hint="send a long script as input: mainstay exec -i RUN -- sh -s < script")
    params = {**plain({"rank": rank, "stdin": stdin, "tty": tty}), "command": list(argv)}
    return Request(method="GET", path=f"/v1/workloads/{segment(ref)}/exec", params=params)


def port_request(ref: str, port: int, *, rank: int) -> Request:
    """What opens a connection to a port."""
    return Request(method="GET", path=f"/v1/workloads/{segment(ref)}/ports/{port}", params=plain({"rank": rank}))


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """What a command that has ended left. `exit_code` None: it did not run to its end, and `message` says why."""

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    message: str = ""


class _Ended:
    """How a command ended, once it has."""

    def __init__(self) -> None:
        self._end: ExecEnd | None = None

    @property
    def exit_code(self) -> int | None:
        """As a shell has it; None before the end, and where it did not run to its end."""
        return self._end.exit_code if self._end else None

    @property
    def message(self) -> str:
        """Why it did not run to its end."""
        return self._end.message if self._end else ""

    def _read(self, message: bytes | None) -> tuple[Channel, bytes] | None:
        if message is None:
            msg = "the connection was closed before the command had ended"
            raise Unreachable(msg)
        if message[:1] == bytes([Frame.END]):
            self._end = ExecEnd.model_validate_json(message[1:])
            return None
        channel = _CHANNELS.get(message[0]) if message else None
        return (channel, message[1:]) if channel else ("stderr", b"")


class Command(_Ended):
    """A command that runs in a pod. One thread may send while another receives."""

    def __init__(self, socket: Socket) -> None:
        super().__init__()
        self._socket = socket

    def send(self, data: bytes) -> None:
        """To its standard input."""
        for start in range(0, len(data), CHUNK_BYTES):
            self._socket.send(framed(Frame.STDIN, data[start : start + CHUNK_BYTES]))

    def end_input(self) -> None:
        """No more input will come."""
        self._socket.send(framed(Frame.CLOSE, bytes([Frame.STDIN])))

    def resize(self, *, columns: int, rows: int) -> None:
        """Of its terminal."""
        self._socket.send(_size(columns, rows))

    def receive(self) -> tuple[Channel, bytes] | None:
        """Output as it comes; None when it has ended. Raises Unreachable if the connection broke before."""
        return self._read(self._socket.receive())


class AsyncCommand(_Ended):
    """A command that runs in a pod. Any task may send while another receives."""

    def __init__(self, socket: AsyncSocket) -> None:
        super().__init__()
        self._socket = socket

    async def send(self, data: bytes) -> None:
        """To its standard input."""
        for start in range(0, len(data), CHUNK_BYTES):
            await self._socket.send(framed(Frame.STDIN, data[start : start + CHUNK_BYTES]))

    async def end_input(self) -> None:
        """No more input will come."""
        await self._socket.send(framed(Frame.CLOSE, bytes([Frame.STDIN])))

    async def resize(self, *, columns: int, rows: int) -> None:
        """Of its terminal."""
        await self._socket.send(_size(columns, rows))

    async def receive(self) -> tuple[Channel, bytes] | None:
        """Output as it comes; None when it has ended. Raises Unreachable if the connection broke before."""
        return self._read(await self._socket.receive())


class Output:
    """Gathers what a command says."""

    def __init__(self) -> None:
        self._said: dict[Channel, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    def add(self, channel: Channel, data: bytes) -> None:
        """A piece."""
        self._said[channel] += data

    def result(self, command: Command | AsyncCommand) -> CommandResult:
        """All of it, once the command has ended."""
        return CommandResult(
            exit_code=command.exit_code,
            stdout=bytes(self._said["stdout"]),
            stderr=bytes(self._said["stderr"]),
            message=command.message,
        )


class PortConnection:
    """A connection to a port of a pod. One thread may send while another receives."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def send(self, data: bytes) -> None:
        """Bytes."""
        for start in range(0, len(data), CHUNK_BYTES):
            self._socket.send(data[start : start + CHUNK_BYTES])

    def end(self) -> None:
        """No more will be sent."""
        self._socket.send(b"")

    def receive(self) -> bytes | None:
        """What came; None at the end."""
        return self._socket.receive()


class AsyncPortConnection:
    """A connection to a port of a pod. Any task may send while another receives."""

    def __init__(self, socket: AsyncSocket) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        """Bytes."""
        for start in range(0, len(data), CHUNK_BYTES):
            await self._socket.send(data[start : start + CHUNK_BYTES])

    async def end(self) -> None:
        """No more will be sent."""
        await self._socket.send(b"")

    async def receive(self) -> bytes | None:
        """What came; None at the end."""
        return await self._socket.receive()


@contextlib.contextmanager
def beside(send: Callable[[], None]) -> Iterator[None]:
    """Run `send` on a thread of its own for the block: a command that answers while it is fed must be read meanwhile."""
    thread = threading.Thread(target=_quietly, args=(send,), daemon=True)
    thread.start()
    yield
    thread.join(1.0)


def _quietly(send: Callable[[], None]) -> None:
    with contextlib.suppress(Unreachable):  # it has ended: who reads it hears how
        send()


def _size(columns: int, rows: int) -> bytes:
    size = TerminalSize(columns=columns, rows=rows)
    return framed(Frame.SIZE, size.model_dump_json().encode())
