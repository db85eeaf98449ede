"""What there is to run on: clusters, their nodes, and what a cluster reports of itself."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.domain.allocation import PodState
from mainstay.domain.guest import Guest
from mainstay.domain.quantity import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """A node as its cluster reports it. `capacity` is what pods may use."""

    name: str
    capacity: Resources
    ready: bool
    admits: tuple[str, ...] = ()
    """The restrictions (of guests) that it meets and takes pods of, ready or not for what has none; sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as we hold it: `used` is the sum of the allocations on it that have not ended."""

    key: int
    cluster: str
    name: str
    capacity: Resources
    used: Resources
    ready: bool
    version: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Bytes of a pod's log from a global offset. `dropped` bytes before them are gone (rotated); `ended`: no more will come."""

    data: bytes
    next_offset: int
    dropped: int
    ended: bool
