"""How fast a tenant may ask, and in which lane what it asks waits for the store: one's flood is nobody else's delay.

Behind `Authentication`, which has said who asks, and before a byte of the body is read.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final, NamedTuple

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mainstay.api.buckets import BURST_SECONDS, KEPT_MAX, Buckets
from mainstay.domain.errors import TooFast
from mainstay.operations.offload import in_lane
from mainstay.operations.principal import Principal
from mainstay.operations.services import Services
from mainstay.ports import Clock

HEALTH: Final = "health"
"""The lane of what needs no token: of that, only whether the database answers asks it."""
TOKENS: Final = "tokens"
"""The lane in which tokens are looked up: who sends none that is valid holds up nobody who is known."""
MEMBER_SHARE: Final = 0.5
"""Of what a tenant may: one of its members leaves as much to the others."""


class Refusal(NamedTuple):
    """Who asked too fast, what they may, and until when they may not, by a monotonic clock."""

    who: str
    most: float
    until: float

    def error(self, now: float) -> TooFast:
        """As whoever asks reads it."""
        msg = f"more than {self.most:g} requests a second of {self.who}"
        hint = "come back in a moment; ask for pages, in bulk or for a stream instead of one by one"
        seconds = max(1, math.ceil(self.until - now))
        numbers = {"requests_per_second_max": self.most, "retry_after_seconds": seconds}
        return TooFast(msg, object_=self.who, hint=hint, numbers=numbers)


class Refused:
    """Credentials of those who were refused: until they may ask again nobody looks up whose they are.

    So what is refused costs the database nothing. It tells nothing either: whoever has one was told already.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[bytes, Refusal] = {}

    def require_none(self, headers: Headers) -> None:
        """Raises TooFast."""
        if not self._until or (refusal := self._until.get(_digest(headers))) is None:
            return
        now = self._clock.monotonic()
        if now < refusal.until <= now + 2 * BURST_SECONDS:
            raise refusal.error(now)

    def note(self, headers: Headers, refusal: Refusal) -> None:
        """Of a credential that was looked up."""
        self._until[_digest(headers)] = refusal
        if len(self._until) > KEPT_MAX:
            now = self._clock.monotonic()
            self._until = {each: refusal for each, refusal in self._until.items() if refusal.until > now}


def _digest(headers: Headers) -> bytes:
    credential = headers.get("authorization") or headers.get("cookie", "")
    return hashlib.blake2b(credential.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Pace:
    """Refuses with 429 and when to come back. Agents of clusters have a lane each, and go as fast as their cluster changes."""

    def __init__(self, app: ASGIApp, *, services: Services, refused: Refused) -> None:
        self._app = app
        self._refused = refused
        self._clock = services.clock
        self._most = services.rate_max
        self._tenants = Buckets(per_second=services.rate_max or math.inf)
        self._members = Buckets(per_second=services.rate_max * MEMBER_SHARE or math.inf)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = scope.get("state", {}).get("principal")
        if isinstance(principal, Principal) and not principal.cluster:
            self._require_slow(principal, scope)
        with in_lane(lane_of(principal)):
            await self._app(scope, receive, send)

    def _require_slow(self, principal: Principal, scope: Scope) -> None:
        """Count the request. Raises TooFast, and then it does not count."""
        if not self._most:
            return
        now, member = self._clock.monotonic(), f"{principal.tenant}/{principal.name}"
        of_member = self._members.wait(member, now=now)
        if seconds := max(of_member, self._tenants.wait(principal.tenant, now=now)):
            who, most = (principal.name, self._most * MEMBER_SHARE) if of_member else (principal.tenant, self._most)
            refusal = Refusal(who, most, until=now + seconds)
            self._refused.note(Headers(scope=scope), refusal)
            raise refusal.error(now)
        self._members.spend(member, 1, now=now)
        self._tenants.spend(principal.tenant, 1, now=now)


def lane_of(principal: Principal | None) -> str:
    """Whose calls wait for each other."""
    if principal is None:
        return HEALTH
    return f"agent of {principal.cluster}" if principal.cluster else f"tenant {principal.tenant}"
