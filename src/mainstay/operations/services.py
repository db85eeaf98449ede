"""What the API and the loops are built from: the adapters that the composition root chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Protocol

from mainstay.domain.errors import Unauthenticated
from mainstay.domain.fleet import ClusterKind
from mainstay.domain.workload import OPEN_MAX
from mainstay.operations import agents, tokens
from mainstay.operations.agents import Agents
from mainstay.operations.offload import Offload
from mainstay.operations.principal import Principal
from mainstay.operations.pulse import Pulse
from mainstay.operations.sealing import Sealing
from mainstay.operations.sessions import Session, Sessions
from mainstay.operations.submit import Draw
from mainstay.ports import ArtifactStore, Clock, Cluster, Connector, LoopStore, Store


class LoopServices(Protocol):
    """What the loop of a cluster is built from: in the control plane, and beside a cluster that is out of its reach."""

    @property
    def store(self) -> LoopStore:
        """The record, as far as the loop needs it."""

    @property
    def artifacts(self) -> ArtifactStore:
        """Where output goes."""

    @property
    def clusters(self) -> MutableMapping[str, Cluster]:
        """Those that are open, by name."""

    @property
    def clock(self) -> Clock:
        """Time."""

    @property
    def offload(self) -> Offload:
        """Threads for the store."""

    @property
    def pulse(self) -> Pulse:
        """Says that something was committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One set per process. `authenticate` maps a bearer token to a principal, or to None."""

    store: Store
    artifacts: ArtifactStore
    clusters: MutableMapping[str, Cluster]
    """Those that this process has open, by name: the loop that follows the table of clusters keeps it current."""
    connectors: Mapping[ClusterKind, Connector]
    """The ways into clusters that may be added."""
    sealing: Sealing
    clock: Clock
    draw: Draw
    """The chance in new ids."""
    offload: Offload
    pulse: Pulse
    authenticate: Callable[[str], Principal | None]
    sessions: Sessions
    """Browsers that have signed in."""
    agents: Agents
    """Those that carry clusters which are out of our reach."""
    system: str
    """Identity of this platform (of its database)."""
    url: str
    """Where the API is reached, without a trailing slash."""
    open_max: int = OPEN_MAX
    """So many workloads of a tenant may be open at a time; 0: no limit."""

    async def renewed(self, principal: Principal) -> Principal:
        """The same caller as of now. Raises Unauthenticated once the token behind it has ended."""
        if not principal.token:
            return principal
        if principal.cluster:
            return await self.offload(agents.renewed, self.store, principal)
        return await self.offload(tokens.renewed, self.store, principal, now=self.clock.now())

    async def signed_in(self, cookie: str) -> Session | None:
        """The session that a cookie names, with what its member may now; it ends with the token that began it."""
        session = self.sessions.session(cookie)
        if session is None:
            return None
        try:
            return replace(session, principal=await self.renewed(session.principal))
        except Unauthenticated:
            self.sessions.end(cookie)
            return None
