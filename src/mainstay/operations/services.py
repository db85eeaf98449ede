"""What the API and the loops are built from: the adapters that the composition root chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Protocol

from mainstay.domain.fleet import ClusterKind
from mainstay.domain.permitted import ANYTHING, Permitted
from mainstay.domain.workload import OPEN_MAX
from mainstay.operations import agents, sessions, tokens
from mainstay.operations.agents import Agents
from mainstay.operations.offload import Offload
from mainstay.operations.principal import Principal
from mainstay.operations.pulse import Pulse
from mainstay.operations.sealing import Sealing
from mainstay.operations.sessions import Session
from mainstay.operations.submit import Draw
from mainstay.operations.waiting import WaitingReasons
from mainstay.ports import (
    Anchors,
    ArtifactStore,
    Clock,
    Cluster,
    Connector,
    Identities,
    LoopStore,
    Outbound,
    Registries,
    Store,
)


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
    waiting: WaitingReasons
    artifacts: ArtifactStore
    clusters: MutableMapping[str, Cluster]
    """Those that this process has open, by name: the loop that follows the table of clusters keeps it current."""
    connectors: Mapping[ClusterKind, Connector]
    """The ways into clusters that may be added."""
    outbound: Outbound
    """The way to addresses that tenants give."""
    sealing: Sealing
    clock: Clock
    draw: Draw
    """The chance in new ids."""
    offload: Offload
    pulse: Pulse
    authenticate: Callable[[str], Principal | None]
    identities: Identities | None = None
    """Providers of identity; None: members have tokens only."""
    agents: Agents
    """Those that carry clusters which are out of our reach."""
    system: str
    """Identity of this platform (of its database)."""
    url: str
    """Where the API is reached, without a trailing slash."""
    open_max: int = OPEN_MAX
    """So many workloads of a tenant may be open at a time; 0: no limit."""
    anchors: Anchors | None = None
    """Where the head of the audit is anchored; None: nowhere."""
    permitted: Permitted = ANYTHING
    """Images and taints that jobs may name."""
    registries: Registries | None = None
    """Who says which digest a tag means when a job is submitted; None: tags are kept as they are."""
    rate_max: int = 0
    """So many reads a second of a tenant are answered by this process; 0: no limit."""

    async def renewed(self, principal: Principal) -> Principal:
        """The same caller as of now. Raises Unauthenticated once the token behind it has ended."""
        if not principal.token and not principal.identity:
            return principal
        if principal.cluster:
            return await self.offload(agents.renewed, self.store, principal)
        return await self.offload(tokens.renewed, self.store, principal, now=self.clock.now())

    async def signed_in(self, cookie: str) -> Session | None:
        """The session that a cookie names, with what its member may now; None without a cookie. Raises Unauthenticated."""
        return await self.offload(sessions.session, self.store, cookie, now=self.clock.now())
