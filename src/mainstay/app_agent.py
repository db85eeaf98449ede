"""The other composition root: an agent, which carries one cluster for a control plane that is elsewhere.

The loop is the one that the control plane runs for clusters which it reaches. Only what it stands on is another: store and
artifacts over HTTPS instead of a database and a directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog

from mainstay import __version__
from mainstay.agent import convert
from mainstay.agent.artifacts import RemoteArtifactStore
from mainstay.agent.connection import Connection, Way
from mainstay.agent.health import answering
from mainstay.agent.line import Answering
from mainstay.agent.secrets import RemoteSecrets
from mainstay.agent.store import RemoteStore
from mainstay.app import SystemClock, configure_log, first_of
from mainstay.clusters.local import LocalCluster, lock_state_directory
from mainstay.control import event_loop
from mainstay.control.loop import Due, Loop, backoff_seconds, forever
from mainstay.control.member import Member
from mainstay.domain.errors import Denied, MainstayError, StateUnusable, Unavailable
from mainstay.domain.fleet import ClusterFacts, ClusterRecord, ClusterSettings, Credentials
from mainstay.operations.clusters import NAME
from mainstay.operations.offload import Offload
from mainstay.operations.pulse import Pulse
from mainstay.ports import Clock, Cluster, Connector
from mainstay.sdk.config import Server, checked, write_private
from mainstay.sdk.errors import NotConfigured
from mainstay.start.state import prepare_directory
from mainstay.wire import agent as wire

log = structlog.get_logger()

THREADS = 4
SKEW_SECONDS_MAX = 60
LINE_SECONDS = (1.0, 3.0)
A = TypeVar("A")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Everything that can be chosen at start. One way into the cluster."""

    server: str
    cluster: str
    token_file: Path
    kubeconfig: Path | None = None
    context: str = ""
    in_cluster: bool = False
    local: bool = False
    state: Path | None = None
    ca: Path | None = None
    health_port: int = 0
    """Where probes are answered; 0: nowhere."""
    log_level: str = "info"

    @property
    def directory(self) -> Path:
        """Where the runs of this machine are kept."""
        return self.state or Path.home() / f".mainstay-agent-{self.cluster}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentServices:
    """What the loop of the cluster stands on: `operations.services.LoopServices`."""

    store: RemoteStore
    artifacts: RemoteArtifactStore
    secrets: RemoteSecrets
    clock: Clock
    offload: Offload = field(default_factory=lambda: Offload(threads=THREADS))
    pulse: Pulse = field(default_factory=Pulse)
    clusters: MutableMapping[str, Cluster] = field(default_factory=dict)


def run_agent(settings: AgentSettings, *, ready: Callable[[str], None] = lambda _: None) -> int:
    """Run until SIGINT or SIGTERM; the exit code. `ready` is called once the control plane has let us in.

    Every refusal to start is one sentence on stderr and exit code 1.
    """
    configure_log(settings.log_level)
    code = 0
    try:
        way = way_of(settings)
        with held(settings):
            event_loop.run(until_stopped(carry(settings, way, ready)))
    except* MainstayError as refusals:
        code = 1
        error = first_of(refusals)
        print(f"mainstay agent: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
    return code


def way_of(settings: AgentSettings) -> Way:
    """Raises StateUnusable for an address, a name or a token that is none."""
    ways = [bool(settings.kubeconfig or settings.context), settings.in_cluster, settings.local]
    if sum(ways) != 1:
        msg = (
            "one way into the cluster must be given" if not any(ways) else "only one way into the cluster may be given"
        )
        raise StateUnusable(msg, hint="--kubeconfig FILE or --context NAME, --in-cluster, or --local to try out")
    if not NAME.match(settings.cluster):
        msg = f"not the name of a cluster: {settings.cluster!r}"
        raise StateUnusable(msg, hint="`mainstay cluster list` shows them")
    try:
        server = checked(Server(url=settings.server.rstrip("/"), token=token_in(settings.token_file)))
    except NotConfigured as error:
        raise StateUnusable(error.message, hint=error.hint) from error
    return Way(url=server.url, token=lambda: token_in(settings.token_file), ca=settings.ca)


def token_in(path: Path) -> str:
    """Raises StateUnusable for a file that holds none."""
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read the token in {path}: {error}"
        raise StateUnusable(msg, hint="make it readable for the user who runs the agent") from error
    if not token.startswith(wire.TOKEN_PREFIX) or not token.isascii():
        msg = f"there is no token of an agent in {path}"
        raise StateUnusable(msg, hint="`mainstay cluster token NAME` makes one")
    return token


@contextlib.contextmanager
def held(settings: AgentSettings) -> Iterator[None]:
    """One agent per state directory, where there is one. Raises StateUnusable."""
    if not settings.local:
        yield
        return
    prepare_directory(settings.directory)
    with lock_state_directory(settings.directory):
        yield


async def until_stopped(work: Awaitable[None]) -> None:
    """Run until it ends or a signal comes."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    working = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        await working
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


async def carry(settings: AgentSettings, way: Way, ready: Callable[[str], None]) -> None:
    """Greet, then run the loops. Raises what no waiting mends: a token, a permission, another cluster."""
    clock, connection = SystemClock(), Connection(way)
    services = AgentServices(
        store=RemoteStore(connection, clock, cluster=settings.cluster),
        artifacts=RemoteArtifactStore(connection),
        secrets=RemoteSecrets(connection),
        clock=clock,
    )
    try:
        async with contextlib.AsyncExitStack() as stack:
            if settings.health_port:
                await stack.enter_async_context(answering(settings.health_port, hears=lambda: services.store.follows))
            connector, record = await _let_in(settings, services, connection)
            ready(record.name)
            async with asyncio.TaskGroup() as group:
                for loop in loops(services, way, connector, record):
                    group.create_task(forever(loop, services), name=loop.name)
    finally:
        for cluster in list(services.clusters.values()):
            await cluster.close()
        await connection.close()
        services.offload.close()


async def _let_in(
    settings: AgentSettings, services: AgentServices, connection: Connection
) -> tuple[Connector, ClusterRecord]:
    """Ask which cluster it is to be, try it, and say what was found: the way into it, and how it is to be used."""
    clock = services.clock
    said = await _patiently(clock, lambda: connection.acall("GET", "cluster", wire.ClusterSaid))
    _require_named(settings, said)
    connector = connector_of(settings, services, said)
    facts = await _patiently(clock, lambda: tried(connector, settings, said))
    hello = wire.Hello(identity=facts.identity, server=facts.server, one_user=settings.local)
    said = await _patiently(clock, lambda: connection.acall("POST", "hello", wire.ClusterSaid, body=hello))
    _note_skew(said, clock)
    return connector, convert.cluster_record(said, settings=settings_of(settings, said))


def loops(services: AgentServices, way: Way, connector: Connector, record: ClusterRecord) -> tuple[Loop, ...]:
    """All that runs: the loop of the cluster, what keeps its wanted side current, and the line."""
    holder = f"{socket.gethostname()}/{secrets.token_hex(4)}"

    async def opened() -> Cluster:
        return connector.open(record, Credentials())

    member = Member(
        services,
        record.name,
        opened,
        holder=holder,
        identity=record.identity,
    )
    line = Answering(way, services.clusters, cluster=record.name)

    async def follow() -> Due:
        if await services.store.follow():
            services.pulse.beat()
        return Due(wait=0.0)

    async def hold() -> Due:
        try:
            return Due(wait=await line.hold())
        except Unavailable as error:
            # Not less and less often: whoever wants to read a log waits for it.
            log.info("line_not_opened", cluster=record.name, reason=error.message)
            return Due(wait=random.uniform(*LINE_SECONDS))

    return member.loop(), Loop(name="wanted", turn=follow), Loop(name="line", turn=hold)


def connector_of(settings: AgentSettings, services: AgentServices, said: wire.ClusterSaid) -> Connector:
    """The way into the cluster, by the same adapters as everywhere. Raises StateUnusable."""
    if settings.local:
        return LocalConnector(settings.directory, services, system=said.system, name=said.name)
    # Its client takes 13 MB, which an agent on one machine can do without.
    from mainstay.clusters.kubernetes import KubernetesConnector  # noqa: PLC0415

    return KubernetesConnector(
        services.artifacts, services.secrets, services.clock, system=said.system, kubeconfig=settings.kubeconfig
    )


def settings_of(settings: AgentSettings, said: wire.ClusterSaid) -> ClusterSettings:
    """How the cluster is used, as the record says, and reached, as was said here."""
    return ClusterSettings(
        context=settings.context,
        in_cluster=settings.in_cluster,
        namespaces_per_project=said.namespaces_per_project,
        helper_image=said.helper_image,
        image=said.image,
        scheduler_name=said.scheduler_name,
        topology=said.topology,
    )


async def tried(connector: Connector, settings: AgentSettings, said: wire.ClusterSaid) -> ClusterFacts:
    """Raises Denied, with what is missing."""
    facts = await connector.check(settings_of(settings, said), Credentials())
    if facts.missing:
        msg = f"the credentials do not allow what is needed: {'; '.join(facts.missing)}"
        hint = "give them the role of deploy/kubernetes/access, then start again"
        raise Denied(msg, object_=said.name, hint=hint)
    for warning in facts.warnings:
        log.warning("cluster_warning", cluster=said.name, reason=warning)
    return facts


class LocalConnector:
    """This machine as the cluster of an agent. Its runs belong to one platform and one name, and say so."""

    def __init__(self, state: Path, services: AgentServices, *, system: str, name: str) -> None:
        """Raises StateUnusable if the runs in the directory are of another platform or cluster."""
        self._directory = state / "clusters" / "local"
        self._services = services
        self._name = name
        self._identity = claimed(self._directory, system=system, name=name)

    async def check(self, settings: ClusterSettings, credentials: Credentials) -> ClusterFacts:  # noqa: ARG002
        """Nothing can be wrong with it."""
        return ClusterFacts(identity=self._identity, version=__version__, server=socket.gethostname())

    def kept(self, settings: ClusterSettings, credentials: Credentials) -> Credentials:  # noqa: ARG002
        """It needs none."""
        return Credentials()

    def open(self, cluster: ClusterRecord, credentials: Credentials) -> LocalCluster:  # noqa: ARG002
        """As `mainstay up` opens it, but for the addresses of runs."""
        services = self._services
        return LocalCluster(
            self._directory, artifacts=services.artifacts, secrets=services.secrets, name=self._name, tunnelled=True
        )


def claimed(directory: Path, *, system: str, name: str) -> str:
    """The identity of the machine as a cluster, given once and kept beside its runs. Raises StateUnusable."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / "cluster.json"
    try:
        owner = json.loads(path.read_text())
        known = str(owner["system"]), str(owner["name"])
        identity = str(owner["identity"])
    except FileNotFoundError:
        identity = secrets.token_hex(16)
        write_private(path, json.dumps({"system": system, "name": name, "identity": identity}))
        return identity
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"cannot read whose runs lie in {directory}: {path.name} is damaged"
        raise StateUnusable(msg, hint="restore it from a backup, or choose another directory with --state") from error
    if known != (system, name):
        msg = f"the runs in {directory} belong to another platform or cluster"
        raise StateUnusable(msg, hint="choose another directory with --state")
    return identity


async def _patiently(clock: Clock, ask: Callable[[], Awaitable[A]]) -> A:
    """Again and again, while nobody answers. What waiting does not mend is raised."""
    failures = 0
    while True:
        try:
            return await ask()
        except Unavailable as error:
            failures += 1
            log.warning("not_reached", reason=error.message)
            await clock.sleep(backoff_seconds(failures))


def _require_named(settings: AgentSettings, said: wire.ClusterSaid) -> None:
    if said.name != settings.cluster:
        msg = f"the token is that of the agent of {said.name}, not of {settings.cluster}"
        raise Denied(msg, hint=f"start it with --cluster {said.name}, or give the token of {settings.cluster}")


def _note_skew(said: wire.ClusterSaid, clock: Clock) -> None:
    skew = abs(clock.now() - said.now) // 1_000_000
    if skew > SKEW_SECONDS_MAX:
        log.warning("clocks_differ", seconds=skew, hint="set both by NTP, or times of runs will look wrong")
