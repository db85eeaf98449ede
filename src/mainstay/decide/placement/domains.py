"""Domains: which nodes are one cluster, zone, block, rack or host, by number, and how much room each has."""

from __future__ import annotations

import numpy as np

from mainstay.decide.placement.fit import Free
from mainstay.domain.arrays import Ints
from mainstay.domain.topology import LEVELS, Level

CLUSTER = "cluster"
LADDER = (CLUSTER, *LEVELS)


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
    there = known(free, level)
    return np.bincount(numbers(free, level)[rows], weights=room, minlength=there)[:there].astype(np.int64)


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
