"""Usage, prices and charges: what was held for how long, and what that costs. Words: FOCUS 1.4."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from mainstay.domain.allocation import Allocation
from mainstay.domain.quantity import Money, Resources

GroupBy: TypeAlias = Literal["workload", "project", "day"]
"""What the lines of a bill stand for; a day is one of the calendar in UTC, 2026-11-24."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupUsage:
    """What one group held for so long: the sum over its usage records that held equal resources."""

    group: str
    resources: Resources
    duration_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCost:
    """The sum of the charges of one group."""

    group: str
    cost: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """All that a bill is made of, read at one moment: no usage is in two places or in none."""

    usage: tuple[GroupUsage, ...]
    costs: tuple[GroupCost, ...]
    accruing: tuple[Allocation, ...]
    """The allocations whose usage is not recorded up to now, or up to their end."""
    prices: tuple[Price, ...]
