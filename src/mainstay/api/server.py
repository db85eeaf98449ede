"""Who answers, whether it is well, and the schema of the job file."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mainstay import __version__
from mainstay.api.auth import All, Reader
from mainstay.wire.job import schema
from mainstay.wire.views import ServerView

router = APIRouter(tags=["server"])


@router.get("/v1/server")
async def get_server(principal: Reader, services: All) -> ServerView:
    """The platform, and as whom it knows you."""
    return ServerView(
        version=__version__,
        system=services.system,
        principal=principal.name,
        tenant=principal.tenant,
        role=principal.role,
        clusters=sorted(services.clusters),
    )


@router.get("/v1/schema/job")
async def get_job_schema(principal: Reader) -> dict[str, Any]:
    """JSON Schema of the job file, for editors."""
    return schema()


@router.get("/metrics", response_class=PlainTextResponse)
async def get_metrics(principal: Reader) -> Response:
    """Metrics of this process in the Prometheus text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/healthz", response_class=PlainTextResponse)
async def is_alive() -> str:
    """The process answers."""
    return "ok"


@router.get("/readyz", response_class=PlainTextResponse)
async def is_ready(services: All) -> str:
    """The database answers too."""
    await services.offload(services.store.version)
    return "ok"
