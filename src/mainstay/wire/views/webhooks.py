"""Webhooks, and what became of what was told to them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from mainstay.wire.views.base import View


class WebhookView(View):
    """An address outside that is told what happens. `secret` is shown when it is made, and never again."""

    name: str
    url: str
    events: list[str]
    project: str = ""
    disabled: str = ""
    failures: int = 0
    failing_since: datetime | None = None
    made_at: datetime
    made_by: str
    secret: str = Field(default="", repr=False)


class WebhookTestView(View):
    """What came of a message that was sent to try a webhook out. `status` 0: nobody answered."""

    delivered: bool
    status: int = 0
    detail: str = ""
    answer: str = ""


class DeliveryView(View):
    """A message to a webhook. `id` is that of its header `webhook-id`; `outcome`: pending, delivered, or failed for good."""

    id: str
    seq: int
    type: str
    at: datetime
    outcome: str
    attempts: int = 0
    status: int = 0
    detail: str = ""
    attempted_at: datetime | None = None
    next_at: datetime | None = None
