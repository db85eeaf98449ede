"""What must hold whoever may what: nobody gives more than they have, no token takes more than its caps, and somebody
administers the platform.
"""

from __future__ import annotations

from collections.abc import Sequence

from mainstay.domain.access import (
    DEFAULT_PROJECT,
    DEFAULT_TENANT,
    PLATFORM_ADMIN,
    ROLES,
    Member,
    Permission,
    project_gone,
    tenant_gone,
)
from mainstay.domain.caps import over
from mainstay.domain.fleet import Stay
from mainstay.domain.plan import NewWorkload, SetGroupRole, SetMember
from mainstay.domain.quantity import counted
from mainstay.domain.reason import Code, Reason
from mainstay.store import codec, codec_access, codec_fleet
from mainstay.store.rows import MemberRow
from mainstay.store.world import NAMES_SHOWN, Living, OfTenant, World

MEMBERS_SHOWN = 3


def one_user_serves_one_tenant(world: World, *, tenants: int) -> Reason | None:
    """Jobs of one tenant could read the files of another's where all run as one user. Source: security.md E6. The only line."""
    if tenants < 2:
        return None
    for row in world.clusters.values():
        if row["wanted"] != Stay.REMOVED and codec_fleet.runs_as_one_user(row):
            return one_user(row["name"], tenants=tenants)
    return None


def one_user(cluster: str, *, tenants: int) -> Reason:
    """The refusal of whoever would have a cluster that runs all jobs as one user serve several tenants."""
    return Reason(code=Code.ONE_USER, object=cluster, numbers={"tenants": tenants})


def project_is_there(world: World, tenant: str, project: str) -> bool:
    """Every tenant has the default one."""
    row = world.projects.get((tenant, project))
    return project == DEFAULT_PROJECT or (row is not None and not row["removed_at"])


def home_is_there(world: World, place: OfTenant | None) -> Reason | None:
    """Nothing is put into a tenant or project that was removed, whatever whoever puts it there has read. The only line."""
    if place is None:
        return None
    tenant, project = map(codec.storable, place)
    if (tenant, "") in world.gone:
        return tenant_gone(tenant, world.gone[tenant, ""])
    if project and (tenant, project) in world.gone:
        return project_gone(project, world.gone[tenant, project])
    return None


def project_may_leave(world: World, tenant: str, project: str) -> Reason | None:
    """It is there, and nothing lives in it. The only line."""
    row = world.projects.get((tenant, project))
    if project == DEFAULT_PROJECT:
        return Reason(code=Code.BUILT_IN, object=project)
    if row is None:
        return Reason(code=Code.NO_SUCH_PROJECT, object=project)
    if row["removed_at"]:
        return project_gone(project, row["removed_at"])
    return _in_use(Code.PROJECT_IN_USE, project, world.living[tenant, project])


def tenant_may_leave(world: World, tenant: str) -> Reason | None:
    """It is there, nothing lives in it, and somebody is left to administer the platform. The only line."""
    row = world.tenants.get(tenant)
    if tenant == DEFAULT_TENANT:
        return Reason(code=Code.BUILT_IN, object=tenant)
    if row is None:
        return Reason(code=Code.NO_SUCH_TENANT, object=tenant)
    if row["removed_at"]:
        return tenant_gone(tenant, row["removed_at"])
    of = {key[0] for key, row in world.members.items() if row["role"] == PLATFORM_ADMIN}
    if of == {tenant}:
        return Reason(code=Code.LAST_ADMINISTRATOR, object=tenant)
    there = sorted(name for (of, name), row in world.projects.items() if of == tenant and not row["removed_at"])
    projects = [Living(kind="project", count=len(there), names=tuple(there[:NAMES_SHOWN]))] if there else []
    return _in_use(Code.TENANT_IN_USE, tenant, (*world.living[tenant, ""], *projects))


def _in_use(code: Code, name: str, found: Sequence[Living]) -> Reason | None:
    """What lives there, by the first few names and by number."""
    if not found:
        return None
    words = []
    for one in found:
        more = f" and {one.count - len(one.names)} more" if one.count > len(one.names) else ""
        words.append(f"{counted(one.count, one.kind)} ({', '.join(one.names)}{more})")
    numbers: dict[str, int | float | str] = {"detail": ", ".join(words), **{one.kind: one.count for one in found}}
    return Reason(code=code, object=name, numbers=numbers)


def token_may_take(world: World, new: NewWorkload) -> Reason | None:
    """With it, and with what is submitted before it in its plan, the runs of its token stay within the caps. The only line: who
    submits has not seen what others submit with the same token.
    """
    if new.at_most is None:
        return None
    if new.token not in world.caps:
        return Reason(code=Code.NO_SUCH_TOKEN, object=new.token)
    caps, used = world.caps[new.token]
    return over(new.token, caps, used, world.asked[new.token] + new.at_most)


def nobody_has_role(world: World, tenant: str, name: str) -> Reason | None:
    """Neither in the tenant nor in a project. The only line."""
    holders = []
    for key, row in world.members.items():
        member = codec_access.member_of(row)
        if key[0] == tenant and name in {member.role, *member.grants.values()}:
            holders.append(member.name)
    by_group = (row for row in world.group_roles.values() if row["tenant"] == tenant and row["role"] == name)
    holders += [f"group {row['group_name']}" for row in by_group]
    if not holders:
        return None
    shown = ", ".join(sorted(holders)[:MEMBERS_SHOWN])
    more = f" and {len(holders) - MEMBERS_SHOWN} more" if len(holders) > MEMBERS_SHOWN else ""
    return Reason(code=Code.ROLE_IN_USE, object=name, numbers={"members": shown + more})


def known_as(world: World, issuer: str, subject: str) -> MemberRow | None:
    """Who somebody is here, of whatever tenant; members of identities that a plan names are loaded."""
    if not subject:
        return None
    same = (codec.storable(issuer), codec.storable(subject))
    return next((row for row in world.members.values() if (row["issuer"], row["subject"]) == same), None)


def identity_is_one(world: World, member: Member) -> Reason | None:
    """Nobody is two members, not even of two tenants: a sign-in would not know as whom. The only line."""
    row = known_as(world, member.issuer, member.subject)
    if row is None or (row["tenant"], row["name"]) == (member.tenant, member.name):
        return None
    shown = row["name"] if row["tenant"] == member.tenant else "somebody of another tenant"
    return Reason(code=Code.IDENTITY_TAKEN, object=shown)


def role_can_be_given(world: World, action: SetMember | SetGroupRole) -> Reason | None:
    """The role is there, and the project, if it is for one. The only line."""
    if action.role not in ROLES and (action.tenant, action.role) not in world.roles:
        return Reason(code=Code.NO_SUCH_ROLE, object=action.role)
    if action.project and not project_is_there(world, action.tenant, action.project):
        return Reason(code=Code.NO_SUCH_PROJECT, object=action.project)
    return None


def member_may_change(
    world: World, before: Member | None, after: Member | None, *, within: frozenset[Permission]
) -> Reason | None:
    """None of both may more than whoever changes it, and somebody is left to administer the platform. The only line."""
    for member in (before, after):
        if member is not None and (refusal := is_within(world, member, within=within)):
            return refusal
    administers = before is not None and before.role == PLATFORM_ADMIN
    if before is None or not administers or (after is not None and after.role == PLATFORM_ADMIN):
        return None
    others = [
        key
        for key, row in world.members.items()
        if row["role"] == PLATFORM_ADMIN and key != (before.tenant, before.name)
    ]
    return None if others else Reason(code=Code.LAST_ADMINISTRATOR, object=before.name)


def is_within(world: World, member: Member, *, within: frozenset[Permission]) -> Reason | None:
    """The member may nothing that is not in `within`."""
    more: set[Permission] = set()
    by_group = (row["role"] for row in world.group_roles.values() if row["group_name"] in member.groups)
    for role in (member.role, *member.grants.values(), *by_group):
        more |= _permissions(world, member.tenant, role) - within
    if not more:
        return None
    return Reason(code=Code.MORE_THAN_ONESELF, object=member.name, numbers={"detail": ", ".join(sorted(more))})


def role_is_within(world: World, tenant: str, role: str, *, name: str, within: frozenset[Permission]) -> Reason | None:
    """The role may nothing that is not in `within`; a role that is gone may nothing."""
    more = _permissions(world, tenant, role) - within
    if not more:
        return None
    return Reason(code=Code.MORE_THAN_ONESELF, object=name, numbers={"detail": ", ".join(sorted(more))})


def _permissions(world: World, tenant: str, role: str) -> frozenset[Permission]:
    if role in ROLES:
        return ROLES[role]
    row = world.roles.get((tenant, role))
    return codec_access.permissions_of(row["permissions"]) if row else frozenset()
