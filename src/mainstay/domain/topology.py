"""Topology: how near to each other the pods of a gang are to lie, and how far apart. Levels have the same names in all clusters.

What is one rack or one block, each cluster says of its nodes (`NodeState.topology`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from mainstay.domain.arrays import Ints

LEVELS = ("zone", "block", "rack", "host")
"""From the widest to the narrowest. A block is several racks; a host is one node, whatever its cluster says of it."""
HOST = LEVELS[-1]
LEVEL_LABELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "zone": ("topology.kubernetes.io/zone",),
        "block": (
            "topology.kubernetes.io/block",
            "cloud.google.com/gce-topology-block",
            "topology.k8s.aws/network-node-layer-2",
            "network.topology.nvidia.com/spine",
        ),
        "rack": (
            "topology.kubernetes.io/rack",
            "cloud.google.com/gce-topology-subblock",
            "topology.k8s.aws/network-node-layer-3",
            "network.topology.nvidia.com/leaf",
        ),
    }
)
"""By level, the labels that say which domain it is, unless an administrator names another: Kubernetes' own, or in its manner;
those of GKE and EKS, and of NVIDIA's topograph. The first that a node has counts.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The pods of a gang lie in many domains of this level: as evenly as there is room, and never too many in one."""

    level: str
    at_most: int = 0
    """So many of them lie in one domain at most, or the gang waits; 0: as many as there is room for."""

    @property
    def words(self) -> str:
        """As it is shown, and as what is asked for goes on: `3 x (...), at most 1 per host`."""
        return f"at most {self.at_most} per {self.level}" if self.at_most else f"evenly over {self.level}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyNeed:
    """How the pods of a gang lie to each other: near, in one domain of a level, or apart, in many, or both: on many hosts of one
    rack.
    """

    level: str = ""
    """One domain of it holds them all; empty: one cluster, as of every gang."""
    required: bool = False
    """It must, or else it does where there is room."""
    spread: Spread | None = None
    """Of a level that is narrower than `level`."""

    @property
    def words(self) -> str:
        """As what is asked for goes on: `2 x (...) in one rack, at most 1 per host`."""
        near = f" in one {self.level}" + ("" if self.required else " if possible") if self.level else ""
        return near + (f", {self.spread.words}" if self.spread else "")

    @property
    def text(self) -> str:
        """How near, as it is kept and shown: `required rack`, `preferred block`; empty if it does not say."""
        return f"{'required' if self.required else 'preferred'} {self.level}" if self.level else ""


def domains(labels: Mapping[str, str], chosen: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Where a node with these labels is: (level, name), the widest first.

    `chosen`: the label by level, of those for which an administrator has named one.
    """
    asked = {level: (chosen[level],) if level in chosen else LEVEL_LABELS[level] for level in LEVELS[:-1]}
    found = {level: next(filter(None, (labels.get(name, "") for name in names)), "") for level, names in asked.items()}
    return tuple((level, "_".join(name.split())) for level, name in found.items() if name.strip())


def need_of(near: str, *, required: bool = False, apart: Iterable[str] = ()) -> TopologyNeed | None:
    """What those who make pods elsewhere say: in one domain of a level, and evenly over the first of others that is narrower. A
    word that is no level says nothing; None if nothing is said.
    """
    near = near if near in LEVELS else ""
    narrower = LEVELS[LEVELS.index(near) + 1 :] if near else LEVELS
    over = next((level for level in apart if level in narrower), "")
    if not near and not over:
        return None
    return TopologyNeed(level=near, required=required and bool(near), spread=Spread(level=over) if over else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """In which domain of one level each node lies."""

    number: Ints
    """[nodes] Domains are numbered in the order of their names. The numbers that follow those of all `names` are for nodes of
    which it is not known: one number for all those of a cluster and of one wider domain.
    """
    names: tuple[str, ...]
    """Of each domain, with the wider ones around it: `block-1/rack-7`. A domain lies within one cluster."""


def levels_of(clusters: Sequence[str], said: Sequence[Mapping[str, str]]) -> dict[str, Level]:
    """The levels of which anything is said, the widest first. By node: its cluster, and the domain of each level.

    The same name within two wider domains is two domains. O(nodes x levels).
    """
    around: list[tuple[str, ...]] = [(cluster,) for cluster in clusters]
    found: dict[str, Level] = {}
    for level in LEVELS[:-1]:
        here = [one.get(level, "") for one in said]
        if not any(here):
            continue
        around = [(*wider, name) for wider, name in zip(around, here, strict=True)]
        named = sorted({one for one in around if one[-1]})
        unknown = sorted({one for one in around if not one[-1]})
        number = {one: place for place, one in enumerate((*named, *unknown))}
        found[level] = Level(
            number=np.array([number[one] for one in around], dtype=np.int64),
            names=tuple("/".join(filter(None, one[1:])) for one in named),
        )
    return found


def known_levels(levels: Mapping[str, Level], clusters: Sequence[str], *, cluster: str = "") -> tuple[str, ...]:
    """Those of which any node has a domain, of this cluster or of any; none where there are no nodes. `clusters`: by node."""
    here = np.array([cluster in {"", name} for name in clusters], dtype=np.bool_)
    if not here.any():
        return ()
    return (*(name for name, level in levels.items() if (level.number[here] < len(level.names)).any()), HOST)
