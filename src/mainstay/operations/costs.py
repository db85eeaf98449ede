"""The bill of a tenant: recorded charges plus what live pods have run up since, grouped and summed exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, assert_never

from mainstay.decide import billing
from mainstay.domain.allocation import Allocation
from mainstay.domain.billing import Charge
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, Resources
from mainstay.operations.principal import Permission, Principal
from mainstay.ports import Store

GroupBy = Literal["workload", "project", "day"]


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


def bill(store: Store, principal: Principal, *, group_by: GroupBy, since: int, until: int, now: int) -> Bill:
    """Usage that started in [since, until), UTC microseconds, and the unrecorded usage of live pods if now is inside."""
    principal.require(Permission.READ)
    prices = store.prices()
    lines: dict[str, _Line] = {}
    for usage, charges in store.usage(tenant=principal.tenant, since=since, until=until):
        line = lines.setdefault(
            _group(group_by, workload=usage.workload, project=usage.project, at=usage.start), _Line()
        )
        line.use(usage.resources, usage.end - usage.start)
        line.charged_micros += _sum(charges)
    if since <= now < until:
        projects: dict[str, str] = {}
        for allocation in store.live_allocations(tenant=principal.tenant):
            if allocation.workload not in projects:
                projects[allocation.workload] = _project(store, principal, allocation)
            project = projects[allocation.workload]
            line = lines.setdefault(_group(group_by, workload=allocation.workload, project=project, at=now), _Line())
            line.use(allocation.resources, _unrecorded_us(allocation, now))
            line.accruing_micros += _sum(billing.accrued(allocation, now=now, prices=prices))
    return Bill(
        since=since,
        until=until,
        group_by=group_by,
        lines=tuple(lines[group].as_bill_line(group) for group in sorted(lines)),
        currency=prices[0].per_hour.currency if prices else "USD",
    )


@dataclass(slots=True)
class _Line:
    cpu_milli_us: int = 0
    memory_byte_us: int = 0
    gpu_us: int = 0
    charged_micros: int = 0
    accruing_micros: int = field(default=0)

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


def _group(by: GroupBy, *, workload: str, project: str, at: int) -> str:
    match by:
        case "workload":
            return workload
        case "project":
            return project
        case "day":
            return datetime.fromtimestamp(at / MICROSECONDS_PER_SECOND, UTC).date().isoformat()
        case _:
            assert_never(by)


def _unrecorded_us(allocation: Allocation, now: int) -> int:
    """How long the pod has run beyond its recorded usage; 0 if it has not started or the clock went back."""
    if not allocation.started_at:
        return 0
    return max(0, (allocation.ended_at or now) - (allocation.metered_until or allocation.started_at))


def _project(store: Store, principal: Principal, allocation: Allocation) -> str:
    return store.workload(allocation.workload, tenant=principal.tenant).project


def _sum(charges: Iterable[Charge]) -> int:
    return sum(charge.cost.micros for charge in charges)
