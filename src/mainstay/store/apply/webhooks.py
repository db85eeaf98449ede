"""Webhooks: add, remove, rotate, enable; note what is to be told, and what came of telling it."""

from __future__ import annotations

from mainstay.domain.plan import (
    AddWebhook,
    EnableWebhook,
    QueueDeliveries,
    RecordAttempt,
    RemoveWebhook,
    RotateWebhook,
)
from mainstay.domain.reason import Code, Reason
from mainstay.domain.webhook import DISABLED_AFTER_SECONDS, WEBHOOKS_MAX, Attempt, Outcome, attempted, is_given_up
from mainstay.store import codec
from mainstay.store.codec_webhooks import delivery_of, delivery_row
from mainstay.store.rows import WebhookRow
from mainstay.store.world import World


def add_webhook(world: World, action: AddWebhook) -> Reason | None:
    """What has happened before it was added is not told."""
    new = action.webhook
    key = (new.tenant, new.name)
    if key in world.webhooks:
        return Reason(code=Code.WEBHOOK_KNOWN, object=new.name)
    count = sum(tenant == new.tenant for tenant, _ in world.webhooks)
    if count >= WEBHOOKS_MAX:
        return Reason(code=Code.TOO_MANY_WEBHOOKS, object=new.name, numbers={"count": count})
    world.log("webhook", new.name, action.reason, tenant=new.tenant)
    world.put_webhook(
        WebhookRow(
            tenant=new.tenant,
            name=new.name,
            project=new.project,
            url=new.url,
            types=" ".join(new.types),
            sealed=new.sealed,
            sealed_before="",
            before_until=0,
            cursor=world.head["event_seq"],
            disabled="",
            failing_since=0,
            failures=0,
            made_at=world.now,
            made_by=world.actor,
        )
    )
    return None


def remove_webhook(world: World, action: RemoveWebhook) -> Reason | None:
    """What was on its way goes with it."""
    key = (action.tenant, action.name)
    if key not in world.webhooks:
        return _unknown(action.name)
    world.drop_webhook(key)
    world.log("webhook", action.name, action.reason, tenant=action.tenant)
    return None


def rotate_webhook(world: World, action: RotateWebhook) -> Reason | None:
    """Of three keys the oldest counts no more: two at a time are enough to change over."""
    row = world.webhooks.get((action.tenant, action.name))
    if row is None:
        return _unknown(action.name)
    changed = {"sealed": action.sealed, "sealed_before": row["sealed"], "before_until": action.before_until}
    world.put_webhook({**row, **changed})  # type: ignore[typeddict-item]  # the keys are those of the row
    world.log("webhook", action.name, action.reason, tenant=action.tenant)
    return None


def enable_webhook(world: World, action: EnableWebhook) -> Reason | None:
    """Its cursor stands where it stood: what has happened meanwhile is told late, and nothing is lost."""
    row = world.webhooks.get((action.tenant, action.name))
    if row is None:
        return _unknown(action.name)
    if row["disabled"]:
        world.put_webhook({**row, "disabled": "", "failing_since": 0, "failures": 0})
        world.log("webhook", action.name, action.reason, tenant=action.tenant)
    return None


def queue_deliveries(world: World, action: QueueDeliveries) -> Reason | None:
    """The cursor moves in the same transaction: no event is queued twice, and none is passed over."""
    row = world.webhooks.get((action.tenant, action.name))
    if row is None:
        return _unknown(action.name)
    if row["cursor"] != action.after:
        return Reason(code=Code.WEBHOOK_IS_AHEAD, object=action.name)
    world.put_webhook({**row, "cursor": action.upto})
    for delivery in action.deliveries:
        world.add_delivery(delivery_row(delivery))
    return None


def record_attempt(world: World, action: RecordAttempt) -> Reason | None:
    """Also what the attempt says of the webhook: that it works, that it fails, or that it is to be disabled."""
    read = action.delivery
    row = world.deliveries.get((read.tenant, read.webhook, read.seq))
    webhook = world.webhooks.get((read.tenant, read.webhook))
    if row is None or webhook is None:
        return _unknown(read.webhook)
    there = delivery_of(row)
    if there.attempts != read.attempts or there.outcome is not Outcome.PENDING:
        return Reason(code=Code.WEBHOOK_IS_AHEAD, object=read.webhook)
    world.touch_delivery(delivery_row(attempted(there, action.attempt)))
    _judge(world, webhook, action.attempt)
    return None


def _judge(world: World, row: WebhookRow, attempt: Attempt) -> None:
    if attempt.delivered:
        if row["failures"]:
            world.put_webhook({**row, "failing_since": 0, "failures": 0})
        return
    # A clock that was ahead must not hide a failure for as long as it was.
    since = min(row["failing_since"] or world.now, world.now)
    failures = row["failures"] + 1
    why = ""
    if attempt.gone:
        why = "its receiver wants no more of it (410 Gone)"
    elif is_given_up(failing_since=since, failures=failures, now=world.now):
        why = f"nothing has arrived for {DISABLED_AFTER_SECONDS // 86_400} days, {failures} attempts in a row"
    if why and not row["disabled"]:
        reason = Reason(code=Code.WEBHOOK_DISABLED, object=row["name"], numbers={"detail": why})
        world.log("webhook", row["name"], reason, tenant=row["tenant"])
    disabled = row["disabled"] or codec.storable(why)
    world.put_webhook({**row, "failing_since": since, "failures": failures, "disabled": disabled})


def _unknown(name: str) -> Reason:
    return Reason(code=Code.NO_SUCH_WEBHOOK, object=name)
