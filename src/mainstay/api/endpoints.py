"""Models, endpoints, and the gateway that gives an endpoint an address which stays the same."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from mainstay.api.auth import All, Deployer, Key, Reader
from mainstay.api.convert import endpoint_view, model_version_view
from mainstay.api.workloads import answer
from mainstay.domain.errors import Invalid, Unavailable
from mainstay.domain.quantity import Resources
from mainstay.operations import deploy
from mainstay.wire import quantities
from mainstay.wire.requests import DeployRequest
from mainstay.wire.views import EndpointView, ModelVersionView, Page

router = APIRouter(tags=["endpoints"])

HOP_BY_HOP = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Not forwarded (RFC 9110, 7.6.1)."""
CREDENTIALS = frozenset({"authorization", "cookie", "set-cookie"})
"""Ours; a model server never sees them (security.md F3)."""
GATEWAY_TIMEOUT = httpx2.Timeout(60.0, connect=5.0)


@router.get("/v1/models")
async def list_models(principal: Reader, services: All, model: str = "") -> Page[ModelVersionView]:
    """Registered versions, newest first."""
    rows = await services.offload(services.store.model_versions, tenant=principal.tenant, model=model)
    return Page[ModelVersionView](items=[model_version_view(row) for row in rows])


@router.post("/v1/endpoints", status_code=202, response_model=EndpointView)
async def deploy_model(body: DeployRequest, principal: Deployer, key: Key, services: All) -> Response:
    """Serve the model that a workload made. What serves now goes on until the new version is healthy."""
    done = await deploy.deploy(
        services,
        principal,
        deploy.DeployRequest(
            workload=body.workload,
            endpoint=body.endpoint or "",
            model=body.model or "",
            path=body.path,
            resources=_resources(body),
        ),
        request=key,
        reply=lambda endpoint: endpoint_view(endpoint, url=services.url).model_dump_json(),
    )
    services.pulse.beat()
    return answer(done, status=202)


@router.get("/v1/endpoints")
async def list_endpoints(principal: Reader, services: All) -> Page[EndpointView]:
    """Every endpoint."""
    rows = await services.offload(services.store.endpoints, tenant=principal.tenant)
    return Page[EndpointView](items=[endpoint_view(row, url=services.url) for row in rows])


@router.get("/v1/endpoints/{name}")
async def get_endpoint(name: str, principal: Reader, services: All) -> EndpointView:
    """One endpoint."""
    endpoint = await services.offload(services.store.endpoint, name, tenant=principal.tenant)
    return endpoint_view(endpoint, url=services.url)


@router.delete("/v1/endpoints/{name}", status_code=204)
async def remove_endpoint(name: str, principal: Deployer, key: Key, services: All) -> Response:
    """Take an endpoint away and stop what serves it."""
    done = await services.offload(
        deploy.remove, services.store, principal, name, now=services.clock.now(), request=key
    )
    services.pulse.beat()
    return Response(status_code=204, headers={"Idempotency-Replayed": "true"} if done.replayed else {})


@router.api_route("/endpoints/{name}/v2/{path:path}", methods=["GET", "POST"], include_in_schema=False)
async def call_endpoint(name: str, path: str, request: Request, principal: Reader, services: All) -> Response:
    """Pass a request of the Open Inference Protocol v2 on to what serves the endpoint now."""
    endpoint = await services.offload(services.store.endpoint, name, tenant=principal.tenant)
    if not endpoint.address:
        msg = f"endpoint {name} has nothing that serves it yet"
        raise Unavailable(msg, object_=name, hint=f"mainstay show {endpoint.candidate or endpoint.serving}")
    gateway: httpx2.AsyncClient = request.app.state.gateway
    upstream = gateway.build_request(
        request.method,
        f"http://{endpoint.address}/v2/{path}",
        params=request.query_params.multi_items(),
        headers=[(key, value) for key, value in request.headers.items() if key not in HOP_BY_HOP | CREDENTIALS],
        content=await request.body(),
        timeout=GATEWAY_TIMEOUT,
    )
    try:
        reply = await gateway.send(upstream, stream=True)
    except httpx2.TransportError as error:
        msg = f"what serves endpoint {name} does not answer: {type(error).__name__}"
        raise Unavailable(msg, object_=name, hint="it is started again by itself; try again shortly") from error
    headers = {key: value for key, value in reply.headers.items() if key not in HOP_BY_HOP | CREDENTIALS}
    return StreamingResponse(_body(reply), reply.status_code, headers)


async def _body(reply: httpx2.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in reply.aiter_raw():
            yield chunk
    finally:
        await reply.aclose()


def _resources(body: DeployRequest) -> Resources:
    try:
        return Resources(cpu_milli=quantities.cpu(body.cpu).low, memory_bytes=quantities.memory(body.memory).low)
    except ValueError as error:
        raise Invalid(str(error), object_="cpu, memory") from error
