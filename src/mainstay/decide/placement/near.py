"""Gangs near to each other: in the smallest domain that holds all pods, and in as few of the narrower ones as will do.

Source: Kueue's topology-aware scheduling, BestFit (pkg/cache/scheduler/tas_flavor_snapshot.go). The widest domain of all is the
cluster, so a gang that only prefers to lie in one rack is spread over as few as can be in the end.
"""

from __future__ import annotations

import numpy as np

from mainstay.decide.placement.fill import Policy, fill
from mainstay.decide.placement.fit import Free, Request, room_on
from mainstay.domain.arrays import Ints
from mainstay.domain.topology import LEVELS, Level, TopologyNeed

CLUSTER = "cluster"
LADDER = (CLUSTER, *LEVELS)


def place_near(
    free: Free, request: Request, need: TopologyNeed, rows: Ints, *, count: int, policy: Policy
) -> Ints | None:
    """Node row of each rank, out of these feasible rows; None if not all fit where they must. Neighbours by rank lie together."""
    room = room_on(free, request, rows)
    start = LADDER.index(need.level)
    for at in range(start, start - 1 if need.required else -1, -1):
        most = room_per_domain(free, LADDER[at], rows, room)
        holds = np.flatnonzero(most >= count)
        if holds.size:
            break
    else:
        return None
    inside = numbers(free, LADDER[at])[rows] == holds[np.argmin(most[holds])]
    rows, room = rows[inside], room[inside]
    for level in LADDER[at + 1 : -1]:
        if level in free.levels:
            number = free.levels[level].number[rows]
            used, _ = _fewest(np.bincount(number, weights=room), count)
            inside = np.isin(number, used)
            rows, room = rows[inside], room[inside]
    if policy.stacks:
        best = np.argsort(policy.scores(free, request, rows), kind="stable")
        used, pods = _fewest(room[best], count)
        nodes = rows[best[used]]
    else:
        nodes, pods = fill(free, request, policy, rows, count)
    beside = np.lexsort([level.number[nodes] for level in reversed(tuple(free.levels.values()))] or [nodes])
    return np.repeat(nodes[beside], pods[beside])


def numbers(free: Free, level: str) -> Ints:
    """[nodes] The domain of each, numbered as `Level` does."""
    match level:
        case "cluster":
            return free.cluster
        case "host":
            return np.arange(free.key.size)
    return _level(free, level).number


def room_per_domain(free: Free, level: str, rows: Ints, room: Ints) -> Ints:
    """How many pods each domain takes, by its number, if these rows have room for so many each. O(nodes)."""
    return np.bincount(numbers(free, level)[rows], weights=room)[: known(free, level)].astype(np.int64)


def known(free: Free, level: str) -> int:
    """How many domains there are; a node with a higher number is in none of which anybody knows."""
    match level:
        case "cluster":
            return int(free.cluster.max(initial=-1)) + 1
        case "host":
            return free.key.size
    return len(_level(free, level).names)


def _level(free: Free, level: str) -> Level:
    """One of which nothing is said has no domain."""
    return free.levels.get(level) or Level(number=np.zeros(free.key.size, dtype=np.int64), names=())


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
