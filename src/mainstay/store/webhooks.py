"""Webhooks in the database: what a plan needs of them, what it changes, and the questions about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import cast

import sqlalchemy as sa

from mainstay.domain.errors import NotFound
from mainstay.domain.plan import (
    Action,
    AddWebhook,
    EnableWebhook,
    QueueDeliveries,
    RecordAttempt,
    RemoveProject,
    RemoveWebhook,
    RotateWebhook,
)
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.webhook import WAIT_SECONDS_MAX, Delivery, Outcome, WebhookRecord
from mainstay.store import codec, tables
from mainstay.store.codec_webhooks import delivery_of, webhook_of
from mainstay.store.queries import fetch
from mainstay.store.rows import DeliveryRow, WebhookRow
from mainstay.store.world import World

ENDED_KEPT_SECONDS = 30 * 86_400
ENDED_DROPPED_MAX = 20
"""With each attempt that goes on record so many old deliveries go at most: more than there come."""


def load(connection: sa.Connection, world: World, actions: Iterable[Action]) -> None:
    """Of each tenant that the plan touches all webhooks, which are few; and the deliveries that were tried."""
    tenants: set[str] = set()
    for action in actions:
        match action:
            case AddWebhook(webhook=webhook):
                tenants.add(webhook.tenant)
            case RemoveWebhook() | RotateWebhook() | EnableWebhook() | QueueDeliveries():
                tenants.add(action.tenant)
            case RemoveProject(tenant=tenant):
                tenants.add(codec.storable(tenant))
            case RecordAttempt(delivery=delivery):
                tenants.add(delivery.tenant)
                query = sa.select(_DELIVERIES).where(*_is(delivery.tenant, delivery.webhook, delivery.seq))
                for row in fetch(connection, query):
                    world.deliveries[row["tenant"], row["webhook"], row["seq"]] = cast("DeliveryRow", row)
            case _:
                pass
    for tenant in sorted(tenants):
        for row in fetch(connection, sa.select(_WEBHOOKS).where(_WEBHOOKS.c.tenant == tenant)):
            world.webhooks[tenant, row["name"]] = cast("WebhookRow", row)


def write(connection: sa.Connection, world: World) -> None:
    """A webhook is written whole in the place of what was there; one that goes takes its deliveries along."""
    changes = world.changes
    for (tenant, name), row in changes.webhooks.items():
        connection.execute(sa.delete(_WEBHOOKS).where(_WEBHOOKS.c.tenant == tenant, _WEBHOOKS.c.name == name))
        if row is None:
            there = (_DELIVERIES.c.tenant == tenant, _DELIVERIES.c.webhook == name)
            connection.execute(sa.delete(_DELIVERIES).where(*there))
        else:
            connection.execute(sa.insert(_WEBHOOKS), [row])
    if changes.new_deliveries:
        connection.execute(sa.insert(_DELIVERIES), changes.new_deliveries)
    for (tenant, name, seq), delivery in changes.deliveries.items():
        connection.execute(sa.update(_DELIVERIES).where(*_is(tenant, name, seq)).values(**delivery))
    if changes.deliveries:
        _forget_ended(connection, before=world.now - ENDED_KEPT_SECONDS * MICROSECONDS_PER_SECOND)


def _forget_ended(connection: sa.Connection, *, before: int) -> None:
    key = sa.tuple_(_DELIVERIES.c.tenant, _DELIVERIES.c.webhook, _DELIVERIES.c.seq)
    old = sa.select(_DELIVERIES.c.tenant, _DELIVERIES.c.webhook, _DELIVERIES.c.seq)
    old = old.where(_DELIVERIES.c.outcome != sa.literal_column(f"'{Outcome.PENDING}'"))
    old = old.where(_DELIVERIES.c.attempted_at < before)
    old = old.order_by(_DELIVERIES.c.attempted_at).limit(ENDED_DROPPED_MAX)
    connection.execute(sa.delete(_DELIVERIES).where(key.in_(old)))


def webhooks(connection: sa.Connection, *, tenant: str, after: str, limit: int) -> tuple[WebhookRecord, ...]:
    """By name; of everybody where `tenant` is empty."""
    query = sa.select(_WEBHOOKS).where(_WEBHOOKS.c.name > codec.storable(after))
    if tenant:
        query = query.where(_WEBHOOKS.c.tenant == codec.storable(tenant))
    query = query.order_by(_WEBHOOKS.c.tenant, _WEBHOOKS.c.name).limit(limit or None)
    return tuple(webhook_of(cast("WebhookRow", row)) for row in fetch(connection, query))


def webhook(connection: sa.Connection, name: str, *, tenant: str) -> WebhookRecord:
    """Raises NotFound with the nearest name."""
    there = {one.name: one for one in webhooks(connection, tenant=tenant, after="", limit=0)}
    if name in there:
        return there[name]
    near = get_close_matches(name, there, n=1)
    msg = f"no such webhook: {name}"
    hint = f"did you mean {near[0]}?" if near else "list them with: mainstay webhook list"
    raise NotFound(msg, object_=name, hint=hint)


def deliveries(connection: sa.Connection, name: str, *, tenant: str, before: int, limit: int) -> tuple[Delivery, ...]:
    """Newest first, with numbers below `before`; 0: from the newest."""
    query = sa.select(_DELIVERIES).where(*_of(tenant, name))
    if before:
        query = query.where(_DELIVERIES.c.seq < before)
    return _read(fetch(connection, query.order_by(_DELIVERIES.c.seq.desc()).limit(limit)))


def due(connection: sa.Connection, name: str, *, tenant: str, now: int, limit: int) -> tuple[Delivery, ...]:
    """Those whose time has come, the longest due first. One whose time lies further ahead than any wait is long was tried last by
    a clock that was ahead: its time has come, too.
    """
    next_at = _DELIVERIES.c.next_at
    ahead = now + WAIT_SECONDS_MAX * MICROSECONDS_PER_SECOND
    query = sa.select(_DELIVERIES).where(*_of(tenant, name), _PENDING, (next_at <= now) | (next_at > ahead))
    return _read(fetch(connection, query.order_by(next_at, _DELIVERIES.c.seq).limit(limit)))


def pending(connection: sa.Connection, name: str, *, tenant: str) -> int:
    """How many are on their way."""
    query = sa.select(sa.func.count()).select_from(_DELIVERIES).where(*_of(tenant, name), _PENDING)
    return int(connection.execute(query).scalar_one())


_WEBHOOKS, _DELIVERIES = tables.webhooks, tables.deliveries
_PENDING = _DELIVERIES.c.outcome == sa.literal_column(f"'{Outcome.PENDING}'")


def _read(rows: Sequence[object]) -> tuple[Delivery, ...]:
    return tuple(delivery_of(cast("DeliveryRow", row)) for row in rows)


def _of(tenant: str, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (_DELIVERIES.c.tenant == codec.storable(tenant), _DELIVERIES.c.webhook == codec.storable(name))


def _is(tenant: str, name: str, seq: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (*_of(tenant, name), _DELIVERIES.c.seq == seq)
