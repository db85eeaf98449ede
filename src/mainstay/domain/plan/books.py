"""Secrets, prices, and what was refused."""

from __future__ import annotations

from dataclasses import dataclass, field

from mainstay.domain.billing import Price
from mainstay.domain.plan.action import Action


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSecret(Action):
    """Store a secret, or a new value of one that is there."""

    tenant: str
    name: str
    sealed: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSecret(Action):
    """Forget a secret. Refused if it is not there."""

    tenant: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDenial(Action):
    """The actor was refused what it may not do. Nothing changes but the audit."""

    object: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPrice(Action):
    """Add an entry to the price book. Past periods keep their price, and a book has one currency.

    Only the entries of a new book may lie before the `now` of their plan.
    """

    price: Price
