"""Models and endpoints: deploy, list, remove."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import TypeAdapter

from mainstay.api import convert, convert_jobs
from mainstay.api.limits import PAGE_DEFAULT, Cursor, PageLimit, cursor_key
from mainstay.api.routes import Caller, Routes, done, json_response
from mainstay.domain.access import Permission
from mainstay.domain.registry import ModelVersion
from mainstay.operations import deploy as deploying
from mainstay.wire.requests import DeployRequest
from mainstay.wire.views import EndpointView, ModelVersionView, Page

routes = Routes("endpoints")
_MODELS = TypeAdapter(Page[ModelVersionView])
_ENDPOINTS = TypeAdapter(Page[EndpointView])


@routes.add("GET", "/v1/models", needs=Permission.READ, answers=Page[ModelVersionView], of_projects=True)
async def list_models(
    call: Caller,
    model: Annotated[str, Query(max_length=40)] = "",
    cursor: Cursor = "",
    limit: PageLimit = PAGE_DEFAULT,
) -> Response:
    """Registered versions of one model or of all, newest first."""
    found = await call.services.offload(
        call.services.store.model_versions,
        tenant=call.principal.tenant,
        model=model,
        before=_version_of(cursor),
        limit=limit + 1,
    )
    page = Page[ModelVersionView](
        items=[
            convert.model_version_view(version)
            for version in found[:limit]
            if call.principal.may(Permission.READ, version.project)
        ],
        next=_cursor_of(found[limit - 1]) if len(found) > limit else "",
    )
    return json_response(_MODELS.dump_json(page))


def _cursor_of(version: ModelVersion) -> str:
    return f"{version.registered_at}:{version.model}:{version.version}"


def _version_of(cursor: str) -> tuple[int, str, int] | None:
    """Raises Invalid."""
    if not cursor:
        return None
    registered_at, _, rest = cursor.partition(":")
    model, _, number = rest.rpartition(":")
    return cursor_key(registered_at or "-"), model, cursor_key(number or "-")


@routes.add(
    "POST", "/v1/endpoints", needs=Permission.DEPLOY, answers=EndpointView, status=202, keyed=True, of_projects=True
)
async def deploy(call: Caller, body: DeployRequest) -> Response:
    """Serve the model that a workload made. What serves now goes on until the new version is healthy."""
    services = call.services
    result = await deploying.deploy(
        services,
        call.principal,
        deploying.DeployRequest(
            workload=body.workload,
            endpoint=body.endpoint or "",
            model=body.model or "",
            path=body.path,
            cluster=body.infra,
            resources=convert_jobs.resources(cpu=body.cpu, memory=body.memory, where="deploy"),
        ),
        request=call.key,
        reply=lambda endpoint: convert.endpoint_view(endpoint, url=services.url).model_dump_json(),
    )
    services.pulse.beat()
    return done(result, status=202)


@routes.add("GET", "/v1/endpoints", needs=Permission.READ, answers=Page[EndpointView], of_projects=True)
async def list_endpoints(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """Every endpoint, by name."""
    services = call.services
    found = await services.offload(
        services.store.endpoints, tenant=call.principal.tenant, after=cursor, limit=limit + 1
    )
    page = Page[EndpointView](
        items=[
            convert.endpoint_view(endpoint, url=services.url)
            for endpoint in found[:limit]
            if call.principal.may(Permission.READ, endpoint.project)
        ],
        next=found[limit - 1].name if len(found) > limit else "",
    )
    return json_response(_ENDPOINTS.dump_json(page))


@routes.add("GET", "/v1/endpoints/{name}", needs=Permission.READ, answers=EndpointView, of_projects=True)
async def get_endpoint(call: Caller, name: str) -> Response:
    """One endpoint."""
    services = call.services
    endpoint = await services.offload(deploying.endpoint_for, services.store, call.principal, name)
    return json_response(convert.endpoint_view(endpoint, url=services.url).model_dump_json())


@routes.add("DELETE", "/v1/endpoints/{name}", needs=Permission.DEPLOY, status=204, keyed=True, of_projects=True)
async def remove_endpoint(call: Caller, name: str) -> Response:
    """Take an endpoint away and stop what serves it."""
    services = call.services
    result = await services.offload(
        deploying.remove, services.store, call.principal, name, now=services.clock.now(), request=call.key
    )
    services.pulse.beat()
    return done(result, status=204)
