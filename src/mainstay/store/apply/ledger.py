"""Usage, prices and denials: rows that are added and never edited, but for a detail of the audit that must go."""

from __future__ import annotations

from mainstay.chain import REDACT
from mainstay.domain.plan import RecordDenial, RecordUsage, RedactAudit, SetPrice
from mainstay.domain.reason import Code, Reason
from mainstay.store import codec, guards
from mainstay.store.apply import caps
from mainstay.store.world import World


def record_usage(world: World, action: RecordUsage) -> Reason | None:
    """The record with its charges, and how far the allocation is metered: together or not at all."""
    row = world.allocations.get(action.usage.allocation_key)
    if row is None:
        return guards.missing("allocation", action.usage.allocation_key)
    refusal = guards.usage_is_next(row, action)
    if refusal:
        return refusal
    row["metered_until"] = action.usage.end
    world.touch_allocation(row)
    world.changes.usage.append(codec.usage_row(action.usage))
    world.changes.charges.extend(codec.charge_row(charge, action.usage) for charge in action.charges)
    caps.charge(world, row["workload_key"], sum(charge.cost.micros for charge in action.charges))
    world.log_allocation(row, action.reason)
    return None


def set_price(world: World, action: SetPrice) -> Reason | None:
    """An entry that is there already is left; one that contradicts the book is refused."""
    row = codec.price_row(action.price)
    at = (row["sku"], row["effective_from"])
    if world.prices.get(at) == row:
        return None
    refusal = guards.price_fits_the_book(world, row)
    if refusal:
        return refusal
    world.prices[at] = row
    world.changes.prices.append(row)
    world.log("price", row["sku"], action.reason)
    return None


def record_denial(world: World, action: RecordDenial) -> Reason | None:
    """An audit row alone: for users nothing has happened."""
    world.record("deny", action.object, action.reason, tenant="")
    return None


def redact_audit(world: World, action: RedactAudit) -> Reason | None:
    """The detail goes with its salt. A row says so: one that says it itself cannot be redacted before it is there."""
    if not 0 < action.seq <= world.head["audit_seq"]:
        return Reason(code=Code.NO_SUCH_AUDIT_ROW, object=str(action.seq))
    world.changes.redacted.append(action.seq)
    world.record(REDACT, str(action.seq), action.reason, tenant="")
    return None
