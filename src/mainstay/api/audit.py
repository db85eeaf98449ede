"""The audit: who changed what."""

from __future__ import annotations

from fastapi import Response
from pydantic import TypeAdapter

from mainstay.api import convert
from mainstay.api.limits import PAGE_DEFAULT, Cursor, PageLimit, cursor_key
from mainstay.api.routes import Caller, Routes, json_response
from mainstay.domain.access import Permission
from mainstay.wire.views import AuditView, Page

routes = Routes("audit")
_PAGE = TypeAdapter(Page[AuditView])


@routes.add("GET", "/v1/audit", needs=Permission.MANAGE, answers=Page[AuditView])
async def list_audit(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """Every change with who made it, newest first, of all tenants."""
    store = call.services.store
    found = await call.services.offload(store.last_audit, before=cursor_key(cursor), limit=limit + 1)
    page = Page[AuditView](
        items=[convert.audit_view(row) for row in found[:limit]],
        next=str(found[limit - 1].seq) if len(found) > limit else "",
    )
    return json_response(_PAGE.dump_json(page))
