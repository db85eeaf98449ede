"""Flavors of nodes, of which queues have quotas: list, set and remove them."""

from __future__ import annotations

from fastapi import Response
from pydantic import TypeAdapter

from mainstay.api import convert_queues
from mainstay.api.routes import Caller, Routes, done, json_response
from mainstay.domain.access import Permission
from mainstay.operations import flavors as operations
from mainstay.wire.requests import FlavorRequest, FlavorsRequest
from mainstay.wire.views import FlavorView, Page

routes = Routes("flavors")
_FLAVORS = TypeAdapter(Page[FlavorView])


@routes.add("GET", "/v1/flavors", needs=Permission.READ, answers=Page[FlavorView], of_projects=True)
async def list_flavors(call: Caller) -> Response:
    """Every flavor of nodes in their order, with what its nodes have. A node is of the first that it meets."""
    return json_response(_FLAVORS.dump_json(await _page(call)))


@routes.add("PUT", "/v1/flavors", needs=Permission.MANAGE, answers=Page[FlavorView])
async def set_flavors(call: Caller, body: FlavorsRequest) -> Response:
    """Set several flavors together, or none of them, one after the other; those that are not named stay as they are."""
    services = call.services
    changes = [convert_queues.flavor_change(one.name, one) for one in body.flavors]
    await services.offload(operations.put, services.store, call.principal, changes, now=services.clock.now())
    services.pulse.beat()
    return json_response(_FLAVORS.dump_json(await _page(call)))


@routes.add("PUT", "/v1/flavors/{name}", needs=Permission.MANAGE, answers=FlavorView)
async def set_flavor(call: Caller, name: str, body: FlavorRequest) -> Response:
    """Set a flavor, or change one that is there. What runs runs on, and counts against the flavor that its node is of now."""
    services = call.services
    change = convert_queues.flavor_change(name, body)
    await services.offload(operations.put, services.store, call.principal, [change], now=services.clock.now())
    services.pulse.beat()
    page = await _page(call)
    return json_response(next(one for one in page.items if one.name == name).model_dump_json())


@routes.add("DELETE", "/v1/flavors/{name}", needs=Permission.MANAGE, status=204, keyed=True)
async def remove_flavor(call: Caller, name: str) -> Response:
    """Forget a flavor. Refused while a queue or cohort has a quota of it."""
    services = call.services
    result = await services.offload(
        operations.remove, services.store, call.principal, name, now=services.clock.now(), request=call.key
    )
    services.pulse.beat()
    return done(result, status=204)


async def _page(call: Caller) -> Page[FlavorView]:
    services = call.services
    found = await services.offload(operations.states, services.store, call.principal, now=services.clock.now())
    return Page[FlavorView](items=[convert_queues.flavor_view(state) for state in found])
