"""Clusters of the fleet: try the credentials, seal them, put the cluster on record; drain, resume and remove it.

Nothing here waits for the cluster to be looked after: the loops follow the record.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from mainstay.domain.access import Permission
from mainstay.domain.errors import Conflict, Denied, Invalid, Unavailable
from mainstay.domain.fleet import (
    MACHINE,
    ClusterFacts,
    ClusterKind,
    ClusterRecord,
    ClusterSettings,
    Contact,
    Credentials,
    NewCluster,
    Stay,
    not_called,
)
from mainstay.domain.plan import Action, AddCluster, DrainCluster, Plan, RemoveCluster, ResumeCluster
from mainstay.domain.quantity import counted
from mainstay.domain.reason import Code, Reason
from mainstay.operations.principal import Done, Principal, RequestKey, replayed
from mainstay.operations.services import Services
from mainstay.ports import Connector, Store

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
NAMESPACES_MAX = 100
RUNS_NAMED = 5
CHECK_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterWish:
    """A cluster to be added, and what lets us into it."""

    name: str
    kind: ClusterKind
    settings: ClusterSettings
    credentials: Credentials


Reply = Callable[[ClusterRecord, ClusterFacts], str]


async def add(
    services: Services, principal: Principal, wish: ClusterWish, *, request: RequestKey | None, reply: Reply
) -> Done:
    """Try the credentials, then put the cluster on record; one that is there takes the new settings and credentials.

    Raises Invalid, Denied if permissions are missing, Unavailable if the cluster does not answer, Conflict if the
    fleet has it under another name.
    """
    principal.require(Permission.MANAGE)
    if done := await services.offload(replayed, services.store, principal, request):
        return done
    _check(wish)
    before = await services.offload(_on_record, services.store, wish.name)
    if wish.kind is ClusterKind.AGENT:
        new, facts = _out_of_reach(wish, before)
    else:
        new, facts = await _tried(services, wish)
    code = Code.CLUSTER_CHANGED if before else Code.CLUSTER_ADDED
    reason = Reason(code=code, object=new.name, numbers={"by": principal.name})
    now = services.clock.now()
    text = reply(_as_added(new, reason, principal, before=before, now=now), facts)
    action = AddCluster(cluster=new, reason=reason)
    return await services.offload(_commit, services.store, principal, action, now=now, request=request, text=text)


async def _tried(services: Services, wish: ClusterWish) -> tuple[NewCluster, ClusterFacts]:
    """Raises Invalid, Denied, Unavailable."""
    connector = services.connectors.get(wish.kind)
    if connector is None:
        msg = f"kind: this platform has no way into a cluster of the kind {wish.kind.value}"
        raise Invalid(msg, object_="kind", hint=f"it has one for: {', '.join(services.connectors) or 'none'}")
    facts = await _checked(connector, wish)
    new = NewCluster(
        name=wish.name,
        kind=wish.kind,
        settings=replace(wish.settings, server=facts.server or wish.settings.server),
        sealed=services.sealing.sealed(wish.name, connector.kept(wish.settings, wish.credentials)),
        identity=facts.identity,
    )
    return new, facts


def _out_of_reach(wish: ClusterWish, before: ClusterRecord | None) -> tuple[NewCluster, ClusterFacts]:
    """Its agent tries it. What is known of one that is there already stays: its token, and what the agent found."""
    settings, identity = wish.settings, ""
    if before is not None and before.kind is wish.kind:
        identity = before.identity
        settings = replace(settings, agent_token=before.settings.agent_token, server=before.settings.server)
    new = NewCluster(name=wish.name, kind=wish.kind, settings=settings, identity=identity)
    return new, ClusterFacts(identity=identity)


def drain(
    store: Store,
    principal: Principal,
    name: str,
    *,
    now: int,
    request: RequestKey | None,
    reply: Callable[[ClusterRecord], str],
) -> Done:
    """Place nothing new there. Raises NotFound."""
    reason = Reason(code=Code.CLUSTER_DRAINED, object=name, numbers={"by": principal.name})
    action = DrainCluster(cluster=name, reason=reason)
    return _want(store, principal, name, action, Stay.DRAINING, now=now, request=request, reply=reply)


def resume(
    store: Store,
    principal: Principal,
    name: str,
    *,
    now: int,
    request: RequestKey | None,
    reply: Callable[[ClusterRecord], str],
) -> Done:
    """Let it take work again. Raises NotFound."""
    reason = Reason(code=Code.CLUSTER_RESUMED, object=name, numbers={"by": principal.name})
    action = ResumeCluster(cluster=name, reason=reason)
    return _want(store, principal, name, action, Stay.KEPT, now=now, request=request, reply=reply)


def remove(store: Store, principal: Principal, name: str, *, lost: bool, now: int, request: RequestKey | None) -> Done:
    """Take a cluster out of the fleet. Raises NotFound, and Conflict, with what to do, while it holds pods."""
    principal.require(Permission.MANAGE)
    if done := replayed(store, principal, request):
        return done
    cluster = store.cluster(name)
    reason = Reason(code=Code.CLUSTER_REMOVED, object=name, numbers={"by": principal.name})
    try:
        return _commit(
            store, principal, RemoveCluster(cluster=name, lost=lost, reason=reason), now=now, request=request, text=""
        )
    except Conflict as error:
        msg = f"{error.message}: {_runs_there(store, name)}"
        raise Conflict(msg, object_=name, hint=_how_to_remove(cluster, lost=lost), numbers=error.numbers) from error


def _check(wish: ClusterWish) -> None:
    if not NAME.match(wish.name):
        allowed = "lower-case letters, digits and dashes, 1 to 40, a letter or digit first and last"
        _refuse("name", wish.name, f"allowed: {allowed}")
    if MACHINE.match(wish.name):
        _refuse("name", wish.name, "the machines that platforms bring along are called so; choose another name")
    settings = wish.settings
    if not 1 <= settings.namespaces_per_project <= NAMESPACES_MAX:
        _refuse("namespaces_per_project", str(settings.namespaces_per_project), f"allowed: 1 to {NAMESPACES_MAX}")
    if wish.kind is ClusterKind.AGENT and (wish.credentials.kubeconfig or settings.in_cluster or settings.context):
        _refuse("agent", "true", "the agent is given the way into its cluster where it is started; give none here")
    if wish.kind is ClusterKind.KUBERNETES:
        ways = bool(wish.credentials.kubeconfig), settings.in_cluster, bool(settings.context)
        if not any(ways):
            msg = "no way into the cluster is given"
            raise Invalid(
                msg, object_="kubeconfig", hint="give a kubeconfig, or a context of the platform's own, or in_cluster"
            )
        if settings.in_cluster and (ways[0] or ways[2]):
            _refuse("in_cluster", "true", "it needs no kubeconfig and no context; give one of them")


def _refuse(field: str, given: str, hint: str) -> None:
    msg = f"{field}: {given!r} is not allowed"
    raise Invalid(msg, object_=field, hint=hint)


def _want(
    store: Store,
    principal: Principal,
    name: str,
    action: Action,
    stay: Stay,
    *,
    now: int,
    request: RequestKey | None,
    reply: Callable[[ClusterRecord], str],
) -> Done:
    principal.require(Permission.MANAGE)
    if done := replayed(store, principal, request):
        return done
    cluster = store.cluster(name)
    changed = cluster if cluster.wanted is stay else replace(cluster, wanted=stay, wanted_reason=action.reason)
    return _commit(store, principal, action, now=now, request=request, text=reply(changed))


def _commit(
    store: Store, principal: Principal, action: Action, *, now: int, request: RequestKey | None, text: str
) -> Done:
    plan = Plan(
        actor=principal.name,
        now=now,
        actions=(action,),
        atomic=True,
        idempotency=request.with_reply(text, principal) if request else None,
    )
    result = store.commit(plan)
    return Done(reply=text if result.reply is None else result.reply, replayed=result.reply is not None)


async def _checked(connector: Connector, wish: ClusterWish) -> ClusterFacts:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            facts = await connector.check(wish.settings, wish.credentials)
    except TimeoutError as error:
        msg = f"the cluster did not answer within {CHECK_SECONDS:g} s"
        raise Unavailable(msg, object_=wish.name, hint="is it reachable from the platform?") from error
    if facts.missing:
        msg = f"the credentials do not allow what is needed: {'; '.join(facts.missing)}"
        hint = "give them the role of docs/how-to/add-a-cluster.md, then add it again"
        raise Denied(msg, object_=wish.name, hint=hint)
    return facts


def _on_record(store: Store, name: str) -> ClusterRecord | None:
    """The cluster of the fleet that has this name now."""
    return next((row for row in store.clusters() if row.name == name and row.wanted is not Stay.REMOVED), None)


def _as_added(
    new: NewCluster, reason: Reason, principal: Principal, *, before: ClusterRecord | None, now: int
) -> ClusterRecord:
    """The record as it will stand; `version` is not known yet and 0. What was there `before` stays where it was."""
    seen, seen_reason = Contact.READY, Reason(code=Code.CLUSTER_READY, object=new.name)
    if new.kind is ClusterKind.AGENT:
        seen, seen_reason = Contact.UNREACHABLE, not_called(new.name)
    fresh = ClusterRecord(
        name=new.name,
        kind=new.kind,
        settings=new.settings,
        sealed=new.sealed,
        identity=new.identity,
        wanted=Stay.KEPT,
        wanted_reason=reason,
        seen=seen,
        seen_reason=seen_reason,
        observed_at=0,
        added_at=now,
        added_by=principal.name,
        version=0,
    )
    if before is None:
        return fresh
    if new.kind is ClusterKind.AGENT:
        fresh = replace(fresh, seen=before.seen, seen_reason=before.seen_reason)
    return replace(
        fresh,
        wanted=before.wanted,
        wanted_reason=before.wanted_reason,
        added_at=before.added_at,
        added_by=before.added_by,
    )


def _runs_there(store: Store, cluster: str) -> str:
    """Whose pods stand in the way: how many runs, and the first few by name."""
    runs = list(dict.fromkeys(row.allocation.workload for row in store.wanted(cluster)))
    more = f" and {len(runs) - RUNS_NAMED} more" if len(runs) > RUNS_NAMED else ""
    return f"{counted(len(runs), 'run')}, {', '.join(runs[:RUNS_NAMED])}{more}"


def _how_to_remove(cluster: ClusterRecord, *, lost: bool) -> str:
    if cluster.wanted is not Stay.DRAINING:
        return f"first let nothing new start there: mainstay cluster drain {cluster.name}"
    if cluster.kind is ClusterKind.LOCAL or lost:
        return "wait until they have ended, or stop them: mainstay ps"
    return (
        f"wait until they have ended; if its machines are off for good: mainstay cluster remove {cluster.name} --lost"
    )
