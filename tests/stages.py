"""One platform on two stages: machines in memory, and a real API server with played nodes. A play runs on either.

No process goes on by itself: it starts, and ends, when its play says so, once what was before that is on record. So no look
is too late for a step, however busy the machine is, and the whole way of a pod can be compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from mainstay.app import SystemClock, register_machine, set_prices
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.simulated import Behaviour, Machines, SimulatedCluster
from mainstay.control import runner
from mainstay.domain.allocation import Allocation, CreatePod, Seen
from mainstay.domain.capacity import NodeState
from mainstay.domain.plan import Event
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.workload import Phase, Workload
from mainstay.operations.services import Services
from mainstay.operations.stop import stop
from mainstay.store.engine import Sqlite
from mainstay.store.store import SqlStore
from testbed.control_plane import ControlPlane
from testbed.puppets import Life
from tests.arena import CLUSTER, SOMEBODY, Arena, arena, life_of, services, submitted
from tests.promises import workload_of

PATIENCE_SECONDS = 90.0
MACHINES = 3
WAITS = Life(starts_after=3_600.0, seconds=3_600.0)
"""Until it is told to go on."""
MEASURED_SECONDS = 1.1
"""What ran for longer is charged everywhere: kubelets count in whole seconds."""
PHASES = {Seen.STARTING: Phase.STARTING, Seen.RUNNING: Phase.RUNNING, Seen.UNKNOWN: Phase.UNKNOWN}
TOLD = ("end", "exit_code", "rank", "attempt", "attempts")
"""What the reason of an event says that must be the same everywhere; all else are names, times and words."""


class Stage(Protocol):
    """What plays need: a platform, and hands that reach into its cluster."""

    lives: dict[str, Life]
    """By pod or by workload: of those that wait to be told how to go on."""

    @property
    def services(self) -> Services:
        """Of the process that runs now."""

    async def crash(self) -> None:
        """The platform dies, and comes back."""

    async def cut_off(self, node: str) -> None:
        """What runs there runs on."""

    async def power_off(self, node: str) -> None:
        """With all that runs there."""

    async def come_back(self, node: str) -> None:
        """With power and network."""

    async def take_away(self, pod: str) -> None:
        """Somebody ends a pod."""

    async def start(self, pod: str) -> None:
        """Its process may start from now on."""

    async def end(self, pod: str, *, exit_code: int) -> None:
        """Until its process has ended, whether or not anybody hears of that."""

    def ran(self) -> list[str]:
        """The names of the pods that the machines have run, as often as they did."""


class Directed(Machines):
    """What comes next to a process comes when it is called for."""

    def go_on(self, pod: str, *, exit_code: int = 0) -> None:
        self.settle()
        process = self.processes[pod]
        process.behaviour = replace(process.behaviour, exit_code=exit_code)
        self._schedule(process, self.clock.monotonic())
        self.settle()


@dataclass(slots=True)
class Simulated:
    """Machines in memory, by the clock of this machine."""

    folder: Path
    lives: dict[str, Life] = field(default_factory=dict)
    machines: Directed = field(init=False)
    services: Services = field(init=False)
    _database: Sqlite = field(init=False)
    _task: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        capacity = Resources(cpu_milli=8_000, memory_bytes=32 * BYTES_PER_GIB)
        nodes = tuple(NodeState(name=f"sim-{number}", capacity=capacity, ready=True) for number in range(MACHINES))
        self.machines = Directed(SystemClock(), nodes, behaviour=self._behaviour)
        self._database = Sqlite(self.folder / "platform.db", durable=False)
        store = SqlStore(self._database)
        set_prices(store, now=1)
        register_machine(store, CLUSTER, now=1)
        self._begin()

    def _behaviour(self, action: CreatePod) -> Behaviour:
        life = life_of(action.name, self.lives)
        return Behaviour(starts_after=life.starts_after, runs_for=life.seconds, exit_code=life.exit_code)

    def _begin(self) -> None:
        cluster = SimulatedCluster(CLUSTER, self.machines)
        artifacts = open_artifacts(str(self.folder / "artifacts"))
        self.services = services(SqlStore(self._database), artifacts, clusters={CLUSTER: cluster})
        loops = runner.loops(self.services, holder="embedded")
        self._task = asyncio.create_task(runner.run(loops, self.services))

    async def close(self) -> None:
        await self._end()
        self._database.close()

    async def _end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.services.offload.close()

    async def crash(self) -> None:
        await self._end()
        self._begin()

    async def cut_off(self, node: str) -> None:
        self.machines.settle()
        self.machines.cut_off(node)

    async def power_off(self, node: str) -> None:
        self.machines.settle()
        self.machines.lose_node(node)

    async def come_back(self, node: str) -> None:
        self.machines.settle()
        self.machines.return_node(node)

    async def take_away(self, pod: str) -> None:
        self.machines.settle()
        self.machines.delete(pod, grace_seconds=1)

    async def start(self, pod: str) -> None:
        self.machines.go_on(pod)

    async def end(self, pod: str, *, exit_code: int) -> None:
        self.machines.go_on(pod, exit_code=exit_code)

    def ran(self) -> list[str]:
        self.machines.settle()
        return [line.pod for line in self.machines.witness if line.running]


class Played:
    """A real API server."""

    def __init__(self, world: Arena) -> None:
        self.world = world
        self.lives = world.lives

    @property
    def services(self) -> Services:
        return self.world.replica.services

    async def crash(self) -> None:
        await self.world.restart()

    async def cut_off(self, node: str) -> None:
        await self.world.puppets.cut_off(node)

    async def power_off(self, node: str) -> None:
        await self.world.puppets.power_off(node)

    async def come_back(self, node: str) -> None:
        await self.world.puppets.come_back(node)

    async def take_away(self, pod: str) -> None:
        path, _ = self.world.pod_of(workload_of(pod))
        await self.world.call("DELETE", path)

    async def start(self, pod: str) -> None:
        self.lives[pod] = replace(life_of(pod, self.lives), starts_after=0.0)

    async def end(self, pod: str, *, exit_code: int) -> None:
        self.lives[pod] = replace(life_of(pod, self.lives), seconds=0.0, exit_code=exit_code)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while any(process.pod == pod for process in self.world.puppets.running()):
                await asyncio.sleep(0.02)

    def ran(self) -> list[str]:
        return [process.pod for process in self.world.puppets.history]


@contextlib.asynccontextmanager
async def simulated(folder: Path) -> AsyncIterator[Stage]:
    made = Simulated(folder)
    try:
        yield made
    finally:
        await made.close()


@contextlib.asynccontextmanager
async def played(control_plane: ControlPlane, folder: Path) -> AsyncIterator[Stage]:
    async with arena(control_plane, folder, seed=1, machines=MACHINES) as world:
        yield Played(world)


async def ready(stage: Stage) -> None:
    """Until its nodes are on record."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while sum(node.ready for node in stage.services.store.nodes()) < MACHINES:
            await asyncio.sleep(0.02)


class Play:
    """What happens to one job, on some stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.job = ""

    def submit(self, **changes: Any) -> None:
        """A job. Its pods start and end when they are told to."""
        (self.job,) = submitted(self.stage.services, 1, **changes)
        self.stage.lives[self.job] = WAITS

    async def start(self) -> None:
        """The pods of its newest attempt, once it is on record that they are about to."""
        await self.until_seen(Seen.STARTING)
        for pod in self._pods():
            await self.stage.start(pod.pod)

    async def run(self) -> None:
        """Likewise, until it is on record that they run, and they have run for long enough to be charged."""
        await self.start()
        await self.until_seen(Seen.RUNNING)
        await asyncio.sleep(MEASURED_SECONDS)

    async def end(self, *ranks: int, exit_code: int = 0) -> None:
        """These ranks of its newest attempt, or all."""
        for pod in self._pods():
            if not ranks or pod.rank in ranks:
                await self.stage.end(pod.pod, exit_code=exit_code)

    def stop(self) -> None:
        ours = self.stage.services
        stop(ours.store, SOMEBODY, self.job, now=ours.clock.now(), request=None, reply=lambda _: "")
        ours.pulse.beat()

    async def until_seen(self, seen: Seen) -> None:
        """Of all its pods, and what follows for the job."""
        phase = PHASES[seen]

        def true() -> bool:
            pods = self._pods()
            return bool(pods) and all(pod.seen is seen for pod in pods) and self._workload().phase is phase

        await self._until(true, what=seen.name)

    async def until_over(self) -> None:
        """Its end is on record, and nothing is left to do."""

        def over() -> bool:
            return self._workload().phase.final and all(pod.closed for pod in self._pods())

        await self._until(over, what="over")

    @property
    def node(self) -> str:
        """Of its newest pod."""
        return self._pods()[-1].node

    @property
    def pod(self) -> str:
        return self._pods()[-1].pod

    def _workload(self) -> Workload:
        return self.stage.services.store.workload(self.job, tenant=SOMEBODY.tenant)

    def _pods(self) -> list[Allocation]:
        pods = self.stage.services.store.allocations(self._workload().key)
        return [pod for pod in pods if pod.attempt == max(one.attempt for one in pods)]

    async def _until(self, true: Callable[[], Any], *, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not true():
            assert time.monotonic() < deadline, f"{self.job} is not {what}: {self.trace()}"
            await asyncio.sleep(0.02)

    def trace(self) -> dict[str, list[str]]:
        """What is on record of the job and of each of its pods, in order, and how often each pod ran; without names and times.

        Of each by itself: which of two loops is first is chance.
        """
        events = self.stage.services.store.events(tenant=SOMEBODY.tenant, workload=self.job, after=0, limit=1_000)
        told: dict[str, list[str]] = {}
        for event in events:
            line, lines = _line(event), told.setdefault(event.object.removeprefix(self.job) or "job", [])
            if not lines or lines[-1] != line:
                lines.append(line)
        ran = [pod.removeprefix(self.job) for pod in self.stage.ran() if workload_of(pod) == self.job]
        return {**told, "ran": sorted(ran)}


def _line(event: Event) -> str:
    reason = event.reason
    said = [f"{name}={reason.numbers[name]}" for name in TOLD if name in reason.numbers]
    phases = [phase.word for phase in (event.phase_before, event.phase_after) if phase is not None]
    return " ".join([reason.code.value, *said, ">".join(phases)]).strip()
