"""Row <-> domain of webhooks and of what is on its way to them."""

from __future__ import annotations

from mainstay.domain.webhook import Delivery, Outcome, WebhookRecord
from mainstay.store import codec
from mainstay.store.rows import DeliveryRow, WebhookRow


def webhook_of(row: WebhookRow) -> WebhookRecord:
    """The types are words with a space between two."""
    return WebhookRecord(
        tenant=row["tenant"],
        name=row["name"],
        project=row["project"],
        url=row["url"],
        types=tuple(row["types"].split()),
        sealed=row["sealed"],
        sealed_before=row["sealed_before"],
        before_until=row["before_until"],
        cursor=row["cursor"],
        disabled=row["disabled"],
        failing_since=row["failing_since"],
        failures=row["failures"],
        made_at=row["made_at"],
        made_by=row["made_by"],
    )


def delivery_row(delivery: Delivery) -> DeliveryRow:
    """What a receiver said may hold anything."""
    return DeliveryRow(
        tenant=delivery.tenant,
        webhook=delivery.webhook,
        seq=delivery.seq,
        type=delivery.type,
        made_at=delivery.made_at,
        attempts=delivery.attempts,
        next_at=delivery.next_at,
        outcome=delivery.outcome.value,
        status=delivery.status,
        detail=codec.storable(delivery.detail),
        attempted_at=delivery.attempted_at,
    )


def delivery_of(row: DeliveryRow) -> Delivery:
    """As it stands."""
    return Delivery(
        tenant=row["tenant"],
        webhook=row["webhook"],
        seq=row["seq"],
        type=row["type"],
        made_at=row["made_at"],
        attempts=row["attempts"],
        next_at=row["next_at"],
        outcome=Outcome(row["outcome"]),
        status=row["status"],
        detail=row["detail"],
        attempted_at=row["attempted_at"],
    )
