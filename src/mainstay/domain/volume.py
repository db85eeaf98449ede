"""Volumes that outlive runs: what a cluster reports of one, what is on record, and what a workload needs of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from mainstay.domain.allocation import Owner
from mainstay.domain.workload import Volume

REACH_PREFIX = "volume/"
"""How what a volume asks of nodes begins in `NodeState.admits`: no restriction of guests does."""


class Sharing(IntEnum):
    """How far a volume can be shared; the higher, the less."""

    ANY = 0
    NODE = 1
    """All its users are on one node."""
    POD = 2
    """One pod uses it at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeState:
    """A volume as its cluster reports it. A name is unique within a project and a cluster."""

    owner: Owner
    name: str
    size_bytes: int = 0
    """0: it does not say, or sets no limit."""
    access: tuple[str, ...] = ()
    """Its access modes, as Kubernetes names them."""
    storage_class: str = ""
    bound: bool = True
    """There is storage for it; until then it lies nowhere, and goes where it is needed first."""
    leaving: bool = False
    """It is being deleted, and goes once nothing uses it any more."""
    reach: str = ""
    """Only nodes that say so in `NodeState.admits` reach it; empty: all of its cluster do."""
    place: str = ""
    """Where in its cluster it lies, in words; empty: everywhere."""

    @property
    def sharing(self) -> Sharing:
        """By the widest of its access modes. One that names none, as on this machine, is anybody's."""
        return min((_SHARING.get(mode, Sharing.ANY) for mode in self.access), default=Sharing.ANY)


_SHARING = {"ReadWriteOnce": Sharing.NODE, "ReadWriteOncePod": Sharing.POD}


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRef:
    """A volume of one cluster."""

    owner: Owner
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    """A volume as it is on record."""

    cluster: str
    state: VolumeState
    removed: bool
    """Somebody wants it gone."""
    used_by: tuple[str, ...] = ()
    """Ids of workloads that wait, run or end, and name it; in the order in which they were submitted."""

    @property
    def word(self) -> Literal["ready", "unbound", "removing"]:
        """Its state, as users see it."""
        if self.removed or self.state.leaving:
            return "removing"
        return "ready" if self.state.bound else "unbound"

    @property
    def words(self) -> str:
        """Where it lies."""
        inside = f", {self.state.place}" if self.state.place else ""
        return f"in cluster {self.cluster}{inside}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeNeed:
    """The volumes that a workload names, of its own project."""

    owner: Owner
    names: tuple[str, ...]


def named(volumes: Iterable[Volume]) -> tuple[str, ...]:
    """Those that outlive the run, each once."""
    return tuple(dict.fromkeys(volume.name for volume in volumes if volume.name))
