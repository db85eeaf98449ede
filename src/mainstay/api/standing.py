"""Whether whoever opened a stream may still have it: asked again for as long as it is open (security.md C3)."""

from __future__ import annotations

import asyncio

from mainstay.api.routes import Call
from mainstay.domain.access import Permission
from mainstay.domain.errors import Forbidden, MainstayError, Unauthenticated, Unavailable

RECHECK_SECONDS = 3.0
"""A token that is revoked ends what it has opened within five seconds, on every replica."""
UNSEEN_SECONDS = 30.0
"""So long a database may be away, as while it fails over, before what is open ends for not knowing."""


async def until_refused(call: Call, permission: Permission, project: str = "") -> MainstayError:
    """Returns why, once the caller may this no more; never for the administrator of the machine, of whom nothing can end."""
    services, clock = call.services, call.services.clock
    if not call.principal.token and not call.principal.identity:
        await asyncio.get_running_loop().create_future()
    seen_at = clock.monotonic()
    while True:
        await clock.sleep(RECHECK_SECONDS)
        try:
            principal = await services.renewed(call.principal)
            principal.require(permission, project)
        except (Unauthenticated, Forbidden) as error:
            return error
        except Unavailable as error:
            if clock.monotonic() - seen_at >= UNSEEN_SECONDS:
                return error
        else:
            seen_at = clock.monotonic()
