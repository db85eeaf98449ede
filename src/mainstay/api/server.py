"""Who answers, whether it is well, and the descriptions of what it takes."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mainstay import __version__
from mainstay.api import convert_access
from mainstay.api.routes import PUBLIC, Caller, Routes, json_response
from mainstay.domain.access import Permission
from mainstay.operations import sessions
from mainstay.operations import sign_in as signing_in
from mainstay.wire import job
from mainstay.wire.access import SignedInView, SignInCodeRequest, SignInCodeView, SignInWaysView
from mainstay.wire.views import ServerView, SignInView

routes = Routes("server")
TEXT = "text/plain"


@routes.add("GET", "/v1/server", needs=Permission.READ, answers=ServerView, of_projects=True)
async def get_server(call: Caller) -> Response:
    """The platform, and as whom it knows you."""
    services, principal = call.services, call.principal
    view = ServerView(
        version=__version__,
        system=services.system,
        principal=principal.name,
        tenant=principal.tenant,
        role=principal.role,
        clusters=sorted(services.clusters),
    )
    return json_response(view.model_dump_json())


@routes.add("POST", "/v1/sign-in", needs=Permission.READ, answers=SignInView, status=201, of_projects=True)
async def sign_in(call: Caller) -> Response:
    """A link that signs a browser in as you: it works once, for ten minutes."""
    services = call.services
    code = await services.offload(sessions.link, services.store, call.principal, now=services.clock.now())
    view = SignInView(url=f"{services.url}/sign-in#{code}")
    return json_response(view.model_dump_json(), status=201)


@routes.add("GET", "/v1/sign-in/ways", needs=PUBLIC, answers=SignInWaysView)
async def sign_in_ways(request: Request) -> Response:
    """How one signs in here."""
    identities = request.app.state.services.identities
    return json_response(SignInWaysView(provider=identities.provider if identities else "").model_dump_json())


@routes.add("POST", "/v1/sign-in/device", needs=PUBLIC, answers=SignInCodeView, status=201)
async def begin_device(request: Request) -> Response:
    """Begin to sign a terminal in: it shows a code, which somebody enters at the identity provider."""
    begun, device = await signing_in.begin_device(request.app.state.services)
    return json_response(convert_access.device_view(begun, device).model_dump_json(), status=201)


@routes.add("POST", "/v1/sign-in/device/token", needs=PUBLIC, answers=SignedInView, status=201)
async def finish_device(request: Request, body: SignInCodeRequest) -> Response:
    """A token for the terminal, for twelve hours, once the code was entered; until then it is `not_yet`."""
    id_, token = await signing_in.finish_device(request.app.state.services, body.device)
    return json_response(SignedInView(id=id_, token=token).model_dump_json(), status=201)


@routes.add("GET", "/v1/schema/job", needs=PUBLIC, answers=dict[str, Any])
async def get_job_schema() -> dict[str, Any]:
    """JSON Schema of the job file, for editors."""
    return job.schema()


@routes.add("GET", "/metrics", needs=Permission.READ, media_type=TEXT)
async def get_metrics(_: Caller) -> Response:
    """Metrics of this process in the Prometheus text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@routes.add("GET", "/healthz", needs=PUBLIC, media_type=TEXT)
async def is_alive() -> Response:
    """The process answers."""
    return Response("ok\n", media_type=TEXT)


@routes.add("GET", "/readyz", needs=PUBLIC, media_type=TEXT)
async def is_ready(request: Request) -> Response:
    """The database answers too: requests may be sent here."""
    services = request.app.state.services
    await services.offload(services.store.version)
    return Response("ok\n", media_type=TEXT)
