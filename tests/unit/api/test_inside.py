"""Commands in pods and connections to their ports over WebSockets: who may, what is recorded, and what hostile ends do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from wsproto.events import TextMessage

from mainstay.api import limits, sockets, standing
from mainstay.api.app import TOPICS, create_api
from mainstay.cli.inside import _that_lives
from mainstay.domain.capacity import NodeState
from mainstay.domain.errors import NotYet, Unavailable
from mainstay.domain.fleet import ClusterKind, Contact, NewCluster
from mainstay.domain.plan import AddCluster, ObserveCluster, ObserveNodes, RevokeToken
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Kind, Phase, PodRef, Workload
from mainstay.operations.agents import SILENT_SINCE
from mainstay.ports import Channel
from mainstay.sdk.aio import AsyncClient
from mainstay.sdk.client import Client
from mainstay.sdk.errors import ApiError, CommandTooLong, Unreachable
from mainstay.sdk.request import Request
from mainstay.sdk.sockets import AsyncSocket, opening
from mainstay.wire.sockets import EXEC_PROTOCOL, PORT_PROTOCOL, REFUSED, Frame, framed
from tests.stores import TENANT, WHY
from tests.unit.api.conftest import PEOPLE, site_of
from tests.unit.web.site import LogCluster, Server, Site, services_of, size

FLOOD_BYTES = 1 << 16
ROUTES = [declared for topic in TOPICS for declared in topic.sockets if topic.topic != "agents"]
"""That of agents is none of a user: tests/unit/agent/test_line.py."""


@dataclass
class Pod:
    """A process or a connection that does what its name says. It lives in the loop of the server."""

    kind: str
    heard: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    made: int = 0
    closed: bool = False
    sizes: list[tuple[int, int]] = field(default_factory=list)
    exit_status: int | None = None
    failure: str = ""

    async def send(self, data: bytes) -> None:
        if self.kind == "gone":
            msg = "the connection to the pod has ended"
            raise Unavailable(msg)
        self.heard.put_nowait(data)

    async def end_input(self) -> None:
        self.heard.put_nowait(b"")

    end = end_input

    async def resize(self, *, columns: int, rows: int) -> None:
        self.sizes.append((columns, rows))

    async def said(self) -> bytes | None:
        match self.kind:
            case "echo":
                return await self.heard.get() or None
            case "count":
                total = 0
                while data := await self.heard.get():
                    total += len(data)
                self.kind = "done"
                return str(total).encode()
            case "flood":
                self.made += FLOOD_BYTES
                return bytes(FLOOD_BYTES)
            case "broken":
                msg = "the kubelet says no"
                raise Unavailable(msg)
            case "wrong":
                msg = "the password is hunter2"
                raise RuntimeError(msg)
            case "silent" | "gone":
                await asyncio.Event().wait()
        return None

    async def close(self) -> None:
        self.closed = True


class Process(Pod):
    async def receive(self) -> tuple[Channel, bytes] | None:
        if (data := await self.said()) is not None:
            return Channel.STDOUT, data
        self.exit_status = {"fail": 3, "missing": -1}.get(self.kind, 0)
        self.failure = "cannot run missing: no such file" if self.kind == "missing" else ""
        return None


class Connection(Pod):
    receive = Pod.said


@dataclass
class PodCluster(LogCluster):
    """Pods that do what the command, or the number of the port, says."""

    opened: list[Pod] = field(default_factory=list)
    ports: tuple[str, ...] = ("echo", "count", "broken", "silent", "flood")

    @asynccontextmanager
    async def exec(
        self, pod: str, argv: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> AsyncIterator[Process]:
        if argv[0] == "refused":
            msg = "the container does not run yet"
            raise NotYet(msg)
        async with self._open(Process(argv[0])) as process:
            yield process

    @asynccontextmanager
    async def connect(self, pod: str, port: int) -> AsyncIterator[Connection]:
        async with self._open(Connection(self.ports[port - 1])) as connection:
            yield connection

    @asynccontextmanager
    async def _open(self, pod: Any) -> AsyncIterator[Any]:
        self.opened.append(pod)
        try:
            yield pod
        finally:
            pod.closed = True


@dataclass
class World:
    site: Site
    cluster: PodCluster
    url: str
    work: Workload
    server: Server

    def client(self, token: str = "user-token") -> AsyncClient:
        return AsyncClient(self.url, token, retries=0)

    async def until_closed(self) -> None:
        async with asyncio.timeout(5):
            while not all(pod.closed for pod in self.cluster.opened):
                await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("platform")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with services_of(folder, url=f"http://127.0.0.1:{port}") as given:
        cluster = PodCluster()
        services = replace(given, authenticate=PEOPLE.get, clusters={"local": cluster})
        app = create_api(services)
        server = Server(port=port)
        server.start(app)
        site = site_of(services, app)
        site.fleet()
        yield World(site=site, cluster=cluster, url=services.url, work=started(site), server=server)
        server.stop()


@pytest.fixture
def world(running: World) -> World:
    """With a workload of its own, into which nobody has looked yet."""
    running.cluster.opened.clear()
    return replace(running, work=started(running.site))


def started(site: Site) -> Workload:
    work = site.scene.submit(name="train", choices=(size(cpus=0.01, gib=0.01),))
    site.place(work, "atlas")
    site.running(work)
    return work


@asynccontextmanager
async def opened(
    world: World, path: str, protocol: str, *, token: str = "user-token", headers: dict[str, str] | None = None
) -> AsyncIterator[AsyncSocket]:
    """A raw WebSocket, for what the clients would not do."""
    async with world.client(token) as client:
        client._http.headers.update(headers or {})
        if headers and "Cookie" in headers:
            del client._http.headers["Authorization"]
        path, _, query = path.partition("?")
        params = {key: value for key, _, value in (part.partition("=") for part in query.split("&") if part)}
        async with client._socket(Request(method="GET", path=path, params=params), protocol) as socket_:
            yield socket_


async def status(world: World, path: str, protocol: str, **options: Any) -> int:
    """101, or that of the problem."""
    try:
        async with opened(world, path, protocol, **options):
            return 101
    except ApiError as error:
        return error.status if error.problem.detail else 0


def paths(world: World) -> list[tuple[str, str]]:
    ref = world.work.id
    return [(f"/v1/workloads/{ref}/exec?command=echo", EXEC_PROTOCOL), (f"/v1/workloads/{ref}/ports/1", PORT_PROTOCOL)]


def test_every_route_to_a_socket_is_in_this_file(world: World):
    assert len(ROUTES) == len(paths(world))
    assert {str(route.permission) for route in ROUTES} == {"enter"}


async def test_who_may_enter_enters_and_nobody_else(world: World):
    may = dict.fromkeys(("admin-token", "dora-token", "user-token", "carol-token"), 101)
    expected = {**may, "viewer-token": 403, "other-token": 404, "nobody-token": 403}
    for path, protocol in paths(world):
        found = {token: await status(world, path, protocol, token=token) for token in PEOPLE}
        assert found == expected
        assert await status(world, path, protocol, token="wrong") == 401
    await world.until_closed()
    assert len(world.cluster.opened) == len(may) * len(paths(world))


async def test_a_page_of_another_site_enters_nothing(world: World):
    cookie = f"{_cookie(world)}={world.site.cookie(role='user')}"
    for path, protocol in paths(world):
        for headers, expected in (
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": world.url}, 101),
            ({"Cookie": cookie, "Origin": world.url}, 101),
            ({"Cookie": cookie, "Origin": "https://evil.example"}, 403),
            ({"Cookie": cookie}, 403),
        ):
            assert await status(world, path, protocol, headers=headers) == expected, headers


def _cookie(world: World) -> str:
    from mainstay.operations.sessions import cookie_name

    return cookie_name(world.site.services.system, secure=False)


async def test_a_pod_that_others_made_is_refused_with_their_own_way_in_and_nothing_goes_on_record(world: World):
    scene = world.site.scene
    pod = PodRef(namespace="research", name="web", uid="uid-1")
    work = scene.submit(kind=Kind.POD, run=(), guests=(pod,), choices=(size(cpus=0.01, gib=0.01),))
    world.site.place(work, "atlas")
    world.site.running(work)
    async with world.client() as client:
        with pytest.raises(ApiError, match="a pod that others made") as refused:
            await client.exec(work.id, ["ls"])
        with pytest.raises(ApiError, match="a pod that others made"):
            async with client.connect(work.id, 1):
                pass
    assert "kubectl -n research exec web -- CMD" in refused.value.problem.hint
    assert Code.COMMAND_RUN not in recorded(world, work)


async def test_a_refusal_says_that_its_connection_is_closed_so_that_nobody_uses_it_again(world: World):
    async with world.client() as client:
        for path, protocol in paths(world):
            nobody = path.replace(world.work.id, "nobody").partition("?")[0]
            refused = await client._http.get(nobody, params={"command": "echo"}, headers=opening(protocol))
            assert (refused.status_code, refused.headers.get_list("connection")) == (404, ["close"])


async def test_who_enters_a_cluster_whose_agent_is_away_is_told_since_when_and_what_to_do(world: World):
    scene = world.site.scene
    scene.applied(AddCluster(cluster=NewCluster(name="edge", kind=ClusterKind.AGENT), reason=WHY))
    silent = Reason(code=Code.AGENT_SILENT, numbers={SILENT_SINCE: "2026-05-04 10:00:00 UTC"})
    ready = NodeState(name="far", capacity=size(cpus=1, gib=1), ready=True)
    scene.applied(ObserveCluster(cluster="edge", seen=Contact.READY, reason=WHY))
    scene.applied(ObserveNodes(cluster="edge", nodes=(ready,), reason=WHY))
    work = scene.submit(choices=(size(cpus=0.01, gib=0.01),))
    world.site.place(work, "far")
    world.site.running(work)
    scene.applied(ObserveCluster(cluster="edge", seen=Contact.UNREACHABLE, reason=silent))
    async with world.client() as client:
        with pytest.raises(
            ApiError, match="the agent of cluster edge is away since 2026-05-04 10:00:00 UTC"
        ) as refused:
            await client.exec(work.id, ["ls"])
    assert "`mainstay agent`" in refused.value.problem.hint
    assert Code.COMMAND_RUN not in recorded(world, work)


def recorded(world: World, work: Workload) -> list[Code]:
    events = world.site.store.events(tenant=work.tenant, workload=work.id, after=0, limit=99)
    return [event.reason.code for event in events]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/workloads/{}/exec", 422),
        ("/v1/workloads/{}/exec?command=", 422),
        ("/v1/workloads/{}/exec?command=a%00b", 422),
        ("/v1/workloads/{}/exec?command=true&rank=1", 404),
        ("/v1/workloads/{}/exec?command=true&attempt=2", 404),
        ("/v1/workloads/{}/exec?command=true&rank=-1", 422),
        ("/v1/workloads/{}/exec?command=refused", 409),
        ("/v1/workloads/nope/exec?command=true", 404),
        ("/v1/workloads/{}/ports/0", 422),
        ("/v1/workloads/{}/ports/65536", 422),
        ("/v1/workloads/{}/ports/http", 422),
        ("/v1/workloads/nope/ports/1", 404),
    ],
)
async def test_what_cannot_be_is_refused_before_it_is_opened(world: World, path: str, expected: int):
    protocol = PORT_PROTOCOL if "ports" in path else EXEC_PROTOCOL
    path = path.format(world.work.id).replace("%00", "\x00")
    assert await status(world, path, protocol) == expected


async def test_who_speaks_another_protocol_is_refused(world: World):
    for path, _ in paths(world):
        assert await status(world, path, "v5.channel.k8s.io") == 422


async def test_a_command_that_does_not_fit_into_an_address_is_not_sent(world: World):
    async with world.client() as client:
        with pytest.raises(CommandTooLong):
            await client.exec(world.work.id, ["echo", "x" * 10_000])
    assert world.cluster.opened == []


async def test_what_waits_or_has_ended_lets_nobody_in(world: World):
    waiting = world.site.scene.submit(name="waits", choices=(size(cpus=1, gib=1),))
    assert await status(world, f"/v1/workloads/{waiting.id}/exec?command=true", EXEC_PROTOCOL) == 409
    world.site.ended(world.work)
    for path, protocol in paths(world):
        assert await status(world, path, protocol) == 410


async def test_a_name_means_the_newest_run_that_can_be_entered(world: World):
    service = world.site.scene.submit(name="one-name", choices=(size(cpus=0.01, gib=0.01),))
    site = world.site
    site.place(service, "atlas")
    site.running(service)
    job = site.scene.submit(name="one-name", choices=(size(cpus=0.01, gib=0.01),))
    site.place(job, "atlas")
    site.running(job)
    site.ended(job)
    site.advance(site.scene.workload(job.id), Phase.SUCCEEDED, Code.COMPLETED)
    async with world.client() as client:
        assert (await client.get("one-name")).id == job.id
        assert (await client.exec("one-name", ["echo"], input=b"x")).exit_code == 0
        assert (await _that_lives(client, "one-name")).id == service.id
        assert (await _that_lives(client, job.id)).id == job.id
    assert site.store.audit(after=0, limit=10_000)[-1].object == f"{service.id}-1-0"
    assert await status(world, f"/v1/workloads/{job.id}/exec?command=echo", EXEC_PROTOCOL) == 410
    site.scene.submit(name="one-name", choices=(size(cpus=0.01, gib=0.01),))
    assert await status(world, "/v1/workloads/one-name/exec?command=echo", EXEC_PROTOCOL) == 409


async def test_each_command_is_on_record_and_what_is_typed_is_not(world: World):
    async with world.client() as client:
        result = await client.exec(world.work.id, ["echo", "a b"], input=b"my password")
    assert (result.exit_code, result.stdout) == (0, b"my password")
    pod = f"{world.work.id}-1-0"
    row = world.site.store.audit(after=0, limit=1_000)[-1]
    assert (row.actor, row.tenant, row.action, row.object) == ("alice", "physics", "enter_pod", pod)
    assert row.detail == "alice runs a command in it: echo 'a b'"
    events = world.site.store.events(tenant="physics", workload=world.work.id, after=0, limit=1_000)
    assert events[-1].reason.sentence == row.detail
    assert "password" not in str([*events, *world.site.store.audit(after=0, limit=1_000)])


async def test_of_a_refused_command_only_the_refusal_is_on_record(world: World):
    before = world.site.store.audit(after=0, limit=1_000)
    path = paths(world)[0][0]
    await status(world, path, EXEC_PROTOCOL, token="viewer-token")
    (row,) = world.site.store.audit(after=len(before), limit=1_000)
    assert (row.action, row.actor, row.object) == ("deny", "bob", f"CONNECT {path.partition('?')[0]}")


@pytest.mark.parametrize(
    ("command", "exit_code", "message"),
    [
        ("true", 0, ""),
        ("fail", 3, ""),
        ("missing", None, "cannot run missing: no such file"),
        ("broken", None, "the kubelet says no"),
    ],
)
async def test_how_a_command_ended_is_told(world: World, command: str, exit_code: int | None, message: str):
    async with world.client() as client:
        result = await client.exec(world.work.id, [command])
    assert (result.exit_code, result.message) == (exit_code, message)


async def test_the_sync_client_does_the_same(world: World):
    def ask() -> tuple[Any, Any, Any]:
        with Client(world.url, "user-token") as client:
            result = client.exec(world.work.id, ["echo"], input=b"x" * 300_000)
            run = client.get(world.work.id).exec(["fail"])
            with client.connect(world.work.id, 2) as connection:
                connection.send(b"12345")
                connection.end()
                counted = connection.receive()
                assert connection.receive() is None
            with client.command(world.work.id, ["echo"], tty=True) as command:
                command.resize(columns=100, rows=30)
                command.send(b"hello")
                assert command.receive() == ("stdout", b"hello")
                command.end_input()
                assert command.receive() is None
        return result, run, counted

    result, run, counted = await asyncio.to_thread(ask)
    assert (result.exit_code, result.stdout, run.exit_code, counted) == (0, b"x" * 300_000, 3, b"5")
    assert world.cluster.opened[-1].sizes == [(100, 30)]


async def test_an_error_of_ours_tells_nothing_of_itself(world: World):
    async with world.client() as client:
        with pytest.raises(Unreachable) as broke:
            await client.exec(world.work.id, ["wrong"])
    assert "hunter2" not in str(broke.value)
    assert "the log of the platform has it" in str(broke.value)


async def test_a_command_ends_when_its_user_leaves(world: World):
    for command in ("silent", "flood"):
        async with world.client() as client, client.command(world.work.id, [command]):
            pass
    await world.until_closed()


async def test_a_command_ends_when_the_connection_breaks(world: World):
    async with opened(world, f"/v1/workloads/{world.work.id}/exec?command=silent", EXEC_PROTOCOL) as raw:
        await raw._stream.aclose()
    await world.until_closed()


async def test_a_slow_reader_slows_the_command_down_and_fills_nothing(world: World):
    async with world.client() as client, client.command(world.work.id, ["flood"]) as command:
        await command.receive()
        (pod,) = world.cluster.opened
        made, stands = -1, 0
        async with asyncio.timeout(10):
            while stands < 5:
                stands, made = (stands + 1, made) if pod.made == made else (0, pod.made)
                await asyncio.sleep(0.02)
        assert made < 32 << 20
        while pod.made == made:
            await command.receive()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x07",
        bytes([Frame.STDOUT]) + b"x",
        framed(Frame.SIZE, b"{}"),
        framed(Frame.SIZE, b"\xff"),
        framed(Frame.SIZE, b'{"columns": 0, "rows": 1}'),
        framed(Frame.SIZE, b'{"columns": 99999999, "rows": 1}'),
        framed(Frame.SIZE, b'{"columns": 80, "rows": 24, "x": 1}'),
        framed(Frame.SIZE, b"[" * 100_000),
        None,
    ],
)
async def test_what_the_protocol_does_not_know_ends_the_command(world: World, message: bytes | None):
    async with opened(world, f"/v1/workloads/{world.work.id}/exec?command=silent", EXEC_PROTOCOL) as raw:
        if message is None:
            await raw._write(raw._dialogue._connection.send(TextMessage("text")))
        else:
            await raw.send(message)
        with pytest.raises(Unreachable) as refused:
            await raw.receive()
    assert "(4002)" in str(refused.value) or "message" in str(refused.value) or "size" in str(refused.value)
    await world.until_closed()


async def test_a_message_that_is_too_large_ends_the_connection(world: World):
    async with opened(world, f"/v1/workloads/{world.work.id}/ports/1", PORT_PROTOCOL) as raw:
        await raw.send(b"x" * ((1 << 20) + 1))
        with pytest.raises(Unreachable):
            await raw.receive()
    await world.until_closed()


@pytest.mark.parametrize(
    "junk", [b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\x82\x05hello", b"\x81\x85\0\0\0\0\xff\xfe\xfd\xfc\xfb"]
)
async def test_bytes_that_are_no_frames_end_the_connection(world: World, junk: bytes):
    async with opened(world, f"/v1/workloads/{world.work.id}/ports/4", PORT_PROTOCOL) as raw:
        await raw._stream.write(junk)
        with pytest.raises(Unreachable):
            await raw.receive()
    await world.until_closed()


async def test_a_connection_half_closed_still_hears_the_answer(world: World):
    async with world.client() as client, client.connect(world.work.id, 2) as connection:
        await connection.send(b"x" * 100_000)
        await connection.end()
        assert await connection.receive() == b"100000"
        assert await connection.receive() is None


async def test_why_a_port_cannot_be_reached_is_told(world: World):
    async with world.client() as client, client.connect(world.work.id, 3) as connection:
        with pytest.raises(Unreachable, match="the kubelet says no"):
            await connection.receive()


async def test_nobody_takes_all_connections(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "SOCKETS_OF_ONE_MAX", 2)
    path, protocol = paths(world)[1]
    async with opened(world, path, protocol), opened(world, path, protocol):
        assert await status(world, path, protocol) == 503
        assert await status(world, path, protocol, token="admin-token") == 101
        monkeypatch.setattr(limits, "SOCKETS_MAX", 2)
        assert await status(world, path, protocol, token="admin-token") == 503
    await world.until_closed()
    assert await status(world, path, protocol) == 101


async def test_a_connection_over_which_nothing_is_said_is_ended(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sockets, "IDLE_SECONDS", 0.3)
    async with world.client() as client, client.connect(world.work.id, 1) as connection:
        for _ in range(4):
            await asyncio.sleep(0.15)
            await connection.send(b"x")
            assert await connection.receive() == b"x"
        with pytest.raises(Unreachable, match="nothing was said"):
            await connection.receive()


async def test_a_command_that_takes_no_input_any_more_is_heard_to_its_end(world: World):
    async with world.client() as client, client.command(world.work.id, ["gone"]) as command:
        await command.send(b"x")
        with pytest.raises(Unreachable, match="has ended"):
            await command.receive()


async def test_a_platform_that_stops_says_so(world: World):
    async with world.client() as client, client.command(world.work.id, ["silent"]) as command:
        hearing = asyncio.create_task(command.receive())
        await asyncio.sleep(0.1)
        await asyncio.to_thread(world.server.stop)
        try:
            with pytest.raises(Unreachable, match="restarted"):
                await hearing
        finally:
            world.server.start(world.site.app)


async def test_what_is_open_ends_with_the_token_that_opened_it_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(standing, "RECHECK_SECONDS", 0.01)
    for path, protocol in paths(world):
        token = world.site.scene.person("zed", now=world.site.services.clock.now())
        async with opened(world, path, protocol, token=token) as socket_:
            world.site.scene.applied(RevokeToken(tenant=TENANT, id=token.split("_")[1], reason=WHY))
            with pytest.raises(Unreachable, match="was revoked"):
                await socket_.receive()
        assert socket_._dialogue._end is not None
        assert socket_._dialogue._end.code == REFUSED
    await world.until_closed()


async def test_what_the_administrator_of_the_machine_opens_is_not_asked_about(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(standing, "RECHECK_SECONDS", 0.0)
    path, protocol = paths(world)[1]
    async with opened(world, path, protocol, token="admin-token") as socket_:
        await socket_.send(b"x")
        assert await socket_.receive() == b"x"
