"""Volumes that outlive runs: which there are, where each lies and what uses it; have one removed."""

from __future__ import annotations

from difflib import get_close_matches

from mainstay.domain.access import Permission
from mainstay.domain.errors import Conflict, NotFound
from mainstay.domain.plan import Plan, RemoveVolume
from mainstay.domain.reason import Code, Reason
from mainstay.domain.volume import VolumeRecord, VolumeRef
from mainstay.operations.principal import Done, Principal, RequestKey, replayed
from mainstay.ports import Store


def volumes(store: Store, principal: Principal) -> list[VolumeRecord]:
    """Those that the caller may look at, by cluster, project and name."""
    principal.require_somewhere(Permission.READ)
    everything = store.volumes(tenant=principal.tenant)
    return [one for one in everything if principal.may(Permission.READ, one.state.owner.project)]


def volume(store: Store, principal: Principal, name: str, *, project: str, cluster: str) -> VolumeRecord:
    """One by its name; an empty `project` or `cluster` is any. Raises NotFound, and Conflict if several have it."""
    everything = volumes(store, principal)
    found = [
        one
        for one in everything
        if one.state.name == name and project in {"", one.state.owner.project} and cluster in {"", one.cluster}
    ]
    if not found:
        near = get_close_matches(name, {one.state.name for one in everything}, n=1)
        hint = f"did you mean {near[0]}?" if near and near[0] != name else "list them with: mainstay volume list"
        msg = f"no such volume: {name}"
        raise NotFound(msg, object_=name, hint=hint)
    if len(found) > 1:
        places = ", ".join(f"{one.cluster} (project {one.state.owner.project})" for one in found)
        msg = f"several volumes are called {name}: in {places}"
        raise Conflict(msg, object_=name, hint="say which with the cluster, and the project")
    return found[0]


def remove(
    store: Store,
    principal: Principal,
    name: str,
    *,
    project: str,
    cluster: str,
    now: int,
    request: RequestKey | None,
) -> Done:
    """Have its cluster delete a volume with all that is in it. Raises NotFound, and Conflict while something uses it."""
    principal.require_somewhere(Permission.VOLUMES)
    if done := replayed(store, principal, request):
        return done
    found = volume(store, principal, name, project=project, cluster=cluster)
    principal.require(Permission.VOLUMES, found.state.owner.project)
    numbers: dict[str, int | float | str] = {"by": principal.name, "cluster": found.cluster}
    action = RemoveVolume(
        cluster=found.cluster,
        volume=VolumeRef(owner=found.state.owner, name=name),
        reason=Reason(code=Code.VOLUME_REMOVED, object=name, numbers=numbers),
    )
    kept = request.with_reply("", principal) if request else None
    try:
        store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True, idempotency=kept))
    except Conflict as error:
        if "users" not in error.numbers:
            msg = f"no such volume: {name}"
            raise NotFound(msg, object_=name, hint="list them with: mainstay volume list") from error
        hint = "wait until they have ended, or stop them"
        raise Conflict(error.message, object_=name, hint=hint, numbers=error.numbers) from error
    return Done(reply="", replayed=False)
