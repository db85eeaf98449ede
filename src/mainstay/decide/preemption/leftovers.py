"""Each action of a turn stands for itself: any of them may be refused, as somebody has ended or been stopped since.

Who is displaced often leaves more than is needed for the one that it yields to. Another one must not take its place there, nor
its quota, in the same turn: if only that action were applied, others would have yielded in vain. In the next turn it may.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from mainstay.decide.placement.sets import requests_of
from mainstay.decide.preemption.balance import Change
from mainstay.decide.preemption.rules import Wish
from mainstay.decide.preemption.staying import Staying
from mainstay.decide.preemption.trial import Displacement
from mainstay.domain.arrays import Ints


class Leftovers:
    """What would be missing without those who have displaced others in this turn, at most: any of them, or all."""

    def __init__(self, staying: Staying) -> None:
        self._staying = staying
        self._room: defaultdict[int, Ints] = defaultdict(lambda: np.zeros_like(staying.free.nodes.weight))
        """Row of a node -> how much less would be free of each column of `Free`."""
        self._changes: defaultdict[int, list[Change]] = defaultdict(list)
        """Column of a cell -> of each of them that would make any queue use more, what would be used in its stead."""

    def needed(self, wish: Wish, found: Displacement) -> bool:
        """Whether it has no room, or no quota, without some of them. It has been taken in the world of those who stay."""
        free, balance = self._staying.free, self._staying.balance
        for node, request in zip(found.nodes.tolist(), requests_of(found.parts), strict=True):
            asked = free.amounts(request) > 0
            if node in self._room and (free.nodes.free[asked, node] < self._room[node][asked]).any():
                return True
        load = self._staying.load(wish.queue, found.parts)
        assert load is not None, "it has just been given its places"
        of_cells = {column: self._changes[column] for column in load.cells if column in self._changes}
        return balance.might_be_over(wish.queue, of_cells)

    def add(self, wish: Wish, found: Displacement) -> None:
        """It has displaced them, and may be refused."""
        self._add_room(found)
        self._add_quota(wish, found)

    def _add_room(self, found: Displacement) -> None:
        staying, free, holders = self._staying, self._staying.free, self._staying.holders
        more: defaultdict[int, Ints] = defaultdict(lambda: np.zeros_like(free.nodes.weight))
        for unit, _ in found.units:
            pods = holders.pods_of(unit)
            for pod in range(pods.start, pods.stop):
                if holders.node[pod] >= 0:
                    more[int(holders.node[pod])] += free.amounts_held(staying.holds(pod))
        for node, request in zip(found.nodes.tolist(), requests_of(found.parts), strict=True):
            more[node] -= free.amounts(request)
        for node, amounts in more.items():
            self._room[node] += np.maximum(0, amounts)

    def _add_quota(self, wish: Wish, found: Displacement) -> None:
        staying, holders = self._staying, self._staying.holders
        load = staying.load(wish.queue, found.parts)
        assert load is not None, "it has just been given its places"
        more: defaultdict[int, Counter[int]] = defaultdict(Counter)
        for unit, _ in found.units:
            for column, amount in staying.of_unit(unit).cells.items():
                more[column][int(holders.queue[unit])] += amount
        for column, amount in load.cells.items():
            more[column][wish.queue] -= amount
        for column, change in more.items():
            if max(change.values()) > 0:
                self._changes[column].append(change)
