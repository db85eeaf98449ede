"""Signing a browser in: a code that is used once becomes a session, which a cookie names.

Sessions live in the memory of one process and end with it: the next link signs in again. The code and the cookie are
256 bits of randomness; what is kept of them is their digest (security.md C2, C3, F2).
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from mainstay.operations.principal import Principal
from mainstay.ports import Clock

CODE_SECONDS = 600
SESSION_SECONDS = 12 * 3_600
KEPT_MAX = 1_000
"""Of codes and of sessions each; the oldest go first, so that asking for codes cannot fill the memory."""
RANDOM_BYTES = 32
FORM_HEADER = "x-mainstay-form-token"
"""Where a page sends the `form_token` of its session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Who a cookie stands for. `form_token` must come with every write, in a header that only our page can set."""

    principal: Principal
    form_token: str
    expires: float
    """By the monotonic clock."""


class Sessions:
    """Codes and sessions of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._codes: dict[str, tuple[Principal, float]] = {}
        self._sessions: dict[str, Session] = {}

    def code(self, principal: Principal) -> str:
        """A code that signs `principal` in, once, within ten minutes."""
        code = secrets.token_urlsafe(RANDOM_BYTES)
        _drop_oldest(self._codes)
        self._codes[_digest(code)] = (principal, self._clock.monotonic() + CODE_SECONDS)
        return code

    def exchange(self, code: str) -> str | None:
        """The value of a cookie for a code; None if the code is unknown, used or too old."""
        found = self._codes.pop(_digest(code), None)
        if found is None or found[1] < self._clock.monotonic():
            return None
        return self.begin(found[0])

    def begin(self, principal: Principal) -> str:
        """The value of a cookie for somebody who has shown a token."""
        cookie = secrets.token_urlsafe(RANDOM_BYTES)
        _drop_oldest(self._sessions)
        self._sessions[_digest(cookie)] = Session(
            principal=principal,
            form_token=secrets.token_urlsafe(RANDOM_BYTES),
            expires=self._clock.monotonic() + SESSION_SECONDS,
        )
        return cookie

    def session(self, cookie: str) -> Session | None:
        """Whom a cookie stands for; None if nobody."""
        found = self._sessions.get(_digest(cookie))
        if found is None or found.expires < self._clock.monotonic():
            return None
        return found

    def end(self, cookie: str) -> None:
        """Sign out."""
        self._sessions.pop(_digest(cookie), None)


def cookie_name(system: str, *, secure: bool) -> str:
    """One per platform, since browsers share cookies between the ports of a machine. `__Host-` needs TLS."""
    name = f"mainstay-{hashlib.sha256(system.encode()).hexdigest()[:12]}"
    return f"__Host-{name}" if secure else name


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _drop_oldest(kept: dict[str, tuple[Principal, float]] | dict[str, Session]) -> None:
    while len(kept) >= KEPT_MAX:
        del kept[next(iter(kept))]
