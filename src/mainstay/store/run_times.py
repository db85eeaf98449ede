"""What runs of a name have taken on each kind of GPUs."""

from __future__ import annotations

import sqlalchemy as sa

from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, Resources
from mainstay.domain.workload import RUNS_MAX, kind_of_gpus
from mainstay.store import tables

LOOKED_AT_MAX = 10 * RUNS_MAX
"""So many of the last runs are looked at, on whichever GPUs they were."""


def run_times_on(connection: sa.Connection, *, tenant: str, project: str, name: str) -> dict[str, list[int]]:
    """By `kind_of_gpus`, in seconds: of the last that succeeded at once, at most RUNS_MAX of each kind, the newest first.

    Where the ranks of a run were not alike, that of its first one tells.
    """
    runs, pods = tables.workloads, tables.allocations
    # In these words the index of what has succeeded is taken.
    mine = sa.select(runs.c.key, runs.c.started_at, runs.c.finished_at).where(sa.text("phase = 10 AND attempt = 1"))
    mine = mine.where(runs.c.tenant == tenant, runs.c.project == project, runs.c.name == name)
    last = mine.order_by(runs.c.key.desc()).limit(LOOKED_AT_MAX).subquery()
    first = (pods.c.workload_key == last.c.key) & (pods.c.attempt == 1) & (pods.c.rank == 0)
    query = sa.select(last.c.started_at, last.c.finished_at, pods.c.gpus, pods.c.gpu_model).join(pods, first)
    found: dict[str, list[int]] = {}
    for started_at, finished_at, gpus, model in connection.execute(query.order_by(last.c.key.desc())):
        times = found.setdefault(kind_of_gpus(Resources(gpus=gpus, gpu_model=model)), [])
        if len(times) < RUNS_MAX:
            times.append(-(-(finished_at - started_at) // MICROSECONDS_PER_SECOND))
    return found
