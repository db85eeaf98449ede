"""What queues have used lately: the average of what they held, in which the past counts for less the longer ago it is.

With the half-life h, a queue has used of a resource lately, at the instant T,

    U(T) = ln 2 / h * integral of held(s) * 0.5**((T - s) / h) ds over all s before T,

in the unit of what it held: who has held 8 GPUs for ever has used 8 lately, and half of that one half-life after letting go of
them. One allocation of the amount a from s to e adds a * (0.5**((T - e) / h) - 0.5**((T - s) / h)), so nothing needs to be
sampled: what has ended is one sum per queue, which fades by itself, and what is held now has a start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mainstay.domain.arrays import Floats, Ints
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND

HALF_LIFE_SECONDS_MAX = 366 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPolicy:
    """How what queues have used lately counts towards their turns. One for all queues, since cohorts add up theirs."""

    half_life_seconds: int = 0
    """What was used so long ago counts half; 0: no history is kept, and none counts."""
    weight: float = 1.0
    """What was used lately above its own counts so many times as much as what a queue holds now (KAI's `kValue`)."""
    entry_seconds: int = 0
    """Every allocation counts at once as if it had run for so long, however soon it ends (Kueue's entry penalty)."""

    @property
    def on(self) -> bool:
        """Whether any history is kept."""
        return self.half_life_seconds > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRecord:
    """The policy on record. Times in UTC microseconds."""

    policy: HistoryPolicy
    set_at: int = 0
    """0: nobody has set it."""
    set_by: str = ""


NO_HISTORY = HistoryPolicy()
"""What there is before anybody has asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryTable:
    """What the allocations that have ended left of `U`, by queue. What is held now is not in it."""

    queue: Ints
    """[rows] Row of the queue in the tree; several may be of one."""
    used: Floats
    """[rows, resources] CPU in thousandths of a core, bytes, GPUs and slices of them; as of `at`."""
    at: Ints
    """[rows] UTC microseconds."""


NOTHING_USED = HistoryTable(
    queue=np.empty(0, dtype=np.int64), used=np.empty((0, 3), dtype=np.float64), at=np.empty(0, dtype=np.int64)
)


def fading(policy: HistoryPolicy, *, since: Ints, now: int) -> Floats:
    """What is left at `now` of one unit of `U` as of each of these instants, 0 to 1.

    An instant ahead of the clock, which was set back then, counts as now: nothing ever grows.
    """
    ages = np.maximum(0, now - since) / (policy.half_life_seconds * MICROSECONDS_PER_SECOND)
    left: Floats = np.exp2(-ages)
    return left


def counted(policy: HistoryPolicy, *, begin: Ints, end: Ints, now: int) -> Floats:
    """What one unit, held from each `begin` to its `end`, adds to `U` at `now`; 0 to 1.

    As if each had begun `entry_seconds` before its end at the latest. An end or begin ahead of the clock counts as now.
    """
    end = np.minimum(end, now)
    begin = np.minimum(begin, end - policy.entry_seconds * MICROSECONDS_PER_SECOND)
    return fading(policy, since=end, now=now) - fading(policy, since=begin, now=now)


def with_ended(
    policy: HistoryPolicy, used: Floats, *, at: int, amounts: Ints, begin: int, end: int, now: int
) -> Floats:
    """`used` [resources] as of `at`, and what one more allocation adds that has ended; as of `now`."""
    instants = np.array([at, begin, end], dtype=np.int64)
    left = fading(policy, since=instants[:1], now=now)
    more = counted(policy, begin=instants[1:2], end=instants[2:], now=now)
    return used * left + amounts * more
