"""Clusters for tests: the same pod on this machine and on simulated machines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.local import LocalCluster
from mainstay.clusters.simulated import Behaviour, Machines, SimulatedCluster
from mainstay.domain.allocation import CreatePod, DeletePod, ForgetPod, Owner, PodSpec, PodState, Seen
from mainstay.domain.capacity import NodeState
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.workload import Mount
from mainstay.ports import Cluster
from tests.clock import ManualClock

PATIENCE_SECONDS = 20
SMALL = Resources(cpu_milli=100, memory_bytes=BYTES_PER_GIB // 16, gpus=0, gpu_model="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a pod does, wherever it runs."""

    runs_for: float = 0.0
    exit_code: int = 0
    ignores_term: bool = False
    lines: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    def script(self) -> str:
        """For /bin/sh."""
        parts = ["trap '' TERM"] if self.ignores_term else []
        parts += [f"echo '{line}'" for line in self.lines]
        parts += [f"printf '%s' '{text}' > \"$MAINSTAY_OUTPUT_DIR/{path}\"" for path, text in self.files.items()]
        # A shell that ignores TERM hands that on to its children.
        parts += [f"sleep {self.runs_for}"] if self.runs_for else []
        return "\n".join([*parts, f"exit {self.exit_code}"])

    def behaviour(self) -> Behaviour:
        """For simulated machines."""
        return Behaviour(
            starts_after=0.01,
            runs_for=self.runs_for,
            exit_code=self.exit_code,
            ignores_term=self.ignores_term,
            lines=tuple(f"{line}\n".encode() for line in self.lines),
            files={path: text.encode() for path, text in self.files.items()},
        )


@dataclass(slots=True)
class Rig:
    """A cluster and how time passes on it."""

    cluster: Cluster
    node: str
    remake: Callable[[], Cluster]
    """The same cluster through a new handle, as after a restart of the platform."""
    let_pass: Callable[[float], None]
    programs: dict[str, Program] = field(default_factory=dict)
    epoch: int = 1

    async def create(self, name: str, program: Program | None = None, **changes: object) -> CreatePod:
        """Create a pod; answers the action, to be repeated."""
        program = program or Program(runs_for=30)
        self.programs[name] = program
        action = create(name, self.node, script=program.script(), **changes)
        await self.act(action)
        return action

    async def act(self, action: CreatePod | DeletePod | ForgetPod, *, epoch: int = 0) -> None:
        await self.cluster.act(action, epoch=epoch or self.epoch)

    async def state(self, name: str) -> PodState | None:
        found = {pod.name: pod for pod in (await self.cluster.observe()).pods}
        return found.get(name)

    async def seen(self, name: str, wanted: Seen) -> PodState:
        """Wait until a pod is reported like that."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (state := await self.state(name)) is None or state.seen is not wanted:
            assert time.monotonic() < deadline, f"{name} is {state}"
            self.let_pass(0.02)
            await asyncio.sleep(0)
        return state

    async def log(self, name: str) -> str:
        return (await self.cluster.read_log(name, offset=0, limit=1 << 20)).data.decode()

    async def output(self, name: str) -> dict[str, str]:
        files = {}
        async for path, size, _, content in self.cluster.outputs(name):
            data = b"".join([chunk async for chunk in content])
            assert len(data) == size
            files[path] = data.decode()
        return files


def create(name: str, node: str, *, script: str, **changes: object) -> CreatePod:
    """A small pod that runs a script, unless said otherwise."""
    given: dict[str, object] = {
        "owner": Owner(tenant="acme", project="nlp"),
        "image": "",
        "argv": ("/bin/sh", "-c", script),
        "env": (),
        "mounts": (),
        "resources": SMALL,
        "cpu_limit_milli": 0,
        "memory_limit_bytes": 0,
        "stop_grace_seconds": 5,
        "deadline_seconds": 0,
        "gang": f"gang-{name}",
        "rank": 0,
        "size": 1,
        "port": False,
        "ready_path": "",
        **changes,
    }
    return CreatePod(name=name, node=node, spec=PodSpec(**given))  # type: ignore[arg-type]


def local_rig(folder: Path) -> Rig:
    """This machine."""
    artifacts = open_artifacts(str(folder / "artifacts"))

    def made() -> LocalCluster:
        return LocalCluster(folder / "cluster", artifacts=artifacts)

    cluster = made()
    return Rig(cluster=cluster, node=cluster._node.name, remake=made, let_pass=time.sleep)


def simulated_rig(_: Path) -> Rig:
    """Machines in memory, by a manual clock."""
    clock = ManualClock()
    capacity = Resources(cpu_milli=16_000, memory_bytes=64 * BYTES_PER_GIB, gpus=0, gpu_model="")
    nodes = (NodeState(name="sim-1", ready=True, capacity=capacity),)
    machines = Machines(clock, nodes, behaviour=lambda action: rig.programs[action.name].behaviour())
    rig = Rig(
        cluster=SimulatedCluster("sim", machines),
        node="sim-1",
        remake=lambda: SimulatedCluster("sim", machines),
        let_pass=clock.advance,
    )
    return rig


def mount(tree: str, path: str) -> tuple[Mount, ...]:
    """One mount."""
    return (Mount(tree=tree, path=path),)
