"""Builds the API from its services: one router per topic, problems for every refusal, headers on every answer."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import httpx2
from fastapi import FastAPI
from fastapi.routing import APIRoute

from mainstay import __version__
from mainstay.api import costs, endpoints, events, fleet, logs, problems, server, trees, workloads
from mainstay.api.auth import check_permissions
from mainstay.api.limits import Guarded
from mainstay.operations.services import Services

ROUTERS = (
    workloads.router,
    logs.router,
    events.router,
    trees.router,
    endpoints.router,
    costs.router,
    fleet.router,
    server.router,
)
GATEWAY_CONNECTIONS_MAX = 200


def create_api(services: Services) -> FastAPI:
    """The application. Raises RuntimeError if a route declares no permission."""
    app = FastAPI(
        title="mainstay",
        version=__version__,
        description="Submit workloads, follow them, deploy models, read the bill.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
    )
    app.state.services = services
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    check_permissions(app)
    app.add_middleware(Guarded)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    limits = httpx2.Limits(max_connections=GATEWAY_CONNECTIONS_MAX)
    async with httpx2.AsyncClient(limits=limits, trust_env=False, follow_redirects=False) as client:
        app.state.gateway = client
        yield


def _operation_id(route: APIRoute) -> str:
    return route.name
