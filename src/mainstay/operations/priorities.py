"""Names for priorities: set, list, remove; and the number behind a name that a job gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from mainstay.domain.access import Permission
from mainstay.domain.errors import Conflict, Invalid, NotFound
from mainstay.domain.plan import Plan, RemovePriorityClass, SetPriorityClass
from mainstay.domain.queue import BUILT_IN_PRIORITIES, PRIORITY_MAX, PriorityClass
from mainstay.domain.reason import Code, Reason
from mainstay.operations.principal import Done, Principal, RequestKey, replayed
from mainstay.ports import Store

CLASS_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
CLASSES_MAX = 200


def put(store: Store, principal: Principal, wanted: tuple[PriorityClass, ...], *, now: int) -> None:
    """Give priorities names, all or none. Workloads keep the number that they were submitted with. Raises Invalid."""
    principal.require(Permission.MANAGE)
    for one in wanted:
        _check(one)
    known = {row.name for row in store.priority_classes()} | {one.name for one in wanted}
    if len(known) > CLASSES_MAX:
        msg = f"there would be {len(known)} priority classes"
        raise Invalid(msg, object_="name", hint=f"at most {CLASSES_MAX}; remove those that nobody uses")
    actions = tuple(
        SetPriorityClass(
            priority_class=one,
            reason=Reason(code=Code.PRIORITY_CLASS_SET, object=one.name, numbers={"by": principal.name}),
        )
        for one in wanted
    )
    store.commit(Plan(actor=principal.name, now=now, actions=actions, atomic=True))


def remove(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> Done:
    """Forget a name. Job files that give it are refused from now on. Raises NotFound."""
    principal.require(Permission.MANAGE)
    if done := replayed(store, principal, request):
        return done
    reason = Reason(code=Code.PRIORITY_CLASS_REMOVED, object=name, numbers={"by": principal.name})
    kept = request.with_reply("", principal) if request else None
    action = RemovePriorityClass(name=name, reason=reason)
    try:
        store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True, idempotency=kept))
    except Conflict as error:
        near = get_close_matches(name, [row.name for row in store.priority_classes()], n=1)
        hint = f"did you mean {near[0]}?" if near else "list them with: mainstay priority list"
        msg = f"no such priority class: {name}"
        raise NotFound(msg, object_=name, hint=hint) from error
    return Done(reply="", replayed=False)


def classes(store: Store) -> tuple[PriorityClass, ...]:
    """Those that are always there too; the most urgent first."""
    always = (PriorityClass(name=name, priority=number) for name, number in BUILT_IN_PRIORITIES.items())
    return tuple(sorted((*store.priority_classes(), *always), key=lambda one: (-one.priority, one.name)))


def numbers(store: Store) -> Mapping[str, int]:
    """Name -> priority, of all of them."""
    return {one.name: one.priority for one in classes(store)}


def resolved(store: Store, given: int | str) -> PriorityClass:
    """What a job means by a number or a name. Raises Invalid, naming those that there are, the nearest spelling first."""
    if isinstance(given, int):
        return PriorityClass(name="", priority=given)
    known = {one.name: one for one in classes(store)}
    if given not in known:
        near = get_close_matches(given, known, n=len(known), cutoff=0.0)
        msg = f"priority: there is no class {given!r}"
        raise Invalid(msg, object_="priority", hint=f"0 to {PRIORITY_MAX}, or one of: {', '.join(near)}")
    return known[given]


def _check(wanted: PriorityClass) -> None:
    if not CLASS_NAME.match(wanted.name) or wanted.name.isdecimal():
        msg = f"name: {wanted.name!r} is not allowed"
        hint = "allowed: lower-case letters, digits and dashes, 1 to 40, a letter or digit first and last, no number"
        raise Invalid(msg, object_="name", hint=hint)
    if wanted.name in BUILT_IN_PRIORITIES:
        msg = f"name: {wanted.name} is always there, as {BUILT_IN_PRIORITIES[wanted.name]}"
        raise Invalid(msg, object_="name", hint="give it another name")
    if not 0 <= wanted.priority <= PRIORITY_MAX:
        msg = f"priority: {wanted.priority} is not allowed"
        raise Invalid(msg, object_="priority", hint=f"0 to {PRIORITY_MAX}; higher is more urgent")
