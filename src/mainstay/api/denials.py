"""Refusals that go on record: whoever holds a stolen token leaves a trace with each thing that it tries."""

from __future__ import annotations

import structlog
from starlette.requests import HTTPConnection

from mainstay.domain.errors import Forbidden, Unauthenticated
from mainstay.operations.denials import denial, note_unknown
from mainstay.operations.principal import Principal
from mainstay.operations.services import Services

log = structlog.get_logger()
PATH_CHARACTERS_MAX = 200


async def note_denial(services: Services, principal: Principal, error: Forbidden) -> None:
    """In the audit, at most once a second for each cluster and each person; in the log always."""
    who = principal.cluster or f"{principal.tenant}/{principal.name}"
    log.warning("refused", actor=principal.name, object=error.object, reason=error.message)
    with services.agents.denials.due(who) as count:
        if count:
            plan = denial(principal, error, count=count, now=services.clock.now())
            await services.offload(services.store.commit, plan)


async def note_stranger(services: Services, connection: HTTPConnection, error: Unauthenticated) -> None:
    """Likewise for what lets nobody in. Raises Unavailable where it cannot be put on record."""
    address = connection.client.host if connection.client else ""
    await note_unknown(services, error, asked=_asked(connection), address=address)


async def note_refused_request(connection: HTTPConnection, error: Forbidden | Unauthenticated) -> None:
    """A person asked for what it may not do, or a route let nobody in. What agents are refused is noted where it is refused.

    Raises Unavailable where it cannot be put on record: nothing is refused unseen.
    """
    services: Services = connection.app.state.services
    principal = getattr(connection.state, "principal", None)
    if isinstance(error, Unauthenticated):
        await note_stranger(services, connection, error)
    elif isinstance(principal, Principal) and not principal.cluster:
        await note_denial(services, principal, Forbidden(error.message, object_=_asked(connection), hint=error.hint))


def _asked(connection: HTTPConnection) -> str:
    """Method and path; what stands behind a question mark may be a secret."""
    return f"{connection.scope.get('method', 'CONNECT')} {connection.url.path[:PATH_CHARACTERS_MAX]}"
