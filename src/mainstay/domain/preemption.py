"""Who may take whose place: the words of a queue's policy, the rules by which it is done, and a place that is kept.

The words are Kueue's (ClusterQueue `preemption`, fair sharing). A policy is that of the queue whose work wants a place;
only `min_runtime_seconds` protects the work of its own queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from mainstay.domain.quantity import Resources


class WithinQueue(StrEnum):
    """Whose place work may take within its own queue (Kueue: withinClusterQueue)."""

    NEVER = "never"
    LOWER_PRIORITY = "lower-priority"
    LOWER_OR_NEWER_EQUAL_PRIORITY = "lower-or-newer-equal-priority"
    """Of a lower priority, or of the same and submitted later."""


class Reclaim(StrEnum):
    """Whom work may displace to get what is its queue's own and others have borrowed (Kueue: reclaimWithinCohort)."""

    NEVER = "never"
    LOWER_PRIORITY = "lower-priority"
    ANY = "any"


class Borrow(StrEnum):
    """Whether work that borrows itself may displace others that do (Kueue: borrowWithinCohort)."""

    NEVER = "never"
    LOWER_PRIORITY = "lower-priority"


class FairShare(StrEnum):
    """When work may displace that of a queue which holds more for its weight (Kueue: fair sharing, preemptionStrategies)."""

    NEVER = "never"
    FINAL_SHARE = "final-share"
    """Where its own queue then holds no more than the other is left with (LessThanOrEqualToFinalShare)."""
    INITIAL_SHARE = "initial-share"
    """Where its own queue then holds less than the other did before (LessThanInitialShare). Needed where single runs are
    large; it displaces more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptionPolicy:
    """Of one queue. By default nothing is displaced."""

    within_queue: WithinQueue = WithinQueue.NEVER
    reclaim: Reclaim = Reclaim.NEVER
    borrow: Borrow = Borrow.NEVER
    borrow_priority_max: int | None = None
    """Work above it is not displaced by what borrows (Kueue: maxPriorityThreshold); None: all that is lower may be."""
    fair_share: FairShare = FairShare.NEVER
    min_runtime_seconds: int = 0
    """Work of this queue is left alone for so long after it has been given its place."""

    @property
    def displaces(self) -> bool:
        """Whether its work may take any place at all."""
        return (
            self.within_queue is not WithinQueue.NEVER
            or self.reclaim is not Reclaim.NEVER
            or self.borrow is not Borrow.NEVER
            or self.fair_share is not FairShare.NEVER
        )


NOBODY_YIELDS = PreemptionPolicy()
"""What a queue has of which nobody has said anything."""


class Rule(IntEnum):
    """By which part of a policy work was displaced. Numbers are stored: never renumber. 0 in a column: it was not."""

    WITHIN_QUEUE = 1
    RECLAIM = 2
    BORROW = 3
    FAIR_SHARE = 4

    @property
    def words(self) -> str:
        """For whom it happened to, without a word about anybody else's work."""
        return _WORDS[self]


_WORDS = {
    Rule.WITHIN_QUEUE: "more urgent or older work of its queue needed its place",
    Rule.RECLAIM: "its queue had borrowed what another queue now needs of its own quota",
    Rule.BORROW: "its queue had borrowed what more urgent work of another queue now borrows",
    Rule.FAIR_SHARE: "its queue held more than its fair share, and another one less",
}

DISPLACED_MAX = 64
"""So often is work displaced at most; after that it is left alone until it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The place of one rank."""

    rank: int
    node_key: int
    resources: Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Nomination:
    """The places that are kept for a workload until those who were displaced for it have ended."""

    slots: tuple[Slot, ...]
    until: int
    """UTC microseconds; after that it waits like all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A workload that is displaced, whole: every pod of it that lives. Or some of its surplus ranks, and its attempt goes on."""

    workload_key: int
    allocation_keys: tuple[int, ...]
    rule: Rule
    surplus: bool = False
