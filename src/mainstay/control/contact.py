"""Whether a cluster answers: from what every turn finds to what goes on record, so that flapping does not flood it."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.domain.errors import Denied, Invalid, MainstayError
from mainstay.domain.fleet import Contact
from mainstay.domain.reason import Code, Reason

STEADY_SECONDS = 5.0
"""An answer, or none, counts once it has been so for so long: an API server that restarts is no news."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one turn found."""

    seen: Contact
    reason: Reason


def answers(cluster: str) -> Finding:
    """The cluster was looked at, and all that was to be done there was done."""
    return Finding(seen=Contact.READY, reason=Reason(code=Code.CLUSTER_READY, object=cluster))


def fails(cluster: str, error: BaseException) -> Finding:
    """What an error means: credentials or settings to be mended, or a cluster that may come back by itself."""
    numbers = {"detail": _words(error)}
    if isinstance(error, Denied | Invalid):
        reason = Reason(code=Code.CLUSTER_REFUSED, object=cluster, numbers=numbers)
        return Finding(seen=Contact.REFUSED, reason=reason)
    reason = Reason(code=Code.CLUSTER_UNREACHABLE, object=cluster, numbers=numbers)
    return Finding(seen=Contact.UNREACHABLE, reason=reason)


class Watch:
    """What was found during one tenure. Seconds are monotonic: no jump of a wall clock makes a cluster look away."""

    def __init__(self) -> None:
        self._found: Finding | None = None
        self._since = 0.0
        self._told: Finding | None = None

    def is_news(self, finding: Finding, *, now: float) -> bool:
        """Whether this is to be put on record. A refusal is at once: it does not pass by itself."""
        if self._found is None or self._found.seen is not finding.seen:
            self._since = now
        self._found = finding
        settled = finding.seen is Contact.REFUSED or now - self._since >= STEADY_SECONDS
        return settled and finding != self._told

    def told(self, finding: Finding) -> None:
        """It is on record."""
        self._told = finding


def _words(error: BaseException) -> str:
    if isinstance(error, MainstayError):
        return f"{error.message}; {error.hint}" if error.hint else error.message
    # A foreign error may repeat anything, a credential too: its words go nowhere but its name.
    return f"it answers what we do not understand ({type(error).__name__})"
