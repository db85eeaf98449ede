"""Guests: pods that others made in a cluster and that ask us for a place. They stay theirs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from mainstay.domain.allocation import PodState, Seen
from mainstay.domain.quantity import Resources
from mainstay.domain.topology import TopologyNeed
from mainstay.domain.workload import PodRef

NAME_LETTERS_MAX = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Pods that are of use only together. The same name, in one namespace, for all of them."""

    name: str
    size: int | None
    """As many of them must be there before any is placed; 0: nobody says how many, so they wait; None: not read yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A pod as its cluster reports it. Whom it is billed to is said by whoever administers its namespace, never by itself."""

    pod: PodRef
    tenant: str
    project: str
    queue: str
    priority: int
    """0 to 100, as ours."""
    resources: Resources
    restriction: str
    grace_seconds: int
    max_duration_seconds: int = 0
    """Its node ends it after so long; 0: never."""
    group: Group | None = None
    problem: str = ""
    """Why we cannot give it a place, in words: it asks for what we do not understand. Empty if we can."""
    topology: TopologyNeed | None = None
    """How its group would lie; None if it does not say."""
    state: PodState | None = None
    """What it has come to, its name being the UID; None while it waits for a place."""

    @property
    def waits(self) -> bool:
        """It has no place yet."""
        return self.state is None

    @property
    def over(self) -> bool:
        """It has ended."""
        return self.state is not None and self.state.seen is Seen.ENDED


def plain_name(name: str) -> str:
    """A name of theirs as one of ours: at most 40 lower-case letters, digits and dashes; what is cut off is told by a digest."""
    plain = name.lower().replace(".", "-").strip("-")
    if len(plain) <= NAME_LETTERS_MAX:
        return plain or "pod"
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{plain[: NAME_LETTERS_MAX - 9].strip('-')}-{digest}"
