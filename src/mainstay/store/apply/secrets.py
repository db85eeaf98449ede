"""Set, remove: secrets of tenants. Their events and audit rows name them and never show a value."""

from __future__ import annotations

from mainstay.domain.plan import RemoveSecret, Reseal, SetSecret
from mainstay.domain.reason import Code, Reason
from mainstay.store import codec
from mainstay.store.rows import SecretRow
from mainstay.store.world import World


def set_secret(world: World, action: SetSecret) -> Reason | None:
    """A new one, or a new value: sealing the same value twice gives two texts, so it always counts as a change."""
    key = (action.tenant, action.name)
    row = SecretRow(
        tenant=action.tenant,
        name=action.name,
        sealed=action.sealed,
        set_at=world.now,
        set_by=codec.storable(world.actor),
    )
    world.put_secret(key, row)
    world.log("secret", action.name, action.reason, tenant=action.tenant)
    return None


def remove_secret(world: World, action: RemoveSecret) -> Reason | None:
    """Whoever was handed it has it still; nobody is handed it from now on."""
    key = (action.tenant, action.name)
    if key not in world.secrets:
        return Reason(code=Code.NO_SUCH_SECRET, object=action.name)
    world.drop_secret(key)
    world.log("secret", action.name, action.reason, tenant=action.tenant)
    return None


def reseal(world: World, action: Reseal) -> Reason | None:
    """Compare and set: a value that somebody has set meanwhile is left alone. Who set it when stays as it was."""
    tenant, name = action.before.place
    if tenant:
        row = world.secrets.get((tenant, name))
        if row is None or row["sealed"] != action.before.text:
            return Reason(code=Code.SEALED_ANEW, object=name)
        world.put_secret((tenant, name), {**row, "sealed": action.sealed})
        world.log("secret", name, action.reason, tenant=tenant)
        return None
    cluster = world.clusters.get(name)
    if cluster is None or cluster["sealed"] != action.before.text:
        return Reason(code=Code.SEALED_ANEW, object=name)
    cluster["sealed"] = action.sealed
    world.touch_cluster(cluster)
    world.log("cluster", name, action.reason)
    return None
