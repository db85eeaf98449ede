"""Between replicas, over real sockets: an agent whose line ends elsewhere, strangers at the door, replicas that died."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from mainstay.agent.answers import Answers
from mainstay.control import replica_tls
from mainstay.control.listener import Listener
from mainstay.control.relays import PATH, REFUSED_SECONDS, Door, Relays
from mainstay.control.remote import RemoteCluster
from mainstay.control.replica_tls import contexts
from mainstay.domain.errors import NotFound, Unavailable
from mainstay.operations.agents import Agents
from mainstay.operations.lines import Line, Lines
from mainstay.operations.pulse import Pulse
from mainstay.operations.sealing import KEY_BYTES, Sealing
from mainstay.ports import LineRecord
from mainstay.store import SqlStore
from mainstay.wire import agent as wire
from mainstay.wire import agent_line
from tests.clock import ManualClock
from tests.databases import empty_sqlite
from tests.unit.web.site import LogCluster

KEY, OTHER_KEY = Sealing(key=b"k" * KEY_BYTES), Sealing(key=b"o" * KEY_BYTES)
NAME = "edge"


async def here(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


async def until(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


@dataclass
class AgentSocket:
    """The agent's end of a line, without a network."""

    line: Line | None = None
    asked: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    async def send(self, data: bytes) -> None:
        self.asked.put_nowait(data)

    async def send_bytes(self, data: bytes) -> None:
        assert self.line is not None
        self.line.heard(data)

    def __aiter__(self) -> AgentSocket:
        return self

    async def __anext__(self) -> Any:
        return SimpleNamespace(type=aiohttp.WSMsgType.BINARY, data=await self.asked.get())


@dataclass
class Replica:
    """One process of several, as far as lines go."""

    name: str
    store: SqlStore
    clock: ManualClock
    folder: Path
    sealing: Sealing = KEY
    lines: Lines = field(default_factory=Lines)
    agents: list[tuple[Line, asyncio.Task[None]]] = field(default_factory=list)
    brought: dict[str, Any] = field(default_factory=dict)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Replica]:
        asked, asking = contexts(self.sealing, system="system", folder=self.folder)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            self.address = f"127.0.0.1:{listener.getsockname()[1]}"
            self.relays = Relays(
                self.lines, self.store, self.clock, here, replica=self.name, address=self.address, tls=asking,
                brought=self.brought,
            )  # fmt: skip
            self.cluster = RemoteCluster(NAME, self.relays)
            async with Door(self.lines, tls=asked, brought=self.brought).opened(listener):
                try:
                    yield self
                finally:
                    while self.agents:
                        await self.agent_goes()
                    await self.relays.close()

    async def agent_calls(self, cluster: Any) -> Line:
        """As `hold_line` does."""
        there = AgentSocket()
        line = there.line = Line(NAME, there.send)
        self.lines.opened(NAME, line)
        self.agents.append((line, asyncio.create_task(Answers(there, lambda: cluster).answer())))  # type: ignore[arg-type]
        await self.relays.changed(NAME)
        return line

    async def agent_goes(self) -> None:
        line, answering = self.agents.pop()
        self.lines.ended(NAME, line)
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        await self.relays.changed(NAME)

    async def read(self, pod: str = "p-1-0") -> bytes:
        return (await self.cluster.read_log(pod, offset=0, limit=1 << 20)).data


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    made = empty_sqlite(tmp_path / "mainstay.db")
    yield made
    made.close()


@pytest.fixture
async def three(store: SqlStore, tmp_path: Path) -> AsyncIterator[list[Replica]]:
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        made = [Replica(name, store, clock, tmp_path) for name in ("one", "two", "three")]
        yield [await stack.enter_async_context(replica.running()) for replica in made]


@pytest.fixture
def logs() -> LogCluster:
    return LogCluster(name=NAME, logs={"p-1-0": b"line\n" * 1_000, "big-1-0": bytes(range(256)) * 8_000})


async def test_every_replica_answers_for_an_agent_whose_line_ends_at_one_of_them(
    three: list[Replica], logs: LogCluster
) -> None:
    with pytest.raises(Unavailable, match="the agent of cluster edge is not connected"):
        await three[1].read()
    await three[0].agent_calls(logs)
    for replica in three:
        assert await replica.read() == logs.logs["p-1-0"]
        found = b""
        while part := (await replica.cluster.read_log("big-1-0", offset=len(found), limit=1 << 20)).data:
            found += part
        assert found == logs.logs["big-1-0"]
        with pytest.raises(NotFound):
            await replica.read("none-1-0")


async def test_many_who_ask_at_once_share_one_socket_between_two_replicas(
    three: list[Replica], logs: LogCluster
) -> None:
    logs.logs = {f"p-{number}-0": b"%d" % number for number in range(50)}
    await three[0].agent_calls(logs)
    found = await asyncio.gather(*(three[1].read(f"p-{number}-0") for number in range(50)))
    assert found == list(logs.logs.values())
    assert len(three[1].relays._open) == 1


async def test_the_machine_that_a_replica_brought_along_is_asked_through_it_until_it_is_gone(
    three: list[Replica], store: SqlStore, tmp_path: Path
) -> None:
    echo, logs = Echo(), LogCluster(name=NAME, logs={"p-1-0": b"from its machine"})
    logs.connect = echo.connect  # type: ignore[attr-defined]
    async with Replica("four", store, three[0].clock, tmp_path, brought={NAME: logs}).running() as four:
        await four.relays.keep(NAME)
        await four.relays.keep(NAME)
        assert [(row.replica, row.address) for row in store.lines(NAME)] == [("four", four.address)]
        assert await three[0].read() == b"from its machine"
        async with three[1].cluster.connect("p-1-0", 80) as stream:
            echo.more.set()
            await stream.send(b"said")
            assert await stream.receive() == b"said"
        await until(lambda: echo.open == 0)
    assert store.lines(NAME) == ()
    three[0].clock.advance(2)
    await until(lambda: not three[0].relays._open)
    with pytest.raises(Unavailable, match="the agent of cluster edge is not connected"):
        await three[0].read()


class Echo:
    """A cluster with one port, that says what it hears, until it is held back."""

    def __init__(self) -> None:
        self.open = 0
        self.heard: list[bytes] = []
        self.more = asyncio.Event()
        self.said: asyncio.Queue[bytes] = asyncio.Queue()

    @asynccontextmanager
    async def connect(self, pod: str, port: int) -> AsyncIterator[Echo]:
        self.open += 1
        try:
            yield self
        finally:
            self.open -= 1

    async def receive(self) -> bytes | None:
        return await self.said.get() or None

    async def send(self, data: bytes) -> None:
        await self.more.wait()
        self.heard.append(data)
        self.said.put_nowait(data)

    async def end(self) -> None:
        self.said.put_nowait(b"")


async def test_a_connection_goes_both_ways_through_two_replicas_and_whoever_sends_is_held_back(
    three: list[Replica],
) -> None:
    echo = Echo()
    await three[0].agent_calls(echo)
    async with three[2].cluster.connect("p-1-0", 80) as stream:
        sending = asyncio.create_task(stream.send(b"x" * agent_line.CHUNK_BYTES * 3))
        for _ in range(20):
            await asyncio.sleep(0.01)
        # Nothing is taken at the far end, so nothing is taken here: one part is under way, and the rest is with the sender.
        assert not sending.done()
        assert not echo.heard
        echo.more.set()
        await sending
        assert b"".join(echo.heard) == b"x" * agent_line.CHUNK_BYTES * 3
        got = b""
        while len(got) < agent_line.CHUNK_BYTES * 3:
            got += await stream.receive() or b""
        await stream.end()
        assert await stream.receive() is None
    await until(lambda: echo.open == 0)


async def test_what_is_open_ends_with_the_replica_that_asked(three: list[Replica]) -> None:
    echo = Echo()
    await three[0].agent_calls(echo)
    async with three[2].cluster.connect("p-1-0", 80):
        await until(lambda: echo.open == 1)
        await three[2].relays.close()
        await until(lambda: echo.open == 0)


async def test_what_is_open_ends_with_the_line_and_the_next_question_goes_where_the_agent_is_now(
    three: list[Replica], logs: LogCluster, store: SqlStore
) -> None:
    echo = Echo()
    await three[0].agent_calls(echo)
    async with three[2].cluster.connect("p-1-0", 80) as stream:
        receiving = asyncio.create_task(stream.receive())
        await until(lambda: three[2].relays._open)
        await three[0].agent_goes()
        with pytest.raises(Unavailable):
            await receiving
    await until(lambda: not three[2].relays._open)
    assert store.lines(NAME) == ()
    await three[1].agent_calls(logs)
    assert await three[2].read() == logs.logs["p-1-0"]
    assert await three[0].read() == logs.logs["p-1-0"]


async def test_a_replica_that_was_killed_is_passed_over_and_its_record_goes_in_the_end(
    three: list[Replica], logs: LogCluster, store: SqlStore
) -> None:
    await three[1].agent_calls(logs)
    # It died after this one had called it, and took nothing back. Nobody listens at its address.
    store.open_line(LineRecord(cluster=NAME, replica="dead", address="127.0.0.1:9"))
    assert await three[0].read() == logs.logs["p-1-0"]
    for number in range(3):
        store.open_line(LineRecord(cluster=NAME, replica=f"dead-{number}", address="127.0.0.1:9"))
    assert len(store.lines(NAME)) == 4
    await three[1].agent_goes()
    await until(lambda: not three[0].relays._open)
    with pytest.raises(Unavailable, match="cannot be asked: it does not answer"):
        await three[0].read()
    for _ in range(4):
        await three[1].agent_calls(logs)
        await three[1].agent_goes()
    await three[1].agent_calls(logs)
    three[0].clock.advance(2)
    assert await three[0].read() == logs.logs["p-1-0"]


async def test_a_replica_that_hangs_costs_the_first_who_asks_and_then_nobody_for_a_while(
    three: list[Replica], store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections (its kernel does), and says nothing."""
    monkeypatch.setattr("mainstay.control.relays.DIAL_SECONDS", 0.2)
    dials = 0
    connected = Relays._connected

    async def counted(self: Relays, record: LineRecord) -> Any:
        nonlocal dials
        dials += 1
        return await connected(self, record)

    monkeypatch.setattr(Relays, "_connected", counted)
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        store.open_line(LineRecord(cluster=NAME, replica="hung", address=f"127.0.0.1:{hung.getsockname()[1]}"))
        for raised in await asyncio.gather(*(three[0].read() for _ in range(10)), return_exceptions=True):
            assert isinstance(raised, Unavailable)
        assert dials == 1
        three[0].clock.advance(REFUSED_SECONDS + 1)
        with pytest.raises(Unavailable):
            await three[0].read()
        assert dials == 2


async def test_a_replica_answers_from_its_own_lines_and_passes_nothing_on(
    three: list[Replica], store: SqlStore
) -> None:
    """Each is on record, and none has a line: nobody sends anybody round in circles."""
    for replica in three:
        store.open_line(LineRecord(cluster=NAME, replica=replica.name, address=replica.address))
    for replica in three:
        with pytest.raises(Unavailable, match="does not reach that cluster any more"):
            await replica.read()


async def test_a_record_that_was_lost_or_left_behind_is_put_right_by_who_listens(
    three: list[Replica], logs: LogCluster, store: SqlStore
) -> None:
    one = three[0]
    services: Any = SimpleNamespace(
        clusters={}, agents=Agents(one.clock, lines=one.lines, ways=one.relays), clock=one.clock, store=store,
        offload=here, pulse=Pulse(),
    )  # fmt: skip
    listener = Listener(services, NAME, holder="one")
    listener._note_silence = lambda: False  # type: ignore[method-assign]
    await one.agent_calls(logs)
    store.end_line(NAME, replica="one")
    await listener.turn()
    assert [row.replica for row in store.lines(NAME)] == ["one"]
    await one.agent_goes()
    store.open_line(LineRecord(cluster=NAME, replica="one", address=one.address))
    await listener.turn()
    assert store.lines(NAME) == ()


async def test_a_database_that_is_away_ends_no_line(three: list[Replica], logs: LogCluster, store: SqlStore) -> None:
    def away(line: LineRecord) -> None:
        raise Unavailable(line.cluster)

    store.open_line = away  # type: ignore[method-assign]
    await three[0].agent_calls(logs)
    assert await three[0].read() == logs.logs["p-1-0"]


async def test_who_has_another_key_is_told_so_and_gets_nothing(
    three: list[Replica], logs: LogCluster, store: SqlStore, tmp_path: Path
) -> None:
    await three[0].agent_calls(logs)
    async with Replica("stranger", store, three[0].clock, tmp_path, sealing=OTHER_KEY).running() as stranger:
        with pytest.raises(Unavailable, match="another key: start all replicas with the same file"):
            await stranger.read()


async def test_nobody_comes_in_without_the_key_of_the_replicas(three: list[Replica], logs: LogCluster) -> None:
    await three[0].agent_calls(logs)
    url = f"https://{three[0].address}{PATH}/{NAME}"
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    async with aiohttp.ClientSession() as session:
        for headers in ({}, {"Authorization": "Bearer mst_test"}):
            with pytest.raises((aiohttp.ClientError, OSError)):
                await session.ws_connect(url, ssl=anybody, headers=headers, protocols=(agent_line.LINE_PROTOCOL,))
        with pytest.raises((aiohttp.ClientError, OSError)):
            await session.ws_connect(url.replace("https", "http"))


async def test_whoever_took_the_place_of_a_replica_learns_nothing(three: list[Replica], store: SqlStore) -> None:
    """An address that another process has now: it is asked to prove that it has the key, before it hears a question."""
    heard: list[bytes] = []

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1 << 16))
        writer.close()

    asked, _ = contexts(OTHER_KEY, system="system", folder=three[0].folder)
    asked.verify_mode = ssl.CERT_NONE
    server = await asyncio.start_server(impostor, "127.0.0.1", 0, ssl=asked)
    async with server:
        port = server.sockets[0].getsockname()[1]
        store.open_line(LineRecord(cluster=NAME, replica="gone", address=f"127.0.0.1:{port}"))
        with pytest.raises(Unavailable, match="another key"):
            await three[0].read()
    assert heard in ([], [b""])


async def test_a_replica_of_another_version_is_named(three: list[Replica], logs: LogCluster, monkeypatch: Any) -> None:
    await three[0].agent_calls(logs)
    monkeypatch.setattr(wire, "PROTOCOL", 99)
    monkeypatch.setattr(wire, "PROTOCOL_OLDEST", 98)
    connected = Relays._connected

    async def older(self: Relays, record: LineRecord) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wire, "PROTOCOL", 1)
            return await connected(self, record)

    monkeypatch.setattr(Relays, "_connected", older)
    monkeypatch.setattr(wire, "PROTOCOL_OLDEST", 2)
    with pytest.raises(Unavailable, match="another protocol"):
        await three[1].read()


def test_the_certificate_of_replicas_is_the_same_everywhere_and_another_for_another_platform(tmp_path: Path) -> None:
    made = {
        (sealing.key_id, system): replica_tls._certificate(replica_tls._key(sealing, system))
        for sealing in (KEY, OTHER_KEY)
        for system in ("a", "b")
    }
    assert len(set(made.values())) == len(made) == 4
    assert made[KEY.key_id, "a"] == replica_tls._certificate(replica_tls._key(KEY, "a"))
    contexts(KEY, system="a", folder=tmp_path)
    assert not list(tmp_path.iterdir())
