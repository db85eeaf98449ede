"""The bill."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Query, Response

from mainstay.api import convert
from mainstay.api.routes import Caller, Routes, json_response
from mainstay.domain.access import Permission
from mainstay.domain.billing import GroupBy
from mainstay.domain.errors import Invalid
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.operations.costs import bill
from mainstay.wire.views import CostView

routes = Routes("cost")
DAY_US = 86_400 * MICROSECONDS_PER_SECOND
DEFAULT_DAYS = 30

Instant = Annotated[datetime | None, Query(description="RFC 3339; without a zone it is UTC.")]
Tenant = Annotated[
    str, Query(max_length=40, description="Of another tenant, be it removed, for who administers the platform.")
]


@routes.add("GET", "/v1/cost", needs=Permission.READ, answers=CostView)
async def get_cost(
    call: Caller,
    group_by: Literal["workload", "project", "day"] = "workload",
    since: Instant = None,
    until: Instant = None,
    tenant: Tenant = "",
) -> Response:
    """What was used and what it costs; the lines add up to the total exactly. Default: the last 30 days."""
    now = call.services.clock.now()
    last = convert.microseconds(until) if until else now + 1
    first = max(0, convert.microseconds(since) if since else last - DEFAULT_DAYS * DAY_US)
    if first >= last:
        msg = "since must be before until"
        raise Invalid(msg, object_="since", hint="give instants such as 2026-01-31T00:00:00Z")
    view = await call.services.offload(_view, call, group_by, since=first, until=last, now=now, tenant=tenant)
    return json_response(view.model_dump_json())


def _view(call: Caller, group_by: GroupBy, *, since: int, until: int, now: int, tenant: str) -> CostView:
    store = call.services.store
    answer = bill(store, call.principal, group_by=group_by, since=since, until=until, now=now, tenant=tenant)
    return convert.cost_view(answer)
