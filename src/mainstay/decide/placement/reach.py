"""Where the volumes of a workload let it run: on nodes of the one cluster where each lies, and that reach it.

A volume that may be used on one node at a time (ReadWriteOnce) binds all its users to the node where one of them is; one for a
single pod (ReadWriteOncePod) lets nobody in while it has a user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools
from mainstay.domain.reason import Code
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.volume import Sharing, VolumeNeed, VolumeRecord, VolumeRef


@dataclass(frozen=True, slots=True)
class Users:
    """Who uses volumes: (node row, id of the run or an empty word) of each pod, the newest last. Row -1: a node that is gone."""

    of: dict[VolumeRef, list[tuple[int, str]]]

    def add(self, need: VolumeNeed, node: int, *, run: str = "") -> None:
        """A pod on this node uses all of these."""
        for name in need.names:
            self.of.setdefault(VolumeRef(owner=need.owner, name=name), []).append((node, run))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Which nodes reach all volumes of a need, ready or not; and what keeps the others from it."""

    mask: Bools
    volume: str = ""
    """The one that leaves the fewest nodes; empty if all of them lie everywhere."""
    words: str = ""
    """Where that one lies, or why it lies nowhere."""
    sharing: Sharing = Sharing.ANY
    """The narrowest of all: who is placed with it binds whoever comes after."""


def reach_of(snapshot: Snapshot, need: VolumeNeed, *, cluster: str, pods: int = 1, users: Users | None = None) -> Reach:
    """Of a workload of so many pods. `cluster`: the only one that will do besides; empty: any. `users`: where a cycle has added
    some to those that the snapshot knows.

    A volume that is on record nowhere is made, or refused by its name, in the cluster that was named, or the only one there is.
    """
    everywhere = np.ones(snapshot.nodes.key.size, dtype=np.bool_)
    mask = everywhere
    bound: list[tuple[int, str, str]] = []
    sharing = Sharing.ANY
    for name in need.names:
        ref = VolumeRef(owner=need.owner, name=name)
        found = snapshot.volumes.get(ref, ())
        places = [record for record in found if cluster in {"", record.cluster}]
        if not places and (cluster or len(_fleet(snapshot)) <= 1):
            continue
        there = _reached(snapshot, places[0]) if len(places) == 1 else ~everywhere
        words = _words(places, any_node=bool(there.any()))
        if len(places) == 1 and there.any() and places[0].state.sharing is not Sharing.ANY:
            sharing = max(sharing, places[0].state.sharing)
            users = users if users is not None else users_of(snapshot)
            there, shared = _shared(snapshot, there, places[0].state.sharing, users.of.get(ref, []), pods=pods)
            words += shared
        if not there.all() or (pods > 1 and sharing is not Sharing.ANY):
            mask = mask & there
            bound.append((int(there.sum()), name, words))
    if len(bound) > 1 and not mask.any() and min(bound)[0]:
        words = "; ".join(f"{name}: {words}" for _, name, words in bound)
        volume = ", ".join(name for _, name, _ in bound)
        return Reach(mask=mask, volume=volume, words=f"{words}; no node reaches all of them", sharing=sharing)
    _, volume, words = min(bound, default=(0, "", ""))
    return Reach(mask=mask, volume=volume, words=words, sharing=sharing)


def _shared(
    snapshot: Snapshot, there: Bools, sharing: Sharing, users: list[tuple[int, str]], *, pods: int
) -> tuple[Bools, str]:
    """Of the nodes that reach a volume those where it may be used now, and why in words."""
    runs = ", ".join(sorted({run for _, run in users} - {""}))
    if sharing is Sharing.POD and (pods > 1 or users):
        why = f"run {runs} does" if runs else "another one does" if users else f"{pods} are asked for"
        return np.zeros_like(there), f", one pod at a time may use it (ReadWriteOncePod), and {why}"
    if not users:
        return there, ", and all pods that use it must be on one node (ReadWriteOnce)" if pods > 1 else ""
    rows = [row for row in dict.fromkeys(row for row, _ in users) if row >= 0]
    only = np.zeros_like(there)
    only[rows] = True
    names = ", ".join(snapshot.nodes.names[row] for row in rows) or "that is gone"
    by = f" by run {runs}" if runs else ""
    return there & only, f", in use on node {names}{by}, and others may use it only there (ReadWriteOnce)"


def users_of(snapshot: Snapshot) -> Users:
    """Of each volume the pods that use it and have not ended. O(allocations).

    For whom a place is kept uses them already (`nomination.reserved`), and no run of it is on record as an owner.
    """
    held, table, users = snapshot.allocations, snapshot.workloads, Users({})
    if len(snapshot.volume_needs) == 1 or not table.key.size:
        return users
    works = np.minimum(np.searchsorted(table.key, held.workload_key), table.key.size - 1)
    using = (held.seen != Seen.ENDED) & (table.key[works] == held.workload_key) & (table.volumes[works] > 0)
    keys, wanted = snapshot.nodes.key, held.node_key[using]
    nodes = np.searchsorted(keys, wanted)
    nodes = np.where(np.isin(wanted, keys), nodes, -1)
    for node, work in zip(nodes.tolist(), works[using].tolist(), strict=True):
        need = snapshot.volume_needs[int(table.volumes[work])]
        assert need is not None
        _, _, run = snapshot.owners.get(int(table.key[work]), ("", "", ""))
        users.add(need, node, run=run)
    return users


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
