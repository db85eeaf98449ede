"""A cluster that an agent carries, as the control plane has it: asked over the line of its agent, and listened for.

Its effect loop runs beside it. Here is only what must be here: whoever wants to read a log asks, and once the agent has
not been heard for a while that goes on record.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import structlog

from mainstay.agent import convert
from mainstay.control.loop import Due, Loop
from mainstay.domain.allocation import PodAction
from mainstay.domain.capacity import ClusterState, LogChunk
from mainstay.domain.errors import MainstayError, Unavailable
from mainstay.domain.fleet import Contact
from mainstay.domain.plan import ObserveCluster, Plan
from mainstay.domain.reason import Code, Reason
from mainstay.operations.agents import lease_of
from mainstay.operations.lines import Lines
from mainstay.operations.services import Services
from mainstay.ports import Held
from mainstay.wire import agent as wire

log = structlog.get_logger()

SILENT_SECONDS = 40.0
"""An agent renews its lease every three seconds: after so long it is cut off or gone, and not just restarted."""
LISTEN_SECONDS = 2.0
TAKEN_SECONDS = 2.0
"""So long we hold the lease of a silent agent: time enough for one commit."""


class RemoteCluster:
    """Implements `ports.Cluster` as far as it is asked of from here."""

    def __init__(self, name: str, lines: Lines) -> None:
        self.name = name
        self.acts_at_once = 1
        self._lines = lines

    async def observe(self) -> ClusterState:
        """Its agent looks at it."""
        raise self._beyond_reach()

    async def act(self, action: PodAction, *, epoch: int) -> None:  # noqa: ARG002
        """Its agent acts."""
        raise self._beyond_reach()

    async def read_log(self, pod: str, *, offset: int, limit: int) -> LogChunk:
        """Asked of the agent. Raises Unavailable while it has no line to this replica, and whatever it raises there."""
        header, data = await self._asked(wire.ReadLog(pod=pod, offset=offset, limit=limit))
        said = convert.decoded(header, wire.Answered).what
        match said:
            case wire.LogSaid():
                return LogChunk(data=data, next_offset=said.next_offset, dropped=said.dropped, ended=said.ended)
            case wire.Failed():
                raise convert.raised(said.code, said.message, object_=said.object, hint=said.hint, numbers=said.numbers)

    async def outputs(self, pod: str) -> AsyncIterator[tuple[str, int, bool, AsyncIterator[bytes]]]:  # noqa: ARG002
        """Its agent fetches them."""
        nothing: tuple[tuple[str, int, bool, AsyncIterator[bytes]], ...] = ()
        for file in nothing:
            yield file
        raise self._beyond_reach()

    async def close(self) -> None:
        """End its lines: an agent whose token still holds calls again."""
        await self._lines.hang_up(self.name)

    async def _asked(self, what: wire.Question) -> tuple[bytes, bytes]:
        line = self._lines.of(self.name)
        if line is None:
            msg = f"the agent of cluster {self.name} has no line to this replica"
            hint = "is it running? With several replicas, ask again: the line may end at another one"
            raise Unavailable(msg, object_=self.name, hint=hint)
        return await line.ask(self.name, lambda number: wire.frame(convert.encoded(wire.Asked(id=number, what=what))))

    def _beyond_reach(self) -> MainstayError:
        msg = f"cluster {self.name} is carried by its agent"
        return Unavailable(msg, object_=self.name)


class Listener:
    """Puts on record that an agent is silent. Every replica listens; whoever takes the lapsed lease first writes.

    Silence is measured by our monotonic clock, from the last time that the lease was seen to change: no jump of a wall clock
    silences anybody.
    """

    def __init__(self, services: Services, name: str, *, holder: str) -> None:
        self._services = services
        self._name = name
        self._holder = holder
        self._heard: Held | None = None
        self._heard_at = services.clock.monotonic()

    def loop(self) -> Loop:
        """What the runner runs."""
        return Loop(name=f"listen/{self._name}", turn=self.turn)

    async def turn(self) -> Due:
        """One look at the lease."""
        services = self._services
        if self._name not in services.clusters:
            services.clusters[self._name] = RemoteCluster(self._name, services.agents.lines)
        if await services.offload(self._note_silence):
            services.pulse.beat()
        return Due(wait=LISTEN_SECONDS)

    def _note_silence(self) -> bool:
        """Whether that was news.

        Its lease is taken for that. When the agent comes back it gets a higher epoch, so that nothing which it remembers or
        has on the way counts any more, and says anew how it finds its cluster.
        """
        store, clock = self._services.store, self._services.clock
        lease, now = lease_of(self._name), clock.now()
        held = store.held(lease)
        if held != self._heard:
            self._heard, self._heard_at = held, clock.monotonic()
        silent_seconds = round(clock.monotonic() - self._heard_at)
        if silent_seconds < SILENT_SECONDS or store.cluster(self._name).seen is Contact.UNREACHABLE:
            return False
        epoch = store.acquire(lease, holder=self._holder, now=now, seconds=TAKEN_SECONDS)
        if epoch is None:
            return False
        log.warning("agent_silent", cluster=self._name, seconds=silent_seconds)
        numbers = {"detail": f"its agent has not been heard for {silent_seconds} s"}
        reason = Reason(code=Code.CLUSTER_UNREACHABLE, object=self._name, numbers=numbers)
        action = ObserveCluster(cluster=self._name, seen=Contact.UNREACHABLE, reason=reason)
        store.commit(Plan(actor=f"cluster/{self._name}", now=now, actions=(action,), epoch=epoch))
        return True
