"""All ranks of a gang find a place, in one cluster, or none does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from mainstay.decide.placement.fit import Free, Request, feasible, room
from mainstay.domain.snapshot import Ints

Policy: TypeAlias = Callable[[Free, Request, Ints, Ints, int], Ints]
"""(free, request, feasible rows, room on each of them, count) -> the node row of each of `count` pods."""


def place(free: Free, request: Request, *, count: int, policy: Policy) -> Ints | None:
    """Node row of each rank, or None if not all fit. Writes nothing.

    Ranks talk to each other all the time, so a gang stays within one cluster: the one with the least room that
    holds it whole, to leave the roomy ones to larger gangs; then the first by name.
    """
    if count == 1:
        rows = np.flatnonzero(feasible(free, request))
        return policy(free, request, rows, np.ones_like(rows), 1) if rows.size else None
    fits = room(free, request)
    per_cluster = room_per_cluster(free, fits)
    holds = np.flatnonzero(per_cluster >= count)
    if not holds.size:
        return None
    cluster = holds[np.argmin(per_cluster[holds])]
    rows = np.flatnonzero((fits > 0) & (free.cluster == cluster))
    return policy(free, request, rows, fits[rows], count)


def room_per_cluster(free: Free, fits: Ints) -> Ints:
    """How many pods each cluster can take, by its number."""
    total = np.zeros(int(free.cluster.max()) + 1 if free.cluster.size else 0, dtype=np.int64)
    np.add.at(total, free.cluster, fits)
    return total
