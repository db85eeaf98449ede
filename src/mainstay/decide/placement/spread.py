"""Spread: the emptiest node first, one pod on each before any takes a second, so that a lost node costs least.

Work without GPUs goes to nodes without GPUs while there is room on them.
"""

from __future__ import annotations

from mainstay.decide.placement.fit import Free, Request
from mainstay.domain.arrays import Floats, Ints


def spread(free: Free, request: Request, rows: Ints) -> Floats:
    """Score of each of the feasible `rows`."""
    left = free.nodes.left[rows]
    return -left if request.gpus else free.nodes.apart[rows] - left
