"""Tenants, projects, members, roles and tokens; keys of requests by member, names of endpoints by tenant.

Revision: 0027. Frozen: what the tables are now is in `tables.py`.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import sqlite

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Projects that have work are on record from now on. Of tenants the first start adds the default one: those that only pods
    of others name have nobody who could sign in, until they are made with an administrator.
    """
    whole = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
    op.create_table("tenants", _key("name"), *_made(whole), sqlite_strict=True)
    op.create_table("projects", _key("tenant"), _key("name"), *_made(whole), sqlite_strict=True)
    op.create_table(
        "roles",
        _key("tenant"),
        _key("name"),
        sa.Column("permissions", sa.Text(), nullable=False),
        sa.Column("set_at", whole, nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "members",
        _key("tenant"),
        _key("name"),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("kind", "role", "grants")),
        sa.Column("added_at", whole, nullable=False),
        sa.Column("added_by", sa.Text(), nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "tokens",
        _key("id"),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "member", "name", "digest", "caps")),
        sa.Column("created_at", whole, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        *(sa.Column(name, whole, nullable=False) for name in ("expires_at", "revoked_at", "used_at")),
        sqlite_strict=True,
    )
    op.create_index("tokens_of_member", "tokens", ["tenant", "member"])
    _fill()
    _key_by_member(whole)
    _name_endpoints_by_tenant(whole)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), primary_key=True, nullable=False)


def _made(whole: sa.types.TypeEngine[int]) -> tuple[sa.Column[int], sa.Column[str]]:
    created_at: sa.Column[int] = sa.Column("created_at", whole, nullable=False)
    return created_at, sa.Column("created_by", sa.Text(), nullable=False)


def _fill() -> None:
    op.execute(
        "INSERT INTO projects (tenant, name, created_at, created_by)"
        " SELECT tenant, project, MIN(submitted_at), 'mainstay' FROM workloads"
        " WHERE project <> 'default' GROUP BY tenant, project"
    )


def _key_by_member(whole: sa.types.TypeEngine[int]) -> None:
    """A key column more is a table anew, on SQLite. There was nobody but the administrator: the replies of a week are theirs."""
    op.rename_table("idempotency", "idempotency_before")
    op.drop_index("idempotency_by_time", "idempotency_before")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX idempotency_pkey RENAME TO idempotency_before_pkey")
    op.create_table(
        "idempotency",
        *(_key(name) for name in ("tenant", "member", "route", "key")),
        sa.Column("body_hash", sa.Text(), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.Column("at", whole, nullable=False),
        sqlite_strict=True,
    )
    op.execute(
        "INSERT INTO idempotency (tenant, member, route, key, body_hash, reply, at)"
        " SELECT tenant, 'admin', route, key, body_hash, reply, at FROM idempotency_before"
    )
    op.drop_table("idempotency_before")
    op.create_index("idempotency_by_time", "idempotency", ["at"])


def _name_endpoints_by_tenant(whole: sa.types.TypeEngine[int]) -> None:
    """Names were unique over all tenants, so they are within each."""
    texts = ("project", "model", "serving", "candidate", "address")
    numbers = (
        "serving_version",
        "serving_key",
        "candidate_version",
        "candidate_key",
        "removed",
        "updated_at",
        "version",
    )
    columns = ", ".join(("tenant", "name", *texts, *numbers))
    op.create_table(
        "endpoints_of_tenants",
        _key("tenant"),
        _key("name"),
        *(sa.Column(name, sa.Text(), nullable=False) for name in texts),
        *(sa.Column(name, whole, nullable=False) for name in numbers),
        sqlite_strict=True,
    )
    op.execute(f"INSERT INTO endpoints_of_tenants ({columns}) SELECT {columns} FROM endpoints")  # noqa: S608 ours
    op.drop_table("endpoints")
    op.rename_table("endpoints_of_tenants", "endpoints")
