"""The whole platform in one process on a real API server with played nodes: real decisions, effect loop, store and adapter.

Between the adapter and the API server stands a proxy; what truly ran is told by the machines. So faults can be let loose at every
place where they occur in life, and afterwards the records are held against what the machines have witnessed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mainstay.app import SystemClock, register_machine, set_prices
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.clusters.kubernetes.sources import Fixed
from mainstay.control import runner
from mainstay.domain.fleet import ClusterKind
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.workload import Kind, Phase, RetryPolicy, Workload, WorkloadSpec
from mainstay.operations import projects
from mainstay.operations.agents import Agents
from mainstay.operations.offload import Offload
from mainstay.operations.principal import Principal
from mainstay.operations.pulse import Pulse
from mainstay.operations.sealing import KEY_BYTES, Sealing
from mainstay.operations.secrets import Handing
from mainstay.operations.services import Services
from mainstay.operations.submit import JobRequest, submit
from mainstay.operations.waiting import WaitingReasons
from mainstay.outbound import Outbound
from mainstay.ports import ArtifactStore, Clock, Cluster, Connector
from mainstay.store.engine import Sqlite
from mainstay.store.store import SqlStore
from testbed.control_plane import ControlPlane
from testbed.proxy import Proxy, proxied
from testbed.puppets import Life, Machine, Process, Puppets
from tests.played import PlayedCluster
from tests.promises import Evidence, Violation, orphans, violations, workload_of

CLUSTER = "k8s"
SOMEBODY = Principal(name="admin", tenant="acme", role="platform-admin")
TOMBSTONE_SECONDS = 15
"""Longer than anything that was asked for is on its way here."""
SETTLE_SECONDS = 90.0
NO_CONNECTORS: Mapping[ClusterKind, Connector] = MappingProxyType({})


def services(
    store: SqlStore,
    artifacts: ArtifactStore,
    *,
    clusters: dict[str, Cluster],
    connectors: Mapping[ClusterKind, Connector] = NO_CONNECTORS,
    clock: Clock | None = None,
) -> Services:
    """What the loops of one process work with."""
    clock, offload = clock or SystemClock(), Offload(threads=2)
    return Services(
        store=store,
        waiting=WaitingReasons(store, later=offload.later),
        artifacts=artifacts,
        clusters=clusters,
        connectors=connectors,
        outbound=Outbound(),
        sealing=Sealing(key=bytes(KEY_BYTES)),
        clock=clock,
        draw=secrets.choice,
        offload=offload,
        pulse=Pulse(),
        authenticate=lambda _: None,
        agents=Agents(clock),
        system=store.system(),
        url="",
    )


def life_of(pod: str, lives: Mapping[str, Life]) -> Life:
    """Of one rank, or of all of a workload."""
    return lives.get(pod) or lives.get(workload_of(pod)) or Life()


def submitted(ours: Services, count: int, **changes: Any) -> list[str]:
    """So many jobs that may fail often and are soon tried again; their ids."""
    given: dict[str, Any] = {
        "kind": Kind.JOB,
        "name": "job",
        "run": ("true",),
        "choices": (Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB // 2),),
        "stop_grace_seconds": 1,
        "retry": RetryPolicy(infrastructure_max=100, backoff_seconds=1, backoff_seconds_max=2),
        **changes,
    }
    request = JobRequest(spec=WorkloadSpec(**given), project="nlp", queue="default", priority=50)
    made: list[str] = []

    def reply(workloads: Any) -> str:
        made[:] = [workload.id for workload in workloads]
        return ""

    now = ours.clock.now()
    if not ours.store.projects(tenant=SOMEBODY.tenant):
        projects.create(ours.store, SOMEBODY, request.project, now=now, request=None)
    submit(ours.store, SOMEBODY, [request] * count, now=now, draw=secrets.choice, request=None, reply=reply)
    ours.pulse.beat()
    return made


class Replica:
    """One control plane process: it can crash, and another one takes its place."""

    def __init__(
        self,
        database: Sqlite,
        folder: Path,
        url: str,
        control_plane: ControlPlane,
        *,
        tombstone_seconds: int,
        clock: Clock | None = None,
    ) -> None:
        self.store = SqlStore(database)
        clock, artifacts = clock or SystemClock(), open_artifacts(str(folder / "artifacts"))
        self.services = services(self.store, artifacts, clusters={}, clock=clock)
        ours = self.services
        keys = control_plane.keys
        credentials = Credentials(server=url, ca=keys.authority.certificate.read_text(), token=keys.token)
        self.cluster = PlayedCluster(
            name=CLUSTER,
            api=Connection(Fixed(credentials), clock=clock),
            artifacts=artifacts,
            secrets=Handing(self.store, ours.sealing, clock, ours.offload),
            clock=clock,
            settings=Settings(system=self.store.system()),
            tombstone_seconds=tombstone_seconds,
        )
        ours.clusters[CLUSTER] = self.cluster
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        loops = runner.loops(self.services, holder="embedded")
        self._task = asyncio.create_task(runner.run(loops, self.services))

    async def crash(self) -> None:
        """Cut off wherever it is; its connections go with it."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.cluster.close()
        await asyncio.to_thread(self.services.offload.close)


@dataclass(slots=True, repr=False)
class Arena:
    """One cluster, its machines, and the platform that leads it."""

    control_plane: ControlPlane
    proxy: Proxy
    puppets: Puppets
    folder: Path
    rng: random.Random
    tombstone_seconds: int
    clock: Clock
    lives: dict[str, Life] = field(default_factory=dict)
    submitted: list[str] = field(default_factory=list)
    database: Sqlite = field(init=False)
    replica: Replica = field(init=False)
    crashes: int = 0

    def __post_init__(self) -> None:
        self.database = Sqlite(self.folder / "platform.db", durable=False)
        self.replica = self._replica()
        set_prices(self.replica.store, now=1)
        register_machine(self.replica.store, CLUSTER, now=1)

    def _replica(self) -> Replica:
        return Replica(
            self.database,
            self.folder,
            self.proxy.url,
            self.control_plane,
            tombstone_seconds=self.tombstone_seconds,
            clock=self.clock,
        )

    @contextlib.asynccontextmanager
    async def down(self) -> AsyncIterator[None]:
        """The control plane crashes, and comes back after the block."""
        await self.replica.crash()
        self.crashes += 1
        yield
        self.replica = self._replica()
        self.replica.start()

    async def restart(self, *, down_seconds: float = 0.0) -> None:
        """The control plane crashes, and comes back."""
        async with self.down():
            await asyncio.sleep(down_seconds)

    def submit(self, *lives: Life, **changes: Any) -> list[str]:
        """One job for each; their ids. `changes`: of the job."""
        made = submitted(self.replica.services, len(lives), **changes)
        self.lives |= dict(zip(made, lives, strict=True))
        self.submitted += made
        return made

    @property
    def evidence(self) -> Evidence:
        """What there is to be held against each other."""
        return Evidence(
            store=self.replica.store,
            tenant=SOMEBODY.tenant,
            puppets={CLUSTER: self.puppets},
            submitted=self.submitted,
        )

    def workloads(self) -> dict[str, Workload]:
        return self.evidence.workloads()

    async def violations(self, *, settled: bool) -> list[Violation]:
        """Of every promise, once the faults have stopped."""
        return [*violations(self.evidence, settled=settled), *await orphans(self.our_pods)]

    def runs(self, workload: str) -> list[Process]:
        """What the machines ran of a workload."""
        return [one for one in self.puppets.history if workload_of(one.pod) == workload]

    async def until(self, true: Any, *, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"not true within {seconds:.0f} s"
            await asyncio.sleep(0.05)

    async def until_running(self, *workloads: str, seconds: float = 30.0) -> None:
        await self.until(lambda: all(self._phase(name) is Phase.RUNNING for name in workloads), seconds=seconds)

    def _phase(self, workload: str) -> Phase:
        return self.replica.store.workload(workload, tenant=SOMEBODY.tenant).phase

    async def settle(self, *, seconds: float = SETTLE_SECONDS) -> bool:
        """Faults have stopped: whether everything is final and closed within this time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.evidence.settled():
                return True
            await asyncio.sleep(0.1)
        return False

    def pod_of(self, workload: str) -> tuple[str, str]:
        """Path and node of the pod that runs for a workload."""
        (process,) = [one for one in self.puppets.running() if workload_of(one.pod) == workload]
        meta = self.puppets.pod(process.uid)["metadata"]
        return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", process.node

    def attempts(self, workload: str) -> list[str]:
        """How each of its pods has ended, as it is on record; empty while it has not."""
        key = self.workloads()[workload].key
        return [one.end.value if one.end else "" for one in self.replica.store.allocations(key)]

    def seen(self, workload: str) -> str:
        """What is on record of its newest pod."""
        return self.replica.store.allocations(self.workloads()[workload].key)[-1].seen.name

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """As the administrator of the cluster, past the proxy."""
        return await asyncio.to_thread(self.control_plane.ask, path, method=method, body=body)

    async def sees_what_there_is(self) -> bool:
        """Whether the platform knows of every pod of ours in the cluster, and of no other."""
        there = {(pod["metadata"]["name"], pod["metadata"]["uid"]) for pod in await self.our_pods()}
        return there == {(name, view.uid) for name, view in self.replica.cluster._picture.views()}

    async def our_pods(self) -> list[dict[str, Any]]:
        items = (await self.call("GET", "/api/v1/pods"))["items"]
        mark = names.short(self.replica.store.system())
        return [pod for pod in items if pod["metadata"].get("labels", {}).get(names.SYSTEM) == mark]


@contextlib.asynccontextmanager
async def arena(
    control_plane: ControlPlane,
    folder: Path,
    *,
    seed: int,
    machines: int = 3,
    gpus: int = 0,
    tombstone_seconds: int = TOMBSTONE_SECONDS,
    clock: Clock | None = None,
) -> AsyncIterator[Arena]:
    """A platform that runs, on nodes of its own. `clock`: the platform's, if it is not that of this machine."""
    mark = secrets.token_hex(3)
    nodes = [Machine(name=f"played-{mark}-{number}", gpus=gpus) for number in range(machines)]
    with proxied(control_plane, seed=seed) as proxy:
        made: list[Arena] = []

        def life(pod: str) -> Life:
            return life_of(pod, made[0].lives)

        puppets = Puppets(control_plane, nodes, life=life)
        await puppets.start()
        rng = random.Random(seed)
        made.append(Arena(control_plane, proxy, puppets, folder, rng, tombstone_seconds, clock or SystemClock()))
        made[0].replica.start()
        try:
            yield made[0]
        finally:
            await made[0].replica.crash()
            made[0].database.close()
            await puppets.close()
            for machine in nodes:
                with contextlib.suppress(Exception):  # it may have been removed
                    control_plane.ask(f"/api/v1/nodes/{machine.name}", method="DELETE")
