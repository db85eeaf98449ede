"""Into a run of this machine: commands beside its own program, and connections to the ports that it listens on.

A command has a keeper of its own (`guest.py`), which ends with the run, with whoever holds its line, and with us. Its streams
are read only when somebody asks for what they say, so a reader that is slow slows the command down and costs no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mainstay.clusters.local import processes
from mainstay.clusters.local.addresses import HOST
from mainstay.clusters.local.runs import Run, cookie
from mainstay.domain.errors import Invalid, Unavailable
from mainstay.ports import Channel

GUEST = Path(__file__).with_name("guest.py")
READ_BYTES = 1 << 16
REPORT_BYTES_MAX = 1 << 14
CLOSE_SECONDS = 10.0
"""A process that the kernel holds is not waited for longer: its keeper goes on killing it."""
END_OF_INPUT = b"\x04"
"""What a terminal takes for the end of input (Ctrl-D)."""


@asynccontextmanager
async def connected(run: Run, port: int) -> AsyncIterator[Connection]:
    """A connection to a port on which the run listens, and on which nobody else on this machine does.

    Raises Unavailable. All runs and the platform share one loopback address: a port is reached only if it is the run's own.
    """
    assert run.spec is not None
    if port != run.spec["port"] and not await asyncio.to_thread(processes.carriers_listen, cookie(run.files), port):
        msg = f"nothing of pod {run.pod} listens on port {port}"
        raise Unavailable(msg, object_=run.pod)
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
    except OSError as error:
        msg = f"port {port} of pod {run.pod} cannot be reached: {error.strerror or error}"
        raise Unavailable(msg, object_=run.pod) from error
    connection = Connection(reader, writer)
    try:
        yield connection
    finally:
        await connection.close()


class Connection:
    """`ports.Stream` over a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """All of it is handed to the kernel."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise _broken(error) from error

    async def end(self) -> None:
        """Half of it is closed."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def receive(self) -> bytes | None:
        """What came; None at the end."""
        try:
            return await self._reader.read(READ_BYTES) or None
        except OSError as error:
            raise _broken(error) from error

    async def close(self) -> None:
        """Let go."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _broken(error: OSError) -> Unavailable:
    return Unavailable(f"the connection to the pod has ended: {error.strerror or error}")


@asynccontextmanager
async def started(run: Run, argv: Sequence[str], *, tty: bool) -> AsyncIterator[Command]:
    """A command inside a run. Raises Invalid for a command that is none."""
    if not argv or any("\x00" in part for part in argv):
        msg = "a command must not be empty or contain NUL"
        raise Invalid(msg, object_=run.pod)
    command = await asyncio.to_thread(_start, run, argv, _terminal() if tty else _pipes())
    try:
        yield command
    finally:
        await command.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Descriptors of a command's streams: its own ends, and ours. A terminal is one for all."""

    theirs: tuple[int, int, int]
    stdin: int
    outputs: tuple[tuple[int, Channel], ...]
    terminal: bool


def _terminal() -> Streams:
    ours, theirs = pty.openpty()
    return Streams(theirs=(theirs,) * 3, stdin=ours, outputs=((ours, Channel.STDOUT),), terminal=True)


def _pipes() -> Streams:
    stdin, our_stdin = os.pipe()
    our_stdout, stdout = os.pipe()
    our_stderr, stderr = os.pipe()
    outputs = ((our_stdout, Channel.STDOUT), (our_stderr, Channel.STDERR))
    return Streams(theirs=(stdin, stdout, stderr), stdin=our_stdin, outputs=outputs, terminal=False)


def _start(run: Run, argv: Sequence[str], streams: Streams) -> Command:
    line, their_line = socket.socketpair()
    name, _, value = cookie(run.files).partition("=")
    try:
        keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUEST), str(run.directory), str(their_line.fileno()), *argv],
            stdin=streams.theirs[0],
            stdout=streams.theirs[1],
            stderr=streams.theirs[2],
            pass_fds=(their_line.fileno(),),
            env={name: value},
            start_new_session=True,
        )
    except OSError as error:
        line.close()
        for descriptor in {streams.stdin, *(output for output, _ in streams.outputs)}:
            os.close(descriptor)
        msg = f"no process could be started: {error.strerror}"
        raise Unavailable(msg, object_=run.pod) from error
    finally:
        their_line.close()
        for descriptor in set(streams.theirs):
            os.close(descriptor)
    return Command(keeper, line, streams)


class Command:
    """`ports.Process` on this machine."""

    def __init__(self, keeper: subprocess.Popen[bytes], line: socket.socket, streams: Streams) -> None:
        self._keeper = keeper
        self._line = line
        self._line.setblocking(False)
        self._terminal = streams.terminal
        self._stdin: int | None = streams.stdin
        self._outputs = dict(streams.outputs)
        self._open = {streams.stdin, *self._outputs}
        self._exit_status: int | None = None
        self._failure = ""
        for descriptor in self._open:
            os.set_blocking(descriptor, False)

    @property
    def exit_status(self) -> int | None:
        """None until it has ended."""
        return self._exit_status

    @property
    def failure(self) -> str:
        """Why it could not be started, or was ended with its run."""
        return self._failure

    async def send(self, data: bytes) -> None:
        """To its standard input, at the pace at which it reads."""
        rest = memoryview(data)
        while rest and self._stdin is not None:
            try:
                rest = rest[os.write(self._stdin, rest) :]
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _ready([self._stdin], loop.add_writer, loop.remove_writer)
            except OSError:  # it has closed its input, or has ended: that is for `receive` to say
                return

    async def end_input(self) -> None:
        """A pipe is closed; a terminal is told."""
        if self._terminal:
            await self.send(END_OF_INPUT)
        elif self._stdin is not None:
            self._close(self._stdin)
            self._stdin = None

    async def receive(self) -> tuple[Channel, bytes] | None:
        """Output as it comes; None when it has ended."""
        loop = asyncio.get_running_loop()
        while self._outputs:
            for descriptor, channel in tuple(self._outputs.items()):
                data = _output(descriptor)
                if data is None:
                    continue
                del self._outputs[descriptor]
                if data:
                    self._outputs[descriptor] = channel  # the other one is looked at first the next time
                    return channel, data
            if self._outputs:
                await _ready(self._outputs, loop.add_reader, loop.remove_reader)
        await self._learn_how_it_ended()
        return None

    async def resize(self, *, columns: int, rows: int) -> None:
        """Of its terminal."""
        if self._terminal and self._stdin is not None:
            fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def close(self) -> None:
        """Its keeper sees the line end, and kills what is left."""
        self._line.close()
        for descriptor in tuple(self._open):
            self._close(descriptor)
        self._stdin, self._outputs = None, {}
        await asyncio.to_thread(_reap, self._keeper)

    def _close(self, descriptor: int) -> None:
        self._open.discard(descriptor)
        os.close(descriptor)

    async def _learn_how_it_ended(self) -> None:
        report = b""
        while len(report) < REPORT_BYTES_MAX:
            part = await asyncio.get_running_loop().sock_recv(self._line, REPORT_BYTES_MAX)
            if not part:
                break
            report += part
        try:
            outcome = json.loads(report)
        except ValueError:
            outcome = {"failure": "its keeper was killed"}
        self._exit_status, self._failure = int(outcome.get("exit_status", -1)), str(outcome.get("failure", ""))


def _output(descriptor: int) -> bytes | None:
    """What is there; None if nothing is, empty at the end. A terminal ends with EIO once nobody holds its other side."""
    try:
        return os.read(descriptor, READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""


async def _ready(
    descriptors: Collection[int], watch: Callable[[int, Callable[[], None]], None], unwatch: Callable[[int], bool]
) -> None:
    """Until one of the descriptors is ready."""
    waiting = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not waiting.done():
            waiting.set_result(None)

    for descriptor in descriptors:
        watch(descriptor, wake)
    try:
        await waiting
    finally:
        for descriptor in descriptors:
            unwatch(descriptor)


def _reap(keeper: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        keeper.wait(CLOSE_SECONDS)
