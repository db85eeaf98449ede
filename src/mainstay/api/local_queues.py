"""Local queues: names that namespaces of clusters have for queues; list, set and remove them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import TypeAdapter

from mainstay.api import convert_queues
from mainstay.api.routes import Caller, Routes, done, json_response
from mainstay.domain.access import Permission
from mainstay.domain.queue import LocalQueue
from mainstay.operations import local_queues as operations
from mainstay.wire.requests import LocalQueuesRequest
from mainstay.wire.views import LocalQueueView, Page

routes = Routes("local-queues")
_LOCAL_QUEUES = TypeAdapter(Page[LocalQueueView])


@routes.add("GET", "/v1/local-queues", needs=Permission.MANAGE, answers=Page[LocalQueueView])
async def list_local_queues(call: Caller) -> Response:
    """All names that namespaces of clusters have for queues, by namespace and name."""
    return json_response(_LOCAL_QUEUES.dump_json(await _page(call)))


@routes.add("PUT", "/v1/local-queues", needs=Permission.MANAGE, answers=Page[LocalQueueView])
async def set_local_queues(call: Caller, body: LocalQueuesRequest) -> Response:
    """Set several together, or none of them; those that are not named stay as they are. Pods that wait keep their queue."""
    services = call.services
    wanted = [LocalQueue(**one.model_dump()) for one in body.local_queues]
    await services.offload(operations.put, services.store, call.principal, wanted, now=services.clock.now())
    return json_response(_LOCAL_QUEUES.dump_json(await _page(call)))


@routes.add("DELETE", "/v1/local-queues/{namespace}/{name}", needs=Permission.MANAGE, status=204, keyed=True)
async def remove_local_queue(
    call: Caller,
    namespace: str,
    name: str,
    cluster: Annotated[str, Query(max_length=40, description="Of this cluster; empty: of every one.")] = "",
) -> Response:
    """Forget one. Pods that say it from now on wait in the default queue."""
    services = call.services
    result = await services.offload(
        operations.remove,
        services.store,
        call.principal,
        cluster=cluster,
        namespace=namespace,
        name=name,
        now=services.clock.now(),
        request=call.key,
    )
    return done(result, status=204)


async def _page(call: Caller) -> Page[LocalQueueView]:
    found = await call.services.offload(operations.records, call.services.store, call.principal)
    return Page[LocalQueueView](items=[convert_queues.local_queue_view(record) for record in found])
