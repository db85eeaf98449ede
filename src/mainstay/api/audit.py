"""The audit: who changed what, and all that lets a reader verify that nobody changed the record of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import Path, Query, Response
from pydantic import TypeAdapter

from mainstay.api import convert
from mainstay.api.limits import KEY_MAX, PAGE_DEFAULT, PAGE_MAX, Cursor, PageLimit, cursor_key
from mainstay.api.routes import Caller, Routes, done, json_response
from mainstay.domain.access import Permission
from mainstay.operations import audit as operations
from mainstay.wire.audit import AuditAnchorsView, AuditHeadView, AuditRowsView, AuditRowView, RedactRequest
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


@routes.add("GET", "/v1/audit/rows", needs=Permission.MANAGE, answers=AuditRowsView)
async def list_audit_rows(
    call: Caller,
    after: Annotated[int, Query(ge=0, le=KEY_MAX, description="The number of the last row that is known.")] = 0,
    limit: PageLimit = PAGE_MAX,
) -> Response:
    """Rows as they are chained, oldest first, and the newest of all: to verify, to export and to follow."""
    store = call.services.store
    # The head first: what is written between the two reads is more than it promises, and never less.
    head = await call.services.offload(store.audit_head)
    rows = await call.services.offload(store.audit, after=after, limit=limit)
    view = AuditRowsView(
        rows=[AuditRowView(**asdict(row)) for row in rows], head=AuditHeadView(seq=head.seq, hash=head.hash)
    )
    return json_response(view.model_dump_json())


@routes.add("GET", "/v1/audit/anchors", needs=Permission.MANAGE, answers=AuditAnchorsView)
async def list_audit_anchors(call: Caller) -> Response:
    """The newest signed heads that are kept outside of the database, and the public keys of this platform."""
    found = await operations.anchors(call.services)
    view = AuditAnchorsView(
        system=call.services.system,
        keys=list(operations.public_keys(call.services.sealing)),
        anchors=[anchor.text() for anchor in found],
    )
    return json_response(view.model_dump_json())


@routes.add("POST", "/v1/audit/{seq}/redact", needs=Permission.MANAGE, status=204, keyed=True)
async def redact_audit(call: Caller, seq: Annotated[int, Path(ge=1, le=KEY_MAX)], body: RedactRequest) -> Response:
    """Take the detail of a row out, for good: what must not be kept. A row says who did, and why; the chain holds."""
    services = call.services
    result = await services.offload(
        operations.redact,
        services.store,
        call.principal,
        seq,
        body.why,
        now=services.clock.now(),
        request=call.key,
    )
    return done(result, status=204)
