"""Refusals that go on record: whoever holds a stolen token of an agent leaves a trace with each thing that it tries."""

from __future__ import annotations

import structlog

from mainstay.domain.errors import Forbidden
from mainstay.operations.agents import denial
from mainstay.operations.principal import Principal
from mainstay.operations.services import Services

log = structlog.get_logger()


async def note_denial(services: Services, principal: Principal, error: Forbidden) -> None:
    """In the audit, at most once a second for each cluster; in the log always."""
    log.warning("agent_refused", actor=principal.name, object=error.object, reason=error.message)
    if services.agents.may_note(principal.cluster):
        await services.offload(services.store.commit, denial(principal, error, now=services.clock.now()))
