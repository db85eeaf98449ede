"""The end of projects and tenants: nothing lives there any more, and what gave access to it goes in the same transaction.

The row stays, so that the name stays taken; runs, models, charges, events and audit rows stay on record under it.
"""

from __future__ import annotations

from dataclasses import replace

from mainstay.domain.plan import RemoveProject, RemoveTenant
from mainstay.domain.reason import Reason
from mainstay.store import codec, codec_access, guards_access
from mainstay.store.apply.access import revoke
from mainstay.store.world import World


def remove_project(world: World, action: RemoveProject) -> Reason | None:
    """Members who had a role there alone stay members, without any."""
    tenant, name = key = codec.storable(action.tenant), codec.storable(action.project)
    if refusal := guards_access.project_may_leave(world, *key):
        return refusal
    world.put_project({**world.projects[key], "removed_at": world.now})
    world.gone[key] = world.now
    _take_roles_back(world, tenant, name)
    _revoke_tokens(world, tenant)
    for webhook in [webhook for webhook in world.webhooks.values() if (webhook["tenant"], webhook["project"]) == key]:
        world.drop_webhook((tenant, webhook["name"]))
    world.log("project", name, action.reason, tenant=tenant)
    return None


def _take_roles_back(world: World, tenant: str, project: str) -> None:
    for row in [row for row in world.members.values() if row["tenant"] == tenant]:
        member = codec_access.member_of(row)
        if project in member.grants:
            left = replace(member, grants={at: role for at, role in member.grants.items() if at != project})
            world.put_member(codec_access.member_row(left, added_at=row["added_at"], added_by=row["added_by"]))
    for role in [key for key in world.group_roles if (key[0], key[2]) == (tenant, project)]:
        world.drop_group_role(role)


def _revoke_tokens(world: World, tenant: str) -> None:
    """Those that are good for projects that are gone, and nowhere else. Their rows stay, so that their owners see it."""
    gone = {name for (owner, name), row in world.projects.items() if owner == tenant and row["removed_at"]}
    for row in [row for row in world.tokens.values() if row["tenant"] == tenant]:
        projects = codec_access.token_of(row).caps.projects
        if projects and projects <= gone:
            revoke(world, row)


def remove_tenant(world: World, action: RemoveTenant) -> Reason | None:
    """Nobody can sign in there from the next request on: whoever comes with a token of its is nobody."""
    tenant = codec.storable(action.tenant)
    if refusal := guards_access.tenant_may_leave(world, tenant):
        return refusal
    world.put_tenant({**world.tenants[tenant], "removed_at": world.now})
    world.gone[tenant, ""] = world.now
    world.let_go(tenant)
    world.log("tenant", tenant, action.reason, tenant=tenant)
    return None
