"""Change the turn of a workload: hold it, release it, give it another priority."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mainstay.domain.access import Permission
from mainstay.domain.errors import Conflict, Invalid
from mainstay.domain.plan import Action, HoldWorkload, Plan, ReleaseWorkload, Reprioritize
from mainstay.domain.queue import PRIORITY_MAX
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import WAITING, Phase, Workload
from mainstay.operations import priorities
from mainstay.operations.principal import Done, Principal, RequestKey, replayed, workload_for
from mainstay.ports import Store

Reply = Callable[[Workload], str]


def hold(
    store: Store, principal: Principal, reference: str, *, now: int, request: RequestKey | None, reply: Reply
) -> Done:
    """Let a workload wait until it is released. Raises NotFound, and Conflict for one that has a place or is over."""
    principal.require_somewhere(Permission.SUBMIT)
    if done := replayed(store, principal, request):
        return done
    workload = workload_for(store, principal, reference, Permission.SUBMIT)
    reason = Reason(code=Code.HELD, object=workload.id, numbers={"by": principal.name})
    action = HoldWorkload(workload_key=workload.key, reason=reason)
    held = workload if workload.held else replace(workload, held=True, reason=reason)
    hint = "only what waits can be held; to end it: mainstay stop " + workload.id
    return _commit(store, principal, action, reply(held), now=now, request=request, hint=hint)


def release(
    store: Store, principal: Principal, reference: str, *, now: int, request: RequestKey | None, reply: Reply
) -> Done:
    """Let a workload that was held have its turn. Nothing happens to one that was not. Raises NotFound."""
    principal.require_somewhere(Permission.SUBMIT)
    if done := replayed(store, principal, request):
        return done
    workload = workload_for(store, principal, reference, Permission.SUBMIT)
    reason = Reason(code=Code.RELEASED, object=workload.id, numbers={"by": principal.name})
    action = ReleaseWorkload(workload_key=workload.key, reason=reason)
    free = replace(workload, held=False)
    if workload.held and workload.phase in WAITING:
        free = replace(free, phase=Phase.PENDING, reason=reason)
    return _commit(store, principal, action, reply(free), now=now, request=request)


def reprioritize(
    store: Store,
    principal: Principal,
    reference: str,
    priority: int | str,
    *,
    now: int,
    request: RequestKey | None,
    reply: Reply,
) -> Done:
    """Give a workload another priority, as a number or a class; it keeps its age. Raises NotFound, Invalid, and Conflict
    for one that is over.
    """
    principal.require_somewhere(Permission.SUBMIT)
    if done := replayed(store, principal, request):
        return done
    wanted = priorities.resolved(store, priority)
    if not 0 <= wanted.priority <= PRIORITY_MAX:
        msg = f"priority: {wanted.priority} is not allowed"
        raise Invalid(msg, object_="priority", hint=f"allowed: 0 to {PRIORITY_MAX}")
    workload = workload_for(store, principal, reference, Permission.SUBMIT)
    numbers: dict[str, int | float | str] = {
        "by": principal.name,
        "priority": wanted.priority,
        "before": workload.priority,
    }
    action = Reprioritize(
        workload_key=workload.key,
        priority=wanted.priority,
        preemptible=wanted.preemptible,
        reason=Reason(code=Code.REPRIORITIZED, object=workload.id, numbers=numbers),
    )
    changed = replace(workload, priority=wanted.priority, preemptible=wanted.preemptible)
    return _commit(store, principal, action, reply(changed), now=now, request=request, hint="it is over")


def _commit(
    store: Store,
    principal: Principal,
    action: Action,
    text: str,
    *,
    now: int,
    request: RequestKey | None,
    hint: str = "",
) -> Done:
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
        raise Conflict(error.message, object_=error.object, hint=hint, numbers=error.numbers) from error
    return Done(reply=text if result.reply is None else result.reply, replayed=result.reply is not None)
