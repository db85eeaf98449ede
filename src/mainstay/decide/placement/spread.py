"""Spread: the emptiest node first, one pod on each before any takes a second, so that a lost node costs least.

Work without GPUs goes to nodes without GPUs while there is room on them.
"""

from __future__ import annotations

import numpy as np

from mainstay.decide.placement.fit import Free, Request
from mainstay.domain.snapshot import Ints


def spread(free: Free, request: Request, rows: Ints, room: Ints, count: int) -> Ints:
    """Node rows of `count` pods out of the feasible `rows`, whose `room` (same order) adds up to `count` or more."""
    columns = [free.key[rows], -free.memory_bytes[rows], -free.cpu_milli[rows], -free.gpus[rows]]
    if not request.gpus:
        columns.append((free.gpus_installed[rows] > 0).astype(np.int64))
    ranking = np.lexsort(columns)
    ranked, left = rows[ranking], room[ranking].copy()
    rounds: list[Ints] = []
    missing = count
    while missing:
        takes = np.flatnonzero(left > 0)[:missing]
        left[takes] -= 1
        missing -= takes.size
        rounds.append(ranked[takes])
    return np.concatenate(rounds)
