"""A way into simulated clusters whose every step a test may let fail."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace

from mainstay.clusters.simulated import Behaviour, Machines, SimulatedCluster
from mainstay.domain.allocation import PodAction
from mainstay.domain.capacity import ClusterState, LogChunk, NodeState
from mainstay.domain.fleet import ClusterFacts, ClusterRecord, ClusterSettings, Credentials
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.ports import Clock, Process, Stream

FACTS = ClusterFacts(identity="uid", version="v1.35.0", server="https://10.0.0.1:6443")
NODE = Resources(cpu_milli=4_000, memory_bytes=4 * BYTES_PER_GIB)


@dataclass
class FaultyCluster:
    """A simulated cluster that answers as it is told to."""

    name: str
    inner: SimulatedCluster
    credentials: Credentials
    fault: Exception | None = None
    """Raised by every look."""
    refusal: Exception | None = None
    """Raised by every act."""
    identity: str = ""
    looks: int = 0
    closed: bool = False
    acts_at_once: int = 1

    async def observe(self) -> ClusterState:
        self.looks += 1
        if self.fault:
            raise self.fault
        return replace(await self.inner.observe(), identity=self.identity)

    async def act(self, action: PodAction, *, epoch: int) -> None:
        if self.refusal:
            raise self.refusal
        await self.inner.act(action, epoch=epoch)

    async def read_log(self, pod: str, *, offset: int, limit: int) -> LogChunk:
        return await self.inner.read_log(pod, offset=offset, limit=limit)

    async def copy_out(self, pod: str) -> None:
        pass

    def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:
        return self.inner.outputs(pod)

    def connect(self, pod: str, port: int) -> AbstractAsyncContextManager[Stream]:
        return self.inner.connect(pod, port)

    def exec(
        self, pod: str, argv: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> AbstractAsyncContextManager[Process]:
        return self.inner.exec(pod, argv, stdin=stdin, tty=tty)

    async def close(self) -> None:
        self.closed = True


@dataclass
class MemoryConnector:
    """Machines outlive what was opened, as real ones do."""

    clock: Clock
    facts: ClusterFacts = FACTS
    check_fault: Exception | None = None
    open_fault: Exception | None = None
    checked: list[tuple[ClusterSettings, Credentials]] = field(default_factory=list)
    opened: list[FaultyCluster] = field(default_factory=list)
    machines: dict[str, Machines] = field(default_factory=dict)

    async def check(self, settings: ClusterSettings, credentials: Credentials) -> ClusterFacts:
        self.checked.append((settings, credentials))
        if self.check_fault:
            raise self.check_fault
        return self.facts

    def kept(self, settings: ClusterSettings, credentials: Credentials) -> Credentials:
        return credentials

    def open(self, cluster: ClusterRecord, credentials: Credentials) -> FaultyCluster:
        if self.open_fault:
            raise self.open_fault
        nodes = (NodeState(name=f"{cluster.name}-1", capacity=NODE, ready=True),)
        machines = self.machines.setdefault(
            cluster.name, Machines(self.clock, nodes, behaviour=lambda _: Behaviour(starts_after=0.1, runs_for=60.0))
        )
        inner = SimulatedCluster(cluster.name, machines)
        self.opened.append(FaultyCluster(cluster.name, inner, credentials, identity=cluster.identity))
        return self.opened[-1]
