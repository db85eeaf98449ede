"""The event log: read it in pages, or follow it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Final

from fastapi import Depends, Query, Request, Response
from pydantic import TypeAdapter

from mainstay.api import convert
from mainstay.api.limits import PAGE_DEFAULT, PAGE_MAX, Cursor, PageLimit, cursor_key
from mainstay.api.routes import Call, Caller, Routes, json_response
from mainstay.api.standing import until_refused
from mainstay.api.streams import HEARTBEAT, HEARTBEAT_SECONDS, MEDIA_TYPE, EventStream, frame, resume_after
from mainstay.domain.access import Permission
from mainstay.domain.plan import EventKind
from mainstay.operations.principal import workload_for
from mainstay.ports import EventFilter
from mainstay.wire.views import EventView, Page

routes = Routes("events")
LOOK_SECONDS = 0.25
"""How late a change that another replica made is seen at most; our own are seen at once."""
_PAGE = TypeAdapter(Page[EventView])

Workload = Annotated[str, Query(max_length=120, description="Only events of this workload (id or name).")]
OF_PLATFORM: Final = frozenset({"node", "cluster", "price", "queue", "flavor", "priority_class"})
"""What belongs to no tenant, and is shown to who may manage the platform."""


async def event_filter(
    call: Caller,
    kind: Annotated[
        list[EventKind] | None,
        Query(description="Only events of these kinds; `manage` sees those of the platform too."),
    ] = None,
    object: Annotated[  # noqa: A002 its public name
        str,
        Query(
            max_length=260,
            description="Only about what is so called: a node, a queue, a flavor, a volume and so on.",
        ),
    ] = "",
) -> EventFilter:
    """Who may not see the events of the platform is not shown them, and is refused where they are asked for by kind."""
    kinds = tuple(kind or ())
    if kinds and OF_PLATFORM.issuperset(kinds):
        call.principal.require(Permission.MANAGE)
    return EventFilter(platform=call.principal.may(Permission.MANAGE), kinds=kinds, object=object)


Which = Annotated[EventFilter, Depends(event_filter)]


@routes.add("GET", "/v1/events", needs=Permission.READ, answers=Page[EventView], of_projects=True)
async def list_events(
    call: Caller,
    which: Which,
    workload: Workload = "",
    cursor: Cursor = "",
    limit: PageLimit = PAGE_DEFAULT,
    newest: Annotated[bool, Query(description="The last `limit` events instead, in one page.")] = False,  # noqa: FBT002 its public name
) -> Response:
    """Events, oldest first: of the caller's tenant, and for who may `manage` the platform those of nodes, clusters,
    prices, queues and priority classes.

    A `seq` is a cursor too: that of the last event is where to ask again later.
    """
    store, tenant = call.services.store, call.principal.tenant
    reference, _ = await _workload_id(call, workload)
    if newest:
        last = await call.services.offload(
            store.last_events, tenant=tenant, workload=reference, limit=limit, which=which
        )
        page = Page[EventView](items=[convert.event_view(event) for event in last])
        return json_response(_PAGE.dump_json(page))
    found = await call.services.offload(
        store.events, tenant=tenant, workload=reference, after=cursor_key(cursor), limit=limit + 1, which=which
    )
    page = Page[EventView](
        items=[convert.event_view(event) for event in found[:limit]],
        next=str(found[limit - 1].seq) if len(found) > limit else "",
    )
    return json_response(_PAGE.dump_json(page))


@routes.add("GET", "/v1/events/stream", needs=Permission.READ, media_type=MEDIA_TYPE, of_projects=True)
async def stream_events(
    call: Caller,
    request: Request,
    which: Which,
    workload: Workload = "",
    after: Annotated[int, Query(ge=0, lt=1 << 62, description="Resume after this `seq`.")] = 0,
) -> Response:
    """Follow the event log as server-sent events: `event: event`, `id` = seq. Resumes without a gap."""
    reference, project = await _workload_id(call, workload)
    (after,) = resume_after(request, given=(after,))
    return EventStream(
        _frames(call, reference, after, which),
        streams=request.app.state.streams,
        until=partial(until_refused, call, Permission.READ, project),
    )


async def _frames(call: Call, workload: str, after: int, which: EventFilter) -> AsyncIterator[bytes]:
    services = call.services
    silent_since = services.clock.monotonic()
    with services.pulse.listener() as listener:
        while True:
            # Before the look: a commit in between is then a change, never part of what we believe to have seen.
            seen = await services.offload(services.store.version)
            found = await services.offload(
                services.store.events,
                tenant=call.principal.tenant,
                workload=workload,
                after=after,
                limit=PAGE_MAX,
                which=which,
            )
            for event in found:
                after = event.seq
                yield frame("event", convert.event_view(event).model_dump_json(), id_=after)
            if found:
                silent_since = services.clock.monotonic()
                continue
            if services.clock.monotonic() - silent_since >= HEARTBEAT_SECONDS:
                silent_since = services.clock.monotonic()
                yield HEARTBEAT
            while not await listener.wait(LOOK_SECONDS) and await services.offload(services.store.version) == seen:
                if services.clock.monotonic() - silent_since >= HEARTBEAT_SECONDS:
                    break


async def _workload_id(call: Call, reference: str) -> tuple[str, str]:
    """Its id and project; of none those of all, for who may look into all. Raises NotFound for a workload of somebody else."""
    if not reference:
        call.principal.require(Permission.READ)
        return "", ""
    found = await call.services.offload(workload_for, call.services.store, call.principal, reference, Permission.READ)
    return found.id, found.project
