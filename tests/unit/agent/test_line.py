"""The line over a real socket: questions and answers, breaks, strangers, and more than one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from mainstay.agent import convert
from mainstay.agent.connection import Way
from mainstay.agent.line import Answering
from mainstay.control.remote import RemoteCluster
from mainstay.domain.capacity import LogChunk
from mainstay.domain.errors import Gone, NotFound, Unavailable
from mainstay.operations.lines import Line, Lines
from mainstay.wire import agent as wire
from tests.agents import ControlPlane, control_plane
from tests.unit.web.site import LogCluster, Server, free_port


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path) as made:
        yield made


@pytest.fixture
def server(plane: ControlPlane) -> Iterator[Server]:
    made = Server(port=free_port(), ws="auto")
    made.start(plane.app)
    yield made
    made.stop()


async def until(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


def line_of(plane: ControlPlane) -> Line | None:
    return plane.services.agents.lines.of("edge")


@pytest.fixture
async def held(plane: ControlPlane, server: Server) -> AsyncIterator[LogCluster]:
    cluster = LogCluster(name="edge", logs={"p-1-0": b"one\ntwo\n" * 1_000}, ended={"p-1-0"})
    token = plane.add()
    way = Way(url=f"http://127.0.0.1:{server.port}", token=lambda: token)
    answering = Answering(way, {"edge": cluster}, cluster="edge")

    async def again() -> None:
        while True:
            try:
                await answering.hold()
            except Unavailable:
                await asyncio.sleep(0.05)

    task = asyncio.create_task(again())
    await until(lambda: line_of(plane))
    yield cluster
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def read(plane: ControlPlane, server: Server, pod: str, **where: int) -> LogChunk:
    cluster = RemoteCluster("edge", plane.services.agents.lines)
    asked = asyncio.run_coroutine_threadsafe(cluster.read_log(pod, **{"offset": 0, "limit": 100, **where}), server.loop)
    return await asyncio.wrap_future(asked)


async def test_a_log_is_read_over_the_line_byte_for_byte(plane: ControlPlane, server: Server, held: LogCluster) -> None:
    chunk = await read(plane, server, "p-1-0", offset=4, limit=1 << 20)
    assert chunk == LogChunk(data=held.logs["p-1-0"][4:], next_offset=8_000, dropped=0, ended=True)
    held.logs["binary-1-0"] = bytes(range(256)) * 4_000
    assert (await read(plane, server, "binary-1-0", limit=1 << 20)).data == held.logs["binary-1-0"]


async def test_what_the_cluster_raises_is_raised_at_the_other_end(
    plane: ControlPlane, server: Server, held: LogCluster
) -> None:
    with pytest.raises(NotFound):
        await read(plane, server, "none-1-0")

    async def gone(pod: str, *, offset: int, limit: int) -> LogChunk:
        raise Gone(pod, object_=pod, hint="too late", numbers={"at": 1})

    held.read_log = gone  # type: ignore[method-assign]
    with pytest.raises(Gone) as raised:
        await read(plane, server, "p-1-0")
    assert (raised.value.hint, raised.value.numbers) == ("too late", {"at": 1})


async def test_many_ask_at_once_and_each_gets_its_own_answer(
    plane: ControlPlane, server: Server, held: LogCluster
) -> None:
    held.logs = {f"p-{number}-0": f"{number}".encode() for number in range(100)}
    found = await asyncio.gather(*(read(plane, server, f"p-{number}-0") for number in range(100)))
    assert [chunk.data for chunk in found] == [f"{number}".encode() for number in range(100)]


async def test_a_line_that_breaks_is_opened_again(plane: ControlPlane, server: Server, held: LogCluster) -> None:
    before = line_of(plane)
    assert before is not None
    server.stop()
    await until(lambda: line_of(plane) is None)
    with pytest.raises(Unavailable, match="no line to this replica") as raised:
        await RemoteCluster("edge", plane.services.agents.lines).read_log("p-1-0", offset=0, limit=1)
    assert "with several replicas" in raised.value.hint.lower()
    server.start(plane.app)
    await until(lambda: line_of(plane) not in {None, before})
    assert (await read(plane, server, "p-1-0")).data


async def test_a_token_that_has_ended_opens_no_line(plane: ControlPlane, server: Server) -> None:
    for token in ("msa_nonsense", "", "mst_test"):
        way = Way(url=f"http://127.0.0.1:{server.port}", token=lambda token=token: token)
        with pytest.raises(Unavailable, match=r"40[13]"):
            await Answering(way, {}, cluster="edge").hold()
    assert line_of(plane) is None


async def test_a_question_that_this_version_does_not_know_is_answered(
    plane: ControlPlane, server: Server, held: LogCluster
) -> None:
    line = line_of(plane)
    assert line is not None

    def strange(number: int) -> bytes:
        return wire.frame(b'{"id":%d,"what":{"type":"dance"}}' % number)

    header, _ = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(line.ask("edge", strange), server.loop))
    said = convert.decoded(header, wire.Answered).what
    assert isinstance(said, wire.Failed)
    assert said.code == "invalid"


async def test_answers_that_come_late_twice_or_for_nobody_are_dropped() -> None:
    sent: list[bytes] = []

    async def send(data: bytes) -> None:
        sent.append(data)

    async def end() -> None:
        pass

    line = Line(send, end)
    asking = asyncio.create_task(line.ask("edge", lambda number: b"%d" % number))
    await asyncio.sleep(0)
    line.answered(99, (b"", b""))
    line.answered(1, (b"a", b"first"))
    line.answered(1, (b"a", b"second"))
    assert (await asking)[1] == b"first"
    line.answered(1, (b"a", b"third"))
    waiting = asyncio.create_task(line.ask("edge", lambda number: b"%d" % number))
    await asyncio.sleep(0)
    line.broke()
    with pytest.raises(Unavailable, match="does not answer"):
        await waiting
    lines = Lines()
    lines.opened("edge", line)
    second = Line(send, end)
    lines.opened("edge", second)
    assert lines.of("edge") is second
    lines.ended("edge", second)
    assert lines.of("edge") is line
    assert lines.of("west") is None
