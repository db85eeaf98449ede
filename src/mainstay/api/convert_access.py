"""Wire <-> domain of tenants, projects, roles, members and tokens."""

from __future__ import annotations

from mainstay.api.convert import instant
from mainstay.api.convert_jobs import parsed
from mainstay.domain.access import (
    ROLES,
    Caps,
    MemberRecord,
    OwnRole,
    Permission,
    Project,
    Tenant,
    TokenRecord,
)
from mainstay.operations.tokens import TokenWish
from mainstay.wire import quantities
from mainstay.wire.access import MemberView, ProjectView, RoleView, TenantView, TokenRequest, TokenView


def tenant_view(tenant: Tenant) -> TenantView:
    """As it is shown."""
    return TenantView(name=tenant.name, created_at=instant(tenant.created_at), created_by=tenant.created_by)


def project_view(project: Project) -> ProjectView:
    """As it is shown; the default one was made by nobody."""
    made = instant(project.created_at) if project.created_at else None
    return ProjectView(name=project.name, created_at=made, created_by=project.created_by)


def built_in_roles() -> tuple[RoleView, ...]:
    """From the least to the most."""
    return tuple(RoleView(name=name, may=sorted(may), built_in=True) for name, may in ROLES.items())


def role_view(role: OwnRole) -> RoleView:
    """One of the tenant's own."""
    return RoleView(name=role.name, may=sorted(role.permissions), built_in=False)


def member_view(record: MemberRecord) -> MemberView:
    """As it is shown."""
    member = record.member
    return MemberView(
        name=member.name,
        kind=member.kind.value,
        role=member.role,
        projects=dict(member.grants),
        added_at=instant(record.added_at),
        added_by=record.added_by,
    )


def token_wish(body: TokenRequest) -> TokenWish:
    """What is asked for."""
    caps = Caps(
        permissions=None if body.may is None else frozenset(map(Permission, body.may)),
        projects=None if body.projects is None else frozenset(body.projects),
        gpus=body.gpus,
    )
    return TokenWish(
        name=body.name, member=body.member, caps=caps, seconds=parsed("expires", quantities.duration, body.expires)
    )


def token_view(token: TokenRecord, *, now: int) -> TokenView:
    """As it is shown: nothing here could be used in its place."""
    caps = token.caps
    state = "revoked" if token.revoked_at else "valid" if now < token.expires_at else "expired"
    return TokenView(
        id=token.id,
        member=token.member,
        name=token.name,
        may=None if caps.permissions is None else sorted(caps.permissions),
        projects=None if caps.projects is None else sorted(caps.projects),
        gpus=caps.gpus,
        state=state,
        created_at=instant(token.created_at),
        created_by=token.created_by,
        expires_at=instant(token.expires_at),
        revoked_at=instant(token.revoked_at) if token.revoked_at else None,
        used_at=instant(token.used_at) if token.used_at else None,
    )
