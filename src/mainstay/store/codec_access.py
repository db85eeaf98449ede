"""Row <-> domain of tenants, members, roles and tokens."""

from __future__ import annotations

import json

from mainstay.domain.access import (
    Caps,
    GroupRole,
    Member,
    MemberKind,
    MemberRecord,
    NewToken,
    OwnRole,
    Permission,
    Project,
    Tenant,
    TokenKind,
    TokenRecord,
)
from mainstay.store import codec
from mainstay.store.rows import GroupRoleRow, MemberRow, ProjectRow, RoleRow, TenantRow, TokenRow


def tenant_of(row: TenantRow) -> Tenant:
    """As it is on record."""
    return Tenant(**row)


def project_of(row: ProjectRow) -> Project:
    """As it is on record."""
    return Project(**row)


def role_of(row: RoleRow) -> OwnRole:
    """As it is on record."""
    return OwnRole(
        tenant=row["tenant"],
        name=row["name"],
        permissions=permissions_of(row["permissions"]),
        set_at=row["set_at"],
        set_by=row["set_by"],
    )


def member_of(row: MemberRow) -> Member:
    """Who it is, without who has said so."""
    return Member(
        tenant=row["tenant"],
        name=row["name"],
        kind=MemberKind(row["kind"]),
        role=row["role"],
        grants={str(project): str(role) for project, role in json.loads(row["grants"]).items()},
        issuer=row["issuer"],
        subject=row["subject"],
        groups=tuple(map(str, json.loads(row["groups"]))),
    )


def member_record_of(row: MemberRow) -> MemberRecord:
    """As it is on record."""
    return MemberRecord(member=member_of(row), added_at=row["added_at"], added_by=row["added_by"])


def member_row(member: Member, *, added_at: int, added_by: str) -> MemberRow:
    """As it is stored."""
    return MemberRow(
        tenant=member.tenant,
        name=member.name,
        kind=member.kind.value,
        role=member.role,
        grants=json.dumps(dict(member.grants), sort_keys=True),
        issuer=codec.storable(member.issuer),
        subject=codec.storable(member.subject),
        groups=json.dumps(list(map(codec.storable, member.groups))),
        added_at=added_at,
        added_by=added_by,
    )


def group_role_of(row: GroupRoleRow) -> GroupRole:
    """Without who has said so."""
    return GroupRole(tenant=row["tenant"], group=row["group_name"], project=row["project"], role=row["role"])


def token_of(row: TokenRow) -> TokenRecord:
    """As it is on record, without its digest."""
    return TokenRecord(
        id=row["id"],
        tenant=row["tenant"],
        member=row["member"],
        name=row["name"],
        kind=TokenKind(row["kind"]),
        parent=row["parent"],
        root=row["root"],
        issuer=row["issuer"],
        provider_session=row["provider_session"],
        caps=caps_of(row["caps"]),
        created_at=row["created_at"],
        created_by=row["created_by"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        used_at=row["used_at"],
    )


def token_row(token: NewToken, *, created_at: int, created_by: str) -> TokenRow:
    """As it is stored."""
    return TokenRow(
        id=token.id,
        tenant=token.tenant,
        member=token.member,
        name=codec.storable(token.name),
        kind=token.kind.value,
        parent=token.parent,
        root=token.root,
        issuer=codec.storable(token.issuer),
        provider_session=codec.storable(token.provider_session),
        digest=token.digest,
        caps=_caps_text(token.caps),
        spent_micros=0,
        created_at=created_at,
        created_by=created_by,
        expires_at=token.expires_at,
        revoked_at=0,
        used_at=0,
    )


def permissions_text(permissions: frozenset[Permission]) -> str:
    """Words with a blank between two."""
    return " ".join(sorted(permissions))


def permissions_of(text: str) -> frozenset[Permission]:
    """One that this version does not know (a newer one has written it) gives nothing."""
    return frozenset(permission for permission in Permission if permission in text.split())


def _caps_text(caps: Caps) -> str:
    said = {
        "permissions": None if caps.permissions is None else permissions_text(caps.permissions),
        "projects": None if caps.projects is None else sorted(caps.projects),
        "gpus": caps.gpus,
        "spend_micros": caps.spend_micros,
    }
    return json.dumps({name: value for name, value in said.items() if value is not None}, sort_keys=True)


def caps_of(text: str) -> Caps:
    """Inverse of what `token_row` writes."""
    said = json.loads(text)
    return Caps(
        permissions=permissions_of(said["permissions"]) if "permissions" in said else None,
        projects=frozenset(said["projects"]) if "projects" in said else None,
        gpus=said.get("gpus"),
        spend_micros=said.get("spend_micros"),
    )
