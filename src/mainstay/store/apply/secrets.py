"""Set, remove, hand out: secrets of tenants. Their events and audit rows name them and never show a value."""

from __future__ import annotations

from mainstay.domain.plan import HandSecrets, RemoveSecret, Reseal, SetSecret
from mainstay.domain.reason import Code, Reason
from mainstay.store import codec
from mainstay.store.apply.pods import on_record
from mainstay.store.rows import EarlierSecretRow, HandedSecretRow, SecretRow
from mainstay.store.world import World


def set_secret(world: World, action: SetSecret) -> Reason | None:
    """A new one, or a new value: sealing the same value twice gives two texts, so it always counts as a change."""
    key = (action.tenant, action.name)
    _keep(world, key)
    row = SecretRow(
        tenant=action.tenant,
        name=action.name,
        sealed=action.sealed,
        set_at=world.now,
        set_by=codec.storable(world.actor),
        version=world.version,
    )
    world.put_secret(key, row)
    world.log("secret", action.name, action.reason, tenant=action.tenant)
    return None


def remove_secret(world: World, action: RemoveSecret) -> Reason | None:
    """Whoever was handed it has it still; nobody is handed it from now on."""
    key = (action.tenant, action.name)
    if key not in world.secrets:
        return Reason(code=Code.NO_SUCH_SECRET, object=action.name)
    _keep(world, key)
    world.drop_secret(key)
    world.log("secret", action.name, action.reason, tenant=action.tenant)
    return None


def hand_secrets(world: World, action: HandSecrets) -> Reason | None:
    """Compare: only what is the value of now is handed out, so that no value is which was let go of meanwhile."""
    for tenant, name, version in action.versions:
        row = world.secrets.get((tenant, name))
        if row is None:
            return Reason(code=Code.NO_SUCH_SECRET, object=name)
        if row["version"] != version:
            return Reason(code=Code.SECRET_CHANGED, object=name)
    if refusal := on_record(world, action):
        return refusal
    for tenant, name, version in action.versions:
        key = action.allocation_key
        world.put_handed_secret(HandedSecretRow(allocation_key=key, tenant=tenant, name=name, version=version))
    return None


def _keep(world: World, key: tuple[str, str]) -> None:
    """What a pod was handed it may print, so it is masked there until that pod is closed (`store.write`)."""
    row = world.secrets.get(key)
    if row is not None and (*key, row["version"]) in world.handed_out:
        tenant, name = key
        kept = EarlierSecretRow(tenant=tenant, name=name, version=row["version"], sealed=row["sealed"])
        world.put_earlier_secret(kept)


def reseal(world: World, action: Reseal) -> Reason | None:
    """Compare and set: a value that somebody has set meanwhile is left alone. Who set it when stays as it was."""
    tenant, name, _ = action.before.place
    if tenant:
        row, earlier = world.secrets.get((tenant, name)), world.earlier_secrets.get(action.before.place)
        if row is not None and row["sealed"] == action.before.text:
            world.put_secret((tenant, name), {**row, "sealed": action.sealed})
        elif earlier is not None and earlier["sealed"] == action.before.text:
            world.put_earlier_secret({**earlier, "sealed": action.sealed})
        else:
            return Reason(code=Code.SEALED_ANEW, object=name)
        world.log("secret", name, action.reason, tenant=tenant)
        return None
    cluster = world.clusters.get(name)
    if cluster is None or cluster["sealed"] != action.before.text:
        return Reason(code=Code.SEALED_ANEW, object=name)
    cluster["sealed"] = action.sealed
    world.touch_cluster(cluster)
    world.log("cluster", name, action.reason)
    return None
