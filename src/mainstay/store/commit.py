"""The one way to write: a plan in one transaction, under the lock of `head`.

1. Lock `head`: writers take turns, so the versions become visible in their order (a reader's cursor misses nothing)
   and the sequences of events and audit have no gap.
2. The idempotency key: a repetition gets the stored reply, and nothing is applied. Keys are kept for a week, and
   each new one takes a few old ones away.
3. The epoch: a plan of a leader whose tenure has passed is refused whole (invariant I11). Taking a lease locks `head`
   too, so the tenure cannot pass between this check and the commit.
4. Read the rows of the plan, apply each action in memory, write what changed with its events and audit rows.
5. The tenure over a cluster that was added ends: its next leader has a number that no cluster has seen.

Audited is every applied action of a plan without an epoch: those are the requests of people and programs. Submissions
are audited whoever makes them: a cluster does, for the guests in it. So is each use of a secret and each denial. What
else the loops decide is in the event log, with the same reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import sqlalchemy as sa

from mainstay.domain.access import GONE_HINT
from mainstay.domain.errors import Conflict, Fenced, Forbidden, Gone, KeyReused, MainstayError, TooMany
from mainstay.domain.fleet import lease_of
from mainstay.domain.plan import (
    Action,
    AddCluster,
    CommitResult,
    Idempotency,
    Plan,
    Refused,
    Reseal,
    Submit,
)
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import OPEN_MAX_HINT
from mainstay.store import codec, guards, tables
from mainstay.store.apply import apply, word
from mainstay.store.load import load
from mainstay.store.rows import HeadRow, IdempotencyRow
from mainstay.store.world import World
from mainstay.store.write import write

REPLIES_KEPT_SECONDS = 7 * 86_400
"""No client repeats a request after a week."""
REPLIES_DROPPED_MAX = 4


class NothingToWrite(Exception):
    """Ends the transaction without using up a version; carries the result of a plan that changes no row."""

    def __init__(self, result: CommitResult) -> None:
        super().__init__()
        self.result = result


def commit_in(connection: sa.Connection, plan: Plan) -> CommitResult:
    """The body of the write transaction. Raises NothingToWrite, Conflict, TooMany, Forbidden, Gone, Fenced, KeyReused: all of
    them roll back.
    """
    head = locked_head(connection)
    if plan.idempotency:
        reply = stored_reply(connection, plan.idempotency)
        if reply is not None:
            raise NothingToWrite(CommitResult(version=head["version"], applied=0, reply=reply))
    if plan.epoch:
        _check_epoch(connection, plan)
    world = World(head, plan)
    load(connection, world, plan.actions)
    refused = _apply_all(world, plan)
    if plan.idempotency:
        _store_reply(connection, plan.idempotency, now=plan.now)
    elif not world.changes.any():
        applied = len(plan.actions) - len(refused)
        raise NothingToWrite(CommitResult(version=head["version"], applied=applied, refused=refused))
    write(connection, world)
    _end_tenures(connection, plan, refused)
    return CommitResult(version=world.version, applied=len(plan.actions) - len(refused), refused=refused)


def _end_tenures(connection: sa.Connection, plan: Plan, refused: Sequence[Refused]) -> None:
    """Whoever leads a cluster that comes back has an epoch of their own, be it who led it before it left."""
    not_added = {one.index for one in refused}
    added = [
        lease_of(action.cluster.name)
        for index, action in enumerate(plan.actions)
        if isinstance(action, AddCluster) and index not in not_added
    ]
    if added:
        table = tables.leases
        connection.execute(sa.update(table).where(table.c.name.in_(added)).values(holder="", expires_at=0))


def locked_head(connection: sa.Connection) -> HeadRow:
    """The row of `head`, locked until the end of the transaction. On SQLite BEGIN IMMEDIATE has done that already."""
    row = connection.execute(_LOCK_HEAD).mappings().one()
    return cast("HeadRow", dict(row))


_LOCK_HEAD = sa.select(tables.head).with_for_update()


def _check_epoch(connection: sa.Connection, plan: Plan) -> None:
    held = plan.epoch
    if held is None:
        return
    query = sa.select(tables.leases.c.epoch).where(tables.leases.c.name == held.name)
    now = connection.execute(query).scalar() or 0
    if not guards.epoch_holds(held, now=now):
        msg = f"another leader has taken over: epoch {held.number}, now {now}"
        raise Fenced(msg, object_=held.name, numbers={"held": held.number, "now": now})


def _apply_all(world: World, plan: Plan) -> tuple[Refused, ...]:
    refused: list[Refused] = []
    for index, action in enumerate(plan.actions):
        events = len(world.changes.events)
        reason = apply(world, action)
        if reason is None:
            if (plan.epoch is None or isinstance(action, Submit | Reseal)) and len(world.changes.events) > events:
                _audit(world, action)
            continue
        if plan.atomic:
            raise _refusal(reason)
        refused.append(Refused(index=index, reason=reason))
    return tuple(refused)


def _refusal(reason: Reason) -> MainstayError:
    """What ends a plan that is applied whole or not at all."""
    match reason.code:
        case Code.TOO_MANY_OPEN:
            return TooMany(reason.sentence, object_=reason.object, numbers=reason.numbers, hint=OPEN_MAX_HINT)
        case Code.TENANT_GONE | Code.PROJECT_GONE:
            return Gone(reason.sentence, object_=reason.object, numbers=reason.numbers, hint=GONE_HINT)
        case Code.GPU_CAP_REACHED | Code.SPEND_CAP_REACHED:
            return Forbidden(reason.sentence, object_=reason.object, numbers=reason.numbers)
        case _:
            return Conflict(reason.sentence, object_=reason.object, numbers=reason.numbers)


def _audit(world: World, action: Action) -> None:
    """The tenant and object of an audit row are those of the event that the action has just written."""
    event = world.changes.events[-1]
    world.record(word(action), event["object"], action.reason, tenant=event["tenant"])


def stored_reply(connection: sa.Connection, request: Idempotency) -> str | None:
    """What is kept under the key of this request. Raises KeyReused if it was kept for another one."""
    of_request = {
        "of_tenant": request.tenant,
        "of_member": codec.storable(request.member),
        "of_route": request.route,
        "of_key": request.key,
    }
    row = connection.execute(_REPLY, of_request).one_or_none()
    if row is None:
        return None
    body_hash, reply = row
    if body_hash != request.body_hash:
        msg = f"the idempotency key was used before with another request: {request.key}"
        raise KeyReused(msg, object_=request.key, hint="use a new key for a new request")
    return str(reply)


def _store_reply(connection: sa.Connection, request: Idempotency, *, now: int) -> None:
    row = IdempotencyRow(
        tenant=request.tenant,
        member=codec.storable(request.member),
        route=request.route,
        key=request.key,
        body_hash=request.body_hash,
        reply=request.reply,
        at=now,
    )
    connection.execute(_STORE_REPLY, [row])
    connection.execute(_DROP_REPLIES, {"before": now - REPLIES_KEPT_SECONDS * MICROSECONDS_PER_SECOND})


_REPLY = sa.select(tables.idempotency.c.body_hash, tables.idempotency.c.reply).where(
    tables.idempotency.c.tenant == sa.bindparam("of_tenant"),
    tables.idempotency.c.member == sa.bindparam("of_member"),
    tables.idempotency.c.route == sa.bindparam("of_route"),
    tables.idempotency.c.key == sa.bindparam("of_key"),
)
_STORE_REPLY = sa.insert(tables.idempotency)
_KEY = tuple(tables.idempotency.primary_key)
_OLD = sa.tuple_(*_KEY)
_DROP_REPLIES = sa.delete(tables.idempotency).where(
    _OLD.in_(
        sa.select(*_KEY)
        .where(tables.idempotency.c.at < sa.bindparam("before"))
        .order_by(tables.idempotency.c.at)
        .limit(REPLIES_DROPPED_MAX)
    )
)
