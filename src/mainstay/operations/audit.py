"""The audit for administrators: redact a detail, and what lets others verify the rows."""

from __future__ import annotations

from mainstay.chain.anchors import Anchor, public_key
from mainstay.domain.access import Permission
from mainstay.domain.errors import Conflict, Invalid, NotFound
from mainstay.domain.plan import Plan, RedactAudit
from mainstay.domain.reason import Code, Reason
from mainstay.operations.principal import Done, Principal, RequestKey, replayed
from mainstay.operations.sealing import Sealing
from mainstay.operations.services import Services
from mainstay.ports import Store

ANCHORS_SHOWN = 1_000
"""The newest: each vouches for all rows before it."""
WHY_CHARACTERS_MAX = 200


def redact(store: Store, principal: Principal, seq: int, why: str, *, now: int, request: RequestKey | None) -> Done:
    """Take the detail of a row out, and put that on record. Raises NotFound, Invalid."""
    principal.require(Permission.MANAGE)
    if done := replayed(store, principal, request):
        return done
    if not why.strip() or len(why) > WHY_CHARACTERS_MAX:
        msg = "why: it is empty or too long"
        raise Invalid(msg, object_="why", hint=f"say in 1 to {WHY_CHARACTERS_MAX} characters why it has to go")
    reason = Reason(code=Code.AUDIT_REDACTED, object=str(seq), numbers={"why": why})
    kept = request.with_reply("", principal) if request else None
    plan = Plan(
        actor=principal.name, now=now, actions=(RedactAudit(seq=seq, reason=reason),), atomic=True, idempotency=kept
    )
    try:
        store.commit(plan)
    except Conflict as error:
        raise NotFound(error.message, object_=str(seq), hint="the rows: mainstay audit") from error
    return Done(reply="", replayed=False)


async def anchors(services: Services) -> tuple[Anchor, ...]:
    """Those that are kept, the newest at the end. Raises Unavailable."""
    return await services.anchors.newest(ANCHORS_SHOWN) if services.anchors else ()


def public_keys(sealing: Sealing) -> tuple[str, ...]:
    """Of those that sign anchors, in hexadecimal; the first one signs now."""
    return tuple(map(public_key, sealing.signing_keys()))
