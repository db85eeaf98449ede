"""Pods a second from submitted to bound on thousands of hollow nodes, beside the bare API server and kube-scheduler.

All three make the same pods, in namespaces of the same kind, with the same bystander that counts them, and in turns:
(a) raw: the documents that we would create, written by a bare client with their nodes named;
(b) kube-scheduler: the same without a node, counted when all are bound;
(c) ours: jobs submitted in bulk to `mainstay up`, counted when their pods are bound.
The platform does not run while the others are measured, nor they while it is. etcd and the API server have one half of the cores,
and whoever asks them (bare client, kube-scheduler, platform, counting) the other half, as on a cluster whose control plane has
machines of its own. With `--shared` all have all cores: then what is measured is how much CPU each takes.
Bound and Running are counted apart: a simulator of nodes (KWOK) moves pods to Running and limits that rate. It runs for one round
of (b) and of (c), before all others. Where only binding is counted, no controller and no simulator runs, and nodes are Ready
because they were made so.

    python -m benchmarks.kubernetes --nodes 5000 --pods 5000 --kept 50000
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec

from benchmarks.kubeapi import SystemClock, by_aiohttp
from benchmarks.platform import Platform
from benchmarks.report import figure, percentile, progress, report
from mainstay.clusters.kubernetes import kinds, surroundings
from mainstay.clusters.kubernetes import pods as documents
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.informer import Informer, Key
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.clusters.kubernetes.sources import Fixed
from mainstay.domain.allocation import CreatePod, Owner, PodSpec
from mainstay.domain.quantity import Resources as Amount
from mainstay.sdk import Job, Resources
from mainstay.wire.requests import ClusterRequest
from testbed.control_plane import ControlPlane, running
from testbed.hollow import HollowNode, simulated

IN_FLIGHT = 64
BULK = 1_000
NAMESPACES = 16
PATIENCE_SECONDS = 900.0
WARM_PODS = 300
RATE, SERVERS = 0, 1
"""Where a measurement has its pods a second, and the CPU seconds of the servers for a thousand."""
CLUSTER = "hollow"
OWNER = Owner(tenant="default", project="default")
RUNNING_ROUND = 99
"""Of the pods that a simulator lets run."""
REST_SECONDS = 30
LISTED_SECONDS = 5.0
"""kube-scheduler has listed what is there by then."""


def node(number: int) -> dict[str, Any]:
    """A hollow node that is Ready from the start and for ever: nobody watches over it."""
    document = HollowNode(name=f"hollow-{number}").document()
    document["status"]["conditions"] = [{"type": "Ready", "status": "True", "reason": "Hollow"}]
    return document


async def make_node(api: Connection, document: dict[str, Any]) -> None:
    """The API server taints every new node, and no controller is there to take that off."""
    await api.create(kinds.NODES, "", document)
    await api.patch(kinds.NODES, "", document["metadata"]["name"], {"spec": {"taints": None}})


async def each(items: Sequence[Any], call: Callable[[Any], Awaitable[object]], *, what: str) -> float:
    """Call for each, IN_FLIGHT at once; a second takes so many."""
    rest, done, began = iter(items), 0, time.monotonic()

    async def work() -> None:
        nonlocal done
        for item in rest:
            await call(item)
            done += 1
            if done % 1_000 == 0:
                progress(f"{what}: {done} of {len(items)}")

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work())
    return len(items) / (time.monotonic() - began)


def wanted(name: str, number: int, *, nodes: int) -> CreatePod:
    """What the platform asks of its cluster for one of these jobs."""
    spec = PodSpec(
        owner=OWNER,
        image="",
        argv=("/bin/sh", "-c", "sleep 3600"),
        env=(("MAINSTAY_RUN", name), ("RANK", "0"), ("WORLD_SIZE", "1")),
        mounts=(),
        resources=Amount(cpu_milli=100, memory_bytes=64_000_000),
        cpu_limit_milli=100,
        memory_limit_bytes=64_000_000,
        stop_grace_seconds=30,
        deadline_seconds=0,
        gang=name,
        rank=0,
        size=1,
        port=False,
        ready_path="",
    )
    return CreatePod(name=f"{name}-1-0", node=f"hollow-{number % nodes}", spec=spec)


class Counted:
    """Pods of the cluster as a bystander sees them: when each was bound, and when it ran."""

    def __init__(self, api: Connection) -> None:
        self.bound: dict[Key, float] = {}
        self.running: dict[Key, float] = {}
        self._informer: Informer[Pod, tuple[str, str]] = Informer(
            api,
            kinds.PODS,
            clock=SystemClock(),
            project=lambda pod: (pod.spec.node_name, pod.status.phase),
            on_change=self._changed,
        )
        self._task: asyncio.Task[object] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._informer.run())
        await self._informer.synced.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, seen: dict[Key, float], count: int, *, what: str) -> float:
        """The moment of the last of so many."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(seen) < count:
            assert time.monotonic() < deadline, f"{len(seen)} of {count} {what}"
            progress(f"{what}: {len(seen)} of {count}")
            await asyncio.sleep(0.05)
        return max(seen.values())

    def _changed(self, key: Key, _old: tuple[str, str] | None, new: tuple[str, str] | None) -> None:
        if new is None:
            return
        now = time.monotonic()
        if new[0]:
            self.bound.setdefault(key, now)
        if new[1] == "Running":
            self.running.setdefault(key, now)


class Used:
    """CPU seconds that processes have used since it was made."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._before = sum(map(cpu_seconds, pids))

    def of(self, count: int) -> float:
        """For a thousand of these."""
        return (sum(map(cpu_seconds, self._pids)) - self._before) / count * 1_000


def cpu_seconds(pid: int) -> float:
    """That a process has used so far. Source: /proc/PID/stat, fields 14 and 15."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def servers(control_plane: ControlPlane) -> Used:
    """What etcd and the API server use from now on."""
    return Used(control_plane.etcd.pid, control_plane.api_server.pid)


async def make_namespaces(api: Connection, settings: Settings, *, round_: int) -> list[str]:
    """Such as the platform makes for a project."""
    names = [f"{settings.system}-{round_}-{number}" for number in range(NAMESPACES)]
    for name in names:
        await api.create(kinds.NAMESPACES, "", surroundings.namespace(name, OWNER, settings))
        await api.create(kinds.SERVICE_ACCOUNTS, name, surroundings.account(OWNER, settings))
    return names


async def raw(
    api: Connection, control_plane: ControlPlane, *, count: int, nodes: int, round_: int
) -> tuple[float, float]:
    """(a) Creates a second by a bare client, and CPU seconds of the servers for a thousand."""
    settings = Settings(system="raw")
    names = await make_namespaces(api, settings, round_=round_)
    bodies = []
    for number in range(count):
        document = documents.pod(wanted(f"r{round_}-{number}", number, nodes=nodes), settings)
        bodies.append((names[number % NAMESPACES], msgspec.json.encode(document)))

    async def measure(create: Callable[[str, bytes], Awaitable[None]]) -> tuple[float, float]:
        used = servers(control_plane)
        return await each(bodies, lambda pair: create(*pair), what="raw"), used.of(count)

    async with Counted(api):
        return await by_aiohttp(control_plane, measure)


async def to_create(api: Connection, *, count: int, nodes: int, round_: int) -> Callable[[], Awaitable[float]]:
    """Creates so many pods for kube-scheduler: the same as ours, without a node."""
    settings = Settings(system="peer")
    names = await make_namespaces(api, settings, round_=round_)
    bodies = []
    for number in range(count):
        document = documents.pod(wanted(f"k{round_}-{number}", number, nodes=nodes), settings)
        del document["spec"]["nodeName"]
        bodies.append((names[number % NAMESPACES], msgspec.json.encode(document)))
    return lambda: each(bodies, lambda pair: api.create(kinds.PODS, *pair), what="kube-scheduler, created")


@contextlib.asynccontextmanager
async def kube_scheduler(control_plane: ControlPlane) -> AsyncIterator[None]:
    """It runs, and has seen what is there."""
    control_plane.scheduler.start()
    try:
        await asyncio.sleep(LISTED_SECONDS)
        yield
    finally:
        control_plane.scheduler.stop()


async def by_kube_scheduler(
    api: Connection, control_plane: ControlPlane, *, count: int, nodes: int, round_: int
) -> tuple[float, float]:
    """(b) The same pods without a node, from the first create until all are bound; CPU likewise."""
    create = await to_create(api, count=count, nodes=nodes, round_=round_)
    async with kube_scheduler(control_plane), Counted(api) as counted:
        before, used = len(counted.bound), servers(control_plane)
        began = time.monotonic()
        await create()
        ended = await counted.until(counted.bound, before + count, what="kube-scheduler, bound")
        return count / (ended - began), used.of(count)


class Ours:
    """(c) `mainstay up` with the cluster in its fleet. It keeps its state from one round to the next."""

    def __init__(self, folder: Path, control_plane: ControlPlane, *, nodes: int) -> None:
        self.platform = Platform(folder / "state")
        self._control_plane = control_plane
        self._nodes = nodes
        self._joined = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Ours]:
        """Until the end of the block."""
        self.platform.start()
        try:
            await asyncio.to_thread(self._join)
            yield self
        finally:
            self.platform.stop()

    def _join(self) -> None:
        with self.platform.client() as client:
            if not self._joined:
                client.add_cluster(
                    ClusterRequest.model_validate(
                        {
                            "name": CLUSTER,
                            "kubeconfig": self._control_plane.kubeconfig.read_text(),
                            "namespaces_per_project": NAMESPACES,
                        }
                    )
                )
                self._joined = True
            deadline = time.monotonic() + PATIENCE_SECONDS
            while sum(one.cluster == CLUSTER and one.ready for one in client.nodes()) < self._nodes:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def submit(self, count: int) -> float:
        """The moment before the first request."""
        job = Job(name="bench", run="sleep 3600", infra=CLUSTER, resources=Resources(cpu="0.1", memory="64MB"))
        with self.platform.client() as client:
            began = time.monotonic()
            for first in range(0, count, BULK):
                client.submit_many([job] * min(BULK, count - first))
                progress(f"ours, submitted: {first} of {count}")
        return began

    async def bound(self, api: Connection, count: int) -> float:
        """Submit so many, and wait until the last one is bound; the seconds that took."""
        async with Counted(api) as counted:
            before = len(counted.bound)
            began = await asyncio.to_thread(self.submit, count)
            return await counted.until(counted.bound, before + count, what="ours, bound") - began

    @property
    def resident_mib(self) -> float:
        """Of the platform's process, now."""
        return self.platform.rss_bytes() / (1 << 20)

    @property
    def pid(self) -> int:
        """Of the platform."""
        assert self.platform.process is not None
        return self.platform.process.pid


async def by_us(api: Connection, control_plane: ControlPlane, ours: Ours, *, count: int) -> tuple[float, float, float]:
    """(bound pods a second, CPU seconds of the servers for a thousand, of the platform)."""
    await ours.bound(api, 1)  # it has seen by then what the others have made meanwhile
    by_servers, by_platform = servers(control_plane), Used(ours.pid)
    seconds = await ours.bound(api, count)
    return count / seconds, by_servers.of(count), by_platform.of(count)


async def to_running(
    api: Connection, submit: Callable[[], Awaitable[object]], *, count: int, whose: str
) -> tuple[float, float]:
    """Submit so many while a simulator keeps the nodes: bound a second, and Running a second."""
    async with Counted(api) as counted:
        bound, ran = len(counted.bound), len(counted.running)
        began = time.monotonic()
        await submit()
        last_bound = await counted.until(counted.bound, bound + count, what=f"{whose}, bound")
        last_ran = await counted.until(counted.running, ran + count, what=f"{whose}, Running")
    return count / (last_bound - began), count / (last_ran - began)


async def relisted(api: Connection, control_plane: ControlPlane, *, held: int) -> tuple[int, float, float, float]:
    """List all pods in pages, as an informer does after a gap: how many, seconds, CPU seconds of the servers, and ours."""
    by_servers, by_us = servers(control_plane), Used(os.getpid())
    began = time.monotonic()
    async with Counted(api) as counted:
        assert len(counted.bound) >= held
        return len(counted.bound), time.monotonic() - began, by_servers.of(1_000), by_us.of(1_000)


async def one_by_one(api: Connection, ours: Ours, *, count: int) -> list[float]:
    """Seconds from submit to bound of single jobs, ten a second: what a user waits for."""
    job = Job(name="single", run="sleep 3600", infra=CLUSTER, resources=Resources(cpu="0.1", memory="64MB"))
    began: dict[str, float] = {}

    def submit() -> None:
        with ours.platform.client() as client:
            for _ in range(count):
                at = time.monotonic()
                began[f"{client.submit(job).id}-1-0"] = at
                time.sleep(0.1)

    async with Counted(api) as counted:
        before = len(counted.bound)
        await asyncio.to_thread(submit)
        await counted.until(counted.bound, before + count, what="single")
        return [at - began[name] for (_, name), at in counted.bound.items() if name in began]


async def measure(control_plane: ControlPlane, folder: Path, options: argparse.Namespace) -> None:
    """All of it, and the report."""
    keys = control_plane.keys
    credentials = Credentials(server=control_plane.url, ca=keys.authority.certificate.read_text(), token=keys.token)
    api = Connection(Fixed(credentials), clock=SystemClock())
    nodes, count = options.nodes, options.pods
    made = await each([node(number) for number in range(nodes)], partial(make_node, api), what="nodes")
    ours = Ours(folder, control_plane, nodes=nodes)
    async with ours.running():
        idle = ours.resident_mib
        await ours.bound(api, WARM_PODS)
    with simulated(control_plane):
        create = await to_create(api, count=count, nodes=nodes, round_=RUNNING_ROUND)
        async with kube_scheduler(control_plane):
            their_bound, their_running = await to_running(api, create, count=count, whose="kube-scheduler")
        async with ours.running():
            submit = partial(asyncio.to_thread, ours.submit, count)
            our_bound, our_running = await to_running(api, submit, count=count, whose="ours")
    raws, peers, mine = [], [], []
    for round_ in range(options.rounds):
        raws.append(await raw(api, control_plane, count=count, nodes=nodes, round_=round_))
        async with ours.running():
            mine.append(await by_us(api, control_plane, ours, count=count))
        if round_ < options.peer_rounds:
            peers.append(await by_kube_scheduler(api, control_plane, count=count, nodes=nodes, round_=round_))
    async with ours.running():
        await ours.bound(api, 1)  # what is there has been listed then
        singles = await one_by_one(api, ours, count=options.singles)
        held = WARM_PODS + 1 + count + options.rounds * (count + 1) + options.singles
        if options.kept > held:
            await ours.bound(api, options.kept - held)
            held = options.kept
        busy = ours.resident_mib
        at_rest, servers_at_rest = Used(ours.pid), servers(control_plane)
        await asyncio.sleep(REST_SECONDS)
        rest = [used.of(10 * REST_SECONDS) for used in (at_rest, servers_at_rest)]
        ours.platform.kill()
        began = time.monotonic()
        ours.platform.start()
        answered = time.monotonic() - began
        await ours.bound(api, 1)
        decided = time.monotonic() - began
        again = ours.resident_mib
        listed, *costs = await relisted(api, control_plane, held=held)
    await api.close()
    report(
        "kubernetes",
        [
            figure("nodes made", "nodes/s", [made]),
            figure("(a) raw creates by a bare client", "pods/s", [rate for rate, _ in raws]),
            figure("(b) kube-scheduler, created to bound", "pods/s", [rate for rate, _ in peers]),
            figure("(c) ours, submitted to bound", "pods/s", [rate for rate, *_ in mine]),
            figure("(c) of (a)", "share", _ratios(mine, raws), goal=0.9),
            figure("(c) of (b)", "times", _ratios(mine, peers), goal=3),
            figure("(b) with a simulator of nodes, to bound", "pods/s", [their_bound]),
            figure("(b) with a simulator of nodes, to Running", "pods/s", [their_running]),
            figure("(c) with a simulator of nodes, to bound", "pods/s", [our_bound]),
            figure("(c) with a simulator of nodes, to Running", "pods/s", [our_running]),
            *(
                figure(f"CPU of the servers for 1,000 pods, {name}", "s", found, higher_is_better=False)
                for name, found in (
                    ("(a)", [used for _, used in raws]),
                    ("(b)", [used for _, used in peers]),
                    ("(c)", [used for _, used, _ in mine]),
                )
            ),
            # Where the servers are what limits all of them, nobody gets further than by this.
            figure("(c) of (a), by CPU of the servers", "share", _ratios(raws, mine, of=SERVERS)),
            figure("(c) of (b), by CPU of the servers", "times", _ratios(peers, mine, of=SERVERS)),
            figure("CPU of the platform for 1,000 pods", "s", [used for *_, used in mine], higher_is_better=False),
            figure("submit to bound, single, p50", "ms", [percentile(singles, 0.5) * 1e3], higher_is_better=False),
            figure("submit to bound, single, p99", "ms", [percentile(singles, 0.99) * 1e3], higher_is_better=False),
            figure(f"resident with {nodes} nodes", "MiB", [idle], higher_is_better=False),
            figure(f"resident with {held} pods more", "MiB", [busy], higher_is_better=False),
            figure("resident after a restart", "MiB", [again], higher_is_better=False),
            figure("CPU of the platform at rest with all of them", "% of a core", rest[:1], higher_is_better=False),
            figure("CPU of the servers meanwhile", "% of a core", rest[1:], higher_is_better=False),
            *(
                figure(f"listing {listed} pods anew{of}", "s", [cost], higher_is_better=False)
                for of, cost in zip(("", ", CPU of the servers", ", CPU of who lists"), costs, strict=True)
            ),
            figure("restart to first answer", "s", [answered], higher_is_better=False),
            figure("restart to first pod bound", "s", [decided], higher_is_better=False),
        ],
        notes=[
            "etcd without fsync; platform stopped in (a) and (b)",
            "all share all cores"
            if options.shared
            else "servers on one half of the cores, whoever asks them on the other",
        ],
    )


def _ratios(above: Sequence[tuple[float, ...]], below: Sequence[tuple[float, ...]], *, of: int = RATE) -> list[float]:
    """Round by round: what slows the machine down slows both."""
    return [one[of] / other[of] for one, other in zip(above, below, strict=False)]


@contextlib.contextmanager
def only_on(cores: set[int]) -> Iterator[None]:
    """What is started in the block, and what that starts, runs on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=5_000)
    parser.add_argument("--pods", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-rounds", type=int, default=2)
    parser.add_argument("--singles", type=int, default=100)
    parser.add_argument("--kept", type=int, default=50_000)
    parser.add_argument("--shared", action="store_true")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    of_servers, of_clients = (cores, cores) if options.shared or not half else (cores[:half], cores[half:])
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mainstay-bench-"))
        with only_on(set(of_servers)):
            control_plane = stack.enter_context(running())
        control_plane.controllers.stop()  # they would call the nodes lost, and delete their pods
        stack.enter_context(only_on(set(of_clients)))
        asyncio.run(measure(control_plane, Path(folder), options))


if __name__ == "__main__":
    main()
