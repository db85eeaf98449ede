"""Who may what: tenants, projects, roles, members and tokens. Their events and audit rows never show a token."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Final

from mainstay.domain.access import Member, MemberKind, TokenKind, project_gone, tenant_gone
from mainstay.domain.plan import (
    AddProject,
    AddTenant,
    AddToken,
    AdmitMember,
    RemoveGroupRole,
    RemoveMember,
    RemoveOwnRole,
    RevokeToken,
    SetGroupRole,
    SetMember,
    SetOwnRole,
    SpendToken,
    UseToken,
)
from mainstay.domain.reason import Code, Reason
from mainstay.store import codec, codec_access, guards_access
from mainstay.store.rows import GroupRoleRow, ProjectRow, RoleRow, TenantRow, TokenRow
from mainstay.store.world import World

SESSIONS_KEPT_MICROSECONDS: Final = 86_400_000_000
"""So long after their end sessions and links are still listed."""


def add_tenant(world: World, action: AddTenant) -> Reason | None:
    """A second one only where jobs of different tenants run as different users (security.md E6)."""
    name = codec.storable(action.tenant)
    if name in world.tenants:
        removed_at = world.tenants[name]["removed_at"]
        return tenant_gone(name, removed_at) if removed_at else Reason(code=Code.TENANT_THERE, object=name)
    if refusal := guards_access.one_user_serves_one_tenant(world, tenants=len(world.tenants) + 1):
        return refusal
    world.put_tenant(TenantRow(name=name, created_at=world.now, created_by=world.actor, removed_at=0))
    world.log("tenant", name, action.reason, tenant=name)
    return None


def add_project(world: World, action: AddProject) -> Reason | None:
    """A project without anybody in it but those who have a role in the whole tenant."""
    key = action.tenant, codec.storable(action.project)
    if guards_access.project_is_there(world, *key):
        return Reason(code=Code.PROJECT_THERE, object=key[1])
    if key in world.projects:
        return project_gone(key[1], world.projects[key]["removed_at"])
    row = ProjectRow(tenant=key[0], name=key[1], created_at=world.now, created_by=world.actor, removed_at=0)
    world.put_project(row)
    world.log("project", key[1], action.reason, tenant=key[0])
    return None


def set_own_role(world: World, action: SetOwnRole) -> Reason | None:
    """Written only if it may something else than before."""
    key, text = (action.tenant, codec.storable(action.name)), codec_access.permissions_text(action.permissions)
    known = world.roles.get(key)
    if known is not None and known["permissions"] == text:
        return None
    world.put_role(RoleRow(tenant=key[0], name=key[1], permissions=text, set_at=world.now, set_by=world.actor))
    world.log("role", key[1], action.reason, tenant=key[0])
    return None


def remove_own_role(world: World, action: RemoveOwnRole) -> Reason | None:
    """Nobody has it."""
    key = action.tenant, action.name
    if key not in world.roles:
        return Reason(code=Code.NO_SUCH_ROLE, object=action.name)
    if refusal := guards_access.nobody_has_role(world, action.tenant, action.name):
        return refusal
    world.drop_role(key)
    world.log("role", action.name, action.reason, tenant=action.tenant)
    return None


def set_member(world: World, action: SetMember) -> Reason | None:
    """The role in the tenant or in one project; what it was elsewhere it stays."""
    key = action.tenant, codec.storable(action.name)
    row = world.members.get(key)
    before = codec_access.member_of(row) if row else None
    member = before or Member(tenant=key[0], name=key[1])
    kind = action.kind or (before.kind if before else MemberKind.PERSON)
    if action.identity:
        member = replace(member, issuer=action.identity.issuer, subject=action.identity.subject)
    if action.project:
        after = replace(member, kind=kind, grants={**member.grants, action.project: action.role})
    else:
        after = replace(member, kind=kind, role=action.role)
    refusal = (
        guards_access.role_can_be_given(world, action)
        or guards_access.identity_is_one(world, after)
        or guards_access.member_may_change(world, before, after, within=action.within)
    )
    if refusal or after == before:
        return refusal
    added_at, added_by = (row["added_at"], row["added_by"]) if row else (world.now, world.actor)
    world.put_member(codec_access.member_row(after, added_at=added_at, added_by=added_by))
    world.log("member", key[1], action.reason, tenant=key[0])
    return None


def remove_member(world: World, action: RemoveMember) -> Reason | None:
    """Out of the tenant, with all tokens; or out of one project."""
    key = action.tenant, action.name
    row = world.members.get(key)
    before = codec_access.member_of(row) if row else None
    if row is None or before is None or (action.project and action.project not in before.grants):
        return Reason(code=Code.NO_SUCH_MEMBER, object=action.name)
    left = {project: role for project, role in before.grants.items() if project != action.project}
    after = replace(before, grants=left) if action.project else None
    if refusal := guards_access.member_may_change(world, before, after, within=action.within):
        return refusal
    if after is None:
        world.drop_member(key)
    else:
        world.put_member(codec_access.member_row(after, added_at=row["added_at"], added_by=row["added_by"]))
    world.log("member", action.name, action.reason, tenant=action.tenant)
    return None


def admit_member(world: World, action: AdmitMember) -> Reason | None:
    """By identity; groups that are gone at the provider are gone here."""
    identity = action.identity
    row = guards_access.known_as(world, identity.issuer, identity.subject)
    if row is not None:
        member = replace(codec_access.member_of(row), groups=identity.groups)
        added_at, added_by = row["added_at"], row["added_by"]
    else:
        member = Member(
            tenant=action.tenant,
            name=codec.storable(action.name),
            issuer=identity.issuer,
            subject=identity.subject,
            groups=identity.groups,
        )
        added_at, added_by = world.now, world.actor
        if (member.tenant, member.name) in world.members:
            return Reason(code=Code.MEMBER_THERE, object=member.name)
    world.put_member(codec_access.member_row(member, added_at=added_at, added_by=added_by))
    world.log("member", member.name, action.reason, tenant=member.tenant)
    return None


def set_group_role(world: World, action: SetGroupRole) -> Reason | None:
    """Whoever is in the group and signed in has it with the next request."""
    key = action.tenant, codec.storable(action.group), action.project
    if refusal := guards_access.role_can_be_given(world, action):
        return refusal
    before = world.group_roles.get(key)
    for role in {action.role, *([before["role"]] if before else [])}:
        if refusal := guards_access.role_is_within(world, action.tenant, role, name=key[1], within=action.within):
            return refusal
    if before is None or before["role"] != action.role:
        world.put_group_role(
            GroupRoleRow(
                tenant=key[0],
                group_name=key[1],
                project=key[2],
                role=action.role,
                set_at=world.now,
                set_by=world.actor,
            )
        )
        world.log("group", key[1], action.reason, tenant=key[0])
    return None


def remove_group_role(world: World, action: RemoveGroupRole) -> Reason | None:
    """Whoever has it by no other group and not by name has it no more."""
    key = action.tenant, action.group, action.project
    row = world.group_roles.get(key)
    if row is None:
        return Reason(code=Code.NO_SUCH_GROUP_ROLE, object=action.group)
    refusal = guards_access.role_is_within(world, key[0], row["role"], name=action.group, within=action.within)
    if refusal is None:
        world.drop_group_role(key)
        world.log("group", action.group, action.reason, tenant=action.tenant)
    return refusal


def add_token(world: World, action: AddToken) -> Reason | None:
    """For a member who is there, with a token of theirs that is still good: whoever makes it was let in before that was known."""
    token = action.token
    row = world.members.get((token.tenant, token.member))
    if row is None:
        return Reason(code=Code.NO_SUCH_MEMBER, object=token.member)
    member = codec_access.member_of(row)
    if refusal := guards_access.is_within(world, member, within=action.within):
        return refusal
    if token.id in world.tokens:
        return Reason(code=Code.DUPLICATE, object=token.id)
    parent = world.tokens.get(token.parent)
    if token.parent and (parent is None or parent["member"] != token.member or not _good(world, token.tenant, parent)):
        return Reason(code=Code.TOKEN_SPENT, object=token.parent)
    _forget_sessions(world, token.tenant, token.member)
    world.put_token(codec_access.token_row(token, created_at=world.now, created_by=world.actor))
    world.log("token", token.id, action.reason, tenant=token.tenant)
    return None


def revoke_token(world: World, action: RevokeToken) -> Reason | None:
    """The row stays, so that its owner sees that it was revoked, and when."""
    row = world.tokens.get(action.id)
    if row is None or row["tenant"] != action.tenant:
        return Reason(code=Code.NO_SUCH_TOKEN, object=action.id)
    if not row["revoked_at"]:
        revoke(world, row)
        world.log("token", action.id, action.reason, tenant=action.tenant)
    return None


def spend_token(world: World, action: SpendToken) -> Reason | None:
    """What it opens is made by the rest of the plan, which holds only if this does. No event: nothing has changed for anybody."""
    row = world.tokens.get(action.id)
    if row is None or not _good(world, action.tenant, row):
        return Reason(code=Code.TOKEN_SPENT, object=action.id)
    world.put_token({**row, "revoked_at": world.now})
    return None


def revoke(world: World, row: TokenRow) -> None:
    """With the links and sessions that were made with it, and theirs: all of that line are in the world."""
    made_with: defaultdict[str, list[TokenRow]] = defaultdict(list)
    for one in world.tokens.values():
        made_with[one["parent"]].append(one)
    line = [row]
    for one in line:  # It grows. No recursion: whoever makes a thousand sessions one with another would get around it.
        if not one["revoked_at"]:
            world.put_token({**one, "revoked_at": world.now})
        line += made_with[one["id"]]


def _good(world: World, tenant: str, row: TokenRow) -> bool:
    return row["tenant"] == tenant and not row["revoked_at"] and row["expires_at"] > world.now


def _forget_sessions(world: World, tenant: str, member: str) -> None:
    """Those that ended a day ago: who signs in every day would leave a thousand rows behind."""
    for row in list(world.tokens.values()):
        ended = row["revoked_at"] or row["expires_at"]
        of_member = (row["tenant"], row["member"]) == (tenant, member)
        if of_member and row["kind"] != TokenKind.TOKEN and ended + SESSIONS_KEPT_MICROSECONDS < world.now:
            world.drop_token(row["id"])


def use_token(world: World, action: UseToken) -> Reason | None:
    """A token that is gone meanwhile stays gone, and time on record never goes back."""
    row = world.tokens.get(action.id)
    if row is not None and row["used_at"] < world.now:
        world.put_token({**row, "used_at": world.now})
    return None
