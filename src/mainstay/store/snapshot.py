"""Snapshots: the open part of every table as columns, kept current by version.

Each refresh is one read transaction: `head` says at which version every table last changed, tables that did not are
skipped without a query, and of the others the rows with a version above ours are read. Final workloads and closed
allocations leave. A refresh builds the next state beside the old one, so a failure in the middle changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from mainstay.domain.billing import Price
from mainstay.domain.quantity import ANY_GPU, Resources
from mainstay.domain.registry import Endpoint
from mainstay.domain.snapshot import AllocationTable, NodeTable, Snapshot, WorkloadTable
from mainstay.domain.workload import Phase
from mainstay.store import codec, queries, tables
from mainstay.store.columns import Column, Delta, columns_of, empty, joined, merged
from mainstay.store.engine import Database

CHUNK = 10_000
"""Rows in memory as Python objects at a time while a table is read."""


class SnapshotCache:
    """The last state read from one database. Thread-safe; one refresh at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()
        self._state = State()
        self.rows_read = 0
        """Rows fetched so far, to see that a refresh costs what changed."""

    def snapshot(self, *, now: int, seed: int) -> Snapshot:
        """The world of the last commit."""
        with self._turn:
            self._state = self._database.read(self._refreshed)
            return self._state.snapshot(now=now, seed=seed)

    def _refreshed(self, connection: sa.Connection) -> State:
        state = self._state
        head = queries.head(connection)
        if head["version"] == state.version:
            return state
        reader = _Reader(connection, state)
        if head["nodes_at"] > state.version:
            state = _with_nodes(state, reader)
        if head["workloads_at"] > state.version:
            state = _with_workloads(state, reader)
        if head["allocations_at"] > state.version:
            state = _with_allocations(state, reader)
        if head["endpoints_at"] > state.version:
            state = replace(state, endpoints=queries.all_endpoints(connection))
        if head["prices_at"] > state.version:
            state = replace(state, prices=queries.prices(connection))
        self.rows_read += reader.rows_read
        return replace(state, version=head["version"], gpu_models=tuple(reader.gpu_models))


_NODE = (
    *("key", "version", "ready", "cpu_milli", "memory_bytes", "gpus"),
    *("used_cpu_milli", "used_memory_bytes", "used_gpus"),
)
_WORKLOAD = (
    *("key", "version", "kind", "phase", "priority", "attempt", "submitted_at", "not_before", "started_at"),
    *("stop_requested", "nodes", "cpu_milli", "memory_bytes", "gpus", "max_duration_seconds", "stop_grace_seconds"),
    *("infrastructure_failures", "user_failures", "infrastructure_max", "user_max"),
    *("backoff_seconds", "backoff_seconds_max", "retry_always"),
)
_ALLOCATION = (
    *("key", "version", "workload_key", "attempt", "rank", "node_key", "cpu_milli", "memory_bytes", "gpus"),
    *("stop", "seen", "ready", "created_at", "started_at", "ended_at", "metered_until", "ending", "exit_code"),
)
_FLAGS = frozenset({"ready", "stop_requested", "retry_always", "stop"})


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything a snapshot shows, at one version. Mappings are replaced when they change, never edited."""

    version: int = -1
    gpu_models: tuple[str, ...] = (ANY_GPU,)
    nodes: Mapping[str, Column] = field(default_factory=lambda: empty((*_NODE, "gpu_model"), flags=_FLAGS))
    node_names: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Key -> (name, cluster)."""
    workloads: Mapping[str, Column] = field(default_factory=lambda: empty((*_WORKLOAD, "gpu_model"), flags=_FLAGS))
    choices: Mapping[int, tuple[Resources, ...]] = field(default_factory=dict)
    allocations: Mapping[str, Column] = field(default_factory=lambda: empty((*_ALLOCATION, "gpu_model"), flags=_FLAGS))
    owners: Mapping[int, tuple[str, str, str]] = field(default_factory=dict)
    addresses: Mapping[int, str] = field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] = ()
    prices: tuple[Price, ...] = ()

    def snapshot(self, *, now: int, seed: int) -> Snapshot:
        """This state as a decision reads it. No copy."""
        named = [self.node_names[key] for key in self.nodes["key"].tolist()]
        return Snapshot(
            now=now,
            seed=seed,
            version=self.version,
            gpu_models=self.gpu_models,
            nodes=NodeTable(
                **self.nodes,
                names=tuple(name for name, _ in named),
                clusters=tuple(cluster for _, cluster in named),
            ),
            workloads=WorkloadTable(**self.workloads, choices=self.choices),
            allocations=AllocationTable(
                **{"end" if name == "ending" else name: column for name, column in self.allocations.items()}
            ),
            endpoints=self.endpoints,
            prices=self.prices,
            owners=self.owners,
            addresses=self.addresses,
        )


class _Reader:
    """Changed rows of one refresh, and the vocabulary of GPU models that grows with them."""

    def __init__(self, connection: sa.Connection, state: State) -> None:
        self.connection = connection
        self.since = state.version
        self.gpu_models = list(state.gpu_models)
        self.rows_read = 0
        self._numbers = {model: number for number, model in enumerate(self.gpu_models)}

    def first(self) -> bool:
        """Nothing is known yet: what has left the tables need not be read."""
        return self.since < 0

    def chunks(self, query: sa.Select[Any]) -> Iterator[Sequence[Sequence[Any]]]:
        """Rows by key. The first read streams; later ones are small."""
        options = {"yield_per": CHUNK} if self.first() else {}
        result = self.connection.execute(query, execution_options=options)
        while rows := result.fetchmany(CHUNK):
            self.rows_read += len(rows)
            yield rows

    def numbered(self, models: Sequence[str]) -> Column:
        """The models as indexes into the vocabulary."""
        for model in models:
            if model not in self._numbers:
                self._numbers[model] = len(self.gpu_models)
                self.gpu_models.append(model)
        return np.array([self._numbers[model] for model in models], dtype=np.int64)


def _with_nodes(state: State, reader: _Reader) -> State:
    table = tables.nodes
    query = _select(table, _NODE, "gpu_model", "name", "cluster").where(table.c.version > reader.since)
    rows = [row for chunk in reader.chunks(query) for row in chunk]
    gpu_model, name, cluster = (len(_NODE) + offset for offset in range(3))
    columns = columns_of(rows, _NODE, flags=_FLAGS)
    columns["gpu_model"] = reader.numbered([row[gpu_model] for row in rows])
    names = {row[0]: (row[name], row[cluster]) for row in rows if row[0] not in state.node_names}
    delta = Delta(columns=columns, keep=np.ones(len(rows), dtype=np.bool_))
    return replace(
        state,
        nodes=merged(state.nodes, delta),
        node_names={**state.node_names, **names} if names else state.node_names,
    )


def _with_workloads(state: State, reader: _Reader) -> State:
    table = tables.workloads
    query = _select(table, _WORKLOAD, "gpu_model")
    query = query.where(table.c.phase < int(Phase.SUCCEEDED) if reader.first() else table.c.version > reader.since)
    parts = [columns_of((), (*_WORKLOAD, "gpu_model"), flags=_FLAGS)]
    for rows in reader.chunks(query):
        part = columns_of(rows, _WORKLOAD, flags=_FLAGS)
        part["gpu_model"] = reader.numbered([row[-1] for row in rows])
        parts.append(part)
    columns = joined(parts)
    delta = Delta(columns=columns, keep=columns["phase"] < int(Phase.SUCCEEDED))
    return replace(state, workloads=merged(state.workloads, delta), choices=_choices(state, reader, delta))


def _choices(state: State, reader: _Reader, delta: Delta) -> Mapping[int, tuple[Resources, ...]]:
    """Of those with more than one choice, which are few: for them alone the specification is read."""
    table = tables.workloads
    several = sa.select(table.c.key, table.c.spec).where(table.c.choices_count > 1, table.c.phase < Phase.SUCCEEDED)
    if not reader.first():
        several = several.where(table.c.version > reader.since)
    found = {key: codec.choices_of(spec) for key, spec in reader.connection.execute(several)}
    left = [key for key in delta.key[~delta.keep].tolist() if key in state.choices]
    if not found and not left:
        return state.choices
    return {key: value for key, value in {**state.choices, **found}.items() if key not in left}


def _with_allocations(state: State, reader: _Reader) -> State:
    table = tables.allocations
    query = _select(table, _ALLOCATION, "closed", "gpu_model", "tenant", "project", "workload", "address")
    query = query.where(table.c.closed == 0 if reader.first() else table.c.version > reader.since)
    at = len(_ALLOCATION)
    parts = [columns_of((), (*_ALLOCATION, "closed", "gpu_model"), flags=_FLAGS)]
    owners: dict[int, tuple[str, str, str]] = {}
    addresses: dict[int, str] = {}
    workload_key = _ALLOCATION.index("workload_key")
    for rows in reader.chunks(query):
        part = columns_of(rows, (*_ALLOCATION, "closed"), flags=_FLAGS)
        part["gpu_model"] = reader.numbered([row[at + 1] for row in rows])
        parts.append(part)
        owners.update((row[workload_key], (row[at + 2], row[at + 3], row[at + 4])) for row in rows)
        addresses.update((row[0], row[at + 5]) for row in rows)
    columns = joined(parts)
    keep = columns.pop("closed") == 0
    delta = Delta(columns=columns, keep=keep)
    allocations = merged(state.allocations, delta)
    return replace(
        state,
        allocations=allocations,
        owners=_owners(state.owners, owners, delta, allocations["workload_key"]),
        addresses=_addresses(state.addresses, addresses, gone=delta.key[~keep].tolist()),
    )


def _owners(
    before: Mapping[int, tuple[str, str, str]],
    changed: Mapping[int, tuple[str, str, str]],
    delta: Delta,
    remaining: Column,
) -> Mapping[int, tuple[str, str, str]]:
    """Those of the workloads that still have an allocation. The same mapping if none came or went."""
    left = delta.columns["workload_key"][~delta.keep]
    gone = set(left[~np.isin(left, remaining)].tolist())
    if not gone and changed.keys() <= before.keys():
        return before
    return {key: owner for key, owner in {**before, **changed}.items() if key not in gone}


def _addresses(before: Mapping[int, str], changed: Mapping[int, str], *, gone: Sequence[int]) -> Mapping[int, str]:
    """The addresses that are not empty. The same mapping if none changed."""
    changes = {**changed, **dict.fromkeys(gone, "")}
    if all(before.get(key, "") == address for key, address in changes.items()):
        return before
    return {key: address for key, address in {**before, **changes}.items() if address}


def _select(table: sa.Table, *names: tuple[str, ...] | str) -> sa.Select[Any]:
    flat = [name for part in names for name in (part if isinstance(part, tuple) else (part,))]
    return sa.select(*(table.c[name] for name in flat)).order_by(table.c.key)
