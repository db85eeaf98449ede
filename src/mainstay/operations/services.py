"""What the API and the loops are built from: the adapters that the composition root chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass

from mainstay.domain.fleet import ClusterKind
from mainstay.operations.offload import Offload
from mainstay.operations.principal import Principal
from mainstay.operations.pulse import Pulse
from mainstay.operations.sealing import Sealing
from mainstay.operations.sessions import Sessions
from mainstay.operations.submit import Draw
from mainstay.ports import Artifacts, Clock, Cluster, Connector, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One set per process. `authenticate` maps a bearer token to a principal, or to None."""

    store: Store
    artifacts: Artifacts
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
    system: str
    """Identity of this platform (of its database)."""
    url: str
    """Where the API is reached, without a trailing slash."""
