"""Volumes that outlive runs: list, show, remove. Jobs make them; here nobody does."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import TypeAdapter

from mainstay.api import convert
from mainstay.api.limits import PAGE_DEFAULT, Cursor, PageLimit
from mainstay.api.routes import Caller, Routes, done, json_response
from mainstay.domain.access import Permission
from mainstay.domain.errors import Invalid
from mainstay.operations import volumes as operations
from mainstay.wire.views import NamedVolumeView, Page

routes = Routes("volumes")
_VOLUMES = TypeAdapter(Page[NamedVolumeView])

Project = Annotated[str, Query(max_length=40, description="Its project; empty: any.")]
ClusterName = Annotated[str, Query(max_length=100, description="The cluster where it lies; empty: any.")]


@routes.add("GET", "/v1/volumes", needs=Permission.READ, answers=Page[NamedVolumeView], of_projects=True)
async def list_volumes(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """The volumes of the caller's tenant that outlive runs, by cluster, project and name, with what uses each."""
    store = call.services.store
    found = await call.services.offload(
        store.volumes, tenant=call.principal.tenant, after=_place(cursor), limit=limit + 1
    )
    last = found[limit - 1] if len(found) > limit else None
    page = Page[NamedVolumeView](
        items=[
            convert.named_volume_view(one)
            for one in found[:limit]
            if call.principal.may(Permission.READ, one.state.owner.project)
        ],
        next=f"{last.cluster}/{last.state.owner.project}/{last.state.name}" if last else "",
    )
    return json_response(_VOLUMES.dump_json(page))


@routes.add("GET", "/v1/volumes/{name}", needs=Permission.READ, answers=NamedVolumeView, of_projects=True)
async def get_volume(call: Caller, name: str, project: Project = "", cluster: ClusterName = "") -> Response:
    """One volume. 409 if several have the name: say which project and cluster."""
    services = call.services
    found = await services.offload(
        operations.volume, services.store, call.principal, name, project=project, cluster=cluster
    )
    return json_response(convert.named_volume_view(found).model_dump_json())


@routes.add("DELETE", "/v1/volumes/{name}", needs=Permission.VOLUMES, status=204, keyed=True, of_projects=True)
async def remove_volume(call: Caller, name: str, project: Project = "", cluster: ClusterName = "") -> Response:
    """Have its cluster delete a volume with all that is in it. 409, with the reason, while a workload uses it."""
    services = call.services
    result = await services.offload(
        operations.remove,
        services.store,
        call.principal,
        name,
        project=project,
        cluster=cluster,
        now=services.clock.now(),
        request=call.key,
    )
    services.pulse.beat()
    return done(result, status=204)


def _place(cursor: str) -> tuple[str, str, str]:
    """Raises Invalid for what is no cursor."""
    if not cursor:
        return "", "", ""
    parts = cursor.split("/")
    if len(parts) != 3:
        msg = f"not a cursor: {cursor!r}"
        raise Invalid(msg, object_="cursor", hint="pass `next` of the page before, unchanged")
    return parts[0], parts[1], parts[2]
