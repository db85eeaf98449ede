"""The members of the fleet: add, drain, resume, remove, and whether they answer. Names are unique for ever.

The row of a removed cluster stays, so that its history can be read and its epochs go on; its name may be used again.
"""

from __future__ import annotations

from mainstay.domain.fleet import ClusterKind, Contact, NewCluster, Stay
from mainstay.domain.plan import (
    AddCluster,
    DrainCluster,
    IdentifyCluster,
    ObserveCluster,
    RemoveCluster,
    ResumeCluster,
    UseCredentials,
)
from mainstay.domain.reason import Reason
from mainstay.store import codec, codec_fleet, guards
from mainstay.store.rows import ClusterRow
from mainstay.store.world import World


def add_cluster(world: World, action: AddCluster) -> Reason | None:
    """A new cluster, a removed one that comes back, or new settings of one that is there."""
    new, row = action.cluster, world.clusters.get(action.cluster.name)
    refusal = guards.cluster_may_join(world, new)
    if refusal:
        return refusal
    fresh = codec_fleet.new_cluster_row(new, action.reason, actor=world.actor, now=world.now, version=world.version)
    if row is None:
        world.add_cluster(fresh)
    elif row["wanted"] == Stay.REMOVED:
        row.update(fresh)
        world.touch_cluster(row)
    elif _differs(row, fresh, new):
        row.update(_kept_in_place(row, fresh))
        world.touch_cluster(row)
    else:
        return None
    world.log("cluster", new.name, action.reason)
    return None


def use_credentials(world: World, action: UseCredentials) -> Reason | None:
    """An audit row alone: for users nothing has happened."""
    row = world.clusters.get(action.cluster)
    if row is None or not row["sealed"]:
        return guards.no_such_cluster(action.cluster)
    world.record("use_credentials", action.cluster, action.reason, tenant="")
    return None


def drain_cluster(world: World, action: DrainCluster) -> Reason | None:
    """Twice is once."""
    return _want(world, action.cluster, Stay.DRAINING, action.reason)


def resume_cluster(world: World, action: ResumeCluster) -> Reason | None:
    """Nothing happens to one that was not drained."""
    return _want(world, action.cluster, Stay.KEPT, action.reason)


def remove_cluster(world: World, action: RemoveCluster) -> Reason | None:
    """Its nodes have nothing to offer any more, and its credentials are forgotten."""
    refusal = guards.cluster_may_leave(world, action)
    if refusal:
        return refusal
    world.clusters[action.cluster]["sealed"] = ""
    for node in world.cluster_nodes(action.cluster):
        node["ready"] = node["barred"] = node["cpu_milli"] = node["memory_bytes"] = node["gpus"] = 0
        node["shapes"] = node["admits"] = ""
        world.touch_node(node)
    for key in [key for key in world.volumes if key[0] == action.cluster]:
        world.drop_volume(key)
    return _want(world, action.cluster, Stay.REMOVED, action.reason)


def observe_cluster(world: World, action: ObserveCluster) -> Reason | None:
    """What is said again is not written again."""
    row = world.clusters.get(action.cluster)
    if row is None or row["wanted"] == Stay.REMOVED:
        return guards.no_such_cluster(action.cluster)
    reason = codec.reason_text(action.reason)
    if (row["seen"], row["seen_reason"]) == (action.seen.value, reason):
        return None
    if action.seen is Contact.READY and row["seen"] == Contact.READY:
        return None
    row["seen"], row["seen_reason"] = action.seen.value, reason
    world.touch_cluster(row)
    world.log("cluster", action.cluster, action.reason)
    return None


def identify_cluster(world: World, action: IdentifyCluster) -> Reason | None:
    """One that is found for the first time counts as ready: its agent has tried it, as we try one that we reach."""
    refusal = guards.cluster_may_be(world, action)
    if refusal:
        return refusal
    row = world.clusters[action.cluster]
    fresh = codec_fleet.identified(row, action, action.reason)
    if fresh != row:
        row.update(fresh)
        world.touch_cluster(row)
        world.log("cluster", action.cluster, action.reason)
    return None


def _want(world: World, name: str, stay: Stay, reason: Reason) -> Reason | None:
    row = world.clusters.get(name)
    if row is None or row["wanted"] == Stay.REMOVED:
        return guards.no_such_cluster(name)
    if row["wanted"] != stay:
        row["wanted"], row["wanted_reason"] = stay.value, codec.reason_text(reason)
        world.touch_cluster(row)
        world.log("cluster", name, reason)
    return None


def _differs(row: ClusterRow, fresh: ClusterRow, new: NewCluster) -> bool:
    """Sealing the same credentials twice gives two texts, so new ones always count as a change."""
    return bool(new.sealed) or row["settings"] != fresh["settings"] or row["sealed"] != ""


def _kept_in_place(row: ClusterRow, fresh: ClusterRow) -> ClusterRow:
    """The fresh row without what does not begin anew: since when it is there, and whether it is being drained."""
    names = ["observed_at", "wanted", "wanted_reason", "added_at", "added_by"]
    if row["kind"] == ClusterKind.AGENT:
        # Nothing was tried: what is known of it is what its agent found last.
        names += ["seen", "seen_reason"]
    kept = {name: value for name, value in row.items() if name in names}
    return {**fresh, **kept}  # type: ignore[typeddict-item]
