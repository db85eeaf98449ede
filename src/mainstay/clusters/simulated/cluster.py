"""`Cluster` over simulated machines: a thin handle that may be thrown away and made anew at any moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import assert_never

from mainstay.clusters.simulated.lodgers import Lodgers
from mainstay.clusters.simulated.machines import Machines, Process
from mainstay.domain.allocation import (
    BindPod,
    ClusterAction,
    CreatePod,
    DeletePod,
    DropVolume,
    EvictPod,
    ForgetPod,
    MarkNode,
    ReleasePod,
    RevokePod,
    SeekPod,
    Seen,
    TellPod,
)
from mainstay.domain.capacity import ClusterState, LogChunk
from mainstay.domain.errors import Gone, Invalid, MainstayError, NotFound, NotYet
from mainstay.ports import Process as RunningProcess
from mainstay.ports import Stream


class SimulatedCluster:
    """Implements `ports.Cluster`."""

    def __init__(self, name: str, machines: Machines, lodgers: Lodgers | None = None) -> None:
        self.name = name
        self.acts_at_once = 1
        self._machines = machines
        self._lodgers = lodgers or Lodgers(machines)

    async def observe(self) -> ClusterState:
        """Nodes and pods by name. What is forgotten is not reported; its tombstone still refuses to be created again."""
        self._machines.settle()
        return ClusterState(
            nodes=tuple(self._machines.nodes[name] for name in sorted(self._machines.nodes)),
            pods=tuple(self._machines.state(process) for process in self._machines.known()),
            at=self._machines.clock.now(),
            guests=self._lodgers.guests(),
        )

    async def act(self, action: ClusterAction, *, epoch: int) -> None:  # noqa: C901 - one line per action
        """As every cluster: fenced by epoch, idempotent by name."""
        self._machines.settle()
        self._machines.fence(epoch)
        match action:
            case CreatePod():
                self._machines.create(action)
            case DeletePod():
                self._machines.delete(action.name, grace_seconds=action.grace_seconds)
            case ForgetPod():
                self._machines.forget(action.name)
            case RevokePod():
                self._machines.revoke(action.name)
            case BindPod():
                self._lodgers.bind(action)
            case ReleasePod():
                self._lodgers.release(action)
            case EvictPod():
                self._lodgers.evict(action)
            case SeekPod():
                return  # what is not reported is only late: the end of every pod is told for ever
            case TellPod():
                self._lodgers.tell(action)
            case MarkNode():
                self._machines.mark(action.name, closed=action.closed)
            case DropVolume():
                return  # it reports none
            case _:
                assert_never(action)

    def bind_late(self, action: BindPod) -> None:
        """A binding comes that was taken for lost. Raises Gone."""
        self._machines.settle()
        self._lodgers.bind_late(action)

    async def read_log(self, pod: str, *, offset: int, limit: int) -> LogChunk:
        """The lines of its behaviour, all there from the moment it runs."""
        process = self._process(pod)
        written = b"".join(process.behaviour.lines) if process.started_at else b""
        data = written[offset : offset + limit]
        ended = process.seen is Seen.ENDED and offset + len(data) >= len(written)
        return LogChunk(data=data, next_offset=offset + len(data), dropped=0, ended=ended)

    async def copy_out(self, pod: str) -> None:
        """Nothing here leaves anything for object stores."""

    async def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:
        """The files of its behaviour, by path."""
        for path, content in sorted(self._process(pod).behaviour.files.items()):
            yield path, len(content), False, _once(content)

    def connect(self, pod: str, port: int) -> AbstractAsyncContextManager[Stream]:  # noqa: ARG002 nothing listens
        """Refused: nothing truly runs."""
        raise self._unreal(pod)

    def exec(
        self,
        pod: str,
        argv: Sequence[str],  # noqa: ARG002 nothing is run
        *,
        stdin: bool = False,  # noqa: ARG002
        tty: bool = False,  # noqa: ARG002
    ) -> AbstractAsyncContextManager[RunningProcess]:
        """Refused: nothing truly runs."""
        raise self._unreal(pod)

    async def close(self) -> None:
        """Nothing to let go of: the machines go on."""

    def _unreal(self, pod: str) -> MainstayError:
        """What a real cluster would say of a pod that does not run; of one that does, that it is not real."""
        process = self._process(pod)
        if process.seen is Seen.ENDED:
            msg = f"pod {pod} has ended"
            return Gone(msg, object_=pod)
        if process.seen is not Seen.RUNNING:
            msg = f"pod {pod} does not run yet"
            return NotYet(msg, object_=pod)
        msg = f"cluster {self.name} is simulated: nothing truly runs in pod {pod}"
        return Invalid(msg, object_=pod, hint="add a real cluster: mainstay cluster add")

    def _process(self, pod: str) -> Process:
        self._machines.settle()
        process = self._machines.processes.get(pod)
        if process is None:
            msg = f"no such pod: {pod}"
            raise NotFound(msg, object_=pod)
        return process


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
