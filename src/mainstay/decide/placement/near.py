"""Gangs near to each other: in the smallest domain that holds all pods, and in as few of the narrower ones as will do.

Source: Kueue's topology-aware scheduling, BestFit (pkg/cache/scheduler/tas_flavor_snapshot.go). The widest domain of all is the
cluster, so a gang that only prefers to lie in one rack is spread over as few as can be in the end.
"""

from __future__ import annotations

import numpy as np

from mainstay.decide.placement.apart import place_apart, room_apart
from mainstay.decide.placement.domains import CLUSTER, LADDER, numbers, room_per_domain
from mainstay.decide.placement.fill import Policy, fill, ranking
from mainstay.decide.placement.fit import Free, Request
from mainstay.decide.placement.prefer import domain_for
from mainstay.domain.arrays import Ints
from mainstay.domain.topology import TopologyNeed


def place_near(
    free: Free, request: Request, need: TopologyNeed, rows: Ints, *, count: int, policy: Policy
) -> Ints | None:
    """Node row of each rank, out of these feasible rows; None if not all fit where they must. Neighbours by rank lie together.

    Those that are to lie apart do so within the domain that is found.
    """
    room = room_apart(free, request, rows)
    start = LADDER.index(need.level or CLUSTER)
    for at in range(start, start - 1 if need.required else -1, -1):
        most = room_per_domain(free, LADDER[at], rows, room)
        holds = np.flatnonzero(most >= count)
        if holds.size:
            break
    else:
        return None
    number = numbers(free, LADDER[at])[rows]
    inside = number == domain_for(free, request, rows, room=room, number=number, most=most, holds=holds, count=count)
    rows, room = rows[inside], room[inside]
    end = LADDER.index(need.spread.level) if need.spread else -1
    for level in LADDER[at + 1 : end] if need.level else ():
        if level in free.levels:
            number = free.levels[level].number[rows]
            used, _ = _fewest(np.bincount(number, weights=room), count)
            inside = np.isin(number, used)
            rows, room = rows[inside], room[inside]
    if need.spread:
        nodes, pods = place_apart(free, request, need.spread, rows, count=count, policy=policy)
    elif policy.stacks:
        best = np.argsort(ranking(free, request, policy, rows), kind="stable")
        used, pods = _fewest(room[best], count)
        nodes = rows[best[used]]
    else:
        nodes, pods = fill(free, request, policy, rows, count)
    beside = np.lexsort([level.number[nodes] for level in reversed(tuple(free.levels.values()))] or [nodes])
    return np.repeat(nodes[beside], pods[beside])


def _fewest(room: Ints, count: int) -> tuple[Ints, Ints]:
    """Which of those with so much room are used for `count` pods, which they hold together, and how many each gets.

    The roomiest first; the last is the one with the least room that holds what is left. Of equals the first.
    """
    order = np.argsort(-room, kind="stable")
    filled = np.cumsum(room[order])
    full = int(np.searchsorted(filled, count))
    left = count - int(filled[full - 1] if full else 0)
    enough = order[full:][room[order[full:]] >= left]
    last = enough[np.argmin(room[enough])]
    return np.append(order[:full], last), np.append(room[order[:full]], left).astype(np.int64)
