"""Secrets of a tenant: set, list, remove. A value only ever comes in."""

from __future__ import annotations

from fastapi import Response
from pydantic import TypeAdapter

from mainstay.api import convert
from mainstay.api.limits import PAGE_DEFAULT, Cursor, PageLimit
from mainstay.api.routes import Caller, Routes, done, json_response
from mainstay.domain.access import Permission
from mainstay.operations import secrets as operations
from mainstay.wire.requests import SecretRequest
from mainstay.wire.views import Page, SecretView

routes = Routes("secrets")
_SECRETS = TypeAdapter(Page[SecretView])


@routes.add("PUT", "/v1/secrets/{name}", needs=Permission.SECRETS, answers=SecretView)
async def set_secret(call: Caller, name: str, body: SecretRequest) -> Response:
    """Store a secret, or a new value of one that is there: pods that start from now on are handed that."""
    services = call.services
    # Without its key: a digest of this body would be kept, and a short value can be guessed from one.
    made = await services.offload(
        operations.put,
        services.store,
        services.sealing,
        call.principal,
        name,
        body.value,
        now=services.clock.now(),
    )
    return json_response(convert.secret_view(made).model_dump_json())


@routes.add("GET", "/v1/secrets", needs=Permission.READ, answers=Page[SecretView])
async def list_secrets(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """The names of the secrets of the caller's tenant, by name."""
    store = call.services.store
    found = await call.services.offload(store.secrets, tenant=call.principal.tenant, after=cursor, limit=limit + 1)
    page = Page[SecretView](
        items=[convert.secret_view(secret) for secret in found[:limit]],
        next=found[limit - 1].name if len(found) > limit else "",
    )
    return json_response(_SECRETS.dump_json(page))


@routes.add("DELETE", "/v1/secrets/{name}", needs=Permission.SECRETS, status=204, keyed=True)
async def remove_secret(call: Caller, name: str) -> Response:
    """Forget a secret. Pods that have it keep it; those that start later fail, in words."""
    services = call.services
    result = await services.offload(
        operations.remove, services.store, call.principal, name, now=services.clock.now(), request=call.key
    )
    return done(result, status=204)
