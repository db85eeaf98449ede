"""The wanted side of reconcile: allocations that are not closed, with their specifications, kept current by version."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import cast

import sqlalchemy as sa

from mainstay.domain.allocation import Wanted
from mainstay.domain.workload import WorkloadSpec
from mainstay.store import codec, queries, tables
from mainstay.store.engine import Database
from mainstay.store.rows import AllocationRow

BATCH = 5_000


class WantedCache:
    """What was read last. Thread-safe; one refresh at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()
        self._state = _State()

    def wanted(self, cluster: str) -> tuple[Wanted, ...]:
        """By key."""
        with self._turn:
            self._state = self._database.read(self._refreshed)
            return self._state.by_cluster.get(cluster, ())

    def _refreshed(self, connection: sa.Connection) -> _State:
        state = self._state
        head = queries.head(connection)
        if head["version"] == state.version:
            return state
        if head["allocations_at"] <= state.version:
            return _State(version=head["version"], rows=state.rows, specs=state.specs, by_cluster=state.by_cluster)
        return _with_changes(state, connection, version=head["version"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    version: int = -1
    rows: Mapping[int, Wanted] = field(default_factory=dict)
    specs: Mapping[int, WorkloadSpec] = field(default_factory=dict)
    by_cluster: Mapping[str, tuple[Wanted, ...]] = field(default_factory=dict)


def _with_changes(state: _State, connection: sa.Connection, *, version: int) -> _State:
    changed = _changed(connection, since=state.version)
    specs = {**state.specs, **_specs(connection, {row["workload_key"] for row in changed} - state.specs.keys())}
    rows = dict(state.rows)
    for row in changed:
        if row["closed"]:
            rows.pop(row["key"], None)
        else:
            rows[row["key"]] = Wanted(allocation=codec.allocation_of(row), spec=specs[row["workload_key"]])
    used = Counter(wanted.allocation.workload_key for wanted in rows.values())
    return _State(
        version=version,
        rows=rows,
        specs={key: spec for key, spec in specs.items() if key in used},
        by_cluster=_by_cluster(state, rows, {row["cluster"] for row in changed}),
    )


def _changed(connection: sa.Connection, *, since: int) -> list[AllocationRow]:
    table = tables.allocations
    query = sa.select(table).where(table.c.closed == 0 if since < 0 else table.c.version > since)
    return [cast("AllocationRow", dict(row)) for row in connection.execute(query).mappings()]


def _specs(connection: sa.Connection, keys: Collection[int]) -> dict[int, WorkloadSpec]:
    table = tables.workloads
    ordered = sorted(keys)
    found: dict[int, WorkloadSpec] = {}
    for first in range(0, len(ordered), BATCH):
        query = sa.select(table.c.key, table.c.spec).where(table.c.key.in_(ordered[first : first + BATCH]))
        found.update((key, codec.spec_of(spec)) for key, spec in connection.execute(query).tuples())
    return found


def _by_cluster(
    state: _State, rows: Mapping[int, Wanted], clusters: Collection[str]
) -> Mapping[str, tuple[Wanted, ...]]:
    lists: dict[str, list[Wanted]] = {cluster: [] for cluster in clusters}
    for key in sorted(rows):
        wanted = rows[key]
        if wanted.allocation.cluster in lists:
            lists[wanted.allocation.cluster].append(wanted)
    return {**state.by_cluster, **{cluster: tuple(found) for cluster, found in lists.items()}}
