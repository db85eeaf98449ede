"""What there is to run on: clusters, their nodes, and what a cluster reports of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from mainstay.domain.affinity import NO_TRAITS, Traits
from mainstay.domain.allocation import PodState
from mainstay.domain.guest import Guest
from mainstay.domain.quantity import Counts, Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.volume import VolumeState


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """A node as its cluster reports it. `capacity` is what pods may use."""

    name: str
    capacity: Resources
    ready: bool
    admits: tuple[str, ...] = ()
    """The restrictions (of guests) that it meets and takes pods of, ready or not for what has none; and what volumes ask of nodes
    that are to reach them (`VolumeState.reach`). Sorted.
    """
    traits: Traits = NO_TRAITS
    """Its labels, its taints, and whether it is spot."""
    barred: bool = False
    """It is not ready, but only for the taints of `traits`: what tolerates them may be placed there."""
    topology: tuple[tuple[str, str], ...] = ()
    """The domains that it is in: (level, name), the widest first, for those levels of which its cluster says it."""
    images: Counts = ()
    """Container images that it has, of those that work of ours asks for, as that names them: (name, bytes)."""
    shapes: Counts = ()
    """Slices of GPUs that pods may use, by shape, beside the whole ones of `capacity`."""
    whole: Resources | None = None
    """What pods could use if nobody else did and all its devices worked; None: `capacity`."""
    whole_shapes: Counts = ()
    """The same of `shapes`, where that is more."""
    pods_max: int | None = None
    """So many pods of ours it takes at most, as `capacity` without those of others; None where no limit is known."""
    unhealthy: Counts = ()
    """Devices that it has and cannot give, by model or shape; they are not in `capacity` and `shapes`."""
    problem: str = ""
    """Why it is not ready, in the words of its cluster."""
    complaints: tuple[str, ...] = ()
    """What is wrong with it besides, in the words of whoever watches it."""
    cordoned: bool = False
    """Somebody else keeps new pods off it, in its cluster."""
    marked: bool | None = None
    """Whether our mark keeps other schedulers off it; None where there are no others."""
    mark_undone: bool = False
    """Our mark is there, and somebody lets other schedulers in in spite of it."""
    strangers: tuple[str, ...] = ()
    """Pods there that are not ours, of a node that is marked; not all of many."""
    refusal: str = ""
    """Why it refuses one pod after another; empty if it does not."""
    refused_at: int = 0
    """When it did so last, by its cluster's time (UTC microseconds)."""


class Keeping(StrEnum):
    """How a node is kept out: by the word of a person, or for a suspicion against it."""

    CORDONED = "cordoned"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """Nothing new is placed on a node, because somebody has said so. Times in UTC microseconds."""

    keeping: Keeping
    reason: Reason
    since: int
    until: int = 0
    """It ends by itself; 0: only a person ends it."""
    drains: bool = False
    """What runs there is moved away."""
    wait_seconds: int = 0
    """What reaches its own `max_duration` within so long is left to its end."""

    @property
    def word(self) -> Literal["cordoned", "draining", "quarantined"]:
        """As users see it."""
        if self.keeping is Keeping.QUARANTINED:
            return "quarantined"
        return "draining" if self.drains else "cordoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as we hold it: `used` is the sum of the allocations on it that have not ended, `used_pods` how many they are."""

    key: int
    cluster: str
    name: str
    capacity: Resources
    used: Resources
    ready: bool
    version: int
    shapes: Mapping[str, int] = field(default_factory=dict)
    used_shapes: Mapping[str, int] = field(default_factory=dict)
    pods_max: int | None = None
    """As of `NodeState`."""
    used_pods: int = 0
    unhealthy: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""
    complaints: tuple[str, ...] = ()
    cordoned: bool = False
    strangers: tuple[str, ...] = ()
    traits: Traits = NO_TRAITS
    barred: bool = False
    closure: Closure | None = None

    @property
    def state(self) -> Literal["ready", "tainted", "not ready", "cordoned", "draining", "quarantined"]:
        """For users; what its cluster takes is another matter."""
        if self.closure is not None:
            return self.closure.word
        if self.cordoned:
            return "cordoned"
        if self.barred:
            return "tainted"
        return "ready" if self.ready else "not ready"

    @property
    def reason(self) -> Reason | None:
        """Why it is in this state; None if nothing is wrong."""
        if self.closure is not None:
            return self.closure.reason
        return None if self.ready else not_ready(self.name, self.problem)


def not_ready(node: str, problem: str) -> Reason:
    """Why nothing is placed on a node that nobody has closed."""
    return Reason(code=Code.NODE_NOT_READY, object=node, numbers={"detail": problem or "it is not reported any more"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """Everything a cluster reports in one look: all its nodes and every pod of ours, ended ones included."""

    nodes: tuple[NodeState, ...]
    pods: tuple[PodState, ...]
    at: int = 0
    """The cluster's own time of the look (UTC microseconds); 0 if it does not say. Nothing later has been witnessed."""
    identity: str = ""
    """Which cluster was looked at, as its connector tells it; empty if it does not say."""
    guests: tuple[Guest, ...] = ()
    """Every pod that others made and that asks us for a place, by UID; placed ones too, until their end is old."""
    volumes: tuple[VolumeState, ...] | None = None
    """Every volume of our projects, by tenant, project and name; None if it cannot say (now)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Bytes of a pod's log from a global offset. `dropped` bytes before them are gone (rotated); `ended`: no more will come."""

    data: bytes
    next_offset: int
    dropped: int
    ended: bool
