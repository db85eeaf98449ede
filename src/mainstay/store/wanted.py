"""The wanted side of reconcile: allocations that are not closed, with their specifications, kept current by version."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from typing import cast

import sqlalchemy as sa

from mainstay.domain.allocation import Allocation, Wanted
from mainstay.domain.workload import Phase, Workload, WorkloadSpec
from mainstay.ports import WantedChanges
from mainstay.store import codec, guests, queries, tables
from mainstay.store.engine import Database
from mainstay.store.rows import AllocationRow


class WantedCache:
    """What was read last. Thread-safe; one refresh at a time.

    A refresh first reads, which may fail, and then takes over what it read, which cannot: a failure changes nothing.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()
        self._version = -1
        self._rows: dict[str, dict[int, Wanted]] = {}
        """By cluster and key. New keys are higher than all known ones, so the order of insertion is that of keys."""
        self._tuples: dict[str, tuple[Wanted, ...]] = {}
        self._specs: dict[int, WorkloadSpec] = {}
        self._pods: Counter[int] = Counter()

    def wanted(self, cluster: str) -> tuple[Wanted, ...]:
        """By key."""
        with self._turn:
            news = self._database.read(self._news)
            if news.version != self._version:
                self._take_over(news)
            if cluster not in self._tuples:
                self._tuples[cluster] = tuple(self._rows.get(cluster, {}).values())
            return self._tuples[cluster]

    def _news(self, connection: sa.Connection) -> _News:
        head, since = queries.head(connection), self._version
        rows = _changed(connection, since=since) if head["allocations_at"] > since else []
        workload_keys = {row["workload_key"] for row in rows}
        return _News(
            version=head["version"],
            rows=rows,
            specs=_specs(connection, workload_keys - self._specs.keys()),
            judgements=_judgements(connection, workload_keys),
            moved=_moved(connection, since=since) if 0 <= since < head["workloads_at"] and self._specs else {},
        )

    def _take_over(self, news: _News) -> None:
        self._version = news.version
        self._specs.update(news.specs)
        for row in news.rows:
            self._place(row, news.judgements[row["workload_key"]])
        self._settle(news.moved)
        for key in news.judgements:
            if not self._pods[key]:
                del self._pods[key], self._specs[key]

    def _place(self, row: AllocationRow, judgement: Judgement) -> None:
        rows = self._rows.setdefault(row["cluster"], {})
        known = row["key"] in rows
        self._tuples.pop(row["cluster"], None)
        if row["closed"]:
            rows.pop(row["key"], None)
            self._pods[row["workload_key"]] -= known
            return
        allocation, specification = codec.allocation_of(row), self._specs[row["workload_key"]]
        rows[row["key"]] = Wanted(allocation=allocation, spec=specification, settled=judgement.settles(allocation))
        self._pods[row["workload_key"]] += not known

    def _settle(self, moved: Mapping[int, Judgement]) -> None:
        """Tell the rows of workloads that have moved on."""
        ours = {key: judgement for key, judgement in moved.items() if self._pods[key]}
        for wanted in self._of(ours.keys()):
            allocation = wanted.allocation
            settled = ours[allocation.workload_key].settles(allocation)
            if settled != wanted.settled:
                self._rows[allocation.cluster][allocation.key] = replace(wanted, settled=settled)
                self._tuples.pop(allocation.cluster, None)

    def _of(self, workload_keys: Collection[int]) -> Iterator[Wanted]:
        if workload_keys:
            for rows in self._rows.values():
                yield from [wanted for wanted in rows.values() if wanted.allocation.workload_key in workload_keys]


def changes(connection: sa.Connection, cluster: str, *, since: int) -> WantedChanges:
    """See `ports.Store.wanted_changes`. Asked of the database itself: any replica may be asked next.

    A database that was set back is behind whoever asks: then all of it is told.
    """
    head = queries.head(connection)
    whole = not 0 <= since <= head["version"]
    since = -1 if whole else since
    rows = _changed(connection, since=since, cluster=cluster) if head["allocations_at"] > since else []
    hosted: list[Workload] = []
    if head["workloads_at"] > since:
        hosted = [codec.workload_of(row) for row in guests.changed(connection, since=since, cluster=cluster)]
        if not whole:
            rows += _open_of(connection, _moved(connection, since=since), cluster, but={row["key"] for row in rows})
    living = sorted((row for row in rows if not row["closed"]), key=itemgetter("key"))
    keys = {row["workload_key"] for row in living}
    specs, judgements = _specs(connection, keys), _judgements(connection, keys)
    return WantedChanges(
        version=head["version"],
        whole=whole,
        rows=tuple(_wanted(row, specs, judgements) for row in living),
        closed=tuple(row["key"] for row in rows if row["closed"]),
        guests=tuple(sorted((work for work in hosted if not work.phase.final), key=attrgetter("key"))),
        finished=tuple(work.key for work in hosted if work.phase.final),
        closed_nodes=queries.closed_nodes(connection, cluster)
        if whole or _closures_moved(connection, cluster, since)
        else None,
        removals=queries.removals(connection, cluster) if whole or head["volumes_at"] > since else None,
    )


def _closures_moved(connection: sa.Connection, cluster: str, since: int) -> bool:
    """Whether somebody may have said something of a node: every node of which anybody ever did, and that changed."""
    table = tables.nodes
    query = sa.select(table.c.key).where(table.c.version > since, table.c.closed_at > 0, table.c.cluster == cluster)
    return connection.execute(query.limit(1)).first() is not None


def _wanted(row: AllocationRow, specs: Mapping[int, WorkloadSpec], judgements: Mapping[int, Judgement]) -> Wanted:
    allocation = codec.allocation_of(row)
    settled = judgements[row["workload_key"]].settles(allocation)
    return Wanted(allocation=allocation, spec=specs[row["workload_key"]], settled=settled)


def closed(connection: sa.Connection, cluster: str, pods: Collection[str]) -> tuple[Wanted, ...]:
    """See `ports.Store.closed`. By key."""
    table, workloads = tables.allocations, tables.workloads
    query = sa.select(table).join(workloads, workloads.c.key == table.c.workload_key)
    query = query.where(table.c.closed == 1, table.c.cluster == cluster)
    ids = {codec.storable(pod.rsplit("-", 2)[0]) for pod in pods}
    rows: list[AllocationRow] = []
    for batch in queries.batches(ids):
        rows += cast("list[AllocationRow]", queries.fetch(connection, query.where(workloads.c.id.in_(batch))))
    specs = _specs(connection, {row["workload_key"] for row in rows})
    named = frozenset(pods)
    ended = (
        Wanted(allocation=codec.allocation_of(row), spec=specs[row["workload_key"]], settled=True)
        for row in sorted(rows, key=itemgetter("key"))
    )
    return tuple(row for row in ended if row.allocation.pod in named)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How far a workload has come."""

    final: bool
    attempt: int

    def settles(self, allocation: Allocation) -> bool:
        """No decision reads the end of this allocation any more."""
        return self.final or self.attempt > allocation.attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class _News:
    version: int
    rows: list[AllocationRow]
    specs: Mapping[int, WorkloadSpec]
    judgements: Mapping[int, Judgement]
    """Of the workloads of `rows`."""
    moved: Mapping[int, Judgement]
    """Of the workloads that may have moved on, with or without a change of their allocations."""


def _changed(connection: sa.Connection, *, since: int, cluster: str = "") -> list[AllocationRow]:
    """By key; of one cluster, or of all. Sorted here: asked for an order, SQLite would walk the whole table along it."""
    table = tables.allocations
    query = sa.select(table).where(table.c.closed == 0 if since < 0 else table.c.version > since)
    if cluster:
        query = query.where(table.c.cluster == cluster)
    rows = cast("list[AllocationRow]", queries.fetch(connection, query))
    return sorted(rows, key=itemgetter("key"))


def _open_of(
    connection: sa.Connection, workload_keys: Collection[int], cluster: str, *, but: Collection[int]
) -> list[AllocationRow]:
    """What is not closed of these workloads in a cluster."""
    table = tables.allocations
    query = sa.select(table).where(table.c.closed == 0, table.c.cluster == cluster)
    rows: list[AllocationRow] = []
    for batch in queries.batches(workload_keys):
        found = cast("list[AllocationRow]", queries.fetch(connection, query.where(table.c.workload_key.in_(batch))))
        rows += [row for row in found if row["key"] not in but]
    return rows


def _specs(connection: sa.Connection, keys: Collection[int]) -> dict[int, WorkloadSpec]:
    return {key: codec.spec_of(text) for key, text in queries.specifications(connection, keys)}


def _moved(connection: sa.Connection, *, since: int) -> dict[int, Judgement]:
    """The workloads that have changed and may have moved on; fresh submissions, however many, have not."""
    table = tables.workloads
    moved = (table.c.phase >= int(Phase.SUCCEEDED)) | (table.c.attempt > 1)
    query = sa.select(table.c.key, table.c.phase, table.c.attempt).where(table.c.version > since, moved)
    return _judgements_of(connection, query)


def _judgements(connection: sa.Connection, keys: Collection[int]) -> dict[int, Judgement]:
    table = tables.workloads
    query = sa.select(table.c.key, table.c.phase, table.c.attempt)
    found: dict[int, Judgement] = {}
    for batch in queries.batches(keys):
        found.update(_judgements_of(connection, query.where(table.c.key.in_(batch))))
    return found


def _judgements_of(connection: sa.Connection, query: sa.Select[int, int, int]) -> dict[int, Judgement]:
    return {
        key: Judgement(final=Phase(phase).final, attempt=attempt)
        for key, phase, attempt in connection.execute(query).all()
    }
