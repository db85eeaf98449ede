"""The line over a real socket: questions and answers, breaks, strangers, and more than one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mainstay.agent import convert
from mainstay.agent.connection import Connection, Way
from mainstay.agent.line import Answering
from mainstay.agent.store import RemoteStore
from mainstay.api import standing
from mainstay.control.remote import RemoteCluster
from mainstay.domain.allocation import Seen
from mainstay.domain.capacity import LogChunk
from mainstay.domain.errors import Forbidden, Gone, Invalid, MainstayError, NotFound, Unauthenticated, Unavailable
from mainstay.domain.plan import IdentifyCluster, Plan, SwitchEndpoint
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase
from mainstay.operations import agents
from mainstay.operations.lines import Line, Lines
from mainstay.operations.principal import Principal
from mainstay.wire import agent as wire
from mainstay.wire import agent_line
from tests.agents import ControlPlane, control_plane
from tests.clock import WaitingClock
from tests.stores import TENANT, WHY
from tests.unit.api.conftest import PEOPLE
from tests.unit.web.site import LogCluster, Server, free_port


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path, clock=WaitingClock()) as made:
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
    try:
        return plane.services.agents.lines.of("edge")
    except Unavailable:
        return None


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
    held.logs["binary-1-0"], found = bytes(range(256)) * 8_000, b""
    while part := (await read(plane, server, "binary-1-0", offset=len(found), limit=1 << 20)).data:
        assert len(part) <= agent_line.CHUNK_BYTES  # with its header, it must fit a message
        found += part
    assert found == held.logs["binary-1-0"]


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
    with pytest.raises(Unavailable, match="the agent of cluster edge is not connected") as raised:
        await RemoteCluster("edge", plane.services.agents.lines).read_log("p-1-0", offset=0, limit=1)
    assert "calls again by itself" in raised.value.hint
    server.start(plane.app)
    await until(lambda: line_of(plane) not in {None, before})
    assert (await read(plane, server, "p-1-0")).data


async def test_a_line_ends_with_the_token_that_opened_it(
    plane: ControlPlane, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "RECHECK_SECONDS", 0.01)
    token = plane.add()
    way = Way(url=f"http://127.0.0.1:{server.port}", token=lambda: token)
    holding = asyncio.create_task(Answering(way, {}, cluster="edge").hold())
    await until(lambda: line_of(plane))
    root = Principal(name="root", tenant=TENANT, role="platform-admin")
    agents.renew_token(plane.store, root, "edge", now=plane.clock.now(), request=None)
    async with asyncio.timeout(10):
        await holding
    await until(lambda: line_of(plane) is None)
    with pytest.raises(Unavailable, match="401"):
        await Answering(way, {}, cluster="edge").hold()


async def test_a_token_that_has_ended_opens_no_line(plane: ControlPlane, server: Server) -> None:
    for token in ("msa_nonsense", "", "mst_test"):
        way = Way(url=f"http://127.0.0.1:{server.port}", token=lambda token=token: token)
        with pytest.raises(Unavailable, match=r"40[13]"):
            await Answering(way, {}, cluster="edge").hold()
    assert line_of(plane) is None


class Dance(wire.Message, frozen=True, tag="dance"):
    """Of a version to come."""


async def test_a_question_that_this_version_does_not_know_is_answered(
    plane: ControlPlane, server: Server, held: LogCluster
) -> None:
    line = line_of(plane)
    assert line is not None
    asking = line.ask(Dance(), answer=agent_line.Done)  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="not a message that this version knows"):
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asking, server.loop))


class Socket:
    """The end of a line that is in the hand of a test."""

    def __init__(self) -> None:
        self.sent: list[agent_line.Asked] = []
        self.line = Line("edge", self.send)

    async def send(self, data: bytes) -> None:
        self.sent.append(convert.decoded(agent_line.parts(data)[0], agent_line.Asked))

    def say(self, number: int, what: agent_line.Said, data: bytes = b"") -> None:
        self.line.heard(agent_line.frame(convert.encoded(agent_line.Answered(id=number, what=what)), data))


LOG = agent_line.ReadLog(pod="p-1-0", offset=0, limit=1)
SAID = agent_line.LogSaid(next_offset=1)


async def test_answers_that_come_late_twice_or_for_nobody_are_dropped() -> None:
    socket = Socket()
    asking = asyncio.create_task(socket.line.ask(LOG, answer=agent_line.LogSaid))
    await asyncio.sleep(0)
    socket.say(99, SAID)
    socket.say(1, SAID, b"first")
    socket.say(1, SAID, b"second")
    assert (await asking)[1] == b"first"
    socket.say(1, SAID, b"third")
    waiting = asyncio.create_task(socket.line.ask(LOG, answer=agent_line.LogSaid))
    await asyncio.sleep(0)
    socket.line.broke()
    with pytest.raises(Unavailable, match="does not answer"):
        await waiting


async def test_an_answer_to_another_question_is_none() -> None:
    socket = Socket()
    asking = asyncio.create_task(socket.line.ask(LOG, answer=agent_line.LogSaid))
    await asyncio.sleep(0)
    socket.say(1, agent_line.Received(channel="stdout"))
    with pytest.raises(Unavailable, match="something else"):
        await asking


@pytest.mark.parametrize("kind", [Unauthenticated, Forbidden])
async def test_no_agent_tells_a_user_who_he_is(kind: type[MainstayError]) -> None:
    socket = Socket()
    asking = asyncio.create_task(socket.line.ask(LOG, answer=agent_line.LogSaid))
    await asyncio.sleep(0)
    socket.say(1, convert.failed(kind("log in at http://evil.example")))
    with pytest.raises(Unavailable):
        await asking


async def test_of_too_many_lines_of_a_cluster_the_oldest_end(plane: ControlPlane) -> None:
    lines, sockets = Lines(), [Socket() for _ in range(6)]
    for socket in sockets:
        lines.opened("edge", socket.line)
    for socket in sockets[:2]:
        async with asyncio.timeout(1):
            await socket.line.watch()
    assert lines.of("edge") is sockets[-1].line


async def test_the_newest_of_several_lines_is_asked() -> None:
    lines, first, second = Lines(), Socket().line, Socket().line
    lines.opened("edge", first)
    lines.opened("edge", second)
    assert lines.of("edge") is second
    lines.ended("edge", second)
    assert lines.of("edge") is first
    with pytest.raises(Unavailable):
        lines.of("west")


async def test_a_line_where_nobody_is_any_more_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mainstay.operations.lines.WATCH_SECONDS", 0.0)
    monkeypatch.setattr(Line.ask, "__kwdefaults__", {**Line.ask.__kwdefaults__, "seconds": 0.2})
    socket = Socket()
    watching = asyncio.create_task(socket.line.watch())
    for answer in (agent_line.Done(), convert.failed(Invalid("an older version knows no such question"))):
        await until(lambda: socket.sent)
        assert not watching.done()
        socket.say(socket.sent.pop().id, answer)
    async with asyncio.timeout(1):
        await watching


async def test_a_stream_that_was_given_up_while_it_was_opened_is_let_go_of() -> None:
    socket, lines = Socket(), Lines()
    lines.opened("edge", socket.line)

    async def connect() -> None:
        async with RemoteCluster("edge", lines).connect("p-1-0", 80):
            raise AssertionError

    connecting = asyncio.create_task(connect())
    await until(lambda: socket.sent)
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    opened, closed = socket.sent
    assert isinstance(opened.what, agent_line.Connect)
    assert closed.what == agent_line.Close(stream=opened.id)


class Slow:
    """A cluster whose connections take nothing and say nothing."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @asynccontextmanager
    async def connect(self, pod: str, port: int) -> AsyncIterator[Slow]:
        self.events.append("opened")
        try:
            yield self
        finally:
            self.events.append("closed")

    async def receive(self) -> bytes:
        self.events.append("waits")
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, data: bytes) -> None:
        self.events.append("takes")
        await asyncio.Event().wait()


async def test_what_is_open_ends_with_its_line(plane: ControlPlane, server: Server) -> None:
    cluster, token = Slow(), plane.add()
    way = Way(url=f"http://127.0.0.1:{server.port}", token=lambda: token)
    holding = asyncio.create_task(Answering(way, {"edge": cluster}, cluster="edge").hold())
    await until(lambda: line_of(plane))

    async def used() -> None:
        remote = RemoteCluster("edge", plane.services.agents.lines)
        async with remote.connect("p-1-0", 80) as stream, asyncio.TaskGroup() as group:
            group.create_task(stream.receive())
            group.create_task(stream.send(b"x"))

    using = asyncio.run_coroutine_threadsafe(used(), server.loop)
    await until(lambda: {"waits", "takes"} <= set(cluster.events))
    server.loop.call_soon_threadsafe(plane.services.agents.lines.hang_up, "edge")
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wrap_future(using)
    assert all(isinstance(error, Unavailable) for error in raised.value.exceptions)
    async with asyncio.timeout(5):
        assert await holding
    assert cluster.events[-1] == "closed"


class Bridge:
    """Whatever is to be connected to is one server of this machine, and it is noted what that was."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.asked: list[tuple[str, int]] = []

    @asynccontextmanager
    async def connect(self, pod: str, port: int) -> AsyncIterator[Bridge]:
        self.asked.append((pod, port))
        self.reader, self.writer = await asyncio.open_connection(*self.address)
        try:
            yield self
        finally:
            self.writer.close()

    async def receive(self) -> bytes | None:
        return await self.reader.read(1 << 16) or None

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[tuple[tuple[str, int], list[bytes]]]:
    """A server that says one thing; where it is, and what it was asked."""
    asked: list[bytes] = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(answer), answer))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname(), asked


async def test_whatever_address_an_agent_reports_only_its_own_pod_is_asked_and_through_it(tmp_path: Path) -> None:
    with control_plane(tmp_path, people=PEOPLE, clock=WaitingClock()) as plane:
        server = Server(port=free_port())
        server.start(plane.app)
        token, scene = plane.add(), plane.scene
        way = Way(url=f"http://127.0.0.1:{server.port}", token=lambda: token)
        plane.services.clusters["edge"] = RemoteCluster("edge", plane.services.agents.lines)
        (node,) = scene.fleet(cluster="edge")
        scene.applied(IdentifyCluster(cluster="edge", identity="uid-of-edge", reason=WHY))
        service = scene.deploy("digits")
        scene.applied(scene.allocate(service, node=node))
        (pod,) = plane.store.allocations(service.key)
        async with listening(b"secret") as (secret, asked_of_secret), listening(b"ready") as (model, _):
            lie = f"{secret[0]}:{secret[1]}"
            connection = Connection(way)
            remote = RemoteStore(connection, plane.clock, cluster="edge")
            epoch = await asyncio.to_thread(remote.acquire, "cluster/edge", holder="a", now=0, seconds=6.0)
            seen = scene.see(pod, Seen.RUNNING, address=lie, ready=True, started_at=plane.clock.now())
            seen = replace(seen, reason=Reason(code=Code.POD_RUNNING, object=pod.pod))
            await asyncio.to_thread(remote.commit, Plan(actor="", now=0, actions=(seen,), epoch=epoch))
            scene.applied(
                scene.advance(service, Phase.RUNNING), SwitchEndpoint(tenant=TENANT, endpoint="digits", reason=WHY)
            )
            bridge = Bridge(model)
            holding = asyncio.create_task(Answering(way, {"edge": bridge}, cluster="edge").hold())  # type: ignore[dict-item]
            await until(lambda: line_of(plane))
            async with httpx2.AsyncClient(headers={"Authorization": "Bearer user-token"}) as http:
                answer = await http.get(f"{way.url}/endpoints/digits/v2/health/ready")
            assert (answer.status_code, answer.content) == (200, b"ready")
            assert bridge.asked == [(pod.pod, secret[1])]
            assert not asked_of_secret
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            await connection.close()
        server.stop()
