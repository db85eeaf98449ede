"""Local queues: names that namespaces of clusters have for queues; set, list, remove."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from mainstay.domain.access import Permission
from mainstay.domain.errors import Conflict, Invalid, NotFound
from mainstay.domain.plan import Plan, RemoveLocalQueue, SetLocalQueue
from mainstay.domain.queue import LocalQueue, LocalQueueRecord
from mainstay.domain.reason import Code, Reason
from mainstay.operations import infra, queues
from mainstay.operations.principal import Done, Principal, RequestKey, replayed
from mainstay.ports import Store

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")


def put(store: Store, principal: Principal, wanted: Sequence[LocalQueue], *, now: int) -> None:
    """Set them, all or none. Pods that wait keep their queue. Raises Invalid for a name, or a cluster or queue that is not."""
    principal.require(Permission.MANAGE)
    for one in wanted:
        for field, name in (("namespace", one.namespace), ("name", one.name)):
            if not LABEL.match(name):
                msg = f"{field}: {name!r} is not allowed"
                hint = "allowed: lower-case letters, digits and dashes, 1 to 63, a letter or digit first and last"
                raise Invalid(msg, object_=field, hint=hint)
    infra.require_known(store, (one.cluster for one in wanted))
    queues.require_known(store, (one.queue for one in wanted))
    actions = tuple(
        SetLocalQueue(
            local=one,
            reason=Reason(
                code=Code.LOCAL_QUEUE_SET, object=one.words, numbers={"by": principal.name, "queue": one.queue}
            ),
        )
        for one in wanted
    )
    store.commit(Plan(actor=principal.name, now=now, actions=actions, atomic=True))


def remove(
    store: Store,
    principal: Principal,
    *,
    cluster: str,
    namespace: str,
    name: str,
    now: int,
    request: RequestKey | None,
) -> Done:
    """Forget one. Pods that say it from now on wait in the default queue. Raises NotFound."""
    principal.require(Permission.MANAGE)
    if done := replayed(store, principal, request):
        return done
    words = LocalQueue(cluster=cluster, namespace=namespace, name=name, queue="").words
    reason = Reason(code=Code.LOCAL_QUEUE_REMOVED, object=words, numbers={"by": principal.name})
    kept = request.with_reply("", principal) if request else None
    action = RemoveLocalQueue(cluster=cluster, namespace=namespace, name=name, reason=reason)
    try:
        store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True, idempotency=kept))
    except Conflict as error:
        near = get_close_matches(words, [row.local.words for row in store.local_queues()], n=1)
        hint = f"did you mean {near[0]}?" if near else "list them with: mainstay queue local list"
        msg = f"no such local queue: {words}"
        raise NotFound(msg, object_=words, hint=hint) from error
    return Done(reply="", replayed=False)


def records(store: Store, principal: Principal) -> tuple[LocalQueueRecord, ...]:
    """All of them, by namespace and name."""
    principal.require(Permission.MANAGE)
    return store.local_queues()
