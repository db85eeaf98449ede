"""Webhooks, and what is told to them."""

from __future__ import annotations

from dataclasses import dataclass, field

from mainstay.domain.plan.action import Action
from mainstay.domain.webhook import Attempt, Delivery, NewWebhook


@dataclass(frozen=True, slots=True, kw_only=True)
class AddWebhook(Action):
    """Tell an address outside what happens from now on. Refused if the tenant has one of that name, or too many."""

    webhook: NewWebhook


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveWebhook(Action):
    """Forget a webhook and what is on its way to it. Refused if there is none."""

    tenant: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateWebhook(Action):
    """Give a webhook another key; the one that it has counts until `before_until`, too. Refused if there is none."""

    tenant: str
    name: str
    sealed: str = field(repr=False)
    before_until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableWebhook(Action):
    """Send again, and go on from where it was disabled. Does nothing for one that is enabled; refused if there is none."""

    tenant: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDeliveries(Action):
    """The events behind `after` up to `upto` were looked at for a webhook: these are to be told.

    Refused if its cursor is not at `after` any more: somebody else has looked at them.
    """

    tenant: str
    name: str
    after: int
    upto: int
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordAttempt(Action):
    """What came of sending a delivery once. Refused if another attempt is on record since it was read."""

    delivery: Delivery
    attempt: Attempt
