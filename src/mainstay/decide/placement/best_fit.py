"""Best fit: fill the fullest node that still has room, so that large requests find whole nodes later.

Work without GPUs goes to nodes without GPUs while there is room on them.
"""

from __future__ import annotations

import numpy as np

from mainstay.decide.placement.fit import Free, Request
from mainstay.domain.snapshot import Ints


def best_fit(free: Free, request: Request, rows: Ints, room: Ints, count: int) -> Ints:
    """Node rows of `count` pods out of the feasible `rows`, whose `room` (same order) adds up to `count` or more."""
    columns = [free.gpus[rows], free.cpu_milli[rows], free.memory_bytes[rows], free.key[rows]]
    if not request.gpus:
        columns.insert(0, (free.gpus_installed[rows] > 0).astype(np.int64))
    if count == 1:
        return rows[_least(columns)]
    ranking = np.lexsort(columns[::-1])
    filled = np.minimum(np.cumsum(room[ranking]), count)
    return np.repeat(rows[ranking], np.diff(filled, prepend=0))


def _least(columns: list[Ints]) -> Ints:
    """The first entry in lexicographic order, without sorting: each column narrows the candidates."""
    left = np.arange(columns[0].size)
    for column in columns:
        values = column[left]
        left = left[values == values.min()]
        if left.size == 1:
            break
    return left[:1]
