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
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from mainstay.app import SystemClock, register_machine, set_prices
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.cluster import KubernetesCluster
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.logs import Followed, Logs
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.clusters.kubernetes.sources import Fixed
from mainstay.control import runner
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.workload import Kind, Phase, RetryPolicy, Workload, WorkloadSpec
from mainstay.operations.offload import Offload
from mainstay.operations.principal import Principal
from mainstay.operations.pulse import Pulse
from mainstay.operations.sealing import KEY_BYTES, Sealing
from mainstay.operations.secrets import Handing
from mainstay.operations.services import Services
from mainstay.operations.sessions import Sessions
from mainstay.operations.submit import JobRequest, submit
from mainstay.ports import WorkloadFilter
from mainstay.store.engine import Sqlite
from mainstay.store.store import SqlStore
from testbed.control_plane import ControlPlane
from testbed.proxy import Proxy, proxied
from testbed.puppets import Life, Machine, Process, Puppets

CLUSTER = "k8s"
SOMEBODY = Principal(name="admin", tenant="acme", role="admin")
TOMBSTONE_SECONDS = 15
"""Longer than anything that was asked for is on its way here."""
SETTLE_SECONDS = 90.0
RECORD_EXCESS_SECONDS = 2.0
"""Times in objects have a resolution of a second, at both ends."""
FAR_FUTURE = 1 << 60


class _NoLogs(Logs):
    """Played pods write none."""

    def follow(self, pod: str, namespace: str, *, ended: bool, wanted: bool = False) -> Followed | None:
        return None

    async def keep(self, pod: str, namespace: str) -> bool:
        return True


class PlayedCluster(KubernetesCluster):
    """The adapter, on nodes where nobody can run a command in a pod: there are no logs and no files."""

    def __init__(self, **options: Any) -> None:
        super().__init__(name=CLUSTER, **options)
        self._logs = self._chores._logs = _NoLogs(self._api, self._artifacts, self._clock, cluster=CLUSTER)

    async def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:
        """None."""
        nothing: tuple[tuple[str, int, bool, AsyncIterator[bytes]], ...] = ()
        for file in nothing:
            yield file


class Replica:
    """One control plane process: it can crash, and another one takes its place."""

    def __init__(
        self, database: Sqlite, folder: Path, url: str, control_plane: ControlPlane, *, tombstone_seconds: int
    ) -> None:
        self.store = SqlStore(database)
        clock, artifacts = SystemClock(), open_artifacts(str(folder / "artifacts"))
        sealing, offload = Sealing(key=bytes(KEY_BYTES)), Offload(threads=2)
        keys = control_plane.keys
        credentials = Credentials(server=url, ca=keys.authority.certificate.read_text(), token=keys.token)
        self.cluster = PlayedCluster(
            api=Connection(Fixed(credentials), clock=clock),
            artifacts=artifacts,
            secrets=Handing(self.store, sealing, clock, offload),
            clock=clock,
            settings=Settings(system=self.store.system()),
            tombstone_seconds=tombstone_seconds,
        )
        self.services = Services(
            store=self.store,
            artifacts=artifacts,
            clusters={CLUSTER: self.cluster},
            connectors={},
            sealing=sealing,
            clock=clock,
            draw=secrets.choice,
            offload=offload,
            pulse=Pulse(),
            authenticate=lambda _: None,
            sessions=Sessions(clock),
            system=self.store.system(),
            url="",
        )
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
        )

    async def restart(self, *, down_seconds: float = 0.0) -> None:
        """The control plane crashes, and comes back."""
        await self.replica.crash()
        self.crashes += 1
        await asyncio.sleep(down_seconds)
        self.replica = self._replica()
        self.replica.start()

    def submit(self, *lives: Life, resources: Resources | None = None, retries: int = 100) -> list[str]:
        """One job for each; their ids."""
        asked = resources or Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB // 2)
        spec = WorkloadSpec(
            kind=Kind.JOB,
            name="job",
            run=("true",),
            choices=(asked,),
            stop_grace_seconds=1,
            retry=RetryPolicy(infrastructure_max=retries, backoff_seconds=1, backoff_seconds_max=2),
        )
        made: list[str] = []

        def reply(workloads: Any) -> str:
            made[:] = [workload.id for workload in workloads]
            return ""

        requests = [JobRequest(spec=spec, project="nlp", queue="default", priority=50) for _ in lives]
        now = self.replica.services.clock.now()
        submit(self.replica.store, SOMEBODY, requests, now=now, draw=secrets.choice, request=None, reply=reply)
        self.replica.services.pulse.beat()
        self.lives |= dict(zip(made, lives, strict=True))
        self.submitted += made
        return made

    def workloads(self) -> dict[str, Workload]:
        found: dict[str, Workload] = {}
        before = 0
        while page := self.replica.store.workloads(WorkloadFilter(), before=before, limit=1_000):
            found |= {workload.id: workload for workload in page}
            before = page[-1].key
        return found

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
            snapshot = self.replica.store.snapshot(now=0, seed=0)
            if not snapshot.workloads.key.size and not snapshot.allocations.key.size:
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

    async def our_pods(self) -> list[dict[str, Any]]:
        items = (await self.call("GET", "/api/v1/pods"))["items"]
        mark = names.short(self.replica.store.system())
        return [pod for pod in items if pod["metadata"].get("labels", {}).get(names.SYSTEM) == mark]


def workload_of(pod: str) -> str:
    """`WORKLOAD-ATTEMPT-RANK` without the last two."""
    return pod.rsplit("-", 2)[0]


@contextlib.asynccontextmanager
async def arena(
    control_plane: ControlPlane,
    folder: Path,
    *,
    seed: int,
    machines: int = 3,
    gpus: int = 0,
    tombstone_seconds: int = TOMBSTONE_SECONDS,
) -> AsyncIterator[Arena]:
    """A platform that runs, on nodes of its own."""
    mark = secrets.token_hex(3)
    nodes = [Machine(name=f"played-{mark}-{number}", gpus=gpus) for number in range(machines)]
    with proxied(control_plane, seed=seed) as proxy:
        made: list[Arena] = []

        def life(pod: str) -> Life:
            return made[0].lives.get(workload_of(pod), Life())

        puppets = Puppets(control_plane, nodes, life=life)
        await puppets.start()
        made.append(Arena(control_plane, proxy, puppets, folder, random.Random(seed), tombstone_seconds))
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


def violations(found: Arena, *, settled: bool) -> Iterator[str]:
    """What the machines have witnessed, against the promises and against what is on record."""
    workloads = found.workloads()
    if not settled:
        unfinished = {name: one.phase.word for name, one in workloads.items() if not one.phase.final}
        yield f"not settled: {dict(list(unfinished.items())[:5]) or 'allocations stay open'}"
        for row in found.replica.store.wanted(CLUSTER)[:5]:
            one = row.allocation
            there = [
                {**pod["status"], "deleted": pod["metadata"].get("deletionTimestamp", "")}
                for pod in found.puppets.pods()
                if pod["metadata"]["name"] == one.pod
            ]
            ran = [(process.started, process.ended) for process in found.puppets.history if process.pod == one.pod]
            known = found.replica.cluster._picture.ours.get(one.pod)
            yield f"{one.pod} on {one.node}: {one.seen.name}, stop {one.stop}, end {one.end}; ran {ran}; {there=}; {known=}"
    lost = [name for name in found.submitted if name not in workloads]
    if lost:
        yield f"lost: {lost[:3]}"
    runs: dict[str, list[Process]] = defaultdict(list)
    for process in found.puppets.history:
        runs[workload_of(process.pod)].append(process)
    for name, processes in runs.items():
        yield from _of_workload(name, sorted(processes, key=lambda one: one.started))
    for name, workload in workloads.items():
        ended_well = any(one.ended and one.exit_code == 0 for one in runs[name])
        if workload.phase is Phase.SUCCEEDED and not ended_well:
            yield f"{name} succeeded without having run to its end"
    if settled:
        yield from (f"an orphan runs: {one.pod}" for one in found.puppets.running())
    yield from _of_ledger(found, workloads, runs)


def _of_workload(name: str, processes: list[Process]) -> Iterator[str]:
    pods = [one.pod for one in processes]
    for pod in {pod for pod in pods if pods.count(pod) > 1}:
        yield f"pod {pod} ran {pods.count(pod)} times"
    for one, other in pairwise(processes):
        if not one.ended or other.started < one.ended:
            until = (one.ended or time.monotonic()) - other.started
            yield f"{other.pod} started {until:.2f} s before {one.pod} had ended"


def _of_ledger(found: Arena, workloads: dict[str, Workload], runs: dict[str, list[Process]]) -> Iterator[str]:
    """Nothing is charged that was not witnessed, and what ended by itself is charged in full."""
    seconds: dict[int, float] = defaultdict(float)
    for usage, _ in found.replica.store.usage(tenant=SOMEBODY.tenant, since=0, until=FAR_FUTURE):
        seconds[usage.allocation_key] += (usage.end - usage.start) / 1e6
    for name, workload in workloads.items():
        for allocation in found.replica.store.allocations(workload.key):
            witnessed = sum(one.ended - one.started for one in runs[name] if one.pod == allocation.pod and one.ended)
            recorded = seconds.pop(allocation.key, 0.0)
            if recorded > witnessed + RECORD_EXCESS_SECONDS:
                yield f"{allocation.pod} is charged for {recorded:.1f} s and ran {witnessed:.1f} s"
            exited = allocation.end is not None and allocation.end.value == "exited"
            if exited and recorded < witnessed - RECORD_EXCESS_SECONDS:
                yield f"{allocation.pod} is charged for {recorded:.1f} s only and ran {witnessed:.1f} s"
    if seconds:
        yield f"usage of unknown allocations: {sorted(seconds)[:3]}"


async def orphans(found: Arena) -> list[str]:
    """Pods of ours in the cluster that are not their own tombstones, once everything has settled."""
    return [
        pod["metadata"]["name"]
        for pod in await found.our_pods()
        if names.FORGOTTEN not in pod["metadata"]["labels"] and names.TOMBSTONE not in pod["metadata"]["labels"]
    ]
