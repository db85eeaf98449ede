"""Clusters, their nodes and their volumes."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.domain.capacity import NodeState
from mainstay.domain.fleet import Contact, NewCluster
from mainstay.domain.plan.action import Action
from mainstay.domain.volume import VolumeRef, VolumeState


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveNodes(Action):
    """All nodes that a cluster reports now; those it no longer reports become not ready."""

    cluster: str
    nodes: tuple[NodeState, ...]
    at: int = 0
    """Up to this instant of the cluster's own time the end of every pod that has ended is on record. It never goes
    back; 0: it does not say.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveVolumes(Action):
    """All volumes that a cluster reports now; those that it no longer reports are gone."""

    cluster: str
    volumes: tuple[VolumeState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveVolume(Action):
    """Have a cluster delete a volume, and place nothing more that names it. Refused while a workload uses it."""

    cluster: str
    volume: VolumeRef


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAction(Action):
    """Whether new pods are placed on a node. What runs there runs on, unless it is drained."""

    cluster: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CordonNode(NodeAction):
    """Place nothing new there. Nothing happens to one that is kept out already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainNode(NodeAction):
    """Place nothing new there and move away what runs."""

    wait_seconds: int = 0
    """What reaches its own `max_duration` within so long is left to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineNode(NodeAction):
    """Place nothing new there until it is released. Goes before a cordon; a drain goes on."""

    until: int = 0
    """It is over then (UTC microseconds); 0: when a person says so."""
    refused_at: int = 0
    """On the ground of pods that it refused, last of all then: only if nobody has kept it out or let it in since.

    0: by the word of a person.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class UncordonNode(NodeAction):
    """Take the word back that cordoned or drained it. What has been stopped to be moved has moved. Refused in quarantine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseNode(NodeAction):
    """End its quarantine. Refused for one that is only cordoned."""

    since: int = 0
    """Only if it is the quarantine that began then; 0: whichever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCluster(Action):
    """Put a cluster on record. A known name takes new settings and credentials if it is the same cluster by identity.

    Refused if the fleet has that cluster under another name, or this name for another cluster.
    """

    cluster: NewCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainCluster(Action):
    """Place nothing new on this cluster; what runs there runs on."""

    cluster: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeCluster(Action):
    """Let a cluster that was drained take work again."""

    cluster: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveCluster(Action):
    """Take a cluster out of the fleet. Refused while an allocation on it is not closed."""

    cluster: str
    lost: bool = False
    """Somebody answers for it that a drained cluster runs nothing any more: what is open there counts as lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveCluster(Action):
    """Whether a cluster answers and lets us in. Written only if that, or its reason, has changed."""

    cluster: str
    seen: Contact


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifyCluster(Action):
    """The agent of a cluster has tried it: it is this one, and it lets the agent in.

    Refused if it was another one before, or if the fleet has that cluster under another name.
    """

    cluster: str
    identity: str
    server: str = ""
    one_user: bool = False
    """All of its jobs run as one user: refused where there are several tenants."""
