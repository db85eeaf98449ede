"""Volumes: what clusters report of them, and which of them somebody wants gone."""

from __future__ import annotations

from mainstay.domain.plan import ObserveVolumes, RemoveVolume
from mainstay.domain.reason import Code, Reason
from mainstay.store import codec_fleet, guards
from mainstay.store.rows import VolumeRow
from mainstay.store.world import VolumeKey, World

USERS_SHOWN = 3


def observe_volumes(world: World, action: ObserveVolumes) -> Reason | None:
    """New ones are added, changed ones written, and those that are no longer reported go, with the wish that they would."""
    if world.has_left(action.cluster):
        return guards.no_such_cluster(action.cluster)
    reported: dict[VolumeKey, VolumeRow] = {}
    for state in action.volumes:
        row = codec_fleet.volume_row(action.cluster, state)
        reported[_key(row)] = row
    for key in [key for key in world.volumes if key[0] == action.cluster and key not in reported]:
        world.drop_volume(key)
        gone = Reason(code=Code.VOLUME_GONE, object=key[3], numbers={"cluster": action.cluster})
        world.log("volume", key[3], gone, tenant=key[1])
    for key, row in reported.items():
        known = world.volumes.get(key)
        if known is None:
            numbers = {"where": codec_fleet.volume_of(row).words}
            found = Reason(code=Code.VOLUME_FOUND, object=row["name"], numbers=numbers)
            world.log("volume", row["name"], found, tenant=row["tenant"])
        else:
            row["removed"] = known["removed"]
        if row != known:
            world.put_volume(key, row)
    return None


def remove_volume(world: World, action: RemoveVolume) -> Reason | None:
    """The only line that keeps a volume from whoever uses it: what names it later is not placed any more."""
    owner, name = action.volume.owner, action.volume.name
    key = (action.cluster, owner.tenant, owner.project, name)
    row = world.volumes.get(key)
    if row is None:
        return Reason(code=Code.NO_SUCH_VOLUME, object=name)
    if users := world.volume_users.get(key):
        shown = ", ".join(users[:USERS_SHOWN])
        more = f" and {len(users) - USERS_SHOWN} more" if len(users) > USERS_SHOWN else ""
        return Reason(code=Code.VOLUME_IN_USE, object=name, numbers={"users": shown + more})
    if not row["removed"]:
        world.put_volume(key, {**row, "removed": 1})
        world.log("volume", name, action.reason, tenant=owner.tenant)
    return None


def _key(row: VolumeRow) -> VolumeKey:
    return row["cluster"], row["tenant"], row["project"], row["name"]
