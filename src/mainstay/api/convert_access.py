"""Wire <-> domain of tenants, projects, roles, members and tokens."""

from __future__ import annotations

from mainstay.api.convert import instant
from mainstay.api.convert_jobs import parsed
from mainstay.domain.access import (
    ROLES,
    Caps,
    GroupRole,
    MemberRecord,
    OwnRole,
    Permission,
    Project,
    Tenant,
    TokenRecord,
)
from mainstay.domain.caps import CapUse
from mainstay.domain.errors import Invalid
from mainstay.domain.identity import DeviceBegun, Identity
from mainstay.domain.quantity import MICROS_PER_UNIT, decimal
from mainstay.operations.tokens import TokenWish
from mainstay.wire import quantities
from mainstay.wire.access import (
    CapUseView,
    GroupRoleView,
    MemberRequest,
    MemberView,
    ProjectView,
    RoleView,
    SignInCodeView,
    TenantView,
    TokenRequest,
    TokenView,
)


def tenant_view(tenant: Tenant) -> TenantView:
    """As it is shown."""
    return TenantView(
        name=tenant.name,
        created_at=instant(tenant.created_at),
        created_by=tenant.created_by,
        removed_at=instant(tenant.removed_at) if tenant.removed_at else None,
    )


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
        issuer=member.issuer,
        subject=member.subject,
        groups=list(member.groups),
        added_at=instant(record.added_at),
        added_by=record.added_by,
    )


def group_role_view(role: GroupRole) -> GroupRoleView:
    """As it is shown."""
    return GroupRoleView(group=role.group, role=role.role, project=role.project)


def device_view(begun: DeviceBegun, device: str) -> SignInCodeView:
    """Without the code of the provider, which is in `device`."""
    return SignInCodeView(
        user_code=begun.user_code,
        url=begun.url,
        url_complete=begun.url_complete,
        interval=begun.interval,
        seconds=begun.seconds,
        device=device,
    )


def identity_of(body: MemberRequest, *, provider: str) -> Identity | None:
    """Who somebody is to an identity provider, where the request says so. Raises Invalid where it does not say whose."""
    if not body.subject:
        if body.issuer:
            msg = "subject: whom does the issuer call so?"
            raise Invalid(msg, object_="subject", hint="give `sub` of their tokens")
        return None
    issuer = body.issuer or provider
    if not issuer:
        msg = "issuer: this platform has no identity provider"
        raise Invalid(msg, object_="issuer", hint="start it with --oidc-issuer, or make tokens: mainstay token create")
    return Identity(issuer=issuer, subject=body.subject, name="")


def token_wish(body: TokenRequest) -> TokenWish:
    """What is asked for."""
    caps = Caps(
        permissions=None if body.may is None else frozenset(map(Permission, body.may)),
        projects=None if body.projects is None else frozenset(body.projects),
        gpus=body.gpus,
        spend_micros=None if body.spend is None else round(body.spend * MICROS_PER_UNIT),
    )
    return TokenWish(
        name=body.name, member=body.member, caps=caps, seconds=parsed("expires", quantities.duration, body.expires)
    )


def cap_use_view(used: CapUse) -> CapUseView:
    """Amounts of money as exact decimals."""
    return CapUseView(gpus=used.gpus, spent=decimal(used.spent_micros), reserved=decimal(used.reserved_micros))


def token_view(token: TokenRecord, used: CapUse | None = None, *, now: int) -> TokenView:
    """As it is shown: nothing here could be used in its place. `used`: of its caps."""
    caps = token.caps
    state = "revoked" if token.revoked_at else "valid" if now < token.expires_at else "expired"
    return TokenView(
        id=token.id,
        member=token.member,
        name=token.name,
        kind=token.kind.value,
        may=None if caps.permissions is None else sorted(caps.permissions),
        projects=None if caps.projects is None else sorted(caps.projects),
        gpus=caps.gpus,
        spend=None if caps.spend_micros is None else caps.spend_micros / MICROS_PER_UNIT,
        used=cap_use_view(used) if used else None,
        state=state,
        created_at=instant(token.created_at),
        created_by=token.created_by,
        expires_at=instant(token.expires_at),
        revoked_at=instant(token.revoked_at) if token.revoked_at else None,
        used_at=instant(token.used_at) if token.used_at else None,
    )
