"""Clusters as members of the fleet: what they are, how we reach them, and whether they take work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

from mainstay.domain.affinity import Taint
from mainstay.domain.quantity import Resources
from mainstay.domain.reason import Code, Reason

MACHINE = re.compile(r"local(-[0-9a-f]{6})?\Z")
"""What platforms call the machines that they bring along."""


class ClusterKind(StrEnum):
    """What runs the pods. Each has a connector but `local`, a machine that its own replica brings along, and `agent`."""

    LOCAL = "local"
    SIMULATED = "simulated"
    KUBERNETES = "kubernetes"
    AGENT = "agent"
    """Whatever its agent opens: it is beyond our reach, and the agent calls us."""


class Stay(StrEnum):
    """What is wanted of a cluster: to stay, to empty itself, or to be no longer of the fleet."""

    KEPT = "kept"
    DRAINING = "draining"
    REMOVED = "removed"


class Contact(StrEnum):
    """What was seen of a cluster: it answers, it does not, or it does not let us in."""

    READY = "ready"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"


_CONTACTS: Mapping[Contact, Literal["ready", "unreachable", "refused"]] = MappingProxyType(
    {Contact.READY: "ready", Contact.UNREACHABLE: "unreachable", Contact.REFUSED: "refused"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What lets us into a cluster, in the clear: only in memory, and never in a message, an answer or a repr."""

    kubeconfig: str = field(default="", repr=False)
    """The text of one; empty where the settings name another way in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeGroup:
    """So many equal nodes of a simulated cluster."""

    count: int
    capacity: Resources
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """How a cluster is reached and used; nothing in it is secret. What a kind does not use stays at its default."""

    server: str = ""
    """Address of the API server, as the connector found it."""
    context: str = ""
    """Of the kubeconfig: of the credentials, or of the platform's own file if there are none."""
    in_cluster: bool = False
    """The platform runs in this very cluster: it uses the service account of its own pod."""
    namespaces_per_project: int = 1
    helper_image: str = ""
    """Image of the helper beside each pod; empty: the one of this version."""
    image: str = ""
    """Image of jobs that name none."""
    nodes: tuple[NodeGroup, ...] = ()
    """Of a simulated cluster."""
    agent_token: str = ""
    """SHA-256 of the token of its agent, in hex: 256 bits of chance cannot be found from it."""
    one_user: bool = False
    """Its agent has said that all jobs run as one user there, so that it can serve one tenant only."""
    scheduler_name: str = "mainstay"
    """Pods of others that name it as their scheduler are placed by us; empty: none."""
    topology: tuple[tuple[str, str], ...] = ()
    """(level, label of nodes that says in which domain of it they are); for others the labels that are known apply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """What a cluster said when its credentials were tried."""

    identity: str
    """The same for as long as it is the same cluster (Kubernetes: UID of the namespace kube-system)."""
    version: str = ""
    server: str = ""
    missing: tuple[str, ...] = ()
    """Permissions that we need and do not have, each in words; with any, the cluster cannot be used."""
    warnings: tuple[str, ...] = ()
    """What works, but not as it should, each in words with what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCluster:
    """A cluster to be put on record."""

    name: str
    kind: ClusterKind
    settings: ClusterSettings = ClusterSettings()
    sealed: str = field(default="", repr=False)
    """Its credentials, encrypted under the name of the cluster; empty if it needs none."""
    identity: str = ""


def not_called(cluster: str) -> Reason:
    """Why a cluster that was just added takes no work, if an agent is to carry it."""
    return Reason(code=Code.AGENT_AWAITED, object=cluster)


AGENT_IS_AWAY = frozenset({Code.AGENT_AWAITED, Code.AGENT_SILENT})
"""Why a cluster does not answer whose agent has not called since."""
_CONNECTS = frozenset({Code.AGENT_AWAITED, Code.AGENT_CATCHES_UP})
"""Why one does not answer with which nothing is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRecord:
    """A cluster as it is on record. `wanted` is what an administrator said last, `seen` what its loop found last."""

    name: str
    kind: ClusterKind
    settings: ClusterSettings
    sealed: str = field(repr=False)
    identity: str
    wanted: Stay
    wanted_reason: Reason
    seen: Contact
    seen_reason: Reason
    observed_at: int
    """Up to which instant of its own time it has been witnessed; 0: never."""
    added_at: int
    added_by: str
    version: int

    @property
    def state(self) -> Literal["ready", "connecting", "unreachable", "refused", "draining", "removed"]:
        """In one word, for users."""
        if self.wanted is not Stay.KEPT:
            return "draining" if self.wanted is Stay.DRAINING else "removed"
        return "connecting" if self.seen_reason.code in _CONNECTS else _CONTACTS[self.seen]

    @property
    def reason(self) -> Reason:
        """Why it is in this state. What keeps us out of it goes before what is wanted of it: it needs to be mended."""
        return self.wanted_reason if self.seen is Contact.READY and self.wanted is not Stay.KEPT else self.seen_reason

    @property
    def takes_work(self) -> bool:
        """Whether anything new may be placed there."""
        return self.wanted is Stay.KEPT and self.seen is Contact.READY


def lease_of(cluster: str) -> str:
    """The lease of the effect loop of a cluster."""
    return f"cluster/{cluster}"
