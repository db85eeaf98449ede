"""Consolidated: a job lies on one node, the first with room; one that is larger than a node, on whole idle nodes."""

from __future__ import annotations

import numpy as np

from mainstay.domain.arrays import Ints


def consolidated(free: Ints, size: Ints, gpus: int) -> Ints | None:
    """How many GPUs to take of each node, of which `free` are free and `size` there; None if there is no room.

    Whole nodes are taken in order until the job is covered; what it leaves of the last one is not given to others.
    """
    taken = np.zeros_like(free)
    if gpus <= size.max(initial=0):
        rows = np.flatnonzero(free >= gpus)
        if not rows.size:
            return None
        taken[rows[0]] = gpus
        return taken
    idle = np.flatnonzero(free == size)
    covered = np.cumsum(size[idle])
    if not idle.size or covered[-1] < gpus:
        return None
    last = int(np.searchsorted(covered, gpus))
    taken[idle[: last + 1]] = size[idle[: last + 1]]
    return taken
