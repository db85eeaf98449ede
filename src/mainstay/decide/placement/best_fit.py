"""Best fit: fill the fullest node that still has room, so that large requests find whole nodes later.

Work without GPUs goes to nodes without GPUs while there is room on them.
"""

from __future__ import annotations

from mainstay.decide.placement.fit import Free, Request
from mainstay.domain.arrays import Floats, Ints


def best_fit(free: Free, request: Request, rows: Ints) -> Floats:
    """Score of each of the feasible `rows`."""
    left = free.nodes.left[rows]
    return left if request.gpus else left + free.nodes.apart[rows]
