"""Where the volumes of a workload let it run: on nodes of the one cluster where each lies, and that reach it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mainstay.domain.arrays import Bools
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.volume import VolumeNeed, VolumeRecord, VolumeRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Which nodes reach all volumes of a need, ready or not; and what keeps the others from it."""

    mask: Bools
    volume: str = ""
    """The one that leaves the fewest nodes; empty if all of them lie everywhere."""
    words: str = ""
    """Where that one lies, or why it lies nowhere."""


def reach_of(snapshot: Snapshot, need: VolumeNeed, *, cluster: str) -> Reach:
    """`cluster`: the only one that will do besides; empty: any.

    A volume that is on record nowhere is made, or refused by its name, in the cluster that was named, or the only one there is.
    """
    everywhere = np.ones(snapshot.nodes.key.size, dtype=np.bool_)
    mask = everywhere
    bound: list[tuple[int, str, str]] = []
    for name in need.names:
        found = snapshot.volumes.get(VolumeRef(owner=need.owner, name=name), ())
        places = [record for record in found if cluster in {"", record.cluster}]
        if not places and (cluster or len(_fleet(snapshot)) <= 1):
            continue
        there = _reached(snapshot, places[0]) if len(places) == 1 else ~everywhere
        if not there.all():
            mask = mask & there
            bound.append((int(there.sum()), name, _words(places, any_node=bool(there.any()))))
    if len(bound) > 1 and not mask.any() and min(bound)[0]:
        words = "; ".join(f"{name}: {words}" for _, name, words in bound)
        volume = ", ".join(name for _, name, _ in bound)
        return Reach(mask=mask, volume=volume, words=f"{words}; no node reaches all of them")
    _, volume, words = min(bound, default=(0, "", ""))
    return Reach(mask=mask, volume=volume, words=words)


def _reached(snapshot: Snapshot, record: VolumeRecord) -> Bools:
    nodes, state = snapshot.nodes, record.state
    if record.removed or state.leaving:
        return np.zeros(nodes.key.size, dtype=np.bool_)
    inside = np.fromiter((name == record.cluster for name in nodes.clusters), np.bool_, nodes.key.size)
    return inside & nodes.reaches.get(state.reach, np.zeros_like(inside)) if state.reach else inside


def _words(places: list[VolumeRecord], *, any_node: bool) -> str:
    match places:
        case []:
            return "it is on record in none of the clusters: name one in `infra` where it is to be made"
        case [one] if one.removed or one.state.leaving:
            return f"the one {one.words} is being removed"
        case [one]:
            return f"it lies {one.words}" if any_node else f"it lies {one.words}, and no node reaches it there"
        case _:
            clusters = ", ".join(one.cluster for one in places)
            return f"there is one of that name in each of {clusters}: name one of them in `infra`"


def _fleet(snapshot: Snapshot) -> set[str]:
    closed = snapshot.closed_clusters
    return {
        name for name in snapshot.nodes.clusters if name not in closed or closed[name].code is not Code.CLUSTER_REMOVED
    }
