"""Whether enough ranks of a gang find room, as more becomes free node by node."""

from __future__ import annotations

import numpy as np

from mainstay.decide.placement.apart import bound_of
from mainstay.decide.placement.fit import Free, Request, room
from mainstay.domain.snapshot import NO_LIMIT


class Gained:
    """How many ranks find room while step by step more is free; it may be fewer, for what is free is not added up anew."""

    def __init__(self, free: Free, request: Request, ranks: int) -> None:
        self._there = np.minimum(room(free, request), ranks)
        self._one_node, bound = request.one_node, bound_of(free, request)
        self._at_most = bound.at_most if bound else NO_LIMIT
        self._domain = bound.number if bound else np.zeros_like(self._there)
        in_domain = np.zeros(int(self._domain.max(initial=0)) + 1, dtype=np.int64)
        (np.maximum if request.one_node else np.add).at(in_domain, self._domain, self._there)
        self._in_domain = in_domain
        bounded = np.minimum(in_domain, self._at_most)
        self._found = int(bounded.max() if request.one_node else bounded.sum())

    def is_full(self, node: int) -> bool:
        """Whether no more ranks may lie in its domain than have room there already."""
        return bool(self._in_domain[self._domain[node]] >= self._at_most)

    def with_room(self, node: int, pods: int) -> int:
        """How many find room now that so many do on this node."""
        domain, more = self._domain[node], max(0, pods - int(self._there[node]))
        self._there[node] += more
        before = int(self._in_domain[domain])
        after = max(before, int(self._there[node])) if self._one_node else before + more
        self._in_domain[domain] = after
        bounded = min(after, self._at_most)
        self._found = (
            max(self._found, bounded) if self._one_node else self._found + bounded - min(before, self._at_most)
        )
        return self._found
