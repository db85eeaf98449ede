"""How fast a tenant may ask, and in which lane what it asks waits for the store: one's flood is nobody else's delay.

Behind `Authentication`, which has said who asks, and before a byte of the body is read.
"""

from __future__ import annotations

import math
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from mainstay.api.buckets import Buckets
from mainstay.domain.errors import TooFast
from mainstay.operations.offload import in_lane
from mainstay.operations.principal import Principal
from mainstay.operations.services import Services

HEALTH: Final = "health"
"""The lane of what needs no token: of that, only whether the database answers asks it."""
TOKENS: Final = "tokens"
"""The lane in which tokens are looked up: who sends none that is valid holds up nobody who is known."""
MEMBER_SHARE: Final = 0.5
"""Of what a tenant may: one of its members leaves as much to the others."""


class Pace:
    """Refuses with 429 and when to come back. Agents of clusters have a lane each, and go as fast as their cluster changes."""

    def __init__(self, app: ASGIApp, *, services: Services) -> None:
        self._app = app
        self._clock = services.clock
        self._most = services.rate_max
        self._tenants = Buckets(per_second=services.rate_max or math.inf)
        self._members = Buckets(per_second=services.rate_max * MEMBER_SHARE or math.inf)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = scope.get("state", {}).get("principal")
        if isinstance(principal, Principal) and not principal.cluster:
            self._require_slow(principal)
        with in_lane(lane_of(principal)):
            await self._app(scope, receive, send)

    def _require_slow(self, principal: Principal) -> None:
        """Count the request. Raises TooFast, and then it does not count."""
        if not self._most:
            return
        now, member = self._clock.monotonic(), f"{principal.tenant}/{principal.name}"
        of_member = self._members.wait(member, now=now)
        if seconds := max(of_member, self._tenants.wait(principal.tenant, now=now)):
            who, most = (principal.name, self._most * MEMBER_SHARE) if of_member else (principal.tenant, self._most)
            msg = f"more than {most:g} requests a second of {who}"
            hint = "come back in a moment; ask for pages, in bulk or for a stream instead of one by one"
            raise TooFast(msg, object_=who, hint=hint, numbers=_numbers(most, seconds))
        self._members.spend(member, 1, now=now)
        self._tenants.spend(principal.tenant, 1, now=now)


def lane_of(principal: Principal | None) -> str:
    """Whose calls wait for each other."""
    if principal is None:
        return HEALTH
    return f"agent of {principal.cluster}" if principal.cluster else f"tenant {principal.tenant}"


def _numbers(most: float, seconds: float) -> dict[str, int | float | str]:
    return {"requests_per_second_max": most, "retry_after_seconds": math.ceil(seconds)}
