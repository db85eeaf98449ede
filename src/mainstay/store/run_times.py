"""What runs have taken that are like another: of its name, on each kind of GPUs, or by what they asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import sqlalchemy as sa

from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, Resources
from mainstay.domain.workload import RUNS_MAX, RUNS_MIN, RUNS_OF_SHAPE_MIN, Kind, kind_of_gpus, typical
from mainstay.store import codec, queries, tables
from mainstay.store.rows import WorkloadRow

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


Name: TypeAlias = tuple[str, str, str]
"""Tenant, project and name."""
ShapeKey: TypeAlias = tuple[str, str, int, int, int, str, int]
"""Tenant and queue; CPU, memory, GPUs and their model of a pod; ranks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimes:
    """Seconds that the last runs took that succeeded at once, at most RUNS_MAX of each, the newest first."""

    of_name: Mapping[Name, Sequence[int]] = field(default_factory=dict)
    of_shape: Mapping[ShapeKey, Sequence[int]] = field(default_factory=dict)
    """Of what asked for the same in the same queue; known only where runs of a name are too few to tell."""

    @classmethod
    def of(cls, connection: sa.Connection, rows: Iterable[WorkloadRow]) -> RunTimes:
        """Of runs like these. Of jobs: a service has no usual end. One look at an index for each name, and for each shape."""
        jobs = [row for row in rows if _is_job(row)]
        of_name = {name: _last(connection, _NAME, name) for name in sorted(set(map(_name_of, jobs)))}
        strangers = (row for row in jobs if len(of_name[_name_of(row)]) < RUNS_MIN)
        of_shape = {shape: _last(connection, _ASKED, shape) for shape in sorted(set(map(_asked_of, strangers)))}
        return cls(of_name=of_name, of_shape=of_shape)

    def like(self, row: WorkloadRow) -> Sequence[int]:
        """Of the last runs of its name; where those are too few, of the last that asked for the same in its queue."""
        if not _is_job(row):
            return ()
        of_name = self.of_name.get(_name_of(row), ())
        of_shape = self.of_shape.get(_asked_of(row), ())
        return of_shape if len(of_name) < RUNS_MIN and len(of_shape) >= RUNS_OF_SHAPE_MIN else of_name


def typical_now(connection: sa.Connection, keys: Collection[int]) -> dict[int, tuple[int, int]]:
    """`typical` of each of these workloads, by the runs that have ended up to now. Costs as `RunTimes.of`."""
    table = tables.workloads
    query = sa.select(*(table.c[name] for name in ("key", "kind", *dict.fromkeys((*_NAME, *_ASKED)))))
    rows = [
        cast("WorkloadRow", row)
        for batch in queries.batches(keys)
        for row in queries.fetch(connection, query.where(table.c.key.in_(batch)))
    ]
    found = RunTimes.of(connection, rows)
    return {row["key"]: typical(found.like(row)) for row in rows}


_NAME = ("tenant", "project", "name")
_ASKED = ("tenant", "queue", "cpu_milli", "memory_bytes", "gpus", "gpu_model", "nodes")
"""The columns of their indexes."""


def _is_job(row: WorkloadRow) -> bool:
    return row["kind"] == codec.KINDS.index(Kind.JOB)


def _name_of(row: WorkloadRow) -> Name:
    return row["tenant"], row["project"], row["name"]


def _asked_of(row: WorkloadRow) -> ShapeKey:
    asked = row["cpu_milli"], row["memory_bytes"], row["gpus"], row["gpu_model"], row["nodes"]
    return row["tenant"], row["queue"], *asked


def _last(connection: sa.Connection, columns: Sequence[str], values: Sequence[str | int]) -> list[int]:
    """Of jobs in which these columns have these values."""
    table = tables.workloads
    # In these words the index of what has succeeded is taken.
    runs = sa.select(table.c.finished_at - table.c.started_at).where(sa.text("phase = 10 AND attempt = 1"))
    alike = runs.where(*(table.c[name] == value for name, value in zip(columns, values, strict=True)))
    if columns is _ASKED:
        alike = alike.where(table.c.kind == codec.KINDS.index(Kind.JOB))
    last = connection.scalars(alike.order_by(table.c.key.desc()).limit(RUNS_MAX))
    return [-(-took // MICROSECONDS_PER_SECOND) for took in last]
