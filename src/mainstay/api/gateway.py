"""The gateway: an address that stays the same, in front of whichever pod serves an endpoint now.

Where a request goes comes from our records, never from its address (security.md F3); our credentials stay here. A pod whose
address we cannot reach is reached through its cluster, by the same client (`tunnels.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import quote

import httpx2
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from mainstay.api.routes import Caller, Routes
from mainstay.api.tunnels import PATTERN, TunnelTransport, origin
from mainstay.domain.access import Permission
from mainstay.domain.addresses import tunnel_of
from mainstay.domain.errors import Invalid, Unavailable
from mainstay.domain.registry import Endpoint
from mainstay.operations.deploy import endpoint_for
from mainstay.ports import Cluster

routes = Routes("gateway")

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Between two neighbours only. Source: RFC 9110, 7.6.1."""
OURS = frozenset({"authorization", "cookie", "set-cookie", "host", "content-length", "forwarded", "expect"})
"""Credentials, which a model server must never see or set, and what the next hop states anew."""
KEPT_FROM_UPSTREAM = frozenset({"content-type", "content-encoding", "content-length", "retry-after", "date"})
"""All that an answer may bring: a model server is hostile too and sets no header of our origin."""
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 120.0
"""Prediction may be slow; silence for longer is an outage."""
CONNECTIONS_MAX = 200
RETRY_AFTER_SECONDS = 1


def new_client(clusters: Mapping[str, Cluster]) -> httpx2.AsyncClient:
    """One per app, over the clusters that are open at each moment.

    No proxies and no credentials from the environment, no redirects, and no memory.

    A cookie that one model server sets would else be sent to the next one.
    """
    limits = httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX // 4)
    return httpx2.AsyncClient(
        trust_env=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
        timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=CONNECT_SECONDS),
        limits=limits,
        mounts={PATTERN: TunnelTransport(clusters, limits=limits)},
    )


@routes.add("GET", "/endpoints/{name}/v2/{path:path}", needs=Permission.READ, listed=False, of_projects=True)
async def ask(call: Caller, request: Request, name: str, path: str) -> Response:
    """Health and metadata of what serves an endpoint (Open Inference Protocol v2)."""
    return await _forward(call, request, name, path)


@routes.add("POST", "/endpoints/{name}/v2/{path:path}", needs=Permission.READ, listed=False, of_projects=True)
async def predict(call: Caller, request: Request, name: str, path: str) -> Response:
    """Predictions (Open Inference Protocol v2). Not retried: the caller knows whether twice is harmless."""
    return await _forward(call, request, name, path)


async def _forward(call: Caller, request: Request, name: str, path: str) -> Response:
    services = call.services
    endpoint = await services.offload(endpoint_for, services.store, call.principal, name)
    if not endpoint.address:
        raise _nothing_serves(endpoint)
    client: httpx2.AsyncClient = request.app.state.gateway
    upstream = client.build_request(
        request.method,
        f"http://{_origin(endpoint.address)}/v2/{_plain(path)}",
        params=httpx2.QueryParams(str(request.query_params)),
        headers=_forwarded(request.headers.items(), request.headers.get("connection", "")),
        content=await request.body(),
    )
    try:
        answer = await client.send(upstream, stream=True)
    except httpx2.TimeoutException as error:
        msg = f"endpoint {name} took too long to answer"
        raise Unavailable(msg, object_=name, hint="try again, or look at its log", numbers=_retry()) from error
    except httpx2.TransportError as error:
        msg = f"what serves endpoint {name} cannot be reached"
        raise Unavailable(
            msg, object_=name, hint="it is being started again; try again in a moment", numbers=_retry()
        ) from error
    headers = {key: value for key, value in answer.headers.items() if key.lower() in KEPT_FROM_UPSTREAM}
    return StreamingResponse(_content(answer), status_code=answer.status_code, headers=headers)


async def _content(answer: httpx2.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


def _forwarded(headers: Iterable[tuple[str, str]], connection: str) -> list[tuple[str, str]]:
    """Without what `Connection` names, as RFC 9110 7.6.1 asks."""
    named = {name.strip().lower() for name in connection.split(",")}
    dropped = HOP_BY_HOP | OURS | named
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in dropped and not name.lower().startswith(("x-forwarded-", "x-mainstay-", "sec-"))
    ]


def _origin(address: str) -> str:
    tunnel = tunnel_of(address)
    return origin(tunnel) if tunnel else address


def _plain(path: str) -> str:
    """Raises Invalid for a path that would climb out of `/v2/`."""
    if any(part in {".", ".."} for part in path.split("/")):
        msg = "the path leaves the protocol"
        raise Invalid(msg, object_="path")
    return quote(path, safe="/")


def _nothing_serves(endpoint: Endpoint) -> Unavailable:
    if endpoint.candidate:
        msg = f"endpoint {endpoint.name} is starting version {endpoint.candidate_version}"
        hint = f"follow it with: mainstay logs -f {endpoint.candidate}"
    else:
        msg = f"nothing serves endpoint {endpoint.name} just now"
        hint = f"it is started again by itself; see: mainstay show {endpoint.serving}" if endpoint.serving else ""
    return Unavailable(msg, object_=endpoint.name, hint=hint, numbers=_retry())


def _retry() -> dict[str, int | float | str]:
    return {"retry_after_seconds": RETRY_AFTER_SECONDS}
