"""Shells and tunnels over a WebSocket: what the other end may say, and when it breaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from mainstay.clusters.kubernetes import errors
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.domain.errors import Invalid
from mainstay.ports import Channel
from tests.clock import ManualClock
from tests.unit.clusters.kubernetes.misbehaving import Answer, Renewing, connected, refuses

SUCCESS = b'\x03{"status": "Success"}'


def failure(reason: str, message: str) -> bytes:
    return (
        b"\x03"
        + json.dumps({"status": "Failure", "details": {"causes": [{"reason": reason, "message": message}]}}).encode()
    )


def socket(
    *messages: bytes | Callable[[list[bytes]], bytes], protocol: str = "v5.channel.k8s.io", cut: bool = False
) -> Answer:
    """Sends its messages, those that are functions after one has arrived."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.WebSocketResponse(protocols=(protocol,))
        await response.prepare(request)
        heard: list[bytes] = []
        for message in messages:
            if callable(message):
                arrived = await response.receive()
                assert arrived.type is WSMsgType.BINARY
                heard.append(arrived.data)
                await response.send_bytes(message(heard))
            else:
                await response.send_bytes(message)
        if cut:
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.close()
        return response

    return answer


async def ran(answer: Answer, argv: Sequence[str] = ("ls",), **options: Any) -> tuple[list[Any], int | None, str]:
    async with connected(answer) as (api, server):
        output = []
        async with api.exec("a", "x", "main", argv, **options) as process:
            while (said := await process.receive()) is not None:
                output.append(said)
        return output, process.exit_status, server.asked[0]


async def test_output_and_exit_status() -> None:
    output, status, asked = await ran(
        socket(b"\x01out", b"\x02err", b"\x01", b"\x09odd", SUCCESS), ["ls", "-l", "a b&c"]
    )
    assert (output, status) == ([(Channel.STDOUT, b"out"), (Channel.STDERR, b"err")], 0)
    assert asked == (
        "GET /api/v1/namespaces/a/pods/x/exec?container=main&command=ls&command=-l&command=a+b%26c&stdout=true&stderr=true"
    )


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (failure("ExitCode", "3"), 3),
        (failure("ExitCode", "many"), -1),
        (failure("InternalError", "no such command"), -1),
        (b"\x03not json", -1),
        (b"\x03", -1),
    ],
)
async def test_exit_status_of_what_fails(result: bytes, status: int) -> None:
    assert await ran(socket(result)) == (
        [],
        status,
        "GET /api/v1/namespaces/a/pods/x/exec?container=main&command=ls&stdout=true&stderr=true",
    )


async def test_a_terminal_has_input_a_size_and_one_output() -> None:
    said = [lambda heard: b"\x01" + heard[-1][1:], lambda heard: b"\x01" + heard[-1], lambda heard: b"\x01" + heard[-1]]
    async with connected(socket(*said, SUCCESS)) as (api, server):
        async with api.exec("a", "x", "main", ["sh"], stdin=True, tty=True) as process:
            await process.send(b"hello")
            assert await process.receive() == (Channel.STDOUT, b"hello")
            await process.resize(columns=80, rows=24)
            assert await process.receive() == (Channel.STDOUT, b'\x04{"Width":80,"Height":24}')
            await process.end_input()
            assert await process.receive() == (Channel.STDOUT, b"\xff\x00")
            assert await process.receive() is None
        assert server.asked[0].endswith("command=sh&stdin=true&stdout=true&tty=true")


async def test_an_old_server_cannot_be_told_of_the_end_of_input() -> None:
    old = connected(socket(SUCCESS, protocol="v4.channel.k8s.io"))
    async with old as (api, _), api.exec("a", "x", "main", ["cat"], stdin=True) as process:
        with pytest.raises(Invalid):
            await process.end_input()
        assert await process.receive() is None


@pytest.mark.parametrize("cut", [True, False])
async def test_a_process_whose_connection_ends_first_has_not_ended(*, cut: bool) -> None:
    with pytest.raises(errors.Unreachable):
        await ran(socket(b"\x01out", cut=cut))


async def test_a_message_without_a_channel_is_garbled() -> None:
    with pytest.raises(errors.Garbled):
        await ran(socket(b""))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refuses(403, "Forbidden", 'cannot create resource "pods/exec" in API group ""'), errors.Forbidden),
        (refuses(404, "NotFound", 'pods "x" not found'), errors.NotFound),
        (refuses(500, "", "container not found"), errors.ServerFailed),
        (refuses(200), errors.Unreachable),
    ],
)
async def test_a_refused_upgrade_is_told_with_its_words(answer: Answer, error: type[Exception]) -> None:
    with pytest.raises(error) as refused:
        await ran(answer)
    assert "not found" in str(refused.value) or "cannot create" in str(refused.value) or error is errors.Unreachable


async def test_refused_credentials_are_renewed_once() -> None:
    async with connected(refuses(401), socket(SUCCESS)) as (_, server):
        api = Connection(Renewing(server.url, "old", "new"), clock=ManualClock())
        async with api.exec("a", "x", "main", ["ls"]) as process:
            assert await process.receive() is None
        await api.close()
        assert server.tokens == ["Bearer old", "Bearer new"]


async def test_credentials_that_stay_refused_are_told() -> None:
    with pytest.raises(errors.Unauthenticated):
        await ran(refuses(401))


PORT = (80).to_bytes(2, "little")


async def test_a_port_is_a_stream_of_bytes() -> None:
    echo = socket(b"\x00" + PORT, b"\x01" + PORT, lambda heard: heard[-1], protocol="v4.channel.k8s.io")
    async with connected(echo) as (api, server):
        async with api.port_forward("a", "x", 80) as stream:
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"
            assert await stream.receive() is None
        assert server.asked == ["GET /api/v1/namespaces/a/pods/x/portforward?ports=80"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            (
                "error forwarding port 80 to pod 6f1, uid : failed to execute portforward in network namespace: failed to"
                " connect to localhost:80 inside namespace: dial tcp4 127.0.0.1:80: connect: connection refused"
            ),
            "nothing of pod x listens on port 80",
        ),
        ("sandbox 6f1 is not running", "pod x cannot be entered: its container does not run"),
        ("no route to host", "port 80 of pod x cannot be reached: no route to host"),
    ],
)
async def test_a_port_that_is_not_reached_is_told_in_our_words(said: str, told: str) -> None:
    refused = socket(b"\x00" + PORT, b"\x01" + PORT, b"\x01" + said.encode(), protocol="v4.channel.k8s.io")
    async with connected(refused) as (api, _), api.port_forward("a", "x", 80) as stream:
        with pytest.raises(errors.Unreachable) as raised:
            await stream.receive()
    assert raised.value.message == told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            (
                'OCI runtime exec failed: exec failed: unable to start container process: exec: "ls": executable file not found'
                " in $PATH: unknown"
            ),
            "cannot run ls: no such program",
        ),
        ('exec: "/bin/x": stat /bin/x: no such file or directory: unknown', "cannot run ls: no such file"),
        ('exec: "/etc": permission denied: unknown', "cannot run ls: it may not be executed"),
        ("cannot exec in a stopped state", "its container has ended"),
        ("something of tomorrow", "something of tomorrow"),
    ],
)
async def test_a_command_that_does_not_run_is_told_in_our_words(said: str, told: str) -> None:
    result = b"\x03" + json.dumps({"status": "Failure", "message": said}).encode()
    async with connected(socket(result)) as (api, _), api.exec("a", "x", "main", ["ls"]) as process:
        assert await process.receive() is None
        assert (process.exit_status, process.failure) == (-1, told)


async def test_what_is_sent_into_a_closed_stream_is_told() -> None:
    async with connected(socket(protocol="v4.channel.k8s.io")) as (api, _), api.port_forward("a", "x", 80) as stream:
        assert await stream.receive() is None
        await stream.close()
        with pytest.raises(errors.Unreachable):
            await stream.send(b"hello")
