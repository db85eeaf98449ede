"""All ranks of a gang find a place, in one cluster, or none does."""

from __future__ import annotations

import numpy as np

from mainstay.decide.placement.fill import Policy, fill
from mainstay.decide.placement.fit import Free, Request, feasible, room_on
from mainstay.domain.arrays import Ints


def place(free: Free, request: Request, *, count: int, policy: Policy) -> Ints | None:
    """Node row of each rank, or None if not all fit. Writes nothing.

    Ranks talk to each other all the time, so a gang stays within one cluster: the one with the least room that
    holds it whole, to leave the roomy ones to larger gangs; then the first by name.
    """
    rows = np.flatnonzero(feasible(free, request))
    if not rows.size:
        return None
    if request.one_node:
        node, _ = fill(free, request, policy, rows[room_on(free, request, rows) >= count], 1)
        return np.repeat(node, count) if node.size else None
    if count > 1:
        per_cluster = room_per_cluster(free, request, rows)
        holds = np.flatnonzero(per_cluster >= count)
        if not holds.size:
            return None
        rows = rows[free.cluster[rows] == holds[np.argmin(per_cluster[holds])]]
    return np.repeat(*fill(free, request, policy, rows, count))


def room_per_cluster(free: Free, request: Request, rows: Ints) -> Ints:
    """How many pods of one gang each cluster can take on these feasible nodes, by its number."""
    if request.one_node:
        most = np.zeros(int(free.cluster.max()) + 1, dtype=np.int64)
        np.maximum.at(most, free.cluster[rows], room_on(free, request, rows))
        return most
    return np.bincount(free.cluster[rows], weights=room_on(free, request, rows)).astype(np.int64)
