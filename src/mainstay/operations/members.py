"""Members of a tenant: who may what in it, in all of it or in one project."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from mainstay.domain.access import (
    DEFAULT_TENANT,
    LOCAL_ADMINISTRATOR,
    PLATFORM_ADMIN,
    ROLES,
    TENANT_ADMIN,
    Member,
    MemberKind,
    MemberRecord,
    Permission,
)
from mainstay.domain.errors import Conflict, Forbidden, Invalid, NotFound
from mainstay.domain.identity import Identity
from mainstay.domain.plan import RemoveMember, SetMember
from mainstay.domain.reason import Code, Reason
from mainstay.operations.principal import Done, Principal, RequestKey, committed, replayed
from mainstay.operations.projects import require_project
from mainstay.ports import Store

MEMBER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}\Z")
MEMBER_NAME_RULE = "letters, digits and `.`, `_`, `@`, `+`, `-`, 1 to 100, a letter or digit first"
MEMBERS_MAX = 10_000
"""Of one tenant."""
TENANT_WIDE = frozenset({TENANT_ADMIN, PLATFORM_ADMIN})
"""Roles that mean nothing in a single project."""
AGAIN: Final = "look at it again, and say again what is to change: mainstay member list"


def members(store: Store, principal: Principal) -> tuple[MemberRecord, ...]:
    """Everybody of the caller's tenant, by name."""
    principal.require_somewhere(Permission.READ)
    return store.members(tenant=principal.tenant)


def put(
    store: Store,
    principal: Principal,
    name: str,
    *,
    role: str,
    kind: MemberKind | None,
    project: str,
    identity: Identity | None = None,
    now: int,
) -> MemberRecord:
    """Give somebody a role, in all of the tenant or in one project; a new name is a new member. `identity`: who they sign in as.

    Raises Forbidden for more than the caller has, Invalid for a name, role or project that is none.
    """
    principal.require(Permission.MEMBERS)
    require_name(name)
    require_role(store, principal, role, project=project)
    here = {record.member.name: record for record in members(store, principal)}
    if name not in here and len(here) >= MEMBERS_MAX:
        msg = f"there are {len(here)} members already"
        raise Invalid(msg, object_="name", hint="remove those who left: mainstay member list")
    _require_within(store, principal, here.get(name))
    require_not_local(principal.tenant, name, role=role, project=project)
    where = f"in project {project}" if project else "in the tenant"
    numbers = {"by": principal.name, "role": role, "where": where}
    action = SetMember(
        tenant=principal.tenant,
        name=name,
        kind=kind,
        project=project,
        role=role,
        identity=identity,
        within=principal.everywhere,
        reason=Reason(code=Code.MEMBER_SET, object=name, numbers=numbers),
    )
    committed(store, principal, action, now=now, request=None, hint=AGAIN)
    return next(record for record in store.members(tenant=principal.tenant) if record.member.name == name)


def remove(
    store: Store, principal: Principal, name: str, *, project: str, now: int, request: RequestKey | None
) -> Done:
    """Take somebody out of the tenant, with all tokens, from the next request on; or out of one project. Raises NotFound."""
    principal.require(Permission.MEMBERS)
    if done := replayed(store, principal, request):
        return done
    here = {record.member.name: record for record in members(store, principal)}
    if name not in here or (project and project not in here[name].member.grants):
        near = get_close_matches(name, here, n=1)
        msg = f"no such member{f' of project {project}' if project else ''}: {name}"
        hint = f"did you mean {near[0]}?" if near and near != [name] else "list them with: mainstay member list"
        raise NotFound(msg, object_=name, hint=hint)
    _require_within(store, principal, here[name])
    require_not_local(principal.tenant, name, role="", project=project)
    where = f"from project {project}" if project else "from the tenant"
    action = RemoveMember(
        tenant=principal.tenant,
        name=name,
        project=project,
        within=principal.everywhere,
        reason=Reason(code=Code.MEMBER_REMOVED, object=name, numbers={"by": principal.name, "where": where}),
    )
    return committed(store, principal, action, now=now, request=request, hint=AGAIN)


def require_name(name: str) -> None:
    """Raises Invalid."""
    if not MEMBER_NAME.match(name):
        msg = f"name: {name!r} is not allowed"
        raise Invalid(msg, object_="name", hint=f"allowed: {MEMBER_NAME_RULE}")


def require_not_local(tenant: str, name: str, *, role: str, project: str) -> None:
    """The administrator of the machine is whoever reads the file of their token: no row could make them less."""
    if (tenant, name) == (DEFAULT_TENANT, LOCAL_ADMINISTRATOR) and not project and role != PLATFORM_ADMIN:
        msg = f"{name} is the administrator of the machine, whose token lies in the state directory"
        raise Conflict(
            msg, object_=name, hint="remove that file and start again: its token ends, and a new one is made"
        )


def require_role(store: Store, principal: Principal, role: str, *, project: str) -> None:
    """Raises Invalid for a role or project that is none, Forbidden for more than the caller has."""
    roles = roles_of(store, principal.tenant)
    if role not in roles:
        near = get_close_matches(role, roles, n=1)
        msg = f"role: there is no role {role!r}"
        raise Invalid(
            msg, object_="role", hint=f"did you mean {near[0]}?" if near else f"there are: {', '.join(roles)}"
        )
    more = roles[role] - principal.everywhere
    if more:
        msg = f"nobody gives more than they have: the role {role} may {', '.join(sorted(more))}, too"
        raise Forbidden(msg, object_=role, hint="ask somebody who has that role")
    if project:
        require_project(store, principal.tenant, project)
    if project and role in TENANT_WIDE:
        msg = f"role: {role} is a role in the whole tenant"
        raise Invalid(msg, object_="role", hint="leave out the project, or give the role maintainer there")


def roles_of(store: Store, tenant: str) -> Mapping[str, frozenset[Permission]]:
    """What each role may in a tenant: those that are built in, from the least to the most, and its own by name."""
    return {**ROLES, **{role.name: role.permissions for role in store.own_roles(tenant=tenant)}}


def _require_within(store: Store, principal: Principal, record: MemberRecord | None) -> None:
    if record is None:
        return
    more = permissions_of(store, record.member) - principal.everywhere
    if more:
        msg = f"{record.member.name} may more than you: {', '.join(sorted(more))}"
        raise Forbidden(msg, object_=record.member.name, hint="ask somebody who has that role")


def permissions_of(store: Store, member: Member) -> frozenset[Permission]:
    """All that a member may somewhere."""
    roles = roles_of(store, member.tenant)
    return frozenset().union(*(roles.get(role, frozenset()) for role in (member.role, *member.grants.values())))
