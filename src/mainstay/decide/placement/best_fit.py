"""Best fit: fill the fullest node that still has room, so that large requests find whole nodes later.

Work without GPUs goes to nodes without GPUs while there is room on them. Work with whole GPUs goes where those who usually
ask for GPUs here lose least (usual.py).
"""

from __future__ import annotations

from mainstay.decide.placement import usual
from mainstay.decide.placement.fit import Free, Request
from mainstay.domain.arrays import Floats, Ints


def best_fit(free: Free, request: Request, rows: Ints) -> Floats:
    """Score of each of the feasible `rows`."""
    if request.gpus and not request.shape and free.nodes.usual.cpus.size:
        return usual.scores(free.nodes, rows, gpus=request.gpus, cpu_milli=request.cpu_milli)
    left = free.nodes.left[rows]
    return left if request.gpus else left + free.nodes.apart[rows]
