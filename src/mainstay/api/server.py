"""Who answers, whether it is well, and the descriptions of what it takes."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mainstay import __version__
from mainstay.api.routes import PUBLIC, Caller, Routes, json_response
from mainstay.domain.access import Permission
from mainstay.wire import job
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
    code = call.services.sessions.code(call.principal)
    view = SignInView(url=f"{call.services.url}/sign-in#{code}")
    return json_response(view.model_dump_json(), status=201)


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
