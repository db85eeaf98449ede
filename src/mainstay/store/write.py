"""Writing what a plan has changed: one statement per table and kind of change, with many rows each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from mainstay.store import tables
from mainstay.store.world import World


def write(connection: sa.Connection, world: World) -> None:
    """Insert and update; parents before children, so that references hold at every statement."""
    changes = world.changes
    _insert(connection, tables.nodes, changes.new_nodes.values())
    _insert(connection, tables.clusters, changes.new_clusters.values())
    _insert(connection, tables.workloads, changes.new_workloads)
    _insert(connection, tables.allocations, changes.new_allocations.values())
    _insert(connection, tables.endpoints, changes.new_endpoints.values())
    _insert(connection, tables.models, changes.models)
    _insert(connection, tables.usage, changes.usage)
    _insert(connection, tables.charges, changes.charges)
    _insert(connection, tables.prices, changes.prices)
    _write_secrets(connection, world)
    _write_volumes(connection, world)
    _write_by_name(connection, tables.queues, changes.queues)
    _write_by_name(connection, tables.priority_classes, changes.priority_classes)
    _update(connection, _UPDATE_NODE, changes.nodes.values())
    _update(connection, _UPDATE_CLUSTER, changes.clusters.values())
    _update(connection, _UPDATE_WORKLOAD, changes.workloads.values())
    _update(connection, _UPDATE_ALLOCATION, changes.allocations.values())
    _update(connection, _UPDATE_ENDPOINT, changes.endpoints.values())
    _insert(connection, tables.events, changes.events)
    _insert(connection, tables.audit, changes.audit)
    _write_head(connection, world)


def _write_secrets(connection: sa.Connection, world: World) -> None:
    """Each is written whole in the place of what was there. A removed one goes whole: nothing of its value is kept."""
    table, changed = tables.secrets, world.changes.secrets
    for tenant, name in changed:
        connection.execute(sa.delete(table).where(table.c.tenant == tenant, table.c.name == name))
    _insert(connection, table, [row for row in changed.values() if row is not None])


def _write_volumes(connection: sa.Connection, world: World) -> None:
    """Each is written whole in the place of what was there."""
    table, changed = tables.volumes, world.changes.volumes
    for cluster, tenant, project, name in changed:
        of = (table.c.cluster == cluster, table.c.tenant == tenant, table.c.project == project, table.c.name == name)
        connection.execute(sa.delete(table).where(*of))
    _insert(connection, table, [row for row in changed.values() if row is not None])


def _write_by_name(connection: sa.Connection, table: sa.Table, changed: Mapping[str, Mapping[str, Any] | None]) -> None:
    """As secrets: each is written whole, or goes. `Any`: a row of either table."""
    for name in changed:
        connection.execute(sa.delete(table).where(table.c.name == name))
    _insert(connection, table, [row for row in changed.values() if row is not None])


class _Update:
    """An update of the columns of a table that may change, for one row by its key."""

    def __init__(self, table: sa.Table, key: str, *columns: str) -> None:
        self.key = key
        self.columns = columns
        assignments: dict[str, sa.BindParameter[Any]] = {column: sa.bindparam(f"new_{column}") for column in columns}
        self.statement = sa.update(table).where(table.c[key] == sa.bindparam("of_key")).values(assignments)

    def parameters(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """`Any`: a row of any table."""
        parameters = {f"new_{column}": row[column] for column in self.columns}
        parameters["of_key"] = row[self.key]
        return parameters


_UPDATE_NODE = _Update(
    tables.nodes,
    "key",
    *("ready", "cpu_milli", "memory_bytes", "gpus", "gpu_model"),
    *("used_cpu_milli", "used_memory_bytes", "used_gpus", "admits"),
    *("problem", "complaints", "cordoned", "strangers", "shapes", "used_shapes", "unhealthy"),
    *("closure", "closure_reason", "closed_at", "closed_until", "drains", "wait_seconds", "version"),
)
_UPDATE_CLUSTER = _Update(
    tables.clusters,
    "name",
    *("observed_at", "kind", "settings", "sealed", "identity", "wanted", "wanted_reason", "seen", "seen_reason"),
    *("added_at", "added_by", "version"),
)
_UPDATE_WORKLOAD = _Update(
    tables.workloads,
    "key",
    *("phase", "attempt", "infrastructure_failures", "user_failures", "stop_requested"),
    *("held", "priority", "preemptible", "nominated", "nominated_until", "displaced_by"),
    *("not_before", "started_at", "finished_at", "output", "reason", "version"),
)
_UPDATE_ALLOCATION = _Update(
    tables.allocations,
    "key",
    *("stop", "moves", "preempted", "seen", "ready", "address", "started_at", "ended_at", "metered_until"),
    *("ending", "exit_code", "detail", "closed", "version"),
)
_UPDATE_ENDPOINT = _Update(
    tables.endpoints,
    "name",
    *("tenant", "project", "model", "serving_version", "serving", "serving_key"),
    *("candidate_version", "candidate", "candidate_key", "address", "removed", "updated_at", "version"),
)
_UPDATE_HEAD = _Update(
    tables.head,
    "one",
    *("version", "event_seq", "audit_seq", "next_key"),
    *("nodes_at", "workloads_at", "allocations_at", "endpoints_at", "prices_at", "volumes_at", "queues_at"),
)


def _insert(connection: sa.Connection, table: sa.Table, rows: Collection[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(_INSERTS[table.name], list(rows))


_INSERTS = {name: sa.insert(table) for name, table in tables.metadata.tables.items()}


def _update(connection: sa.Connection, update: _Update, rows: Collection[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(update.statement, [update.parameters(row) for row in rows])


def _write_head(connection: sa.Connection, world: World) -> None:
    changes, head, version = world.changes, world.head, world.version
    head["version"] = version
    if changes.nodes or changes.new_nodes or changes.clusters or changes.new_clusters:
        head["nodes_at"] = version
    if changes.workloads or changes.new_workloads:
        head["workloads_at"] = version
    if changes.allocations or changes.new_allocations:
        head["allocations_at"] = version
    if changes.endpoints or changes.new_endpoints:
        head["endpoints_at"] = version
    if changes.queues:
        head["queues_at"] = version
    if changes.prices:
        head["prices_at"] = version
    if changes.volumes:
        head["volumes_at"] = version
    _update(connection, _UPDATE_HEAD, [head])
