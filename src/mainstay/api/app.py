"""The factory of the API: all routes, what guards them, and their description."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from mainstay import __version__
from mainstay.api import (
    access,
    agents,
    audit,
    clusters,
    costs,
    endpoints,
    events,
    flavors,
    fleet,
    gateway,
    inside,
    local_queues,
    logs,
    priorities,
    queues,
    secrets,
    server,
    trees,
    volumes,
    webhooks,
    workloads,
)
from mainstay.api.auth import Authentication
from mainstay.api.buckets import Buckets
from mainstay.api.headers import SecurityHeaders
from mainstay.api.limits import LOG_BYTES_PER_SECOND, BodyLimit, Sockets, Streams, TooLarge, on_too_large
from mainstay.api.problems import MEDIA_TYPE, Failures, handle_errors
from mainstay.api.routes import PUBLIC, Declared, Routes, guard
from mainstay.api.sockets import spoken
from mainstay.operations.services import Services
from mainstay.wire.views import Problem

TOPICS: tuple[Routes, ...] = (
    workloads.routes,
    logs.routes,
    inside.routes,
    events.routes,
    endpoints.routes,
    gateway.routes,
    trees.routes,
    costs.routes,
    fleet.routes,
    clusters.routes,
    agents.routes,
    secrets.routes,
    volumes.routes,
    queues.routes,
    flavors.routes,
    local_queues.routes,
    priorities.routes,
    access.routes,
    webhooks.routes,
    audit.routes,
    server.routes,
)
DESCRIPTION = (
    "Submit jobs, follow them, deploy what they made, and read the bill. Every refusal is a problem (RFC 9457) with a "
    "stable `code`. What is made or ended takes an `Idempotency-Key`: the same key with the same body gets the first "
    "answer again. Other writes may be repeated as they are."
)


def create_api(services: Services) -> FastAPI:
    """The app. What it opens (connections to pods) lives as long as the app runs."""
    app = FastAPI(
        title="mainstay",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.services = services
    app.state.streams = Streams()
    app.state.sockets = Sockets()
    app.state.log_bytes = Buckets(per_second=LOG_BYTES_PER_SECOND)
    # The last one added sees a request first.
    app.add_middleware(BodyLimit)
    app.add_middleware(Authentication, services=services)
    app.add_middleware(Failures)
    app.add_middleware(SecurityHeaders)
    handle_errors(app)
    app.add_exception_handler(TooLarge, on_too_large)
    app.router.routes.extend(_routes())
    app.add_api_route("/v1/openapi.json", lambda: openapi(app), include_in_schema=False)
    return app


@functools.cache
def _routes() -> tuple[BaseRoute, ...]:
    """The same for every app of a process: what they need is in the state of the app through which they are asked."""
    router = APIRouter()
    for topic in TOPICS:
        for declared in topic.declared:
            _add(router, topic.topic, declared)
        for socket in topic.sockets:
            guarding = [
                Depends(guard(socket.permission, of_projects=socket.of_projects)),
                Depends(spoken(socket.protocol)),
            ]
            router.add_api_websocket_route(socket.path, socket.endpoint, dependencies=guarding)
    return tuple(router.routes)


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description of all listed routes, without anything of this machine."""
    if not app.openapi_schema:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        document.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        app.openapi_schema = document
    return app.openapi_schema


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with gateway.new_client(app.state.services.clusters) as client:
        app.state.gateway = client
        yield


def _add(router: APIRouter, topic: str, declared: Declared) -> None:
    extra: dict[str, Any] = {"x-permission": declared.permission or "public"}
    if declared.permission is PUBLIC:
        extra["security"] = []
    if declared.body:
        extra["requestBody"] = declared.body
    if declared.keyed:
        extra["parameters"] = [_IDEMPOTENCY_KEY]
    router.add_api_route(
        declared.path,
        declared.endpoint,
        methods=[declared.method],
        status_code=declared.status,
        response_model=declared.answers,
        responses=_responses(declared),
        dependencies=[]
        if declared.permission is PUBLIC
        else [Depends(guard(declared.permission, of_projects=declared.of_projects))],
        operation_id=declared.endpoint.__name__,
        tags=[topic],
        include_in_schema=declared.listed,
        openapi_extra=extra,
    )


_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    "description": "The same key with the same body is done once and gets the same answer.",
}


def _responses(declared: Declared) -> dict[int | str, dict[str, Any]]:
    problem = {"description": "A problem (RFC 9457).", "content": {MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA}}}
    responses: dict[int | str, dict[str, Any]] = {"default": {**problem, "model": Problem}}
    if declared.answers is None and declared.status == 200:
        responses[200] = {"description": "OK", "content": {declared.media_type: {"schema": {"type": "string"}}}}
    return responses


_PROBLEM_SCHEMA = {"$ref": "#/components/schemas/Problem"}
