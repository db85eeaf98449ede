"""Refusals that go on record: whoever holds a stolen token leaves a trace with each thing that it tries."""

from __future__ import annotations

import structlog
from fastapi import Request
from starlette.requests import HTTPConnection

from mainstay.domain.errors import Forbidden
from mainstay.operations.agents import denial
from mainstay.operations.principal import Principal
from mainstay.operations.services import Services

log = structlog.get_logger()
PATH_CHARACTERS_MAX = 200


async def note_denial(services: Services, principal: Principal, error: Forbidden) -> None:
    """In the audit, at most once a second for each cluster and each person; in the log always."""
    who = principal.cluster or f"{principal.tenant}/{principal.name}"
    log.warning("refused", actor=principal.name, object=error.object, reason=error.message)
    if services.agents.may_note(who):
        await services.offload(services.store.commit, denial(principal, error, now=services.clock.now()))


async def note_refused_request(connection: HTTPConnection, error: Forbidden) -> None:
    """A person asked for what it may not do. What agents are refused is noted where it is refused.

    Raises Unavailable where it cannot be put on record: nothing is refused unseen.
    """
    principal = getattr(connection.state, "principal", None)
    if isinstance(principal, Principal) and not principal.cluster:
        method = connection.method if isinstance(connection, Request) else "CONNECT"
        asked = f"{method} {connection.url.path[:PATH_CHARACTERS_MAX]}"
        noted = Forbidden(error.message, object_=asked, hint=error.hint)
        await note_denial(connection.app.state.services, principal, noted)
