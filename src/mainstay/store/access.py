"""Reading who may what: tenants, projects, roles, members and tokens."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import sqlalchemy as sa

from mainstay.domain.access import (
    PLATFORM_ADMIN,
    Authority,
    Member,
    MemberRecord,
    OwnRole,
    Permission,
    Project,
    Tenant,
    TokenRecord,
)
from mainstay.store import codec, codec_access, queries, tables
from mainstay.store.rows import MemberRow, ProjectRow, RoleRow, TenantRow, TokenRow
from mainstay.store.world import OfTenant, World


def tenants(connection: sa.Connection) -> tuple[Tenant, ...]:
    """By name."""
    rows = queries.fetch(connection, sa.select(tables.tenants).order_by(tables.tenants.c.name))
    return tuple(codec_access.tenant_of(cast("TenantRow", row)) for row in rows)


def projects(connection: sa.Connection, tenant: str) -> tuple[Project, ...]:
    """Of one tenant, by name."""
    rows = queries.fetch(connection, _of(tables.projects, tenant))
    return tuple(codec_access.project_of(cast("ProjectRow", row)) for row in rows)


def own_roles(connection: sa.Connection, tenant: str) -> tuple[OwnRole, ...]:
    """Those that a tenant has made, by name."""
    rows = queries.fetch(connection, _of(tables.roles, tenant))
    return tuple(codec_access.role_of(cast("RoleRow", row)) for row in rows)


def members(connection: sa.Connection, tenant: str) -> tuple[MemberRecord, ...]:
    """Of one tenant, by name."""
    rows = queries.fetch(connection, _of(tables.members, tenant))
    return tuple(codec_access.member_record_of(cast("MemberRow", row)) for row in rows)


def tokens(connection: sa.Connection, tenant: str, member: str) -> tuple[TokenRecord, ...]:
    """Of one member, or of all of a tenant where `member` is empty: the oldest first."""
    table = tables.tokens
    query = sa.select(table).where(table.c.tenant == codec.storable(tenant))
    if member:
        query = query.where(table.c.member == codec.storable(member))
    rows = queries.fetch(connection, query.order_by(table.c.created_at, table.c.id))
    return tuple(codec_access.token_of(cast("TokenRow", row)) for row in rows)


def authority(connection: sa.Connection, token_id: str) -> Authority | None:
    """What a token may now; None if there is no such token."""
    table = tables.tokens
    for found in queries.fetch(connection, sa.select(table).where(table.c.id == codec.storable(token_id))):
        row = cast("TokenRow", found)
        member, roles = standing(connection, row["tenant"], row["member"])
        return Authority(token=codec_access.token_of(row), digest=row["digest"], member=member, own_roles=roles)
    return None


def standing(
    connection: sa.Connection, tenant: str, name: str
) -> tuple[Member | None, dict[str, frozenset[Permission]]]:
    """A member, None if there is no such, and what the tenant's own roles may."""
    query = _of(tables.members, tenant).where(tables.members.c.name == codec.storable(name))
    found = [codec_access.member_of(cast("MemberRow", row)) for row in queries.fetch(connection, query)]
    return (found[0] if found else None), {role.name: role.permissions for role in own_roles(connection, tenant)}


def load_people(
    connection: sa.Connection,
    world: World,
    *,
    tenants: bool,
    people_of: Collection[str],
    tokens: Collection[str],
    tokens_of: Collection[OfTenant],
) -> None:
    """The rows that a plan names, into its world."""
    if tenants:
        world.tenants = {
            row["name"]: cast("TenantRow", row) for row in queries.fetch(connection, sa.select(tables.tenants))
        }
    for tenant in sorted(people_of):
        for row in queries.fetch(connection, _of(tables.projects, tenant)):
            world.projects[row["tenant"], row["name"]] = cast("ProjectRow", row)
        for row in queries.fetch(connection, _of(tables.roles, tenant)):
            world.roles[row["tenant"], row["name"]] = cast("RoleRow", row)
        for row in queries.fetch(connection, _of(tables.members, tenant)):
            world.members[row["tenant"], row["name"]] = cast("MemberRow", row)
    if people_of:
        for row in queries.fetch(connection, _PLATFORM_ADMINISTRATORS):
            world.members[row["tenant"], row["name"]] = cast("MemberRow", row)
    table = tables.tokens
    chosen = [table.c.id == codec.storable(id_) for id_ in sorted(tokens)]
    chosen += [sa.and_(table.c.tenant == tenant, table.c.member == member) for tenant, member in sorted(tokens_of)]
    for condition in chosen:
        for row in queries.fetch(connection, sa.select(table).where(condition)):
            world.tokens[row["id"]] = cast("TokenRow", row)


def _of(table: sa.Table, tenant: str) -> sa.Select[tuple[str, ...]]:
    return sa.select(table).where(table.c.tenant == codec.storable(tenant)).order_by(table.c.name)


_PLATFORM_ADMINISTRATORS = sa.select(tables.members).where(tables.members.c.role == PLATFORM_ADMIN)
