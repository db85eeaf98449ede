"""Commands that look into a run: exec, shell, port-forward."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

import click

from mainstay.cli.exits import Exit
from mainstay.cli.show import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
    from typing import Any

    from mainstay.sdk.aio import AsyncClient
    from mainstay.sdk.inside import AsyncCommand, AsyncPortConnection
    from mainstay.wire.views import WorkloadView

STDIN, STDOUT, STDERR = 0, 1, 2
READ_BYTES = 1 << 16
NOT_RUN = 127
"""As a shell says of a command that could not be run."""
BEST_SHELL = ("/bin/sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash; exec sh")
HOST = "127.0.0.1"
PORT_MAX = 65_535

node_option = click.option(
    "--node", type=click.IntRange(0), default=0, show_default=True, help="The rank whose pod it is."
)


@click.command("exec")
@click.argument("ref", metavar="RUN")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-i", "--stdin", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give it this terminal; implies -i. ~. at the start of a line leaves.")
@node_option
def exec_(ref: str, command: tuple[str, ...], *, stdin: bool, tty: bool, node: int) -> int:
    """Run a command in a pod of a run, beside its own program: mainstay exec RUN -- CMD...

    Ends with the exit code of the command, 127 if it could not be run. What it is told and says is not recorded; that it
    was run, by whom and where, is: see mainstay events RUN.
    """
    return asyncio.run(_run(ref, command, rank=node, stdin=stdin or tty, tty=tty))


@click.command()
@click.argument("ref", metavar="RUN")
@node_option
def shell(ref: str, *, node: int) -> int:
    """Open a shell in a pod of a run: the best one that it has. ~. at the start of a line leaves."""
    return asyncio.run(_run(ref, BEST_SHELL, rank=node, stdin=True, tty=True))


@click.command("port-forward")
@click.argument("ref", metavar="RUN")
@click.argument("ports", metavar="LOCAL[:REMOTE]...", nargs=-1, required=True)
@node_option
def port_forward(ref: str, ports: tuple[str, ...], *, node: int) -> int:
    """Reach ports of a run at 127.0.0.1:LOCAL until Ctrl-C. LOCAL 0 takes a free one.

    REMOTE is by default the port on which a service answers; of a job it is LOCAL.
    """
    wanted = [_ports(text) for text in ports]
    try:
        return asyncio.run(_forward(ref, wanted, rank=node))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


async def _run(ref: str, command: Sequence[str], *, rank: int, stdin: bool, tty: bool) -> int:
    from mainstay.cli import terminal
    from mainstay.sdk.aio import AsyncClient

    if tty and not terminal.is_one():
        msg = "there is no terminal here to give to it"
        raise click.UsageError(msg)
    async with AsyncClient() as client, client.command(ref, command, stdin=stdin, tty=tty, rank=rank) as running:
        if tty:
            with terminal.raw(STDIN), _ended_by_signals():
                left = await _at_terminal(running)
            if left:
                say("connection closed")
        else:
            left = await _piped(running, stdin=stdin)
    if left:
        return Exit.INTERRUPTED
    if running.exit_code is None:
        say(f"mainstay: {running.message or 'the command did not run to its end'}")
        return NOT_RUN
    return running.exit_code


async def _at_terminal(running: AsyncCommand) -> bool:
    """Until the command ends, or the user leaves: which of the two."""
    from mainstay.cli import terminal

    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    changed.set()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)

    async def follow_size() -> None:
        while True:
            await changed.wait()
            changed.clear()
            columns, rows = terminal.size(STDIN)
            await running.resize(columns=columns, rows=rows)

    async def pass_keys() -> None:
        escapes = terminal.Escapes()
        async for keys in _typed():
            passed, leave = escapes.typed(keys)
            if passed:
                await running.send(passed)
            if leave:
                return

    try:
        return await _beside(_print(running), leaving=pass_keys(), others=[follow_size()])
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


async def _piped(running: AsyncCommand, *, stdin: bool) -> bool:
    """Until the command ends: False, as nobody leaves in between."""

    async def pass_input() -> None:
        async for data in _typed():
            await running.send(data)
        await running.end_input()

    return await _beside(_print(running), others=[pass_input()] if stdin else [])


async def _beside(
    main: Coroutine[Any, Any, None],
    *,
    leaving: Coroutine[Any, Any, None] | None = None,
    others: Sequence[Coroutine[Any, Any, None]] = (),
) -> bool:
    """Run `main` to its end with the others beside it; whether `leaving` ended first.

    What goes wrong with what is sent shows in what is received, which says it better.
    """
    tasks = [asyncio.create_task(one) for one in (main, *([leaving] if leaving else []), *others)]
    first, last = tasks[0], tasks[1] if leaving else None
    try:
        await asyncio.wait({first, last} if last else {first}, return_when=asyncio.FIRST_COMPLETED)
        if last is not None and last.done() and not first.done() and last.exception() is None:
            return True
        await first
        return False
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _print(running: AsyncCommand) -> None:
    """Bytes as they come: what a terminal makes of them is between it and the command."""
    while (said := await running.receive()) is not None:
        channel, data = said
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(STDOUT if channel == "stdout" else STDERR, rest) :]


async def _typed() -> AsyncIterator[bytes]:
    """Standard input as it comes. It is shared with who started us, so it is not made to never block: we look first."""
    while True:
        try:
            await _readable(STDIN)
        except PermissionError:  # a regular file is always ready
            data = await asyncio.to_thread(os.read, STDIN, READ_BYTES)
        else:
            data = os.read(STDIN, READ_BYTES)
        if not data:
            return
        yield data


async def _readable(descriptor: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Who is told to end still gives the terminal back."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


def _ports(text: str) -> tuple[int, int]:
    """(local, remote or 0)."""
    local, colon, remote = text.partition(":")
    numbers = [local, *([remote] if colon else [])]
    if not all(number.isascii() and number.isdecimal() and int(number) <= PORT_MAX for number in numbers):
        msg = f"not LOCAL[:REMOTE]: {text!r}"
        raise click.UsageError(msg)
    if colon and not int(remote):
        msg = f"there is no port 0: {text!r}"
        raise click.UsageError(msg)
    return int(local), int(remote or 0)


async def _forward(ref: str, wanted: Sequence[tuple[int, int]], *, rank: int) -> int:
    from mainstay.sdk.aio import AsyncClient

    async with AsyncClient() as client, contextlib.AsyncExitStack() as stack:
        run = await _that_lives(client, ref)
        over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        for local, remote in wanted:
            port = remote or _own_port(run, rank) or local
            if not port:
                msg = f"{run.id} has no port of its own: say which, LOCAL:REMOTE"
                raise click.UsageError(msg)
            forwarding = Forwarding(client, run.id, port=port, rank=rank, over=over)
            server = await stack.enter_async_context(await asyncio.start_server(forwarding.serve, HOST, local))
            address = server.sockets[0].getsockname()
            say(f"  {address[0]}:{address[1]} -> {run.id}:{port}   Ctrl-C ends it")
        say(f"mainstay: {await over}")
        return Exit.FAILED


async def _that_lives(client: AsyncClient, ref: str) -> WorkloadView:
    """By id or name. Of several of a name it is the newest that runs, as for a command."""
    run = (await client.get(ref)).view
    if run.finished_at is None or run.id == ref:
        return run
    living = [found.view for found in await client.list(name=ref)]
    meant = next((found for found in living if found.phase == "running"), living[0] if living else run)
    return (await client.get(meant.id)).view


def _own_port(run: WorkloadView, rank: int) -> int:
    """Where the newest pod of a rank answers, if it does."""
    addresses = [pod.address for pod in run.pods if pod.rank == rank and pod.address]
    return int(addresses[-1].rpartition(":")[2]) if addresses else 0


class Forwarding:
    """One local port, and what is behind it. `over` gets the words when there is nothing behind it any more."""

    def __init__(self, client: AsyncClient, ref: str, *, port: int, rank: int, over: asyncio.Future[str]) -> None:
        self._client = client
        self._ref = ref
        self._port = port
        self._rank = rank
        self._over = over

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. One that fails is told of, and the next may do better."""
        from mainstay.sdk.errors import ApiError, SdkError

        try:
            async with self._client.connect(self._ref, self._port, rank=self._rank) as connection:
                await _pump(reader, writer, connection)
        except ApiError as error:
            if error.status in {401, 403, 404, 410}:
                if not self._over.done():
                    self._over.set_result(error.message)
            else:
                say(f"mainstay: {error.message}")
        except (SdkError, OSError) as error:
            say(f"mainstay: port {self._port}: {error}")
        finally:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: AsyncPortConnection) -> None:
    """Both ways, until the pod's side ends. Whoever connected may end its own before."""

    async def there() -> None:
        while data := await reader.read(READ_BYTES):
            await connection.send(data)
        await connection.end()

    async def back() -> None:
        while (data := await connection.receive()) is not None:
            writer.write(data)
            await writer.drain()

    await _beside(back(), others=[there()])
