"""Give many pods of one request their nodes at once: the inner loop of the scheduler.

Compare first, divide last: how many pods a node takes is worked out only for the few nodes with the best scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mainstay.decide.placement.fit import FULLEST, Free, Request, room_on
from mainstay.decide.placement.images import nearer
from mainstay.decide.placement.prefer import preferred
from mainstay.domain.arrays import Floats, Ints

Scores: TypeAlias = Callable[[Free, Request, Ints], Floats]
"""(free, request, feasible rows) -> a score for each; the lowest is taken first, of equals the one with the lowest key."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How nodes are chosen."""

    scores: Scores
    stacks: bool = True
    """The best node takes all that it can before the next takes any; else each takes one in turn."""
    sign: int = 0
    """1 or -1: `scores` are those that the compiled loop has with this sign, so it finds the places; 0: NumPy does."""
    heeds: bool = False
    """Those who usually ask for GPUs are heeded: `Nodes.usual`."""


def rankings_of(policies: Sequence[Policy]) -> Floats:
    """As `Nodes.rankings`; of no policy at all those of one that nobody has."""
    each = [
        (one.sign, without_gpus, one.heeds and not without_gpus, one.stacks)
        for one in policies
        for without_gpus in (False, True)
    ]
    return np.array(each, dtype=np.float64) if each else FULLEST


def fill(free: Free, request: Request, policy: Policy, rows: Ints, count: int) -> tuple[Ints, Ints]:
    """Node rows out of the feasible `rows` (ascending), best first, and how many pods each gets.

    They add up to `count`, or to as many as fit. Writes nothing.
    """
    if not rows.size or not count:
        return rows[:0], rows[:0]
    scores = ranking(free, request, policy, rows)
    if count == 1:
        return rows[lowest(scores, 1)], np.ones(1, dtype=np.int64)
    return (_stack if policy.stacks else _spread)(free, request, rows, scores, count)


def ranking(free: Free, request: Request, policy: Policy, rows: Ints) -> Floats:
    """The scores of the policy, lower where a node has the image; but of nodes that the request prefers all are lower than of
    others.
    """
    scores = nearer(free, request, rows, policy.scores(free, request, rows), heeds=policy.heeds)
    return preferred(free, request, rows, scores)


def _stack(free: Free, request: Request, rows: Ints, scores: Floats, count: int) -> tuple[Ints, Ints]:
    wanted = max(16, count // 4)
    while True:
        nodes = rows[lowest(scores, wanted)]
        filled = np.minimum(np.cumsum(room_on(free, request, nodes)), count)
        if filled[-1] == count or nodes.size == rows.size:
            used = int(np.searchsorted(filled, count)) + 1
            return nodes[:used], np.diff(filled[:used], prepend=0)
        wanted *= 4


def _spread(free: Free, request: Request, rows: Ints, scores: Floats, count: int) -> tuple[Ints, Ints]:
    nodes = rows[lowest(scores, count)]
    return nodes, evenly(room_on(free, request, nodes), count)


def evenly(most: Ints, count: int) -> Ints:
    """How many each gets of those that take up to `most`, if each gets one in turn, the first one first. As `fill` adds up."""
    level = _level(most, count)
    pods = np.minimum(most, level)
    over = int(pods.sum()) - count
    if over > 0:  # Of the last round only the first have a turn.
        pods[np.flatnonzero(pods == level)[-over:]] -= 1
    return pods


def _level(most: Ints, count: int) -> int:
    """The lowest level at which nodes that take up to `most` pods each take `count` in all; the highest if none does."""
    low, high = 1, int(most.max())
    while low < high:
        middle = (low + high) // 2
        enough = int(np.minimum(most, middle).sum()) >= count
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


def lowest(scores: Floats, count: int) -> Ints:
    """Positions of the `count` lowest scores, lowest first; of equals the first. O(n), unless nearly all are wanted."""
    if count == 1:
        return np.array([scores.argmin()])
    if count >= scores.size:
        return scores.argsort(kind="stable")
    edge = np.partition(scores, count - 1)[count - 1]
    below = np.flatnonzero(scores < edge)
    chosen = np.concatenate((below, np.flatnonzero(scores == edge)[: count - below.size]))
    return chosen[scores[chosen].argsort(kind="stable")]
