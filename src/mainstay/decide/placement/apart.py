"""Gangs apart from each other: over the domains of a level as evenly as there is room, and never too many in one.

How even is counted as by the topology spread constraints of Kubernetes: the skew is what the fullest domain has more than the
emptiest. A whole gang is placed at once, so it has the least that the room of the domains lets it have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mainstay.decide.placement.domains import known, numbers
from mainstay.decide.placement.fill import Policy, evenly, fill, lowest, ranking
from mainstay.decide.placement.fit import Free, Request, feasible, room_on
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.snapshot import NO_LIMIT
from mainstay.domain.topology import HOST, Spread


@dataclass(frozen=True, slots=True)
class Bound:
    """No more than so many pods of a gang lie in one domain."""

    number: Ints
    """[nodes] The domain of each."""
    known: Bools
    """[nodes] Whether anybody knows it. Where nobody does, none of them lies."""
    at_most: int


def bound_of(free: Free, request: Request) -> Bound | None:
    """None where as many may lie in one domain as there is room for. Of those that share a node the domain is that node."""
    spread = request.topology.spread if request.topology else None
    if spread is None or not spread.at_most:
        return None
    number = numbers(free, spread.level)
    is_known = number < known(free, spread.level)
    return Bound(np.arange(free.key.size) if request.one_node else number, is_known, spread.at_most)


def room_apart(free: Free, request: Request, rows: Ints) -> Ints:
    """How many pods of one gang each of these feasible nodes takes: summed up over any domain, as many as that takes.

    Where no more than so many lie in one domain, its first nodes have all of its room, and the others none: which of them are
    used is found later.
    """
    room, bound = room_on(free, request, rows), bound_of(free, request)
    if bound is None:
        return room
    number = bound.number[rows]
    order = np.argsort(number, kind="stable")
    room = np.where(bound.known[rows], room, 0)[order]
    sums, begins = np.cumsum(room), np.searchsorted(number[order], number[order])
    before = (sums - room) - (sums - room)[begins]
    left = np.empty_like(room)
    left[order] = np.minimum(room, np.maximum(0, bound.at_most - before))
    return left


def place_apart(
    free: Free, request: Request, spread: Spread, rows: Ints, *, count: int, policy: Policy
) -> tuple[Ints, Ints]:
    """Node rows out of these feasible ones, and how many pods each gets: `count` in all, which they have room for.

    One in turn for each domain, that of the best node first; within it the policy chooses.
    """
    bound, at_most = bound_of(free, request), spread.at_most or NO_LIMIT
    rows = rows[bound.known[rows]] if bound else rows
    scores = ranking(free, request, policy, rows)
    if spread.level == HOST:
        nodes = rows[lowest(scores, count)]
        return nodes, evenly(np.minimum(room_on(free, request, nodes), at_most), count)
    number = numbers(free, spread.level)[rows]
    best = np.full(int(number.max()) + 1, np.inf)
    np.minimum.at(best, number, scores)
    room = np.bincount(number, weights=room_on(free, request, rows)).astype(np.int64)
    order = np.argsort(best, kind="stable")[: np.count_nonzero(room)]
    pods = evenly(np.minimum(room[order], at_most), count)
    found = [
        fill(free, request, policy, rows[number == domain], here)
        for domain, here in zip(order.tolist(), pods.tolist(), strict=True)
        if here
    ]
    return np.concatenate([rows for rows, _ in found]), np.concatenate([each for _, each in found])


@dataclass(frozen=True, slots=True)
class Apart:
    """Where the pods of a gang lie that has some already and is to get more, one by one."""

    spread: Spread
    number: Ints
    """[nodes] The domain of each."""
    pods: Ints
    """[domains] So many lie there."""
    known: Bools
    """[nodes] Whether anybody knows its domain."""
    lost: bool
    """Of one of its pods nobody knows in which domain it lies."""

    @classmethod
    def of(cls, free: Free, spread: Spread, node_keys: Ints) -> Apart:
        """Its pods are on these nodes."""
        number, there = numbers(free, spread.level), np.isin(node_keys, free.key)
        rows, is_known = np.searchsorted(free.key, node_keys[there]), number < known(free, spread.level)
        pods = np.bincount(number[rows], minlength=int(number.max(initial=0)) + 1)
        return cls(spread, number, pods, is_known, not (there.all() and is_known[rows].all()))

    def narrowed(self, free: Free, request: Request) -> Request:
        """The request of one pod more, on the nodes that will do: of those with room, in the domains where the fewest lie."""
        may, here = feasible(free, request), self.pods[self.number]
        if self.spread.at_most:
            may &= self.known & (here < self.spread.at_most) & (not self.lost)
        return replace(request, reach=may & (here == here[may].min(initial=NO_LIMIT)))

    def take(self, row: int) -> None:
        """One more lies on this node."""
        self.pods[self.number[row]] += 1
