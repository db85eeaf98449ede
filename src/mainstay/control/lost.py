"""A cluster that was given up for lost: nothing is there any more, so whatever is still on record there has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from mainstay.domain.allocation import ClusterAction, CreatePod, DeletePod, End, PodState, Seen
from mainstay.domain.capacity import ClusterState, LogChunk
from mainstay.domain.errors import Gone, NotFound
from mainstay.ports import Clock, Process, Stream


class LostCluster:
    """Implements `ports.Cluster`. The ordinary loops end, meter and close its allocations by the reports it makes."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.acts_at_once = 1
        self._clock = clock
        self._asked: dict[str, int] = {}

    async def observe(self) -> ClusterState:
        """No node; a tombstone for each pod that was asked to end. What it ran beyond its last record nobody has seen."""
        pods = tuple(
            PodState(
                name=pod,
                node="",
                seen=Seen.ENDED,
                ended_at=at,
                end=End.NEVER_STARTED,
                detail="its cluster was removed as lost",
                forgotten=True,
            )
            for pod, at in self._asked.items()
        )
        return ClusterState(nodes=(), pods=pods)

    async def act(self, action: ClusterAction, *, epoch: int) -> None:  # noqa: ARG002 - nobody is left to be fenced
        """Nothing starts here; what is to end has ended. What was never created ends at once, too."""
        if isinstance(action, CreatePod | DeletePod):
            self._asked.setdefault(action.name, self._clock.now())
        if isinstance(action, CreatePod):
            raise self._gone(action.name)

    async def read_log(self, pod: str, *, offset: int, limit: int) -> LogChunk:  # noqa: ARG002
        """Raises NotFound."""
        msg = f"the log of {pod} went with its cluster"
        raise NotFound(msg, object_=pod)

    async def copy_out(self, pod: str) -> None:
        """Nothing is left of it."""

    async def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:  # noqa: ARG002
        """None."""
        nothing: tuple[tuple[str, int, bool, AsyncIterator[bytes]], ...] = ()
        for file in nothing:
            yield file

    def connect(self, pod: str, port: int) -> AbstractAsyncContextManager[Stream]:  # noqa: ARG002
        """Raises Gone."""
        raise self._gone(pod)

    def exec(
        self,
        pod: str,
        argv: Sequence[str],  # noqa: ARG002
        *,
        stdin: bool = False,  # noqa: ARG002
        tty: bool = False,  # noqa: ARG002
    ) -> AbstractAsyncContextManager[Process]:
        """Raises Gone."""
        raise self._gone(pod)

    async def close(self) -> None:
        """Nothing to let go of."""

    def _gone(self, pod: str) -> Gone:
        msg = f"the cluster {self.name} was removed"
        return Gone(msg, object_=pod)
