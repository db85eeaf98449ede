"""Into pods: commands beside their own program, and connections to their ports, over WebSockets."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, WebSocket
from pydantic import ValidationError

from mainstay.api.limits import Sockets
from mainstay.api.logs import AttemptNumber, Rank
from mainstay.api.routes import Call, Caller, Routes
from mainstay.api.sockets import Misused, Talk, both_ways
from mainstay.api.standing import until_refused
from mainstay.domain.access import Permission
from mainstay.domain.allocation import Allocation
from mainstay.domain.errors import Invalid, MainstayError, Unavailable
from mainstay.operations import enter as entering
from mainstay.operations.enter import Target
from mainstay.ports import Channel, Cluster, Process, Stream
from mainstay.wire import sockets as wire
from mainstay.wire.sockets import ExecEnd, Frame, TerminalSize, framed

routes = Routes("pods")
OUTPUTS = {Channel.STDOUT: Frame.STDOUT, Channel.STDERR: Frame.STDERR}

Command = Annotated[list[str], Query(max_length=1_000, description="The command and its arguments, one each.")]
Terminal = Annotated[bool, Query(description="Give it a terminal.")]
Input = Annotated[bool, Query(description="Input will come; else it has none.")]
Port = Annotated[int, Path(ge=1, le=65_535)]


@routes.socket("/v1/workloads/{ref}/exec", needs=Permission.ENTER, speaks=wire.EXEC_PROTOCOL, of_projects=True)
async def exec_command(
    call: Caller,
    socket: WebSocket,
    ref: str,
    command: Command,
    rank: Rank = 0,
    attempt: AttemptNumber = 0,
    tty: Terminal = False,  # noqa: FBT002 its public name
    stdin: Input = False,  # noqa: FBT002
) -> None:
    """Run a command in a pod that runs, beside its own program. Its beginning is on record; what is typed is not."""
    if sum(len(part.encode()) + 1 for part in command) > wire.COMMAND_BYTES_MAX:
        msg = f"the command is longer than {wire.COMMAND_BYTES_MAX} bytes"
        raise Invalid(msg, object_="command", hint="send a long script as input: sh -s < script")
    services, sockets = call.services, _sockets(socket)
    with sockets.one(call.principal):
        target = Target(reference=ref, rank=rank, attempt=attempt)
        allocation = await services.offload(
            entering.enter, services.store, call.principal, target, command, now=services.clock.now()
        )
        services.pulse.beat()
        async with _cluster(call, allocation).exec(allocation.pod, command, stdin=stdin, tty=tty) as process:
            await socket.accept(wire.EXEC_PROTOCOL)
            talk = Talk(socket, services.clock)
            code, reason = await both_ways(
                talk,
                _commanded(talk, process),
                _said(talk, process),
                until=until_refused(call, Permission.ENTER, allocation.project),
            )
    await talk.end(code, reason)


@routes.socket("/v1/workloads/{ref}/ports/{port}", needs=Permission.ENTER, speaks=wire.PORT_PROTOCOL, of_projects=True)
async def connect_port(
    call: Caller, socket: WebSocket, ref: str, port: Port, rank: Rank = 0, attempt: AttemptNumber = 0
) -> None:
    """One connection to a port of a pod that runs."""
    services, sockets = call.services, _sockets(socket)
    with sockets.one(call.principal):
        target = Target(reference=ref, rank=rank, attempt=attempt)
        allocation = await services.offload(
            entering.pod_of, services.store, call.principal, target, now=services.clock.now()
        )
        async with _cluster(call, allocation).connect(allocation.pod, port) as stream:
            await socket.accept(wire.PORT_PROTOCOL)
            talk = Talk(socket, services.clock)
            code, reason = await both_ways(
                talk,
                _to_port(talk, stream),
                _from_port(talk, stream),
                until=until_refused(call, Permission.ENTER, allocation.project),
            )
    await talk.end(code, reason)


def _sockets(socket: WebSocket) -> Sockets:
    sockets: Sockets = socket.app.state.sockets
    return sockets


def _cluster(call: Call, allocation: Allocation) -> Cluster:
    cluster = call.services.clusters.get(allocation.cluster)
    if cluster is None:
        msg = f"pod {allocation.pod} runs in cluster {allocation.cluster}, which this replica does not reach"
        raise Unavailable(msg, object_=allocation.pod, hint="ask the replica that runs in that cluster")
    return cluster


async def _commanded(talk: Talk, process: Process) -> None:
    """What the user says, to the command. Raises Left, Misused, and what `Process` raises."""
    while True:
        message = await talk.hear()
        content = message[1:]
        match message[:1]:
            case b"\x00":
                await process.send(content)
            case b"\x04":
                size = _size(content)
                await process.resize(columns=size.columns, rows=size.rows)
            case b"\xff":
                await process.end_input()
            case _:
                msg = "a message begins with the byte of its channel"
                raise Misused(msg)


async def _said(talk: Talk, process: Process) -> None:
    """What the command says, and then how it ended."""
    try:
        while (said := await process.receive()) is not None:
            channel, data = said
            for start in range(0, len(data), wire.CHUNK_BYTES):
                await talk.say(framed(OUTPUTS[channel], data[start : start + wire.CHUNK_BYTES]))
    except MainstayError as error:
        end = ExecEnd(message=error.message)
    else:
        status = process.exit_status
        end = ExecEnd(exit_code=status if status is not None and status >= 0 else None, message=process.failure)
    await talk.say(framed(Frame.END, end.model_dump_json().encode()))


async def _to_port(talk: Talk, stream: Stream) -> None:
    while True:
        data = await talk.hear()
        await (stream.send(data) if data else stream.end())


async def _from_port(talk: Talk, stream: Stream) -> None:
    while (data := await stream.receive()) is not None:
        for start in range(0, len(data), wire.CHUNK_BYTES):
            await talk.say(data[start : start + wire.CHUNK_BYTES])


def _size(content: bytes) -> TerminalSize:
    try:
        return TerminalSize.model_validate_json(content)
    except ValidationError as error:
        msg = 'a size is {"columns": 80, "rows": 24}'
        raise Misused(msg) from error
