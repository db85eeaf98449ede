"""An agent and its control plane in one process, with the network between them in the hand of the test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from socket import socket
from typing import Any
from unittest.mock import patch

import httpx2
import uvicorn
from fastapi import FastAPI

from mainstay.agent.artifacts import RemoteArtifactStore
from mainstay.agent.connection import Connection, Way
from mainstay.agent.line import Answering
from mainstay.agent.store import RemoteStore
from mainstay.api.app import create_api
from mainstay.clusters.simulated import Behaviour, Machines, SimulatedCluster
from mainstay.clusters.simulated.lodgers import Lodgers
from mainstay.control.fleet import Fleet
from mainstay.control.loop import Loop
from mainstay.control.member import Member
from mainstay.control.remote import RemoteCluster
from mainstay.decide import lifecycle, metering, schedule
from mainstay.domain.allocation import CreatePod
from mainstay.domain.capacity import NodeState
from mainstay.domain.errors import MainstayError
from mainstay.domain.fleet import ClusterKind, ClusterSettings, NewCluster
from mainstay.domain.plan import AddCluster, Plan
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.operations import agents
from mainstay.operations.agents import Agents
from mainstay.operations.principal import Principal
from mainstay.operations.pulse import Pulse
from mainstay.operations.services import Services
from mainstay.ports import Cluster
from mainstay.simulation.files import MemoryArtifactStore
from mainstay.store import SqlStore
from mainstay.wire import agent as wire
from mainstay.wire.sockets import MESSAGE_BYTES_MAX
from tests.clock import ManualClock, WaitingClock
from tests.clusters import Rig
from tests.stores import WHY, Scene
from tests.unit.web.site import services_of

URL = "http://control-plane.test"
ANYWHERE = "anywhere"
NODE = Resources(cpu_milli=4_000, memory_bytes=4 * BYTES_PER_GIB)


@dataclass
class Skewed:
    """The clock of another machine: the same time passes there, and its wall clock shows something else."""

    true: ManualClock
    skew_us: int = 0

    def now(self) -> int:
        return self.true.now() + self.skew_us

    def monotonic(self) -> float:
        return self.true.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self.true.sleep(seconds)


Fault = Callable[[httpx2.Request], str]
"""What happens to a request: "" (nothing), "before", "after" (it was carried out, and nobody hears), "twice", "old"
(the answer to the same question before it), or whatever it raises.
"""


Answer = tuple[int, httpx2.Headers, bytes]


def no_fault(_: httpx2.Request) -> str:
    return ""


class Network(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Between one agent and the control plane."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.fault: Fault = no_fault
        self.asked: list[str] = []
        self._answers: dict[str, Answer] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        # From the loop of the test or a thread: the app runs in a loop of its own, as it would elsewhere.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, self._handle(request, request.read())).result()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._handle(request, await request.aread())

    async def _handle(self, request: httpx2.Request, content: bytes) -> httpx2.Response:
        what = f"{request.method} {request.url.path}"
        self.asked.append(what)
        fault = self.fault(request)
        if fault == "before":
            msg = "cut off"
            raise httpx2.ConnectError(msg)
        if fault != "old" or what not in self._answers:
            for _ in range(2 if fault == "twice" else 1):
                self._answers[what] = await self._ask(request, content)
        if fault == "after":
            msg = "cut off in the middle"
            raise httpx2.ReadError(msg)
        status, headers, body = self._answers[what]
        return httpx2.Response(status, headers=headers, content=body)

    async def _ask(self, request: httpx2.Request, content: bytes) -> Answer:
        transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
            answer = await http.request(request.method, request.url, headers=request.headers, content=content)
        return answer.status_code, answer.headers, answer.content


async def here(function: Any, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


@dataclass
class ControlPlane:
    """Its store outlives it; everything else is made anew by `restarted`."""

    services: Services
    clock: ManualClock
    loops: dict[str, Loop] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    app: FastAPI = field(init=False)
    fleet: Fleet = field(init=False)

    def __post_init__(self) -> None:
        self.app = create_api(self.services)
        self.fleet = Fleet(self.services, holder="control-plane", start=self._start)

    @property
    def store(self) -> SqlStore:
        store = self.services.store
        assert isinstance(store, SqlStore)
        return store

    @property
    def scene(self) -> Scene:
        return Scene(self.store, now=self.clock.now(), numbers=self.numbers)

    def restarted(self) -> ControlPlane:
        """Another process over the same store and artifacts."""
        return ControlPlane(
            replace(self.services, agents=Agents(self.clock), pulse=Pulse(), clusters={}),
            clock=self.clock,
            numbers=self.numbers,
        )

    def add(self, name: str = "edge", **settings: Any) -> str:
        """A cluster that an agent is to carry; its token."""
        token, digest = agents.new_token()
        new = NewCluster(name=name, kind=ClusterKind.AGENT, settings=ClusterSettings(agent_token=digest, **settings))
        plan = Plan(actor="ada", now=self.clock.now(), actions=(AddCluster(cluster=new, reason=WHY),), atomic=True)
        self.store.commit(plan)
        return token

    async def turn(self) -> None:
        """The table of clusters, what listens for agents, and the decisions."""
        await self.fleet.turn()
        await asyncio.sleep(0)
        for loop in list(self.loops.values()):
            await loop.turn()
        for decide in (lifecycle.lifecycle, schedule.schedule, metering.meter):
            actions = decide(self.store.snapshot(now=self.clock.now(), seed=0))
            if actions:
                self.store.commit(Plan(actor="decisions", now=self.clock.now(), actions=actions))

    def state(self, name: str = "edge") -> tuple[str, str]:
        row = self.store.cluster(name)
        return row.state, row.reason.sentence

    def _start(self, loop: Loop) -> asyncio.Task[None]:
        async def until_cancelled() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                del self.loops[loop.name]

        self.loops[loop.name] = loop
        return asyncio.create_task(until_cancelled())


@dataclass
class Agent:
    """One process of an agent. The machines, and the pods of others there, outlive it."""

    network: Network
    clock: Skewed
    machines: Machines
    token: str
    lodgers: Lodgers
    name: str = "edge"
    holder: str = "first"
    identity: str = "uid-of-edge"
    clusters: dict[str, Any] = field(default_factory=dict)
    connection: Connection = field(init=False)
    store: RemoteStore = field(init=False)
    artifacts: RemoteArtifactStore = field(init=False)
    pulse: Pulse = field(default_factory=Pulse)
    offload: Any = here
    failures: list[MainstayError] = field(default_factory=list)

    def __post_init__(self) -> None:
        way = Way(url=URL, token=lambda: self.token)
        self.connection = Connection(way, transport=self.network, async_transport=self.network)
        self.store = RemoteStore(self.connection, self.clock, cluster=self.name)
        self.artifacts = RemoteArtifactStore(self.connection)
        self.member = Member(self, self.name, self._open, holder=self.holder, identity=self.identity)

    async def _open(self) -> Any:
        return SimulatedCluster(self.name, self.machines, self.lodgers)

    async def greet(self) -> wire.ClusterSaid:
        hello = wire.Hello(identity=self.identity)
        return await self.connection.acall("POST", "hello", wire.ClusterSaid, body=hello)

    async def turn(self) -> None:
        """As its loops do: what fails is tried again with the next turn."""
        for step in (self.store.follow, self.member.turn):
            try:
                await step()
            except MainstayError as error:
                self.failures.append(error)
        # What it fetches in the background.
        for _ in range(20):
            await asyncio.sleep(0)

    async def close(self) -> None:
        await self.member.close()
        await self.connection.close()

    def again(self, **changes: Any) -> Agent:
        """Another process beside the same machines, as after a kill."""
        names = ("network", "clock", "machines", "lodgers", "token")
        given = {name: getattr(self, name) for name in names}
        return Agent(**{**given, "name": self.name, "identity": self.identity, "holder": self.holder + "'", **changes})


@dataclass
class World:
    """Both, and the time that passes for them."""

    plane: ControlPlane
    network: Network
    agent: Agent
    clock: ManualClock

    async def turns(self, seconds: float, *, step: float = 1.0, agent: bool = True) -> None:
        for _ in range(round(seconds / step)):
            await self.plane.turn()
            if agent:
                await self.agent.turn()
            self.clock.advance(step)

    async def restart_plane(self) -> None:
        await self.plane.fleet.close()
        self.plane = self.plane.restarted()
        self.network.app = self.plane.app

    async def kill_agent(self, **changes: Any) -> None:
        """Nobody closes anything; another one starts."""
        await self.agent.member.close()
        self.agent = self.agent.again(**changes)

    async def close(self) -> None:
        await self.plane.fleet.close()
        await self.agent.close()


@contextmanager
def control_plane(
    folder: Path, *, people: dict[str, Principal] | None = None, clock: ManualClock | None = None
) -> Iterator[ControlPlane]:
    """An empty one, on a manual clock."""
    clock = clock or ManualClock()
    with ExitStack() as stack:
        # Time is in the hand of the test: an answer that is held back would wait for ever.
        stack.enter_context(patch("mainstay.agent.store.POLL_SECONDS", 0.0))
        given = stack.enter_context(services_of(folder, url=URL))
        services = replace(
            given,
            clock=clock,
            agents=Agents(clock),
            clusters={},
            artifacts=MemoryArtifactStore(),
            authenticate=(people or {}).get,
        )
        yield ControlPlane(services, clock)


@contextmanager
def world(folder: Path, *, runs_for: float = 20.0) -> Iterator[World]:
    """An agent that has greeted nobody yet; its pods run for a while and leave a file."""
    with control_plane(folder) as plane:
        clock = Skewed(plane.clock)
        token = plane.add()
        network, machines = Network(plane.app), machines_of(clock, runs_for=runs_for)
        yield World(plane, network, Agent(network, clock, machines, token, Lodgers(machines)), plane.clock)


def machines_of(clock: Any, *, runs_for: float = 20.0, name: str = "edge") -> Machines:
    def behaviour(action: CreatePod) -> Behaviour:
        return Behaviour(
            starts_after=0.5,
            runs_for=runs_for,
            lines=(f"line of {action.name}\n".encode(),),
            files={"model.txt": action.name.encode()},
        )

    nodes = (NodeState(name=f"{name}-1", capacity=NODE, ready=True, admits=(ANYWHERE,)),)
    return Machines(clock, nodes, behaviour=behaviour)


class Carried:
    """A cluster that is acted on where it is, and looked into over the line of its agent."""

    def __init__(self, beside: Cluster, remote: RemoteCluster) -> None:
        self.name, self.acts_at_once = beside.name, beside.acts_at_once
        self.observe, self.act, self.outputs, self.close = beside.observe, beside.act, beside.outputs, beside.close
        self.read_log, self.connect, self.exec = remote.read_log, remote.connect, remote.exec


@asynccontextmanager
async def behind_agent(rig: Rig, folder: Path) -> AsyncIterator[Rig]:
    """The same cluster, with a real line to it: two sockets, an agent and a control plane."""
    (folder / "control-plane").mkdir()
    with control_plane(folder / "control-plane", clock=WaitingClock()) as plane, socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = QuietServer(uvicorn.Config(plane.app, log_config=None, ws="wsproto", ws_max_size=MESSAGE_BYTES_MAX))
        token, clusters = plane.add(), {"edge": rig.cluster}
        way = Way(url=f"http://127.0.0.1:{listener.getsockname()[1]}", token=lambda: token)
        lines = plane.services.agents.lines
        tasks = [
            asyncio.create_task(server.serve(sockets=[listener])),
            asyncio.create_task(Answering(way, clusters, cluster="edge").hold()),
        ]
        while not lines._open:
            await asyncio.sleep(0.01)

        def carried(beside: Cluster) -> Carried:
            clusters["edge"] = beside
            return Carried(beside, RemoteCluster("edge", lines))

        yield replace(rig, cluster=carried(rig.cluster), remake=lambda: carried(rig.remake()))
        tasks[1].cancel()
        server.should_exit = True
        await asyncio.gather(*tasks, return_exceptions=True)


class QuietServer(uvicorn.Server):
    """Leaves signals to the tests."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def content_of(parts: AsyncIterator[bytes]) -> bytes:
    return b"".join([part async for part in parts])
