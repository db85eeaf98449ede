"""The bill of a tenant: recorded charges plus what live pods have run up since, grouped and summed exactly."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

from mainstay.decide import billing
from mainstay.domain.access import Permission
from mainstay.domain.allocation import Allocation
from mainstay.domain.billing import GroupBy
from mainstay.domain.errors import NotFound
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, Resources
from mainstay.operations.principal import Principal
from mainstay.ports import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class BillLine:
    """One group. Quantities are resource × microseconds; amounts are millionths of the bill's currency."""

    group: str
    cpu_milli_us: int
    memory_byte_us: int
    gpu_us: int
    charged_micros: int
    accruing_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """Lines by group name; their amounts add up to the total exactly, because they are integers."""

    since: int
    until: int
    group_by: GroupBy
    lines: tuple[BillLine, ...]
    currency: str

    @property
    def total_micros(self) -> int:
        """Charged and accruing."""
        return sum(line.charged_micros + line.accruing_micros for line in self.lines)


def bill(
    store: Store, principal: Principal, *, group_by: GroupBy, since: int, until: int, now: int, tenant: str = ""
) -> Bill:
    """Usage that started in [since, until), UTC microseconds, and the unrecorded usage of live pods if now is inside.

    `tenant`: empty for the caller's own; another, be it removed, for who administers the platform. Raises Forbidden, NotFound.
    """
    principal.require(Permission.READ)
    if tenant and tenant != principal.tenant:
        principal.require(Permission.MANAGE)
        if tenant not in {one.name for one in store.tenants()}:
            msg = f"no such tenant: {tenant}"
            raise NotFound(msg, object_=tenant, hint="list them with: mainstay tenant list, and tenant list --removed")
    ledger = store.ledger(tenant=tenant or principal.tenant, group_by=group_by, since=since, until=until)
    lines: defaultdict[str, _Line] = defaultdict(_Line)
    for usage in ledger.usage:
        lines[usage.group].use(usage.resources, usage.duration_us)
    for charged in ledger.costs:
        lines[charged.group].charged_micros += charged.cost.micros
    currency = ledger.prices[0].per_hour.currency if ledger.prices else "USD"
    for allocation in ledger.accruing if since <= now < until else ():
        line = lines[_group(group_by, allocation, now)]
        line.use(allocation.resources, _unrecorded_us(allocation, now))
        charges = billing.accrued(allocation, now=now, prices=ledger.prices)
        line.accruing_micros += billing.total(charges, currency=currency).micros
    return Bill(
        since=since,
        until=until,
        group_by=group_by,
        lines=tuple(lines[group].as_bill_line(group) for group in sorted(lines)),
        currency=currency,
    )


@dataclass(slots=True)
class _Line:
    cpu_milli_us: int = 0
    memory_byte_us: int = 0
    gpu_us: int = 0
    charged_micros: int = 0
    accruing_micros: int = 0

    def use(self, resources: Resources, duration_us: int) -> None:
        self.cpu_milli_us += resources.cpu_milli * duration_us
        self.memory_byte_us += resources.memory_bytes * duration_us
        self.gpu_us += resources.gpus * duration_us

    def as_bill_line(self, group: str) -> BillLine:
        return BillLine(
            group=group,
            cpu_milli_us=self.cpu_milli_us,
            memory_byte_us=self.memory_byte_us,
            gpu_us=self.gpu_us,
            charged_micros=self.charged_micros,
            accruing_micros=self.accruing_micros,
        )


def _group(by: GroupBy, allocation: Allocation, now: int) -> str:
    match by:
        case "workload":
            return allocation.workload
        case "project":
            return allocation.project
        case "day":
            return datetime.fromtimestamp(now / MICROSECONDS_PER_SECOND, UTC).date().isoformat()
        case _:
            assert_never(by)


def _unrecorded_us(allocation: Allocation, now: int) -> int:
    """How long the pod has run beyond its recorded usage; 0 if it has not started or the clock went back."""
    if not allocation.started_at:
        return 0
    return max(0, (allocation.ended_at or now) - (allocation.metered_until or allocation.started_at))
