"""How fast a tenant may ask, and in which lane what it asks waits for the store: one's flood is nobody else's delay.

Who asks is looked up in the database, and that alone would be a flood there: so what is too fast is refused before, by whose
the credential was when it was last looked up. Before a byte of the body is read, too: `auth.py` asks.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from mainstay.api.buckets import Buckets
from mainstay.domain.errors import TooFast
from mainstay.operations.principal import Principal
from mainstay.operations.services import Services

HEALTH: Final = "health"
"""The lane of those who ask whether the platform is well."""
PAGES: Final = "pages"
"""The lane of pages and sign-ins of whoever is not known."""
UNKNOWN: Final = "unknown"
"""The lane in which credentials are looked up for the first time: who has none that is valid holds up nobody who is known."""
MEMBER_SHARE: Final = 0.5
"""Of what a tenant may: one of its members leaves as much to the others."""
READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
WRITE_COST: Final = 8
"""So many reads is a write: it wakes the loops, and costs the platform as much (`make bench-overload`)."""
KNOWN_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a credential was when it was last looked up. It opens nothing: it says who is refused, and who waits for whom."""

    lane: str
    tenant: str = ""
    """Empty: of an agent, which goes as fast as its cluster changes."""
    name: str = ""

    @classmethod
    def of(cls, principal: Principal) -> Owner:
        """Whoever was found."""
        if principal.cluster:
            return cls(f"agent of {principal.cluster}")
        return cls(f"tenant {principal.tenant}", principal.tenant, principal.name)


class Pacing:
    """Counts what tenants and their members ask, for one process."""

    def __init__(self, services: Services) -> None:
        self._clock = services.clock
        self._most = services.rate_max
        self._tenants = Buckets(per_second=services.rate_max or math.inf, largest=WRITE_COST)
        self._members = Buckets(per_second=services.rate_max * MEMBER_SHARE or math.inf, largest=WRITE_COST)
        self._owners = OrderedDict[bytes, Owner]()

    def owner(self, credential: str) -> Owner | None:
        """Whose a token or cookie was; None if it is not known yet."""
        return self._owners.get(_digest(credential))

    def found(self, credential: str, owner: Owner) -> None:
        """It is looked up, and counted."""
        digest = _digest(credential)
        self._owners[digest] = owner
        self._owners.move_to_end(digest)
        if len(self._owners) > KNOWN_MAX:
            self._owners.popitem(last=False)

    def refused(self, credential: str) -> None:
        """It opens nothing any more."""
        self._owners.pop(_digest(credential), None)

    def count(self, owner: Owner, method: str) -> None:
        """One more request. Raises TooFast, and then it does not count."""
        if not self._most or not owner.tenant:
            return
        now, member = self._clock.monotonic(), f"{owner.tenant}/{owner.name}"
        of_member = self._members.wait(member, now=now)
        if seconds := max(of_member, self._tenants.wait(owner.tenant, now=now)):
            who, most = (owner.name, self._most * MEMBER_SHARE) if of_member else (owner.tenant, self._most)
            msg = f"more than {most:g} requests a second of {who}, a write counting as {WRITE_COST}"
            hint = "come back in a moment; ask for pages, in bulk or for a stream instead of one by one"
            raise TooFast(msg, object_=who, hint=hint, numbers=_numbers(most, seconds))
        cost = 1 if method in READS else WRITE_COST
        self._members.spend(member, cost, now=now)
        self._tenants.spend(owner.tenant, cost, now=now)


def _digest(credential: str) -> bytes:
    return hashlib.blake2b(credential.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _numbers(most: float, seconds: float) -> dict[str, int | float | str]:
    return {"requests_per_second_max": most, "retry_after_seconds": math.ceil(seconds)}
