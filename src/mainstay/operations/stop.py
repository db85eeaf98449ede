"""Stop: say that a workload is no longer wanted. The loops do the rest."""

from __future__ import annotations

from collections.abc import Callable

from mainstay.domain.access import Permission
from mainstay.domain.plan import Plan, RequestStop
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import Workload
from mainstay.operations.principal import Done, Principal, RequestKey, replayed, workload_for
from mainstay.ports import Store


def stop(
    store: Store,
    principal: Principal,
    reference: str,
    *,
    now: int,
    request: RequestKey | None,
    reply: Callable[[Workload], str],
) -> Done:
    """Ask for the end of a workload, by id or newest of a name. Raises NotFound. A final one stays as it is."""
    principal.require_somewhere(Permission.STOP)
    if done := replayed(store, principal, request):
        return done
    workload = workload_for(store, principal, reference, Permission.STOP)
    text = reply(workload)
    if workload.phase.final:
        return Done(reply=text, replayed=False)
    action = RequestStop(
        workload_key=workload.key,
        reason=Reason(code=Code.STOP_REQUESTED, object=workload.id, numbers={"by": principal.name}),
    )
    plan = Plan(
        actor=principal.name,
        now=now,
        actions=(action,),
        atomic=True,
        idempotency=request.with_reply(text, principal) if request else None,
    )
    result = store.commit(plan)
    return Done(reply=text if result.reply is None else result.reply, replayed=result.reply is not None)
