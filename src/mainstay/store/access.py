"""Reading who may what: tenants, projects, roles, members and tokens."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

import sqlalchemy as sa

from mainstay.domain.access import (
    PLATFORM_ADMIN,
    Authority,
    GroupRole,
    MemberRecord,
    OwnRole,
    Project,
    Standing,
    Tenant,
    TokenRecord,
)
from mainstay.domain.identity import Identity
from mainstay.store import codec, codec_access, queries, tables
from mainstay.store.rows import GroupRoleRow, MemberRow, ProjectRow, RoleRow, TenantRow, TokenRow
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


def tokens_of_session(connection: sa.Connection, issuer: str, session: str) -> tuple[TokenRecord, ...]:
    """Of whichever member, the oldest first."""
    table = tables.tokens
    query = sa.select(table).where(
        table.c.provider_session == codec.storable(session), table.c.issuer == codec.storable(issuer)
    )
    rows = queries.fetch(connection, query.order_by(table.c.created_at, table.c.id))
    return tuple(codec_access.token_of(cast("TokenRow", row)) for row in rows)


def group_roles(connection: sa.Connection, tenant: str) -> tuple[GroupRole, ...]:
    """Of one tenant, by group and project."""
    rows = queries.fetch(connection, _group_roles(tenant))
    return tuple(codec_access.group_role_of(cast("GroupRoleRow", row)) for row in rows)


def roles_of_groups(connection: sa.Connection, groups: Collection[str]) -> tuple[GroupRole, ...]:
    """Of all tenants: by tenant, group and project."""
    table = tables.group_roles
    query = sa.select(table).where(table.c.group_name.in_([codec.storable(group) for group in groups]))
    rows = queries.fetch(connection, query.order_by(table.c.tenant, table.c.group_name, table.c.project))
    return tuple(codec_access.group_role_of(cast("GroupRoleRow", row)) for row in rows)


def authority(connection: sa.Connection, token_id: str) -> Authority | None:
    """What a token may now; None if there is no such token."""
    table = tables.tokens
    for found in queries.fetch(connection, sa.select(table).where(table.c.id == codec.storable(token_id))):
        row = cast("TokenRow", found)
        query = _of(tables.members, row["tenant"]).where(tables.members.c.name == row["member"])
        standing = _standing(connection, query)
        return Authority(token=codec_access.token_of(row), digest=row["digest"], standing=standing)
    return None


def standing(connection: sa.Connection, issuer: str, subject: str) -> Standing | None:
    """Who somebody is here; None for who is nobody."""
    return _standing(connection, _known_as(issuer, subject))


def _known_as(issuer: str, subject: str) -> sa.Select[tuple[str, ...]]:
    table = tables.members
    return sa.select(table).where(table.c.subject == codec.storable(subject), table.c.issuer == codec.storable(issuer))


def _standing(connection: sa.Connection, query: sa.Select[tuple[str, ...]]) -> Standing | None:
    for row in queries.fetch(connection, query):
        member = codec_access.member_of(cast("MemberRow", row))
        own = {role.name: role.permissions for role in own_roles(connection, member.tenant)}
        groups = roles_of_groups(connection, member.groups) if member.groups else ()
        return Standing(
            member=member, own_roles=own, group_roles=tuple(role for role in groups if role.tenant == member.tenant)
        )
    return None


def load_people(
    connection: sa.Connection,
    world: World,
    *,
    tenants: bool,
    people_of: Collection[str],
    tokens: Collection[str],
    tokens_of: Collection[OfTenant],
    identities: Collection[Identity],
) -> None:
    """The rows that a plan names, into its world."""
    if tenants:
        world.tenants = {
            row["name"]: cast("TenantRow", row) for row in queries.fetch(connection, sa.select(tables.tenants))
        }
    for tenant in sorted(people_of):
        _load_tenant(connection, world, tenant)
    of_others = [_PLATFORM_ADMINISTRATORS] if people_of else []
    of_others += [_known_as(identity.issuer, identity.subject) for identity in identities]
    for query in of_others:
        for row in queries.fetch(connection, query):
            world.members[row["tenant"], row["name"]] = cast("MemberRow", row)
    table = tables.tokens
    chosen = [_is_of_line(batch) for batch in queries.batches({codec.storable(id_) for id_ in tokens})]
    chosen += [sa.and_(table.c.tenant == tenant, table.c.member == member) for tenant, member in sorted(tokens_of)]
    for condition in chosen:
        for row in queries.fetch(connection, sa.select(table).where(condition)):
            world.tokens[row["id"]] = cast("TokenRow", row)


def _is_of_line(ids: Collection[str]) -> sa.ColumnElement[bool]:
    """One of these tokens, or made with one of them through however many others. O(those), by the index of parents."""
    table = tables.tokens
    line = sa.select(table.c.id).where(table.c.id.in_(ids)).cte("line", recursive=True)
    line = line.union(sa.select(table.c.id).where(table.c.parent == line.c.id))
    return table.c.id.in_(sa.select(line.c.id))


def _load_tenant(connection: sa.Connection, world: World, tenant: str) -> None:
    for row in queries.fetch(connection, _of(tables.projects, tenant)):
        world.projects[row["tenant"], row["name"]] = cast("ProjectRow", row)
    for row in queries.fetch(connection, _of(tables.roles, tenant)):
        world.roles[row["tenant"], row["name"]] = cast("RoleRow", row)
    for row in queries.fetch(connection, _of(tables.members, tenant)):
        world.members[row["tenant"], row["name"]] = cast("MemberRow", row)
    for row in queries.fetch(connection, _group_roles(tenant)):
        role = cast("GroupRoleRow", row)
        world.group_roles[role["tenant"], role["group_name"], role["project"]] = role


def _group_roles(tenant: str) -> sa.Select[tuple[str, ...]]:
    table = tables.group_roles
    query = sa.select(table).where(table.c.tenant == codec.storable(tenant))
    return query.order_by(table.c.group_name, table.c.project)


def _of(table: sa.Table, tenant: str) -> sa.Select[tuple[str, ...]]:
    return sa.select(table).where(table.c.tenant == codec.storable(tenant)).order_by(table.c.name)


_PLATFORM_ADMINISTRATORS = sa.select(tables.members).where(tables.members.c.role == PLATFORM_ADMIN)
