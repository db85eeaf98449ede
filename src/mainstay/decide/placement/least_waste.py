"""Least waste: whole GPUs where those who usually ask for GPUs here lose least; all else as by best fit."""

from __future__ import annotations

from mainstay.decide.placement import usual
from mainstay.decide.placement.best_fit import best_fit
from mainstay.decide.placement.fit import Free, Request
from mainstay.domain.arrays import Floats, Ints


def least_waste(free: Free, request: Request, rows: Ints) -> Floats:
    """Score of each of the feasible `rows`."""
    if request.gpus and not request.shape and free.nodes.usual.cpus.size:
        return usual.scores(free.nodes, rows, gpus=request.gpus, cpu_milli=request.cpu_milli)
    return best_fit(free, request, rows)
