"""Nodes: keep new pods off them, drain, quarantine, and let them in again. What is said goes on record; the loops do the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mainstay.decide.nodes import words_of
from mainstay.domain.access import Permission
from mainstay.domain.allocation import Allocation, Wanted
from mainstay.domain.capacity import Closure, Keeping, Node
from mainstay.domain.errors import Conflict, Invalid
from mainstay.domain.plan import (
    Action,
    CordonNode,
    DrainNode,
    NodeAction,
    Plan,
    QuarantineNode,
    ReleaseNode,
    UncordonNode,
)
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.operations.principal import Done, Principal, RequestKey, replayed
from mainstay.ports import Store

REASON_CHARACTERS_MAX = 500
SECONDS_MAX = 366 * 86_400
Reply = Callable[[Node], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A pod of ours on a node, and what becomes of it while the node is drained; empty words if nothing does."""

    allocation: Allocation
    words: str


def cordon(
    store: Store,
    principal: Principal,
    place: tuple[str, str],
    *,
    why: str,
    now: int,
    request: RequestKey | None,
    reply: Reply,
) -> Done:
    """Place nothing new there. `place`: cluster, empty for any, and name. Raises NotFound, Conflict, Invalid."""

    def change(node: Node) -> tuple[Action, Node]:
        reason = _reason(Code.NODE_CORDONED, node, principal, why)
        closure = node.closure or Closure(keeping=Keeping.CORDONED, reason=reason, since=now)
        return CordonNode(cluster=node.cluster, node=node.name, reason=reason), replace(node, closure=closure)

    return _change(store, principal, place, change, now=now, request=request, reply=reply)


def drain(
    store: Store,
    principal: Principal,
    place: tuple[str, str],
    *,
    why: str,
    wait_seconds: int,
    now: int,
    request: RequestKey | None,
    reply: Reply,
) -> Done:
    """Place nothing new there and move away what runs. Raises as `cordon`."""
    _require_bounded("wait", wait_seconds)

    def change(node: Node) -> tuple[Action, Node]:
        reason = _reason(Code.NODE_DRAINED, node, principal, why)
        fresh = Closure(keeping=Keeping.CORDONED, reason=reason, since=now)
        kept = node.closure if node.closure and node.closure.keeping is Keeping.QUARANTINED else fresh
        action = DrainNode(cluster=node.cluster, node=node.name, wait_seconds=wait_seconds, reason=reason)
        return action, replace(node, closure=replace(kept, drains=True, wait_seconds=wait_seconds))

    return _change(store, principal, place, change, now=now, request=request, reply=reply)


def quarantine(
    store: Store,
    principal: Principal,
    place: tuple[str, str],
    *,
    why: str,
    seconds: int,
    now: int,
    request: RequestKey | None,
    reply: Reply,
) -> Done:
    """Keep it out for a suspicion, for so long or (0) until somebody releases it. Raises as `cordon`."""
    _require_bounded("duration", seconds)
    until = now + seconds * MICROSECONDS_PER_SECOND if seconds else 0

    def change(node: Node) -> tuple[Action, Node]:
        reason = _reason(Code.NODE_QUARANTINED, node, principal, why)
        drains = node.closure is not None and node.closure.drains
        closure = Closure(keeping=Keeping.QUARANTINED, reason=reason, since=now, until=until, drains=drains)
        action = QuarantineNode(cluster=node.cluster, node=node.name, until=until, reason=reason)
        return action, replace(node, closure=closure)

    return _change(store, principal, place, change, now=now, request=request, reply=reply)


def uncordon(
    store: Store,
    principal: Principal,
    place: tuple[str, str],
    *,
    now: int,
    request: RequestKey | None,
    reply: Reply,
) -> Done:
    """Let it take work again; what a drain has not stopped yet stays. Raises as `cordon`, Conflict too in quarantine."""

    def change(node: Node) -> tuple[Action, Node]:
        reason = _reason(Code.NODE_UNCORDONED, node, principal, "")
        action = UncordonNode(cluster=node.cluster, node=node.name, reason=reason)
        return action, replace(node, closure=None)

    return _change(store, principal, place, change, now=now, request=request, reply=reply)


def release(
    store: Store,
    principal: Principal,
    place: tuple[str, str],
    *,
    now: int,
    request: RequestKey | None,
    reply: Reply,
) -> Done:
    """End its quarantine. Raises as `cordon`, Conflict too if it is only cordoned."""

    def change(node: Node) -> tuple[Action, Node]:
        reason = _reason(Code.NODE_RELEASED, node, principal, "")
        action = ReleaseNode(cluster=node.cluster, node=node.name, reason=reason)
        return action, replace(node, closure=None)

    return _change(store, principal, place, change, now=now, request=request, reply=reply)


def residents(store: Store, node: Node) -> tuple[Resident, ...]:
    """Pods of ours on a node that have not ended, by key."""
    serving = {one.serving_key for tenant in _tenants(store, node) for one in store.endpoints(tenant=tenant)}
    wanted: Mapping[int, Wanted] = {row.allocation.key: row for row in store.wanted(node.cluster)}
    return tuple(
        Resident(
            allocation=pod,
            words=words_of(wanted[pod.key], node.closure, serves=pod.workload_key in serving)
            if pod.key in wanted
            else "",
        )
        for pod in store.allocations_on(node.key)
    )


def _tenants(store: Store, node: Node) -> list[str]:
    drains = node.closure is not None and node.closure.drains
    return sorted({pod.tenant for pod in store.allocations_on(node.key)}) if drains else []


def _change(
    store: Store,
    principal: Principal,
    place: tuple[str, str],
    change: Callable[[Node], tuple[Action, Node]],
    *,
    now: int,
    request: RequestKey | None,
    reply: Reply,
) -> Done:
    principal.require(Permission.MANAGE)
    if done := replayed(store, principal, request):
        return done
    node = store.node(*place)
    action, changed = change(node)
    text = reply(changed)
    plan = Plan(
        actor=principal.name,
        now=now,
        actions=(action,),
        atomic=True,
        idempotency=request.with_reply(text, principal) if request else None,
    )
    try:
        result = store.commit(plan)
    except Conflict as error:
        assert isinstance(action, NodeAction)
        raise Conflict(error.message, object_=node.name, hint=_way_out(action, node), numbers=error.numbers) from error
    return Done(reply=text if result.reply is None else result.reply, replayed=result.reply is not None)


def _way_out(action: NodeAction, node: Node) -> str:
    verb = "release" if isinstance(action, UncordonNode) else "uncordon"
    return f"mainstay node {verb} {node.name}"


def _reason(code: Code, node: Node, principal: Principal, why: str) -> Reason:
    words = " ".join(why.split())
    if len(words) > REASON_CHARACTERS_MAX:
        msg = f"reason: longer than {REASON_CHARACTERS_MAX} characters"
        raise Invalid(msg, object_="reason", hint="name a ticket that says the rest")
    return Reason(code=code, object=node.name, numbers={"by": principal.name, **({"detail": words} if words else {})})


def _require_bounded(field: str, seconds: int) -> None:
    if not 0 <= seconds <= SECONDS_MAX:
        msg = f"{field}: {seconds} s is out of bounds"
        raise Invalid(msg, object_=field, hint="allowed: up to a year")
