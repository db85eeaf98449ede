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
import ipaddress
import json
import os
import secrets
import signal
import socket
import ssl
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import structlog
import uvicorn
from fastapi import FastAPI

from mainstay.api.app import create_api
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.local import LocalCluster, lock_state_directory
from mainstay.clusters.simulated import SimulatedConnector
from mainstay.control import event_loop, runner
from mainstay.decide.billing import default_price_book
from mainstay.domain.errors import MainstayError, StateUnusable, Unavailable
from mainstay.domain.fleet import (
    ClusterFacts,
    ClusterKind,
    ClusterRecord,
    ClusterSettings,
    Credentials,
    NewCluster,
)
from mainstay.domain.plan import AddCluster, Plan, SetPrice
from mainstay.domain.reason import Code, Reason
from mainstay.operations.agents import Agents
from mainstay.operations.lines import Lines
from mainstay.operations.offload import Offload
from mainstay.operations.principal import Principal
from mainstay.operations.pulse import Pulse
from mainstay.operations.sealing import KEY_BYTES, Sealing
from mainstay.operations.secrets import Handing
from mainstay.operations.services import Services
from mainstay.operations.sessions import Sessions
from mainstay.ports import Artifacts, Clock, Cluster, Connector, Secrets, Store
from mainstay.sdk.config import process_start, write_private
from mainstay.store import open_postgresql, open_sqlite
from mainstay.web import mount_pages
from mainstay.wire.sockets import MESSAGE_BYTES_MAX

if TYPE_CHECKING:
    from mainstay.control.relays import Door, Relays

log = structlog.get_logger()

PORT = 8650
DEFAULT_TENANT = "default"
SHUTDOWN_SECONDS = 5
PING_SECONDS = 20.0
SQLITE_THREADS = 2
"""One writes while one reads. There is one writer anyway; more threads take a third of its speed by waiting for it."""
POSTGRESQL_THREADS = 8
TOKEN_PREFIX = "mst_"  # noqa: S105 what every token begins with
TOKEN_BYTES = 32
"""256 bits of randomness (security.md C3)."""
KEY_FILE = "secrets-key"
KEY_PREFIX = "msk_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be chosen at start. `database` empty: SQLite in the state directory."""

    state: Path
    host: str = "127.0.0.1"
    port: int = PORT
    database: str = ""
    artifacts: str = ""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    secrets_key: Path | None = None
    """The key that seals credentials of clusters, where replicas share one; else it lies in the state directory."""
    public_url: str = ""
    """Where users reach the platform, if that is another address than it listens on: a proxy stands in front of it."""
    replica_address: str = ""
    """host:port where other replicas reach this one. Empty: a free port of `host`, if that is one address."""
    local_cluster: bool = True
    log_level: str = "info"

    @property
    def scheme(self) -> str:
        """https where there is a certificate."""
        return "https" if self.tls_certificate else "http"


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
        store = open_postgresql(settings.database) if settings.database else open_sqlite(settings.state / "mainstay.db")
        stack.callback(store.close)
        artifacts_url = settings.artifacts or str(settings.state / "artifacts")
        clusters: dict[str, Cluster] = {}
        sealing = Sealing(
            key=sealing_key(settings.secrets_key or settings.state / KEY_FILE, given=bool(settings.secrets_key))
        )
        offload = Offload(threads=POSTGRESQL_THREADS if settings.database else SQLITE_THREADS)
        handing = Handing(store, sealing, SystemClock(), offload)
        if settings.local_cluster:
            directory = settings.state / "clusters" / "local"
            name = cluster_name(directory, system=store.system(), shared=bool(settings.database))
            clusters[name] = LocalCluster(
                directory, artifacts=open_artifacts(artifacts_url), secrets=handing, name=name
            )
        yield Parts(
            store=store,
            clusters=clusters,
            sealing=sealing,
            offload=offload,
            handing=handing,
            token=administrator_token(settings.state),
            artifacts_url=artifacts_url,
        )


def wire(settings: Settings, parts: Parts, *, port: int, door: socket.socket | None = None) -> App:
    """Put the adapters together. Writes the default price book into a new database. `door`: where other replicas ask."""
    here = f"{settings.scheme}://{_host_in_url(settings.host)}:{port}"
    clock = SystemClock()
    if not parts.store.prices():
        set_prices(parts.store, now=clock.now())
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
        artifacts=artifacts,
        clusters=parts.clusters,
        connectors=connectors(clock, artifacts, parts.handing, system=system),
        sealing=parts.sealing,
        clock=clock,
        draw=secrets.choice,
        offload=parts.offload,
        pulse=Pulse(),
        authenticate=single_administrator(parts.token),
        sessions=Sessions(clock),
        agents=Agents(clock, lines=lines, ways=replicas.relays if replicas else None),
        system=system,
        url=settings.public_url.rstrip("/") or here,
    )
    api = create_api(services)
    mount_pages(api, services)
    return App(services=services, api=api, here=here, holder=holder, replicas=replicas)


def _replicas(settings: Settings, parts: Parts, lines: Lines, *, holder: str, listener: socket.socket) -> Replicas:
    # Loaded late on purpose: who is alone needs none of it.
    from mainstay.control.relays import Door, Relays  # noqa: PLC0415
    from mainstay.control.replica_tls import contexts  # noqa: PLC0415

    asked, asking = contexts(parts.sealing, system=parts.store.system(), folder=settings.state)
    host, port = listener.getsockname()[:2]
    address = f"{_host_in_url(host)}:{port}"
    relays = Relays(lines, parts.store, SystemClock(), parts.offload, replica=holder, address=address, tls=asking)
    return Replicas(listener=listener, door=Door(lines, tls=asked), relays=relays)


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
    app.services.offload.close()


class _Server(uvicorn.Server):
    """Signals are ours: they also end the loops."""

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


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The bound socket. Raises StateUnusable if the port is taken or the address may not be served without TLS."""
    if not is_loopback(settings.host) and not (settings.tls_certificate and settings.tls_key):
        msg = f"refusing to listen on {settings.host} without TLS"
        raise StateUnusable(
            msg, hint="give --tls-cert and --tls-key, or listen on 127.0.0.1 and put a TLS proxy in front of it"
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it. Without it a small answer waits 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            msg = f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
            raise StateUnusable(msg, hint="choose another with --port, or 0 for a free one") from error
        listener.listen(2048)
        yield listener


@contextlib.contextmanager
def listening_for_replicas(settings: Settings) -> Iterator[socket.socket | None]:
    """Where other replicas ask, None where there can be none or we have no address for them. Raises StateUnusable."""
    given = settings.replica_address
    host, port = _host_and_port(given) if given else (settings.host, 0)
    if not settings.database:
        yield None
        return
    if not given and is_anywhere(host):
        log.warning(
            "replicas_apart", hint="give --replica-address, so that other replicas reach the agents that call here"
        )
        yield None
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            msg = f"cannot listen for other replicas on {given or host}: {error.strerror or error}"
            hint = "let --replica-address name an address of this machine and a free port, e.g. 10.0.0.7:8651"
            raise StateUnusable(msg, hint=hint) from error
        listener.listen(128)
        yield listener


def _host_and_port(address: str) -> tuple[str, int]:
    """IPv6 with or without brackets. Raises StateUnusable."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or is_anywhere(host) or not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        msg = f"not an address where other replicas reach this one: {address}"
        raise StateUnusable(msg, hint="give host and port, e.g. --replica-address 10.0.0.7:8651")
    return host, int(port)


def check_certificate(settings: Settings) -> None:
    """Raises StateUnusable if the certificate and its key cannot be used together."""
    if not settings.tls_certificate:
        return
    try:
        # An encrypted key is refused by its empty password, where there may be nobody to type one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_certificate, settings.tls_key, password=lambda: ""
        )
    except OSError as error:
        files = f"the certificate {settings.tls_certificate} with the key {settings.tls_key or 'in the same file'}"
        msg = f"cannot use {files}: {error.strerror or error}"
        raise StateUnusable(
            msg, hint="give a certificate and its own key, both as PEM and without a password"
        ) from error


def check_public_url(url: str) -> None:
    """Raises StateUnusable for one that is no origin: cookies, links and the check of who sent a form depend on it."""
    parts = urlsplit(url)
    if url and not (parts.scheme in {"http", "https"} and parts.hostname and url.rstrip("/") == _origin(parts)):
        msg = f"not the public address of a platform: {url}"
        raise StateUnusable(msg, hint="give scheme and host only, e.g. --public-url https://mainstay.example.com")


def _origin(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name other than localhost counts as reachable."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_anywhere(host: str) -> bool:
    """Whether it stands for every address of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def prepare_directory(state: Path) -> None:
    """Make the state directory, for its owner only. Raises StateUnusable.

    One that is there already is closed to others if it is empty or holds a state; else it is somebody's for other things.
    """
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = state.stat()
        if found.st_uid != os.geteuid():
            msg = f"the state directory {state} belongs to another user"
            raise StateUnusable(msg, hint="choose another with --state: it holds tokens and everybody's files")
        if stat.S_IMODE(found.st_mode) & 0o077:
            if any(state.iterdir()) and not (state / "token").exists():
                msg = f"others than its owner may use {state}, and it holds other things than a state"
                raise StateUnusable(msg, hint="choose another with --state, one of its own")
            state.chmod(0o700)
        probe = state / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        msg = f"cannot write to the state directory {state}: {error.strerror}"
        raise StateUnusable(msg, hint="choose another with --state, or make this one writable") from error


def cluster_name(directory: Path, *, system: str, shared: bool) -> str:
    """The name of the machine as a cluster, given once and kept in the directory of its runs. Raises StateUnusable.

    In a `shared` database every machine needs a name of its own: two that led one cluster would run its jobs twice.
    And the runs of a directory belong to one database: for another one they are strangers, to be ended as orphans.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / "cluster.json"
    try:
        owner = json.loads(path.read_text())
        known = str(owner["system"]), str(owner["name"])
    except FileNotFoundError:
        known = system, f"local-{secrets.token_hex(3)}" if shared else "local"
        write_private(path, json.dumps({"system": system, "name": known[1]}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"cannot read whose runs lie in {directory}: {path.name} is damaged"
        raise StateUnusable(
            msg, hint="restore the state directory from a backup, or choose another with --state"
        ) from error
    if known[0] != system:
        msg = f"the runs in {directory} belong to another database"
        raise StateUnusable(msg, hint="start with that database again, or choose another directory with --state")
    return known[1]


def administrator_token(state: Path) -> str:
    """The token of the local administrator, made at the first start, in a file that only its owner reads.

    Raises StateUnusable for a file that holds none: an empty token would let everybody in.
    """
    path = state / "token"
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        token = f"{TOKEN_PREFIX}{secrets.token_urlsafe(TOKEN_BYTES)}"
        write_private(path, token)
        return token
    if not token.startswith(TOKEN_PREFIX) or len(token) < len(TOKEN_PREFIX) + TOKEN_BYTES:
        msg = f"there is no token in {path}"
        raise StateUnusable(msg, hint="remove the file: the next start makes a new token")
    return token


def sealing_key(path: Path, *, given: bool) -> bytes:
    """The key that seals credentials, made at the first start, in a file that only its owner reads.

    One that was `given` must be there: a new key could not open what the other replicas have sealed. Raises StateUnusable.
    """
    try:
        mode, text = stat.S_IMODE(path.stat().st_mode), path.read_text().strip()
    except FileNotFoundError as error:
        if given:
            msg = f"there is no key in {path}"
            raise StateUnusable(msg, hint=f"copy the file `{KEY_FILE}` of another replica's state directory") from error
        key = secrets.token_bytes(KEY_BYTES)
        write_private(path, KEY_PREFIX + key.hex())
        return key
    except OSError as error:
        msg = f"cannot read the key in {path}: {error.strerror}"
        raise StateUnusable(msg, hint="make it readable for the user who runs the platform") from error
    if mode & 0o077:
        msg = f"others than its owner may read the key in {path}"
        raise StateUnusable(msg, hint=f"close it to them: chmod 600 {path}")
    try:
        key = bytes.fromhex(text.removeprefix(KEY_PREFIX))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES or not text.startswith(KEY_PREFIX):
        msg = f"there is no key in {path}"
        raise StateUnusable(
            msg, hint="restore it from a backup; without it the clusters must be added again, with a new file"
        )
    return key


def connectors(
    clock: Clock, artifacts: Artifacts, secrets_: Secrets, *, system: str
) -> Mapping[ClusterKind, Connector]:
    """The ways into clusters that may be added."""
    return {
        ClusterKind.SIMULATED: SimulatedConnector(clock),
        ClusterKind.KUBERNETES: LateKubernetes(artifacts, secrets_, clock, system=system),
    }


class LateKubernetes:
    """Its connector, loaded when the first cluster needs it: its client takes 13 MB and 0.4 s that others can do without."""

    def __init__(self, artifacts: Artifacts, secrets_: Secrets, clock: Clock, *, system: str) -> None:
        self._load = functools.cache(lambda: _kubernetes(artifacts, secrets_, clock, system))

    async def check(self, settings: ClusterSettings, credentials: Credentials) -> ClusterFacts:
        """As in `Connector`."""
        return await self._load().check(settings, credentials)

    def open(self, cluster: ClusterRecord, credentials: Credentials) -> Cluster:
        """As in `Connector`."""
        return self._load().open(cluster, credentials)


def _kubernetes(artifacts: Artifacts, secrets_: Secrets, clock: Clock, system: str) -> Connector:
    from mainstay.clusters.kubernetes import KubernetesConnector  # noqa: PLC0415 loaded late on purpose

    return KubernetesConnector(artifacts, secrets_, clock, system=system)


def register_machine(store: Store, name: str, *, now: int) -> None:
    """Put the machine that this process brings along on record as a cluster; nothing happens if it is there."""
    reason = Reason(code=Code.CLUSTER_ADDED, object=name, numbers={"by": "mainstay"})
    action = AddCluster(cluster=NewCluster(name=name, kind=ClusterKind.LOCAL), reason=reason)
    store.commit(Plan(actor="mainstay", now=now, actions=(action,)))


def single_administrator(token: str) -> Callable[[str], Principal | None]:
    """Embedded mode has one tenant and one person (security.md E6)."""
    expected = hashlib.sha256(token.encode()).digest()
    administrator = Principal(name="admin", tenant=DEFAULT_TENANT, role="admin")

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


def _host_in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
