"""Writing what a plan has changed: one statement per table and kind of change, with many rows each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from operator import itemgetter
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultDialect

from mainstay.domain.workload import Phase
from mainstay.store import tables, webhooks
from mainstay.store.queries import batches
from mainstay.store.world import World

OF_TENANTS = (
    *(tables.members, tables.tokens, tables.roles, tables.group_roles, tables.secrets),
    *(tables.webhooks, tables.deliveries, tables.idempotency),
)
"""Who may what in a tenant, and what acts for it: goes when it does."""


def write(connection: sa.Connection, world: World) -> None:
    """Insert and update; parents before children, so that references hold at every statement."""
    changes = world.changes
    _insert(connection, tables.node_traits, changes.new_traits.values())
    _insert(connection, tables.nodes, changes.new_nodes.values())
    _insert(connection, tables.clusters, changes.new_clusters.values())
    _insert(connection, tables.workloads, changes.new_workloads)
    _insert(connection, tables.allocations, changes.new_allocations.values())
    _insert(connection, tables.endpoints, changes.new_endpoints.values())
    _insert(connection, tables.models, changes.models)
    _insert(connection, tables.usage, changes.usage)
    _insert(connection, tables.charges, changes.charges)
    _insert(connection, tables.prices, changes.prices)
    _write_whole(connection, tables.tenants, changes.tenants)
    _write_whole(connection, tables.projects, changes.projects)
    _write_whole(connection, tables.roles, changes.roles)
    _write_whole(connection, tables.members, changes.members)
    _write_whole(connection, tables.group_roles, changes.group_roles)
    _write_whole(connection, tables.tokens, changes.tokens)
    _insert(connection, tables.cap_uses, changes.new_cap_uses)
    _write_whole(connection, tables.cap_uses, changes.cap_uses)
    _write_whole(connection, tables.secrets, changes.secrets)
    _write_whole(connection, tables.earlier_secrets, changes.earlier_secrets)
    _write_whole(connection, tables.handed_secrets, changes.handed_secrets)
    _write_whole(connection, tables.volumes, changes.volumes)
    _write_whole(connection, tables.queues, changes.queues)
    _write_whole(connection, tables.node_flavors, changes.node_flavors)
    _write_whole(connection, tables.local_queues, changes.local_queues)
    webhooks.write(connection, world)
    _write_history(connection, world)
    _write_whole(connection, tables.priority_classes, changes.priority_classes)
    _UPDATE_NODE.run(connection, changes.nodes.values())
    if changes.new_traits:
        _forget_traits(connection)
    _UPDATE_CLUSTER.run(connection, changes.clusters.values())
    _UPDATE_WORKLOAD.run(connection, changes.workloads.values())
    _count_open_work(connection, world)
    _UPDATE_ALLOCATION.run(connection, changes.allocations.values())
    _forget_handed(connection, [key for key, row in changes.allocations.items() if row["closed"]])
    _UPDATE_ENDPOINT.run(connection, changes.endpoints.values())
    _insert(connection, tables.events, changes.events)
    _insert(connection, tables.audit, changes.audit)
    if changes.let_go:
        _keep_handed(connection, changes.let_go)
        for table in OF_TENANTS:
            connection.execute(sa.delete(table).where(table.c.tenant.in_(changes.let_go)))
    if changes.redacted:
        connection.execute(_REDACT_AUDIT, [{"of_seq": seq} for seq in changes.redacted])
    _write_head(connection, world)


def _forget_traits(connection: sa.Connection) -> None:
    """Those that no node has any more."""
    table = tables.node_traits
    connection.execute(sa.delete(table).where(table.c.digest.not_in(sa.select(tables.nodes.c.traits))))


def _keep_handed(connection: sa.Connection, tenants: Collection[str]) -> None:
    """What goes with these tenants and a pod was handed that is not closed: what it has printed is masked yet."""
    now, handed, earlier = tables.secrets, tables.handed_secrets, tables.earlier_secrets
    same = [handed.c[name] == now.c[name] for name in ("tenant", "name", "version")]
    columns = [column.name for column in earlier.c]
    kept = sa.select(*(now.c[name] for name in columns)).where(now.c.tenant.in_(tenants), sa.exists().where(*same))
    connection.execute(sa.insert(earlier).from_select(columns, kept))


def _forget_handed(connection: sa.Connection, closed: Collection[int]) -> None:
    """What these pods were handed, and of that each earlier value that no other pod was: its log is kept by now, and masked."""
    if not closed:
        return
    handed, earlier = tables.handed_secrets, tables.earlier_secrets
    gone = [connection.execute(sa.delete(handed).where(handed.c.allocation_key.in_(some))) for some in batches(closed)]
    if any(deleted.rowcount for deleted in gone):
        same = [handed.c[name] == earlier.c[name] for name in ("tenant", "name", "version")]
        connection.execute(sa.delete(earlier).where(~sa.exists().where(*same)))


def _count_open_work(connection: sa.Connection, world: World) -> None:
    """What has come less what has ended, by tenant."""
    more = Counter(row["tenant"] for row in world.changes.new_workloads)
    more.subtract(
        row["tenant"]
        for key, row in world.changes.workloads.items()
        if key in world.was_open and Phase(row["phase"]).final
    )
    rows = [{"tenant": tenant, "workloads": count} for tenant, count in sorted(more.items()) if count]
    if rows:
        connection.execute(_COUNT_OPEN_WORK, rows)


_COUNT_OPEN_WORK = sa.text(
    "INSERT INTO open_work (tenant, workloads) VALUES (:tenant, :workloads)"
    " ON CONFLICT (tenant) DO UPDATE SET workloads = open_work.workloads + excluded.workloads"
)


def _write_whole(connection: sa.Connection, table: sa.Table, changed: Mapping[Any, Mapping[str, Any] | None]) -> None:
    """By primary key: each is written whole in the place of what was there. None goes whole: nothing of its values is kept.

    `Any`: the key of any table, a tuple where it has several columns, and a row of it.
    """
    columns = tuple(table.primary_key)
    for key in changed:
        values = key if isinstance(key, tuple) else (key,)
        there = [column == value for column, value in zip(columns, values, strict=True)]
        connection.execute(sa.delete(table).where(*there))
    _insert(connection, table, [row for row in changed.values() if row is not None])


def _write_history(connection: sa.Connection, world: World) -> None:
    """The policy, and what queues used lately."""
    if world.changes.history_policy:
        connection.execute(sa.delete(tables.history_policy))
        _insert(connection, tables.history_policy, world.changes.history_policy)
    _write_whole(connection, tables.queue_history, world.changes.history)


class _Batch:
    """One statement for many rows, which the driver gets as they are.

    The simple meaning is `connection.execute(statement, rows)`. There SQLAlchemy looks at every value of every row, which costs
    more than SQLite takes to write them. Our values need no conversion: every column is a number or text.
    """

    def __init__(self, statement: sa.Insert | sa.Update, columns: Mapping[str, str]) -> None:
        """`columns`: of which column of a row each parameter takes its value. There are two at least."""
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, tuple[str, Callable[[Mapping[str, Any]], tuple[Any, ...]]]] = {}

    def run(self, connection: sa.Connection, rows: Collection[Mapping[str, Any]]) -> None:
        """For each of the rows; `Any`: rows of any table."""
        if rows:
            text, values = self._compiled.get(connection.dialect.name) or self._compile(connection.dialect)
            connection.exec_driver_sql(text, list(map(values, rows)))

    def _compile(self, dialect: sa.Dialect) -> tuple[str, Callable[[Mapping[str, Any]], tuple[Any, ...]]]:
        """For this kind of database: the text, with parameters by position, and what takes their values out of a row."""
        by_position = cast("type[DefaultDialect]", type(dialect))(
            paramstyle="format" if dialect.paramstyle == "pyformat" else "qmark"
        )
        compiled = self._statement.compile(dialect=by_position, column_keys=list(self._columns))
        values = itemgetter(*(self._columns[name] for name in compiled.positiontup or ()))
        self._compiled[dialect.name] = str(compiled), values
        return self._compiled[dialect.name]


def _insert_into(table: sa.Table) -> _Batch:
    """Whole rows."""
    return _Batch(sa.insert(table), {column.name: column.name for column in table.c})


def _update_of(table: sa.Table, *columns: str) -> _Batch:
    """The columns that may change, of one row by its primary key."""
    assignments: dict[str, sa.BindParameter[Any]] = {column: sa.bindparam(f"new_{column}") for column in columns}
    key = [column.name for column in table.primary_key]
    there = (table.c[name] == sa.bindparam(f"of_{name}") for name in key)
    statement = sa.update(table).where(*there).values(assignments)
    values = {**{f"new_{column}": column for column in columns}, **{f"of_{name}": name for name in key}}
    return _Batch(statement, values)


_UPDATE_NODE = _update_of(
    tables.nodes,
    *("ready", "cpu_milli", "memory_bytes", "gpus", "gpu_model"),
    *("used_cpu_milli", "used_memory_bytes", "used_gpus", "admits", "topology"),
    *("traits", "barred", "images"),
    *("problem", "complaints", "cordoned", "strangers", "shapes", "used_shapes", "pods_max", "used_pods"),
    *("unhealthy", "whole_cpu_milli", "whole_memory_bytes", "whole_gpus", "whole_shapes"),
    *("closure", "closure_reason", "closed_at", "closed_until", "drains", "wait_seconds", "version"),
)
_UPDATE_CLUSTER = _update_of(
    tables.clusters,
    *("observed_at", "kind", "settings", "sealed", "identity", "wanted", "wanted_reason", "seen", "seen_reason"),
    *("added_at", "added_by", "version"),
)
_UPDATE_WORKLOAD = _update_of(
    tables.workloads,
    *("phase", "attempt", "infrastructure_failures", "user_failures", "stop_requested"),
    *("held", "priority", "preemptible", "nominated", "nominated_until", "displaced_by"),
    *("not_before", "started_at", "finished_at", "output", "reason", "version"),
    *("usual_seconds", "typical_seconds", "spread_permille", "typical_on"),
)
_UPDATE_ALLOCATION = _update_of(
    tables.allocations,
    *(
        "stop",
        "stop_asked_at",
        "moves",
        "preempted",
        "yields_to",
        "surplus",
        "seen",
        "ready",
        "address",
        "started_at",
        "ended_at",
    ),
    *("metered_until", "witnessed_at", "ending", "exit_code", "detail", "closed", "version"),
)
_UPDATE_ENDPOINT = _update_of(
    tables.endpoints,
    *("project", "model", "serving_version", "serving", "serving_key"),
    *("candidate_version", "candidate", "candidate_key", "address", "removed", "updated_at", "version"),
)
_UPDATE_HEAD = _update_of(
    tables.head,
    *("version", "event_seq", "audit_seq", "next_key"),
    *("nodes_at", "workloads_at", "allocations_at", "endpoints_at", "prices_at", "volumes_at", "queues_at"),
    "audit_hash",
)


_REDACT_AUDIT = sa.text("UPDATE audit SET detail = '', salt = '' WHERE seq = :of_seq")


def _insert(connection: sa.Connection, table: sa.Table, rows: Collection[Mapping[str, Any]]) -> None:
    _INSERTS[table.name].run(connection, rows)


_INSERTS = {name: _insert_into(table) for name, table in tables.metadata.tables.items()}


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
    if changes.queues or changes.node_flavors or changes.history_policy or changes.tenants:
        head["queues_at"] = version
    if changes.prices:
        head["prices_at"] = version
    if changes.volumes:
        head["volumes_at"] = version
    _UPDATE_HEAD.run(connection, [head])
