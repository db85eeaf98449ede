"""Names for priorities: list, set and remove them."""

from __future__ import annotations

from fastapi import Response
from pydantic import TypeAdapter

from mainstay.api import convert_queues
from mainstay.api.routes import Caller, Routes, done, json_response
from mainstay.domain.access import Permission
from mainstay.domain.queue import PriorityClass
from mainstay.operations import priorities as operations
from mainstay.wire.requests import PriorityClassRequest
from mainstay.wire.views import Page, PriorityClassView

routes = Routes("priorities")
_CLASSES = TypeAdapter(Page[PriorityClassView])


@routes.add("GET", "/v1/priorities", needs=Permission.READ, answers=Page[PriorityClassView], of_projects=True)
async def list_priorities(call: Caller) -> Response:
    """Every priority class, the most urgent first; those that are always there too."""
    found = await call.services.offload(operations.classes, call.services.store)
    page = Page[PriorityClassView](items=[convert_queues.priority_class_view(one) for one in found])
    return json_response(_CLASSES.dump_json(page))


@routes.add("PUT", "/v1/priorities/{name}", needs=Permission.MANAGE, answers=PriorityClassView)
async def set_priority(call: Caller, name: str, body: PriorityClassRequest) -> Response:
    """Give a priority a name, or a name another priority. Workloads keep the number that they were submitted with."""
    services = call.services
    wanted = PriorityClass(name=name, priority=body.priority, preemptible=body.preemptible)
    await services.offload(operations.put, services.store, call.principal, (wanted,), now=services.clock.now())
    return json_response(convert_queues.priority_class_view(wanted).model_dump_json())


@routes.add("DELETE", "/v1/priorities/{name}", needs=Permission.MANAGE, status=204, keyed=True)
async def remove_priority(call: Caller, name: str) -> Response:
    """Forget a name. Job files that give it are refused from now on."""
    services = call.services
    result = await services.offload(
        operations.remove, services.store, call.principal, name, now=services.clock.now(), request=call.key
    )
    return done(result, status=204)
