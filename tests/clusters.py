"""Clusters for tests: the same pod on this machine, on simulated machines and on a real Kubernetes node."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mainstay.app import SystemClock
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.kubernetes.cluster import KubernetesCluster
from mainstay.clusters.kubernetes.connection import Connection
from mainstay.clusters.kubernetes.credentials import Credentials
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.clusters.kubernetes.sources import Fixed
from mainstay.clusters.local import LocalCluster
from mainstay.clusters.simulated import Behaviour, Machines, SimulatedCluster
from mainstay.domain.allocation import CreatePod, DeletePod, ForgetPod, MarkNode, Owner, PodSpec, PodState, Seen
from mainstay.domain.capacity import NodeState
from mainstay.domain.errors import NoCapacity, NotYet
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.workload import Mount, Volume
from mainstay.ports import Cluster
from testbed import images
from testbed.control_plane import ControlPlane
from testbed.node import Node
from tests.clock import ManualClock
from tests.drawer import Drawer

PATIENCE_SECONDS = 20
IDLE_SECONDS = 150
"""What a platform that was ended leaves running ends itself after a minute."""
OWNER = Owner(tenant="acme", project="nlp")
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


_PLACED = "/api/v1/pods?fieldSelector=spec.nodeName!="


@dataclass(frozen=True, slots=True, kw_only=True)
class RealCluster:
    """A Kubernetes with one real node."""

    control_plane: ControlPlane
    node: Node

    @property
    def credentials(self) -> Credentials:
        """Of its administrator."""
        keys = self.control_plane.keys
        return Credentials(server=self.control_plane.url, ca=keys.authority.certificate.read_text(), token=keys.token)

    async def until_idle(self) -> None:
        """Until nothing runs on its node any more."""
        deadline = time.monotonic() + IDLE_SECONDS
        while left := [
            pod["metadata"]["name"]
            for pod in self.control_plane.ask(_PLACED)["items"]
            if pod["status"]["phase"] in {"Pending", "Running"}
        ]:
            assert time.monotonic() < deadline, f"still there: {left}"
            await asyncio.sleep(0.1)


@dataclass(slots=True)
class Rig:
    """A cluster and how time passes on it."""

    cluster: Cluster
    node: str
    remake: Callable[[], Cluster]
    """The same cluster through a new handle, as after a restart of the platform."""
    let_pass: Callable[[float], Awaitable[None]]
    now: Callable[[], int]
    """The cluster's own time, UTC microseconds."""
    moment: float = 0.2
    """Seconds: what lasts so long is noticed."""
    resolution_us: int = 0
    """Its reports of times are rounded down to this."""
    lag_us: int = 0
    """It may say so much later that it has witnessed a moment."""
    programs: dict[str, Program] = field(default_factory=dict)
    drawer: Drawer = field(default_factory=Drawer)
    """The secrets that its pods may have."""
    storage: Callable[[], str] = str
    """Provides storage for one more claim; the class to ask for it."""
    epoch: int = 1
    handles: list[Cluster] = field(default_factory=list)
    """Those that `again` has put aside."""

    def again(self) -> None:
        """Go on through a new handle, as after a crash: nobody closes the old one."""
        self.handles.append(self.cluster)
        self.cluster = self.remake()

    async def close(self) -> None:
        """End all pods, then let go of all handles."""
        self.epoch += 1_000
        try:
            for pod in (await self.cluster.observe()).pods:
                await self.act(DeletePod(name=pod.name, grace_seconds=0))
                if not pod.forgotten:
                    await self.seen(pod.name, Seen.ENDED)
        finally:
            for handle in (*self.handles, self.cluster):
                await handle.close()

    def claim(self, name: str, *, path: str) -> Volume:
        """A claim that can be made here."""
        return Volume(path=path, name=name, size_bytes=1 << 20, storage_class=self.storage())

    async def create(self, name: str, program: Program | None = None, **changes: object) -> CreatePod:
        """Create a pod, or have the cluster begin to; answers the action, to be repeated."""
        action = self.creation(name, program or Program(runs_for=30), **changes)
        with contextlib.suppress(NotYet):
            await self.act(action)
        return action

    def creation(self, name: str, program: Program, **changes: object) -> CreatePod:
        """What creates a pod of a program."""
        self.programs[name] = program
        action = create(name, self.node, script=program.script(), **changes)
        self.drawer.pods[name] = action.spec.owner, action.spec.secrets
        return action

    async def act(self, action: CreatePod | DeletePod | ForgetPod | MarkNode, *, epoch: int = 0) -> None:
        await self.cluster.act(action, epoch=epoch or self.epoch)

    async def state(self, name: str) -> PodState | None:
        found = {pod.name: pod for pod in (await self.cluster.observe()).pods}
        return found.get(name)

    async def seen(self, name: str, wanted: Seen) -> PodState:
        """Wait until a pod is reported like that."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (state := await self.state(name)) is None or state.seen is not wanted:
            assert time.monotonic() < deadline, f"{name} is {state}"
            await self.let_pass(0.02)
        return state

    async def until(self, action: CreatePod | DeletePod | ForgetPod) -> None:
        """Repeat an action until the cluster takes it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await self.act(action)
            except (NotYet, NoCapacity):
                assert time.monotonic() < deadline
                await self.let_pass(0.02)

    async def log(self, name: str) -> str:
        return (await self.cluster.read_log(name, offset=0, limit=1 << 20)).data.decode()

    async def output(self, name: str) -> dict[str, str]:
        await self.cluster.copy_out(name)
        files = {}
        async for path, size, _, content in self.cluster.outputs(name):
            data = b"".join([chunk async for chunk in content])
            assert len(data) == size
            files[path] = data.decode()
        return files


def create(name: str, node: str, *, script: str, **changes: object) -> CreatePod:
    """A small pod that runs a script, unless said otherwise."""
    given: dict[str, object] = {
        "owner": OWNER,
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
    artifacts, drawer = open_artifacts(str(folder / "artifacts")), Drawer()

    def made() -> LocalCluster:
        return LocalCluster(folder / "cluster", artifacts=artifacts, secrets=drawer)

    cluster = made()
    return Rig(
        cluster=cluster,
        node=cluster._node.name,
        remake=made,
        let_pass=asyncio.sleep,
        now=lambda: time.time_ns() // 1_000,
        drawer=drawer,
    )


def simulated_rig(_: Path) -> Rig:
    """Machines in memory, by a manual clock."""
    clock = ManualClock()
    capacity = Resources(cpu_milli=16_000, memory_bytes=64 * BYTES_PER_GIB, gpus=0, gpu_model="")
    nodes = (NodeState(name="sim-1", ready=True, capacity=capacity, marked=False),)

    async def advance(seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)

    machines = Machines(clock, nodes, behaviour=lambda action: rig.programs[action.name].behaviour())
    rig = Rig(
        cluster=SimulatedCluster("sim", machines),
        node="sim-1",
        remake=lambda: SimulatedCluster("sim", machines),
        let_pass=advance,
        now=clock.now,
    )
    return rig


async def kubernetes_rig(real: RealCluster, folder: Path, *, helper_image: str = images.BUSYBOX, **options: Any) -> Rig:
    """A real node of a real Kubernetes, idle. Each rig is another platform to it, so that they never meet."""
    clock, artifacts = SystemClock(), open_artifacts(str(folder / "artifacts"))
    settings = Settings(system=secrets.token_hex(8), image=images.BUSYBOX, helper_image=helper_image)
    drawer = Drawer()

    def made() -> KubernetesCluster:
        api = Connection(Fixed(real.credentials), clock=clock)
        return KubernetesCluster(
            name="k8s", api=api, artifacts=artifacts, secrets=drawer, clock=clock, settings=settings, **options
        )

    await real.until_idle()
    return Rig(
        cluster=made(),
        node=real.node.name,
        remake=made,
        let_pass=asyncio.sleep,
        now=clock.now,
        moment=2.0,
        resolution_us=1_000_000,
        lag_us=180_000_000,
        drawer=drawer,
        storage=lambda: storage(real),
    )


def storage(real: RealCluster) -> str:
    """One volume on the real node that is bound once a pod is to be there: its class, which has no other."""
    name, ask = f"local-{secrets.token_hex(4)}", real.control_plane.ask
    folder = real.node.machine.folder / "volumes" / name
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    provisioner = {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}
    classes = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, **provisioner}
    ask("/apis/storage.k8s.io/v1/storageclasses", method="POST", body=classes)
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [real.node.name]}
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": name,
        "hostPath": {"path": str(folder)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
    }
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
    ask("/api/v1/persistentvolumes", method="POST", body=volume)
    return name


def mount(tree: str, path: str) -> tuple[Mount, ...]:
    """One mount."""
    return (Mount(tree=tree, path=path),)
