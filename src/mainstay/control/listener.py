"""Listens for the agent of a cluster, and puts on record that it is silent."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from mainstay.control.loop import Due, Loop
from mainstay.control.remote import RemoteCluster
from mainstay.domain.fleet import AGENT_IS_AWAY, Contact, lease_of
from mainstay.domain.plan import ObserveCluster, Plan
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.operations.agents import SILENT_SINCE
from mainstay.operations.services import Services
from mainstay.ports import Held

log = structlog.get_logger()

SILENT_SECONDS = 40.0
"""An agent renews its lease every three seconds: after so long it is cut off or gone, and not just restarted."""
LISTEN_SECONDS = 2.0
TAKEN_SECONDS = 2.0
"""So long we hold the lease of a silent agent: time enough for one commit."""


class Listener:
    """Puts on record that an agent is silent. Every replica listens; whoever takes the lapsed lease first writes.

    Silence is measured by our monotonic clock, from the last time that the lease, or what is on record of the cluster, was
    seen to change: no jump of a wall clock silences anybody, and an agent that has found its cluster was heard before it has a
    lease.
    """

    def __init__(self, services: Services, name: str, *, holder: str) -> None:
        self._services = services
        self._name = name
        self._holder = holder
        self._heard: tuple[Held | None, str, Contact] | None = None
        self._heard_at = services.clock.monotonic()

    def loop(self) -> Loop:
        """What the runner runs."""
        return Loop(name=f"listen/{self._name}", turn=self.turn)

    async def turn(self) -> Due:
        """One look at the lease."""
        services = self._services
        if self._name not in services.clusters:
            services.clusters[self._name] = RemoteCluster(self._name, services.agents.ways)
        await services.agents.ways.keep(self._name)
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
        record = store.cluster(self._name)
        heard = store.held(lease), record.identity, record.seen
        if heard != self._heard:
            self._heard, self._heard_at = heard, clock.monotonic()
        silent_seconds = round(clock.monotonic() - self._heard_at)
        if silent_seconds < SILENT_SECONDS or record.seen_reason.code in AGENT_IS_AWAY:
            return False
        epoch = store.acquire(lease, holder=self._holder, now=now, seconds=TAKEN_SECONDS)
        if epoch is None:
            return False
        log.warning("agent_silent", cluster=self._name, seconds=silent_seconds)
        since = datetime.fromtimestamp(now // MICROSECONDS_PER_SECOND - silent_seconds, UTC)
        numbers = {SILENT_SINCE: f"{since:%Y-%m-%d %H:%M:%S} UTC"}
        reason = Reason(code=Code.AGENT_SILENT, object=self._name, numbers=numbers)
        action = ObserveCluster(cluster=self._name, seen=Contact.UNREACHABLE, reason=reason)
        store.commit(Plan(actor=f"cluster/{self._name}", now=now, actions=(action,), epoch=epoch))
        return True
