"""The composition root: settings in, a running platform out. The only file that names concrete adapters.

`run_up` is the embedded platform (SQLite, this machine as its cluster, everything in one process); `run_server` is
the same on PostgreSQL, where several replicas share the database and any of them may lead.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import hmac
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvicorn
from fastapi import FastAPI

from mainstay.api.app import create_api
from mainstay.artifacts.anchors import open_anchors
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.local import LocalCluster, lock_state_directory
from mainstay.clusters.simulated import SimulatedConnector
from mainstay.control import event_loop, runner
from mainstay.decide.billing import default_price_book
from mainstay.domain.access import DEFAULT_TENANT, LOCAL_ADMINISTRATOR, PLATFORM_ADMIN
from mainstay.domain.errors import MainstayError, StateUnusable, Unavailable
from mainstay.domain.fleet import (
    ClusterFacts,
    ClusterKind,
    ClusterRecord,
    ClusterSettings,
    Credentials,
    NewCluster,
)
from mainstay.domain.permitted import Permitted
from mainstay.domain.plan import AddCluster, Plan, SetPrice
from mainstay.domain.reason import Code, Reason
from mainstay.operations import tenants
from mainstay.operations.agents import Agents
from mainstay.operations.lines import Lines
from mainstay.operations.offload import Offload
from mainstay.operations.principal import Principal
from mainstay.operations.pulse import Pulse
from mainstay.operations.sealing import Sealing
from mainstay.operations.secrets import Handing
from mainstay.operations.services import Services
from mainstay.operations.waiting import WaitingReasons
from mainstay.outbound import Outbound
from mainstay.ports import ArtifactStore, Clock, Cluster, Connector, Identities, Secrets, Store
from mainstay.sdk.config import process_start, write_private
from mainstay.start.database import open_when_it_answers
from mainstay.start.images import check_images, registries
from mainstay.start.settings import Oidc, Settings
from mainstay.start.sockets import (
    check_certificate,
    check_issuer,
    check_public_url,
    host_in_url,
    listening,
    listening_for_replicas,
)
from mainstay.start.state import (
    KEY_FILE,
    administrator_token,
    client_secret,
    cluster_name,
    prepare_directory,
    sealing_keys,
)
from mainstay.store import SqlStore, open_postgresql, open_sqlite
from mainstay.web import mount_pages
from mainstay.wire.sockets import MESSAGE_BYTES_MAX

if TYPE_CHECKING:
    from mainstay.control.relays import Door, Relays


log = structlog.get_logger()
SHUTDOWN_SECONDS = 5
PING_SECONDS = 20.0
SQLITE_THREADS = 2
"""One writes while one reads. There is one writer anyway; more threads take a third of its speed by waiting for it."""
POSTGRESQL_THREADS = 8


class SystemClock:
    """`ports.Clock` on this machine."""

    def now(self) -> int:
        """UTC microseconds."""
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        """Seconds since some moment, never going back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A wired platform that is not running yet."""

    services: Services
    api: FastAPI
    here: str
    """Where this machine reaches us."""
    holder: str
    """Our name on the leases."""
    replicas: Replicas | None = None
    """The others, where there may be any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How this replica and the others ask each other."""

    listener: socket.socket
    door: Door
    relays: Relays

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """For the block."""
        async with self.door.opened(self.listener):
            try:
                yield
            finally:
                await self.relays.close()


def run(settings: Settings, *, ready: Callable[[App], None] = lambda _: None) -> int:
    """Run until SIGINT or SIGTERM; the exit code. `ready` is called once requests are answered.

    Every refusal to start is one sentence on stderr and exit code 1.
    """
    configure_log(settings.log_level)
    code = 0
    try:
        check_certificate(settings)
        check_public_url(settings.public_url)
        check_images(settings)
        with listening(settings) as listener, listening_for_replicas(settings) as door, opened(settings) as parts:
            app = wire(settings, parts, port=listener.getsockname()[1], door=door)
            event_loop.run(serve(app, settings, listener, ready))
    except* MainstayError as refusals:
        code = 1
        error = first_of(refusals)
        print(f"mainstay: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
    return code


def first_of(group: BaseExceptionGroup[MainstayError]) -> MainstayError:
    """One of them, to be said: the others follow from it or will come again."""
    error = group.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The adapters that hold something open."""

    store: Store
    clusters: dict[str, Cluster]
    outbound: Outbound
    sealing: Sealing
    offload: Offload
    handing: Handing
    token: str
    artifacts_url: str


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Parts]:
    """Open the state, one process per directory; close everything at the end. Raises StateUnusable."""
    prepare_directory(settings.state)
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock_state_directory(settings.state))
        store = _open_store(settings)
        stack.callback(store.close)
        artifacts_url = settings.artifacts or str(settings.state / "artifacts")
        clusters: dict[str, Cluster] = {}
        key, *older = sealing_keys(settings.secrets_key or settings.state / KEY_FILE, given=bool(settings.secrets_key))
        sealing = Sealing(key=key, older=tuple(older))
        offload = Offload(threads=POSTGRESQL_THREADS if settings.database else SQLITE_THREADS)
        handing = Handing(store, sealing, SystemClock(), offload)
        outbound = Outbound(allowed=settings.outbound_allow)
        stack.callback(outbound.close)
        if settings.local_cluster:
            directory = settings.state / "clusters" / "local"
            name = cluster_name(directory, system=store.system(), shared=bool(settings.database))
            clusters[name] = LocalCluster(
                directory,
                artifacts=open_artifacts(artifacts_url),
                secrets=handing,
                name=name,
                tunnelled=bool(settings.database),
            )
        yield Parts(
            store=store,
            clusters=clusters,
            outbound=outbound,
            sealing=sealing,
            offload=offload,
            handing=handing,
            token=administrator_token(settings.state),
            artifacts_url=artifacts_url,
        )


def _open_store(settings: Settings) -> SqlStore:
    if settings.database:
        with _ended_by_sigterm():
            return open_when_it_answers(lambda: open_postgresql(settings.database))
    return open_sqlite(settings.state / "mainstay.db")


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """As by Ctrl-C: the kernel spares the first process of a container a signal that it does not handle."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def wire(settings: Settings, parts: Parts, *, port: int, door: socket.socket | None = None) -> App:
    """Put the adapters together. Writes the default price book into a new database. `door`: where other replicas ask."""
    here = f"{settings.scheme}://{host_in_url(settings.host)}:{port}"
    clock = SystemClock()
    if not parts.store.prices():
        set_prices(parts.store, now=clock.now())
    tenants.at_start(parts.store, now=clock.now())
    for name in parts.clusters:
        register_machine(parts.store, name, now=clock.now())
    artifacts, system = open_artifacts(parts.artifacts_url), parts.store.system()
    # One embedded platform owns its database alone (the lock proves that its predecessor is dead), so it keeps one
    # name and need not wait for a lease to run out after a crash. Replicas have a name per process.
    holder = "embedded" if not settings.database else f"{socket.gethostname()}/{secrets.token_hex(8)}"
    lines = Lines()
    replicas = _replicas(settings, parts, lines, holder=holder, listener=door) if door else None
    services = Services(
        store=parts.store,
        waiting=WaitingReasons(parts.store, later=parts.offload.later),
        artifacts=artifacts,
        clusters=parts.clusters,
        connectors=connectors(clock, artifacts, parts.handing, system=system),
        outbound=parts.outbound,
        sealing=parts.sealing,
        clock=clock,
        draw=secrets.choice,
        offload=parts.offload,
        pulse=Pulse(),
        authenticate=single_administrator(parts.token),
        identities=_identities(settings.oidc, clock),
        agents=Agents(clock, lines=lines, ways=replicas.relays if replicas else None),
        system=system,
        url=settings.public_url.rstrip("/") or here,
        open_max=settings.open_max,
        anchors=open_anchors(settings.audit_anchor or parts.artifacts_url, system=system),
        permitted=Permitted(repositories=settings.allow_image, tolerations=settings.allow_toleration),
        registries=registries(settings, parts.outbound),
        rate_max=settings.rate_max,
    )
    api = create_api(services)
    mount_pages(api, services)
    return App(services=services, api=api, here=here, holder=holder, replicas=replicas)


def _identities(oidc: Oidc | None, clock: Clock) -> Identities | None:
    """Raises StateUnusable for a secret that cannot be read, Invalid for an issuer that is none."""
    if oidc is None:
        return None
    # Loaded late on purpose: who signs in with tokens needs none of it.
    from mainstay.identity import Client, OpenId  # noqa: PLC0415

    secret = client_secret(oidc.secret) if oidc.secret else ""
    for issuer in (oidc.issuer, *oidc.machines):
        check_issuer(issuer)
    client = Client(id=oidc.client, secret=secret)
    return OpenId(oidc.issuer, client=client, clock=clock, machines=oidc.machines, groups_claim=oidc.groups_claim)


def _replicas(settings: Settings, parts: Parts, lines: Lines, *, holder: str, listener: socket.socket) -> Replicas:
    # Loaded late on purpose: who is alone needs none of it.
    from mainstay.control.relays import Door, Relays  # noqa: PLC0415
    from mainstay.control.replica_tls import contexts  # noqa: PLC0415

    asked, asking = contexts(parts.sealing, system=parts.store.system(), folder=settings.state)
    host, port = listener.getsockname()[:2]
    address = f"{host_in_url(host)}:{port}"
    brought = dict(parts.clusters)
    relays = Relays(
        lines, parts.store, SystemClock(), parts.offload, replica=holder, address=address, tls=asking, brought=brought
    )
    return Replicas(listener=listener, door=Door(lines, tls=asked, brought=brought), relays=relays)


async def serve(app: App, settings: Settings, listener: socket.socket, ready: Callable[[App], None]) -> None:
    """Answer requests and run all loops until a signal comes; then finish the turns under way and let go."""
    server = _Server(
        uvicorn.Config(
            app.api,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            ws="wsproto",
            ws_max_size=MESSAGE_BYTES_MAX,
            ws_per_message_deflate=False,  # a small message that unpacks to a large one costs its sender nothing
            # Who is busy elsewhere answers a ping late: pings only keep the way open, and silence has its own limit.
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=None,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as replicas, asyncio.TaskGroup() as group:
        if app.replicas:
            await replicas.enter_async_context(app.replicas.opened())
        control = group.create_task(runner.run(runner.loops(app.services, holder=app.holder), app.services))
        serving = group.create_task(server.serve(sockets=[listener]))
        async with _written(settings.state / "server.json", app):
            while not server.started and not serving.done():
                await asyncio.sleep(0.005)
            if server.started:
                ready(app)
            stopping = group.create_task(stop.wait())
            await asyncio.wait((stopping, serving), return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            msg = "the API has ended by itself"
            raise Unavailable(msg, hint="its log says why: start with --log-level debug")
        server.should_exit = True
        await serving
        control.cancel()
    for cluster in list(app.services.clusters.values()):
        await cluster.close()
    if app.services.identities:
        await app.services.identities.close()
    app.services.offload.close()


class _Server(uvicorn.Server):
    """Signals are ours: they also end the loops. Cancelled, it listens no longer."""

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            for listening in getattr(self, "servers", ()):  # there are none before it has started
                listening.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _written(path: Path, app: App) -> AsyncIterator[None]:
    """While the platform runs, a file that only its owner reads tells the command line of this machine where it is."""
    where = {
        "url": app.here,
        "token": administrator_token(path.parent),
        "pid": os.getpid(),
        "started": process_start(os.getpid()),
    }
    write_private(path, json.dumps(where))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def connectors(
    clock: Clock, artifacts: ArtifactStore, secrets_: Secrets, *, system: str
) -> Mapping[ClusterKind, Connector]:
    """The ways into clusters that may be added."""
    return {
        ClusterKind.SIMULATED: SimulatedConnector(clock),
        ClusterKind.KUBERNETES: LateKubernetes(artifacts, secrets_, clock, system=system),
    }


class LateKubernetes:
    """Its connector, loaded when the first cluster needs it: its client takes 13 MB and 0.4 s that others can do without."""

    def __init__(self, artifacts: ArtifactStore, secrets_: Secrets, clock: Clock, *, system: str) -> None:
        self._load = functools.cache(lambda: _kubernetes(artifacts, secrets_, clock, system))

    async def check(self, settings: ClusterSettings, credentials: Credentials) -> ClusterFacts:
        """As in `Connector`."""
        return await self._load().check(settings, credentials)

    def kept(self, settings: ClusterSettings, credentials: Credentials) -> Credentials:
        """As in `Connector`."""
        return self._load().kept(settings, credentials)

    def open(self, cluster: ClusterRecord, credentials: Credentials) -> Cluster:
        """As in `Connector`."""
        return self._load().open(cluster, credentials)


def _kubernetes(artifacts: ArtifactStore, secrets_: Secrets, clock: Clock, system: str) -> Connector:
    from mainstay.clusters.kubernetes import KubernetesConnector  # noqa: PLC0415 loaded late on purpose

    return KubernetesConnector(artifacts, secrets_, clock, system=system)


def register_machine(store: Store, name: str, *, now: int) -> None:
    """Put the machine that this process brings along on record as a cluster; nothing happens if it is there."""
    reason = Reason(code=Code.CLUSTER_ADDED, object=name, numbers={"by": "mainstay"})
    action = AddCluster(cluster=NewCluster(name=name, kind=ClusterKind.LOCAL), reason=reason)
    for refused in store.commit(Plan(actor="mainstay", now=now, actions=(action,))).refused:
        if refused.reason.code is Code.ONE_USER:
            raise StateUnusable(refused.reason.sentence, hint="start `mainstay server` without --local-cluster")


def single_administrator(token: str) -> Callable[[str], Principal | None]:
    """Whoever reads the file of the token administers the machine; all others have tokens that are rows."""
    expected = hashlib.sha256(token.encode()).digest()
    administrator = Principal(name=LOCAL_ADMINISTRATOR, tenant=DEFAULT_TENANT, role=PLATFORM_ADMIN)

    def authenticate(given: str) -> Principal | None:
        digest = hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest()
        return administrator if hmac.compare_digest(digest, expected) else None

    return authenticate


def set_prices(store: Store, *, now: int) -> None:
    """Put the default price book into a database that has none."""
    actions = tuple(
        SetPrice(price=price, reason=Reason(code=Code.PRICE_SET, object=price.sku)) for price in default_price_book()
    )
    store.commit(Plan(actor="mainstay", now=now, actions=actions, atomic=True))


def configure_log(level: str) -> None:
    """Events with fields on stderr, one per line: for people on a terminal, as JSON elsewhere."""
    numbers = {"debug": 10, "info": 20, "warning": 30, "error": 40}
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numbers[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
