"""The bill."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from mainstay.api.auth import All, Reader
from mainstay.api.convert import cost_view, microseconds
from mainstay.domain.errors import Invalid
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.operations.costs import bill
from mainstay.wire.views import CostView

router = APIRouter(prefix="/v1", tags=["cost"])

DEFAULT_DAYS = 30
DAY_US = 86_400 * MICROSECONDS_PER_SECOND


@router.get("/cost")
async def get_cost(
    principal: Reader,
    services: All,
    *,
    group_by: Literal["workload", "project", "day"] = "workload",
    since: Annotated[datetime | None, Query()] = None,
    until: Annotated[datetime | None, Query()] = None,
) -> CostView:
    """What was used and what it costs; the lines add up to the total exactly. Default: the last 30 days."""
    now = services.clock.now()
    first = _instant(since, default=now - DEFAULT_DAYS * DAY_US, name="since")
    last = _instant(until, default=now + DAY_US, name="until")
    if first >= last:
        msg = "since must lie before until"
        raise Invalid(msg, object_="since")
    found = await services.offload(
        bill, services.store, principal, group_by=group_by, since=first, until=last, now=now
    )
    return cost_view(found)


def _instant(given: datetime | None, *, default: int, name: str) -> int:
    if given is None:
        return default
    if given.tzinfo is None:
        msg = f"{name} has no time zone"
        raise Invalid(msg, object_=name, hint="write 2026-01-31T00:00:00Z")
    return max(0, microseconds(given))
