"""Errors named for what the caller can do next; each carries the reason as data and a hint in words."""

from __future__ import annotations

from collections.abc import Mapping


class MainstayError(Exception):
    """Anything that mainstay refuses. `code` is stable, `numbers` are the figures behind the refusal."""

    code = "error"

    def __init__(
        self, message: str, *, object_: str = "", hint: str = "", numbers: Mapping[str, int | float | str] | None = None
    ) -> None:
        """`message` is lower case, the value after a colon; `hint` says what to do next."""
        super().__init__(message)
        self.message = message
        self.object = object_
        self.hint = hint
        self.numbers = dict(numbers or {})


class Invalid(MainstayError):
    """The request itself is wrong: tell the user."""

    code = "invalid"


class NotFound(MainstayError):
    """There is no such object, or not for this caller."""

    code = "not_found"


class Conflict(MainstayError):
    """Something changed since it was read: read again."""

    code = "conflict"


class KeyReused(MainstayError):
    """An idempotency key came back with another request body: use a new key."""

    code = "idempotency_key_reused"


class NoCapacity(MainstayError):
    """There is no room here: try elsewhere or later."""

    code = "no_capacity"


class NotYet(MainstayError):
    """The thing is not ready: come back."""

    code = "not_yet"


class TooMany(MainstayError):
    """There is as much of it as there may be: let some of it end first."""

    code = "too_many"


class TooFast(MainstayError):
    """The caller asks faster than it may: come back after `retry_after_seconds`, and ask less at a time."""

    code = "too_fast"


class Gone(MainstayError):
    """The thing has ended for good; its name will not be used again."""

    code = "gone"


class Fenced(MainstayError):
    """A newer holder has taken over: stop acting."""

    code = "fenced"


class Unauthenticated(MainstayError):
    """The caller has not said who it is."""

    code = "unauthenticated"


class Ended(Unauthenticated):
    """What was shown let its member in once: it was revoked, it has expired, or the member was removed."""

    def __init__(self, message: str, *, tenant: str, member: str, object_: str = "", hint: str = "") -> None:
        """`member`, of `tenant`: whose it was."""
        super().__init__(message, object_=object_, hint=hint)
        self.tenant, self.member = tenant, member


class Forbidden(MainstayError):
    """The caller is known but may not do this."""

    code = "forbidden"


class Denied(MainstayError):
    """What we depend on does not let us in, or not do what we need: mend its credentials or permissions."""

    code = "denied"


class Unavailable(MainstayError):
    """The platform cannot write or reach what it needs just now: try again after the cause is mended."""

    code = "unavailable"


class StorageFull(Unavailable):
    """The disk under the state is full: free some space; reading goes on."""

    code = "storage_full"


class DiskFailed(Unavailable):
    """The disk under the state failed: nothing is written any more, and the process must end (reliability.md R8)."""

    code = "disk_failed"


class ShutOut(Unavailable):
    """The database does not let us in as we come: waiting helps nobody, another address, password or permission does."""

    code = "shut_out"


class StateUnusable(MainstayError):
    """The state cannot be opened (read-only, in use by another platform, written by a newer version)."""

    code = "state_unusable"
