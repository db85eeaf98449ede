"""Preferred nodes first: ahead of any score, behind all that must hold and behind the topology.

What must hold decides which nodes will do, the topology and the spread which domains of them; of those nodes the preferred ones
go first, and the score of the policy decides between nodes that are preferred alike.
"""

from __future__ import annotations

import numpy as np

from mainstay.decide.placement.fit import Free, Request
from mainstay.domain.arrays import Floats, Ints


def preferred(free: Free, request: Request, rows: Ints, scores: Floats) -> Floats:
    """Other scores of these rows: of those that the request prefers more all are lower, of others they are in the same order."""
    liked = free.liked(request)
    if liked is None:
        return scores
    place = np.empty(rows.size)
    place[np.lexsort((scores, -liked[rows]))] = np.arange(rows.size)
    return place


def domain_for(
    free: Free, request: Request, rows: Ints, *, room: Ints, number: Ints, most: Ints, holds: Ints, count: int
) -> int:
    """The best of the domains that hold `count` pods: that in which they lie on the most preferred nodes, of equals the one with
    the least room, then the first. `room` and `number`, its domain, are those of each of these rows, `most` of each domain.
    """
    liking = liking_per_domain(free, request, rows, room=room, number=number, domains=most.size, count=count)
    if liking is None:
        return int(holds[np.argmin(most[holds])])
    return int(holds[np.lexsort((most[holds], -liking[holds]))[0]])


def liking_per_domain(
    free: Free, request: Request, rows: Ints, *, room: Ints, number: Ints, domains: int, count: int
) -> Ints | None:
    """[domains] What `count` pods on the most preferred nodes of each add up to; None if none is preferred."""
    liked = free.liked(request)
    if liked is None:
        return None
    order = np.lexsort((-liked[rows], number))
    number, weight = number[order], liked[rows][order]
    sums, begins = np.cumsum(room[order]), np.searchsorted(number, number)
    before = sums - room[order]
    before = before - before[begins]
    taken = np.minimum(before + room[order], count) - np.minimum(before, count)
    return np.bincount(number, weights=taken * weight, minlength=domains)[:domains].astype(np.int64)
