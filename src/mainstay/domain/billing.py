"""Usage, prices and charges: what was held for how long, and what that costs. Words: FOCUS 1.4."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mainstay.domain.quantity import Money, Resources


class Sku(StrEnum):
    """What has a price. GPUs of a model are priced under `gpu`, or under `gpu/MODEL` where the book has it."""

    CPU = "cpu"
    MEMORY = "memory"
    GPU = "gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Price of one unit (core, GiB, GPU) for an hour, from `effective_from` (UTC microseconds) until the next one."""

    sku: str
    per_hour: Money
    effective_from: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """What one allocation held in [start, end), UTC microseconds. Key: allocation and start. Never edited."""

    allocation_key: int
    tenant: str
    project: str
    workload: str
    resources: Resources
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """The cost of one SKU of one usage record. Never edited; a correction is a new charge."""

    allocation_key: int
    start: int
    end: int
    sku: str
    quantity: int
    """In the SKU's own small unit: thousandths of a core, bytes, GPUs."""
    unit_price: Money
    cost: Money
