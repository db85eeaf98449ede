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
        head, table = queries.head(connection), tables.workloads
        if head["workloads_at"] <= self._version:
            return head["version"], []
        news = table.c.phase < int(Phase.SUCCEEDED) if self._version < 0 else table.c.version > self._version
        found = connection.execute(_GUESTS.where(news)).mappings()
        return head["version"], [cast("SpecifiedWorkloadRow", dict(row)) for row in found]

    def _place(self, workload: Workload) -> None:
        self._tuples.pop(workload.spec.cluster, None)
        if workload.phase.final:
            self._open.pop(workload.key, None)
        else:
            self._open[workload.key] = workload
