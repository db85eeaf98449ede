"""The first schema.

Revision: 0001. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0001"
down_revision = None

FIRST_KEY = 1


def upgrade() -> None:
    """Make all tables, and the one row of `head` with the identity of this database."""
    _head_and_leases()
    _work()
    _fleet_and_models()
    _ledger()
    _logs()
    row = {"one": 1, "system": secrets.token_hex(16), "next_key": FIRST_KEY}
    op.execute(
        sa.text(
            "INSERT INTO head (one, system, version, event_seq, audit_seq, next_key,"
            " nodes_at, workloads_at, allocations_at, endpoints_at, prices_at)"
            " VALUES (:one, :system, 0, 0, 0, :next_key, 0, 0, 0, 0, 0)"
        ).bindparams(**row)
    )


def _whole(name: str, *, key: bool = False) -> sa.Column[int]:
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    return sa.Column(name, whole, primary_key=key, autoincrement=False, nullable=False)


def _text(name: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), primary_key=key, nullable=False)


def _table(name: str, *parts: sa.Column[int] | sa.Column[str] | sa.Constraint | sa.Index) -> None:
    op.create_table(name, *parts, sqlite_strict=True)


def _head_and_leases() -> None:
    _table(
        "head",
        _whole("one", key=True),
        _text("system"),
        _whole("version"),
        _whole("event_seq"),
        _whole("audit_seq"),
        _whole("next_key"),
        _whole("nodes_at"),
        _whole("workloads_at"),
        _whole("allocations_at"),
        _whole("endpoints_at"),
        _whole("prices_at"),
        sa.CheckConstraint("one = 1", name="head_is_one_row"),
    )
    _table(
        "leases",
        _text("name", key=True),
        _text("holder"),
        _whole("epoch"),
        _whole("expires_at"),
    )


def _work() -> None:
    _table(
        "nodes",
        _whole("key", key=True),
        _text("cluster"),
        _text("name"),
        _whole("ready"),
        _whole("cpu_milli"),
        _whole("memory_bytes"),
        _whole("gpus"),
        _text("gpu_model"),
        _whole("used_cpu_milli"),
        _whole("used_memory_bytes"),
        _whole("used_gpus"),
        _whole("version"),
        sa.Index("nodes_by_name", "cluster", "name", unique=True),
        sa.Index("nodes_by_version", "version"),
    )
    _table(
        "workloads",
        _whole("key", key=True),
        _text("id"),
        _text("tenant"),
        _text("project"),
        _text("queue"),
        _text("name"),
        _text("submitted_by"),
        _whole("kind"),
        _whole("priority"),
        _whole("phase"),
        _whole("attempt"),
        _whole("infrastructure_failures"),
        _whole("user_failures"),
        _whole("stop_requested"),
        _whole("submitted_at"),
        _whole("not_before"),
        _whole("started_at"),
        _whole("finished_at"),
        _text("output"),
        _text("reason"),
        _whole("version"),
        _whole("nodes"),
        _whole("cpu_milli"),
        _whole("memory_bytes"),
        _whole("gpus"),
        _text("gpu_model"),
        _whole("choices_count"),
        _whole("max_duration_seconds"),
        _whole("stop_grace_seconds"),
        _whole("infrastructure_max"),
        _whole("user_max"),
        _whole("backoff_seconds"),
        _whole("backoff_seconds_max"),
        _whole("retry_always"),
        _text("spec"),
        sa.Index("workloads_by_id", "id", unique=True),
        sa.Index("workloads_by_name", "tenant", "name", "key"),
        sa.Index("workloads_by_project", "tenant", "project", "key"),
        sa.Index("workloads_by_tenant", "tenant", "key"),
        sa.Index("workloads_by_version", "version"),
        sa.Index("workloads_open", "key", sqlite_where=sa.text("phase < 10"), postgresql_where=sa.text("phase < 10")),
    )
    _table(
        "allocations",
        _whole("key", key=True),
        _whole("workload_key"),
        _text("workload"),
        _text("tenant"),
        _text("project"),
        _whole("attempt"),
        _whole("rank"),
        _whole("node_key"),
        _text("node"),
        _text("cluster"),
        _whole("cpu_milli"),
        _whole("memory_bytes"),
        _whole("gpus"),
        _text("gpu_model"),
        _whole("stop"),
        _whole("seen"),
        _whole("ready"),
        _text("address"),
        _whole("created_at"),
        _whole("started_at"),
        _whole("ended_at"),
        _whole("metered_until"),
        _whole("ending"),
        _whole("exit_code"),
        _text("detail"),
        _whole("closed"),
        _whole("version"),
        sa.ForeignKeyConstraint(["workload_key"], ["workloads.key"], name="allocation_of_workload"),
        sa.ForeignKeyConstraint(["node_key"], ["nodes.key"], name="allocation_on_node"),
        sa.Index("allocations_by_slot", "workload_key", "attempt", "rank", unique=True),
        sa.Index("allocations_by_version", "version"),
        sa.Index("allocations_open", "key", sqlite_where=sa.text("closed = 0"), postgresql_where=sa.text("closed = 0")),
    )


def _fleet_and_models() -> None:
    _table(
        "endpoints",
        _text("name", key=True),
        _text("tenant"),
        _text("project"),
        _text("model"),
        _whole("serving_version"),
        _text("serving"),
        _whole("serving_key"),
        _whole("candidate_version"),
        _text("candidate"),
        _whole("candidate_key"),
        _text("address"),
        _whole("removed"),
        _whole("updated_at"),
        _whole("version"),
    )
    _table(
        "models",
        _text("tenant", key=True),
        _text("model", key=True),
        _whole("number", key=True),
        _text("project"),
        _text("tree"),
        _text("workload"),
        _whole("registered_at"),
    )


def _ledger() -> None:
    _table(
        "usage",
        _whole("allocation_key", key=True),
        _whole("start_at", key=True),
        _whole("end_at"),
        _text("tenant"),
        _text("project"),
        _text("workload"),
        _whole("cpu_milli"),
        _whole("memory_bytes"),
        _whole("gpus"),
        _text("gpu_model"),
        sa.ForeignKeyConstraint(["allocation_key"], ["allocations.key"], name="usage_of_allocation"),
        sa.Index("usage_by_tenant", "tenant", "start_at"),
    )
    _table(
        "charges",
        _whole("allocation_key", key=True),
        _whole("start_at", key=True),
        _text("sku", key=True),
        _whole("end_at"),
        _whole("quantity"),
        _whole("unit_price_micros"),
        _whole("cost_micros"),
        _text("currency"),
        sa.ForeignKeyConstraint(
            ["allocation_key", "start_at"], ["usage.allocation_key", "usage.start_at"], name="charge_of_usage"
        ),
    )
    _table(
        "prices",
        _text("sku", key=True),
        _whole("effective_from", key=True),
        _whole("per_hour_micros"),
        _text("currency"),
    )


def _logs() -> None:
    _table(
        "events",
        _whole("seq", key=True),
        _whole("at"),
        _text("actor"),
        _text("kind"),
        _text("object"),
        _text("tenant"),
        _text("workload"),
        _text("reason"),
        _whole("phase_before"),
        _whole("phase_after"),
        sa.Index("events_by_workload", "workload", "seq"),
        sa.Index("events_by_tenant", "tenant", "seq"),
    )
    _table(
        "audit",
        _whole("seq", key=True),
        _whole("at"),
        _text("actor"),
        _text("tenant"),
        _text("action"),
        _text("object"),
        _text("detail"),
    )
    _table(
        "idempotency",
        _text("tenant", key=True),
        _text("route", key=True),
        _text("key", key=True),
        _text("body_hash"),
        _text("reply"),
        _whole("at"),
    )
