"""What was used and what it costs: the records one by one, and summed for a bill by the database itself."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, assert_never, cast

import sqlalchemy as sa

from mainstay.domain.allocation import Seen
from mainstay.domain.billing import Charge, GroupBy, GroupCost, GroupUsage, Ledger, Price, UsageRecord
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, Money, Resources
from mainstay.store import codec, tables
from mainstay.store.queries import allocations_of, fetch
from mainstay.store.rows import ChargeRow, PriceRow, UsageRow

SECONDS_PER_DAY = 86_400


def ledger(connection: sa.Connection, *, tenant: str, group_by: GroupBy, since: int, until: int) -> Ledger:
    """Sums of the records that start in [since, until), and what accrues now. Costs a row per group, not per record."""
    inside = _inside(tenant, since=since, until=until)
    return Ledger(
        usage=_usage_by_group(connection, inside, group_by),
        costs=_costs_by_group(connection, inside, group_by),
        accruing=allocations_of(connection, _accruing(tenant)),
        prices=prices(connection),
    )


def usage(
    connection: sa.Connection, *, tenant: str, since: int, until: int
) -> tuple[tuple[UsageRecord, tuple[Charge, ...]], ...]:
    """Records that start in [since, until), oldest first, each with its charges by SKU and time."""
    records, charged = tables.usage, tables.charges
    inside = _inside(tenant, since=since, until=until)
    found = fetch(connection, sa.select(records).where(inside).order_by(records.c.start_at, records.c.allocation_key))
    charges: dict[tuple[int, int], list[Charge]] = defaultdict(list)
    query = sa.select(charged).join(records, _OF_RECORD).where(inside).order_by(charged.c.sku, charged.c.start_at)
    for row in fetch(connection, query):
        charges[row["allocation_key"], row["usage_start_at"]].append(codec.charge_of(cast("ChargeRow", row)))
    return tuple(
        (codec.usage_of(cast("UsageRow", row)), tuple(charges[row["allocation_key"], row["start_at"]])) for row in found
    )


def prices(connection: sa.Connection) -> tuple[Price, ...]:
    """By SKU and then by date."""
    table = tables.prices
    query = sa.select(table).order_by(table.c.sku, table.c.effective_from)
    return tuple(codec.price_of(cast("PriceRow", row)) for row in fetch(connection, query))


def _usage_by_group(
    connection: sa.Connection, inside: sa.ColumnElement[bool], group_by: GroupBy
) -> tuple[GroupUsage, ...]:
    records, group = tables.usage, _group(group_by)
    held = (records.c.cpu_milli, records.c.memory_bytes, records.c.gpus, records.c.gpu_model)
    duration = sa.func.sum(records.c.end_at - records.c.start_at)
    query = sa.select(group, *held, duration).where(inside).group_by(group, *held).order_by(group, *held)
    return tuple(
        GroupUsage(
            group=_word(group_by, of_group),
            resources=Resources(cpu_milli=cpu_milli, memory_bytes=memory_bytes, gpus=gpus, gpu_model=gpu_model),
            duration_us=int(duration_us),
        )
        for of_group, cpu_milli, memory_bytes, gpus, gpu_model, duration_us in connection.execute(query)
    )


def _costs_by_group(
    connection: sa.Connection, inside: sa.ColumnElement[bool], group_by: GroupBy
) -> tuple[GroupCost, ...]:
    records, charged, group = tables.usage, tables.charges, _group(group_by)
    cost = sa.func.sum(charged.c.cost_micros)
    query = (
        sa.select(group, charged.c.currency, cost)
        .select_from(records.join(charged, _OF_RECORD))
        .where(inside)
        .group_by(group, charged.c.currency)
        .order_by(group, charged.c.currency)
    )
    return tuple(
        GroupCost(group=_word(group_by, of_group), cost=Money(micros=int(micros), currency=currency))
        for of_group, currency, micros in connection.execute(query)
    )


def _accruing(tenant: str) -> sa.Select[Any]:
    """Allocations that have started and whose usage is not recorded up to their end, by key."""
    table = tables.allocations
    unrecorded = sa.or_(table.c.seen != int(Seen.ENDED), table.c.metered_until < table.c.ended_at)
    return (
        sa.select(table)
        .where(table.c.closed == 0, table.c.tenant == codec.storable(tenant), table.c.started_at > 0, unrecorded)
        .order_by(table.c.key)
    )


def _inside(tenant: str, *, since: int, until: int) -> sa.ColumnElement[bool]:
    records = tables.usage
    return sa.and_(records.c.tenant == codec.storable(tenant), records.c.start_at >= since, records.c.start_at < until)


_OF_RECORD = sa.and_(
    tables.charges.c.allocation_key == tables.usage.c.allocation_key,
    tables.charges.c.usage_start_at == tables.usage.c.start_at,
)


def _group(group_by: GroupBy) -> sa.ColumnElement[Any]:
    """`Any`: text, or the number of a day since 1970."""
    match group_by:
        case "workload":
            return tables.usage.c.workload
        case "project":
            return tables.usage.c.project
        case "day":
            return (tables.usage.c.start_at // sa.literal_column(str(_DAY), sa.BigInteger())).label("day")
        case _:
            assert_never(group_by)


_DAY = SECONDS_PER_DAY * MICROSECONDS_PER_SECOND


def _word(group_by: GroupBy, group: str | int) -> str:
    if group_by != "day":
        return str(group)
    return datetime.fromtimestamp(int(group) * SECONDS_PER_DAY, UTC).date().isoformat()
