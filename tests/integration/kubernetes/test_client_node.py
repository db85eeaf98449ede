"""The client through an API server into real containers: logs, commands, terminals and ports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mainstay.clusters.kubernetes import errors
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.kinds import PODS
from mainstay.ports import Channel, Process, Stream
from testbed import images
from testbed.control_plane import ControlPlane
from testbed.images import BUSYBOX
from testbed.node import Node
from tests.integration.kubernetes.client import connection

pytestmark = pytest.mark.xdist_group("kubernetes")

PAGE = "x" * 300_000


@pytest.fixture
def control_plane(real_control_plane: ControlPlane) -> ControlPlane:
    """The cluster of the real node."""
    return real_control_plane


@pytest.fixture
async def api(control_plane: ControlPlane) -> AsyncIterator[Connection]:
    opened = connection(control_plane)
    yield opened
    await opened.close()


async def running(api: Connection, namespace: str, on: Node, *command: str) -> str:
    """The name of a pod once it runs."""
    on.load(images.busybox())
    container = {"name": "main", "image": BUSYBOX, "command": command}
    spec = {
        "nodeName": on.name,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    await api.create(PODS, namespace, {"metadata": {"name": "one"}, "spec": spec})
    async with asyncio.timeout(60):
        while (await api.get(PODS, namespace, "one")).status.phase == "Pending":
            await asyncio.sleep(0.1)
    return "one"


async def output(process: Process) -> dict[Channel, bytes]:
    """All of it, until the process ends."""
    said = {Channel.STDOUT: b"", Channel.STDERR: b""}
    async with asyncio.timeout(30):
        while (part := await process.receive()) is not None:
            said[part[0]] += part[1]
    return said


async def answer(stream: Stream) -> bytes:
    said = b""
    async with asyncio.timeout(30):
        while (part := await stream.receive()) is not None:
            said += part
    return said


async def test_a_log_is_followed_to_its_end_and_read_again(api: Connection, namespace: str, real_node: Node):
    lines = "for n in 1 2 3; do echo line $n; sleep 1.1; done"
    name = await running(api, namespace, real_node, "sh", "-c", lines)
    followed = b"".join([part async for part in api.log(namespace, name, "main", follow=True)])
    assert followed == b"line 1\nline 2\nline 3\n"
    assert b"".join([part async for part in api.log(namespace, name, "main", tail=1)]) == b"line 3\n"
    assert b"".join([part async for part in api.log(namespace, name, "main", limit_bytes=6)]) == b"line 1"
    stamped = b"".join([part async for part in api.log(namespace, name, "main", timestamps=True)]).split()
    since = stamped[-3].decode()
    assert b"line 1" not in b"".join([part async for part in api.log(namespace, name, "main", since_time=since)])
    with pytest.raises(errors.Invalid):
        await anext(api.log(namespace, name, "other"))


async def test_commands_terminals_and_ports(api: Connection, namespace: str, real_node: Node):
    serve = f"printf {PAGE[:1]}%.0s $(seq {len(PAGE)}) > /tmp/page; httpd -f -p 8080 -h /tmp"
    name = await running(api, namespace, real_node, "sh", "-c", serve)

    async with api.exec(namespace, name, "main", ["sh", "-c", "echo out; echo err >&2; exit 3"]) as process:
        assert await output(process) == {Channel.STDOUT: b"out\n", Channel.STDERR: b"err\n"}
        assert process.exit_status == 3

    async with api.exec(namespace, name, "main", ["cat"], stdin=True) as process:
        await process.send(b"hello" * 50_000)
        await process.end_input()
        assert (await output(process))[Channel.STDOUT] == b"hello" * 50_000
        assert process.exit_status == 0

    async with api.exec(namespace, name, "main", ["sh"], stdin=True, tty=True) as process:
        await process.resize(columns=123, rows=45)
        await process.send(b"stty size; exit 5\n")
        assert b"45 123" in (await output(process))[Channel.STDOUT]
        assert process.exit_status == 5

    async with api.exec(namespace, name, "main", ["no-such-program"]) as process:
        await output(process)
        assert process.exit_status not in {None, 0}

    with pytest.raises(errors.ApiError, match="not"):
        async with api.exec(namespace, name, "other", ["ls"]) as process:
            await output(process)
    with pytest.raises(errors.NotFound):
        async with api.exec(namespace, "no-such-pod", "main", ["ls"]):
            pass

    await reached(api, namespace, name)


async def page(api: Connection, namespace: str, name: str) -> bytes:
    """Nothing while nobody listens yet."""
    with contextlib.suppress(errors.Unreachable):
        async with api.port_forward(namespace, name, 8080) as stream:
            await stream.send(b"GET /page HTTP/1.0\r\n\r\n")
            return bytes(await answer(stream))
    return b""


async def reached(api: Connection, namespace: str, name: str) -> Any:
    """A page by a forwarded port; then a port where nobody listens."""
    async with asyncio.timeout(30):
        while not (said := await page(api, namespace, name)):
            await asyncio.sleep(0.1)
    assert said.endswith(PAGE.encode())
    async with api.port_forward(namespace, name, 9) as stream:
        with pytest.raises(errors.Unreachable, match="9"):
            await answer(stream)
