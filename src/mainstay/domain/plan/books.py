"""Secrets and their keys, prices, what was refused, and what is taken out of the audit."""

from __future__ import annotations

from dataclasses import dataclass, field

from mainstay.domain.billing import Price
from mainstay.domain.plan.action import Action
from mainstay.domain.secret import Sealed


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
class UseCredentials(Action):
    """The credentials of a cluster are about to be opened: only that is put on record. Refused where it has none."""

    cluster: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPrice(Action):
    """Add an entry to the price book. Past periods keep their price, and a book has one currency.

    Only the entries of a new book may lie before the `now` of their plan.
    """

    price: Price


@dataclass(frozen=True, slots=True, kw_only=True)
class Reseal(Action):
    """The same under another key. Refused if it has been sealed anew since `before` was read, or is gone."""

    before: Sealed
    sealed: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactAudit(Action):
    """Take the detail of a row of the audit out; its digest stays, so the chain holds. Refused where there is no such row."""

    seq: int
