"""The event log: pages, and a stream without gaps that resumes after any number."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from mainstay.api.auth import All, Reader
from mainstay.api.convert import event_view
from mainstay.api.limits import PAGE_MAX
from mainstay.api.streams import HEARTBEAT, HEARTBEAT_SECONDS, Stream, event_stream
from mainstay.operations.services import Services
from mainstay.wire.views import EventView, Page

router = APIRouter(prefix="/v1", tags=["events"])

BATCH = 200


@router.get("/events")
async def list_events(
    principal: Reader,
    services: All,
    *,
    workload: str = "",
    after: Annotated[int, Query(ge=0)] = 0,
    newest: bool = False,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
) -> Page[EventView]:
    """Events after a number, oldest first; of one workload if it is given. `newest`: the last ones instead."""
    name = await _workload_id(services, workload, tenant=principal.tenant)
    if newest:
        rows = await services.offload(services.store.last_events, tenant=principal.tenant, workload=name, limit=limit)
    else:
        rows = await services.offload(
            services.store.events, tenant=principal.tenant, workload=name, after=after, limit=limit
        )
    more = str(rows[-1].seq) if len(rows) == limit and not newest else ""
    return Page[EventView](items=[event_view(row) for row in rows], next=more)


@router.get("/events/stream", response_class=StreamingResponse)
async def stream_events(
    principal: Reader,
    services: All,
    stream: Stream,
    *,
    workload: str = "",
    after: Annotated[int, Query(ge=0)] = 0,
    last_event_id: Annotated[str, Header()] = "",
) -> StreamingResponse:
    """Server-sent events; the id is the number of the event, so that Last-Event-ID resumes without a gap."""
    name = await _workload_id(services, workload, tenant=principal.tenant)
    start = int(last_event_id) if last_event_id.isdecimal() and len(last_event_id) < 19 else after
    return event_stream(_follow(services, tenant=principal.tenant, workload=name, after=start), stream)


async def _follow(services: Services, *, tenant: str, workload: str, after: int) -> AsyncIterator[str]:
    with services.pulse.listener() as listener:
        while True:
            rows = await services.offload(
                services.store.events, tenant=tenant, workload=workload, after=after, limit=BATCH
            )
            for row in rows:
                after = row.seq
                yield f"event: event\nid: {row.seq}\ndata: {event_view(row).model_dump_json()}\n\n"
            if not rows and not await listener.wait(HEARTBEAT_SECONDS):
                yield HEARTBEAT


async def _workload_id(services: Services, reference: str, *, tenant: str) -> str:
    if not reference:
        return ""
    return (await services.offload(services.store.workload, reference, tenant=tenant)).id
