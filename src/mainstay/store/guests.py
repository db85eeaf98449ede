"""Open workloads of guests, kept current by version: every look of an effect loop asks for them."""

from __future__ import annotations

import threading
from typing import cast

import sqlalchemy as sa

from mainstay.domain.workload import Kind, Phase, Workload
from mainstay.store import codec, queries, tables
from mainstay.store.engine import Database
from mainstay.store.rows import SpecifiedWorkloadRow

_GUESTS = sa.select(tables.workloads).where(tables.workloads.c.kind == codec.KINDS.index(Kind.POD))


class GuestCache:
    """What was read last. Thread-safe; one refresh at a time, and one that fails changes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()
        self._version = -1
        self._open: dict[int, Workload] = {}
        self._tuples: dict[str, tuple[Workload, ...]] = {}

    def guests(self, cluster: str) -> tuple[Workload, ...]:
        """By key."""
        with self._turn:
            version, rows = self._database.read(self._news)
            for workload in map(codec.workload_of, rows):
                self._place(workload)
            self._version = version
            if cluster not in self._tuples:
                ours = (workload for workload in self._open.values() if workload.spec.cluster == cluster)
                self._tuples[cluster] = tuple(sorted(ours, key=lambda workload: workload.key))
            return self._tuples[cluster]

    def _news(self, connection: sa.Connection) -> tuple[int, list[SpecifiedWorkloadRow]]:
        head = queries.head(connection)
        if head["workloads_at"] <= self._version:
            return head["version"], []
        return head["version"], changed(connection, since=self._version)

    def _place(self, workload: Workload) -> None:
        self._tuples.pop(workload.spec.cluster, None)
        if workload.phase.final:
            self._open.pop(workload.key, None)
        else:
            self._open[workload.key] = workload


def changed(connection: sa.Connection, *, since: int, cluster: str = "") -> list[SpecifiedWorkloadRow]:
    """Workloads of guests; of one cluster, or of all. From the beginning (-1) only those that are open."""
    table = tables.workloads
    query = _GUESTS.where(table.c.phase < int(Phase.SUCCEEDED) if since < 0 else table.c.version > since)
    if cluster:
        query = query.where(table.c.cluster == cluster)
    return cast("list[SpecifiedWorkloadRow]", queries.fetch(connection, query))
