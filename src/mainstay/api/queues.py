"""The queue tree: list, set and remove queues and cohorts."""

from __future__ import annotations

from fastapi import Response
from pydantic import TypeAdapter

from mainstay.api import convert_queues
from mainstay.api.limits import PAGE_DEFAULT, Cursor, PageLimit
from mainstay.api.routes import Caller, Routes, done, json_response
from mainstay.domain.access import Permission
from mainstay.domain.errors import Invalid
from mainstay.operations import flavors as flavor_operations
from mainstay.operations import queues as operations
from mainstay.wire.requests import QueueHistoryRequest, QueueRequest, QueuesRequest
from mainstay.wire.views import Page, QueueHistoryView, QueueView

routes = Routes("queues")
_QUEUES = TypeAdapter(Page[QueueView])


@routes.add("GET", "/v1/queues", needs=Permission.READ, answers=Page[QueueView], of_projects=True)
async def list_queues(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """Every queue and cohort with its quotas and what is used of them, parents before their children."""
    services = call.services
    found = await services.offload(operations.states, services.store, call.principal, now=services.clock.now())
    names = [state.queue.name for state in found]
    if cursor and cursor not in names:
        msg = f"cursor: the queue {cursor!r} has been removed in the meantime"
        raise Invalid(msg, object_="cursor", hint="list them from the beginning")
    begin = names.index(cursor) + 1 if cursor else 0
    page = Page[QueueView](
        items=[convert_queues.queue_view(state) for state in found[begin : begin + limit]],
        next=names[begin + limit - 1] if len(found) > begin + limit else "",
    )
    return json_response(_QUEUES.dump_json(page))


@routes.add("GET", "/v1/queues/{name}", needs=Permission.READ, answers=QueueView, of_projects=True)
async def get_queue(call: Caller, name: str) -> Response:
    """One queue or cohort."""
    services = call.services
    found = await services.offload(operations.state, services.store, call.principal, name, now=services.clock.now())
    return json_response(convert_queues.queue_view(found).model_dump_json())


@routes.add("PUT", "/v1/queues", needs=Permission.MANAGE, answers=Page[QueueView])
async def set_queues(call: Caller, body: QueuesRequest) -> Response:
    """Set several queues and cohorts together, or none of them; those that are not named stay as they are."""
    services = call.services

    def work() -> Page[QueueView]:
        flavors, now = flavor_operations.names(services.store), services.clock.now()
        models = operations.gpu_models(services.store, now=now)
        changes = [convert_queues.queue_change(one.name, one, flavors=flavors, models=models) for one in body.queues]
        operations.put(services.store, call.principal, changes, now=now)
        names = {one.name for one in body.queues}
        found = operations.states(services.store, call.principal, now=services.clock.now())
        return Page[QueueView](items=[convert_queues.queue_view(state) for state in found if state.queue.name in names])

    page = await services.offload(work)
    services.pulse.beat()
    return json_response(_QUEUES.dump_json(page))


@routes.add("PUT", "/v1/queues/{name}", needs=Permission.MANAGE, answers=QueueView)
async def set_queue(call: Caller, name: str, body: QueueRequest) -> Response:
    """Set a queue or cohort, or change one that is there. What runs runs on; what waits has its turn by the new numbers."""
    services = call.services

    def work() -> QueueView:
        flavors, now = flavor_operations.names(services.store), services.clock.now()
        models = operations.gpu_models(services.store, now=now)
        change = convert_queues.queue_change(name, body, flavors=flavors, models=models)
        operations.put(services.store, call.principal, [change], now=now)
        return convert_queues.queue_view(
            operations.state(services.store, call.principal, name, now=services.clock.now())
        )

    view = await services.offload(work)
    services.pulse.beat()
    return json_response(view.model_dump_json())


@routes.add("GET", "/v1/queue-history", needs=Permission.READ, answers=QueueHistoryView)
async def get_queue_history(call: Caller) -> Response:
    """Whether what queues have used lately counts towards their turns, and how."""
    services = call.services
    found = await services.offload(operations.history, services.store, call.principal)
    return json_response(convert_queues.history_view(found).model_dump_json())


@routes.add("PUT", "/v1/queue-history", needs=Permission.MANAGE, answers=QueueHistoryView)
async def set_queue_history(call: Caller, body: QueueHistoryRequest) -> Response:
    """Say anew, for all queues, whether and how that counts. What is on record fades on by the new half-life; off forgets it."""
    services = call.services
    policy = convert_queues.history_policy(body)
    found = await services.offload(
        operations.set_history, services.store, call.principal, policy, now=services.clock.now()
    )
    services.pulse.beat()
    return json_response(convert_queues.history_view(found).model_dump_json())


@routes.add("DELETE", "/v1/queues/{name}", needs=Permission.MANAGE, status=204, keyed=True)
async def remove_queue(call: Caller, name: str) -> Response:
    """Forget a queue or cohort. Refused while open workloads are in it or others are below it."""
    services = call.services
    result = await services.offload(
        operations.remove, services.store, call.principal, name, now=services.clock.now(), request=call.key
    )
    services.pulse.beat()
    return done(result, status=204)
