"""A platform with pages for tests: a real store and API behind a real socket, and a cluster that only has logs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from mainstay.api.app import create_api
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.simulated import SimulatedConnector
from mainstay.domain.allocation import Allocation, End, Owner, PodAction, Seen
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.billing import Charge, UsageRecord
from mainstay.domain.capacity import ClusterState, LogChunk, NodeState
from mainstay.domain.errors import NotFound
from mainstay.domain.fleet import ClusterKind
from mainstay.domain.plan import ObserveNodes, RecordUsage
from mainstay.domain.quantity import BYTES_PER_GIB, Money, Resources, cost_micros
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Phase, Workload
from mainstay.operations import sessions
from mainstay.operations.agents import Agents
from mainstay.operations.offload import Offload
from mainstay.operations.principal import Principal
from mainstay.operations.pulse import Pulse
from mainstay.operations.sealing import KEY_BYTES, Sealing
from mainstay.operations.services import Services
from mainstay.operations.waiting import WaitingReasons
from mainstay.outbound import Outbound
from mainstay.ports import Process, Stream
from mainstay.store import SqlStore
from mainstay.web import mount_pages
from mainstay.wire.sockets import MESSAGE_BYTES_MAX
from tests.databases import empty_sqlite
from tests.stores import SECOND, TENANT, USER, Scene, put_on_record

TOKEN = "mst_test"
VIEWER_TOKEN = "mst_viewer"
GPU_HOUR = 2_500_000
CPU_HOUR = 40_000
GIB_HOUR = 5_000


class WallClock:
    """The browser has real time, so the platform has it too."""

    def now(self) -> int:
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class LogCluster:
    """Only logs: bytes by pod, and which pods will write no more."""

    name: str = "local"
    acts_at_once: int = 1
    logs: dict[str, bytes] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)

    async def observe(self) -> ClusterState:
        return ClusterState(nodes=(), pods=())

    async def act(self, action: PodAction, *, epoch: int) -> None:
        raise NotImplementedError

    async def read_log(self, pod: str, *, offset: int, limit: int) -> LogChunk:
        if pod not in self.logs:
            raise NotFound(pod)
        data = self.logs[pod][offset : offset + limit]
        ended = pod in self.ended and offset + len(data) == len(self.logs[pod])
        return LogChunk(data=data, next_offset=offset + len(data), dropped=0, ended=ended)

    async def copy_out(self, pod: str) -> None:
        pass

    async def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:
        raise NotImplementedError
        yield

    def connect(self, pod: str, port: int) -> AbstractAsyncContextManager[Stream]:
        raise NotFound(pod)

    def exec(
        self, pod: str, argv: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> AbstractAsyncContextManager[Process]:
        raise NotFound(pod)

    async def close(self) -> None:
        pass


@dataclass
class Site:
    """A running platform. `scene` writes into its store; `sign_in` gives a link for a browser."""

    scene: Scene
    cluster: LogCluster
    services: Services
    app: FastAPI
    model: str
    """host:port where a model answers."""
    server: Server

    @property
    def url(self) -> str:
        return self.services.url

    @property
    def store(self) -> SqlStore:
        assert isinstance(self.scene.store, SqlStore)
        return self.scene.store

    def link(self, *, role: str = "platform-admin") -> str:
        """As `POST /v1/sign-in` makes it."""
        now = self.services.clock.now()
        return f"{self.url}/sign-in#{sessions.link(self.store, self.person(role), now=now)}"

    def cookie(self, *, role: str = "platform-admin") -> str:
        """Of a browser that is signed in."""
        return sessions.begin(self.store, self.person(role), now=self.services.clock.now())

    def person(self, role: str) -> Principal:
        """On record, with another administrator who stays one."""
        now = self.services.clock.now()
        put_on_record(self.store, Principal(name="root", tenant=TENANT, role="platform-admin"), now=now)
        return put_on_record(self.store, Principal(name=USER, tenant=TENANT, role=role), now=now)

    def at(self, seconds_ago: float) -> Site:
        """The next commit happens then."""
        self.scene.now = self.services.clock.now() - round(seconds_ago * SECOND) - SECOND
        return self

    def fleet(self) -> None:
        """Three machines, one of them with GPUs, one not ready."""
        states = (
            NodeState(name="atlas", capacity=size(cpus=32, gib=128), ready=True),
            NodeState(
                name="boreas", capacity=size(cpus=64, gib=512, gpus=8, gpu_model="H100"), ready=True, pods_max=104
            ),
            NodeState(name="calypso", capacity=size(cpus=16, gib=64), ready=False),
        )
        self.scene.applied(ObserveNodes(cluster="local", nodes=states, reason=why(Code.NODE_CHANGED)))

    def prices(self) -> None:
        """One price per SKU."""
        book = (("cpu", CPU_HOUR), ("memory", GIB_HOUR), ("gpu", GPU_HOUR))
        self.scene.applied(*(self.scene.price(micros, sku=sku) for sku, micros in book))

    def advance(self, work: Workload, phase: Phase, code: Code, **numbers: Any) -> Workload:
        """A step with a reason of its own."""
        attempt = numbers.pop("attempt", work.attempt)
        reason = Reason(code=code, object=work.id, numbers={"attempt": attempt, **numbers})
        self.scene.applied(self.scene.advance(work, phase, attempt=attempt, reason=reason))
        return self.scene.workload(work.id)

    def place(self, work: Workload, node: str) -> list[Allocation]:
        """All ranks of the current attempt on one node."""
        chosen = next(row for row in self.store.nodes() if row.name == node)
        self.scene.applied(
            self.scene.allocate(work, node=chosen, reason=Reason(code=Code.PLACED, numbers={"nodes": node}))
        )
        return self.pods(work)

    def pods(self, work: Workload) -> list[Allocation]:
        """Of the current attempt."""
        work = self.scene.workload(work.id)
        return [row for row in self.store.allocations(work.key) if row.attempt == work.attempt]

    def running(self, work: Workload, **changes: Any) -> Workload:
        """All pods report that they run."""
        for pod in self.pods(work):
            self.scene.applied(
                self.scene.see(pod, Seen.RUNNING, started_at=self.scene.now, address=self.model, ready=True, **changes)
            )
        return self.advance(work, Phase.RUNNING, Code.POD_RUNNING)

    def ended(self, work: Workload, *, end: End = End.EXITED, exit_code: int | None = 0, output: str = "") -> None:
        """All pods report their end."""
        for pod in self.pods(work):
            self.scene.end(pod, end=end, exit_code=exit_code, output=output)
            self.cluster.ended.add(pod.pod)

    def bill(self, pod: Allocation, *, start: int, end: int, project: str = "default") -> None:
        """Usage with exact charges."""
        parts = (
            ("cpu", CPU_HOUR, pod.resources.cpu_milli, 1_000),
            ("memory", GIB_HOUR, pod.resources.memory_bytes, BYTES_PER_GIB),
            ("gpu", GPU_HOUR, pod.resources.gpus, 1),
        )
        charges = tuple(
            Charge(
                allocation_key=pod.key,
                start=start,
                end=end,
                sku=sku,
                quantity=amount,
                unit_price=Money(micros=price),
                cost=Money(
                    micros=cost_micros(
                        price_per_hour_micros=price, amount=amount, per_amount=per, duration_us=end - start
                    )
                ),
            )
            for sku, price, amount, per in parts
            if amount
        )
        usage = UsageRecord(
            allocation_key=pod.key,
            tenant=TENANT,
            project=project,
            workload=pod.workload,
            resources=pod.resources,
            start=start,
            end=end,
        )
        self.scene.applied(RecordUsage(usage=usage, charges=charges, reason=Reason(code=Code.METERED)))

    def tree(self, files: dict[str, bytes]) -> str:
        """Stored; its digest."""

        async def put() -> str:
            entries, artifacts = [], self.services.artifacts.of(Owner(tenant=TENANT, project="default"))
            for path, content in sorted(files.items()):
                digest = hashlib.sha256(content).hexdigest()
                await artifacts.put(digest, _once(content))
                entries.append(Entry(path=path, size=len(content), digest=digest))
            return await artifacts.put_tree(Tree(entries=tuple(entries)))

        # On a thread of its own: the caller's may already have a loop.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, put()).result()


def size(*, cpus: float, gib: float, gpus: int = 0, gpu_model: str = "") -> Resources:
    return Resources(
        cpu_milli=round(cpus * 1_000), memory_bytes=round(gib * BYTES_PER_GIB), gpus=gpus, gpu_model=gpu_model
    )


def why(code: Code, **numbers: float | str) -> Reason:
    return Reason(code=code, numbers=numbers)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


@contextmanager
def services_of(folder: Path, *, url: str) -> Iterator[Services]:
    """Everything but a server, opened in a folder."""
    clock, cluster, offload = WallClock(), LogCluster(), Offload()
    store = empty_sqlite(folder / "mainstay.db")
    yield Services(
        store=store,
        waiting=WaitingReasons(store, later=offload.later),
        artifacts=open_artifacts(str(folder / "artifacts")),
        clusters={cluster.name: cluster},
        connectors={ClusterKind.SIMULATED: SimulatedConnector(clock)},
        outbound=Outbound(),
        sealing=Sealing(key=bytes(KEY_BYTES)),
        clock=clock,
        draw=secrets.choice,
        offload=offload,
        pulse=Pulse(),
        authenticate=_authenticate,
        agents=Agents(clock),
        system=store.system(),
        url=url,
    )
    offload.close()
    store.close()


def app_of(services: Services) -> FastAPI:
    """The API with its pages."""
    app = create_api(services)
    mount_pages(app, services)
    return app


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """A platform on a free port."""
    with _listening(0) as free:
        port = free.getsockname()[1]
    with services_of(folder, url=f"http://127.0.0.1:{port}") as services, model_server() as model:
        cluster = services.clusters["local"]
        assert isinstance(cluster, LogCluster)
        site = Site(
            scene=Scene(services.store, now=services.clock.now()),
            cluster=cluster,
            services=services,
            app=app_of(services),
            model=model,
            server=Server(port=port),
        )
        site.server.start(site.app)
        yield site
        site.server.stop()


@dataclass
class Server:
    """Answers on a port, from a thread of its own; may be stopped and started again."""

    port: int
    ws: str = "none"
    server: uvicorn.Server | None = None
    thread: threading.Thread | None = None
    loop: asyncio.AbstractEventLoop | None = None
    """Of the thread: who must be in it gets there by `run_coroutine_threadsafe`."""

    def start(self, app: FastAPI) -> None:
        """Returns when it answers."""
        listener = _listening(self.port)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                ws="wsproto",
                ws_max_size=MESSAGE_BYTES_MAX,
                loop="asyncio",
                timeout_graceful_shutdown=1,
            )
        )

        def run() -> None:
            with asyncio.Runner() as runner:
                self.loop = runner.get_loop()
                runner.run(server.serve(sockets=[listener]))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        self.server, self.thread = server, thread

    def stop(self) -> None:
        """Returns when it has let go of its port."""
        if self.server is not None and self.thread is not None:
            self.server.should_exit = True
            self.thread.join(10)
            self.server = self.thread = None


def free_port() -> int:
    """One that nobody listens on now."""
    with _listening(0) as free:
        return int(free.getsockname()[1])


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    return listener


@contextmanager
def model_server() -> Iterator[str]:
    """host:port of something that says what its model takes, as the Open Inference Protocol has it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


class _Model(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        inputs = [{"name": "pixels", "datatype": "FP64", "shape": [-1, 8]}]
        body = json.dumps({"name": "digits", "versions": ["1"], "platform": "skops", "inputs": inputs}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _authenticate(token: str) -> Principal | None:
    roles = {TOKEN: "platform-admin", VIEWER_TOKEN: "viewer"}
    return Principal(name=USER, tenant=TENANT, role=roles[token]) if token in roles else None
