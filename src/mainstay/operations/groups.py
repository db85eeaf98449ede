"""Groups of the identity provider: which role their members have in a tenant, in all of it or in one project."""

from __future__ import annotations

from typing import Final

from mainstay.domain.access import GroupRole, Permission
from mainstay.domain.errors import Invalid, NotFound
from mainstay.domain.plan import RemoveGroupRole, SetGroupRole
from mainstay.domain.reason import Code, Reason
from mainstay.operations import members
from mainstay.operations.principal import Done, Principal, RequestKey, committed, replayed
from mainstay.ports import Store

GROUP_CHARACTERS_MAX: Final = 200
GROUPS_MAX: Final = 1_000
"""Of one tenant."""
AGAIN: Final = "look at it again, and say again what is to change: mainstay group list"


def group_roles(store: Store, principal: Principal) -> tuple[GroupRole, ...]:
    """Those of the caller's tenant, by group and project."""
    principal.require_somewhere(Permission.READ)
    return store.group_roles(tenant=principal.tenant)


def put(store: Store, principal: Principal, group: str, *, role: str, project: str, now: int) -> GroupRole:
    """Give a group a role: whoever is in it may so with the next sign-in, and who has signed in already with the next request.

    Raises Forbidden for more than the caller has, Invalid for a group, role or project that is none.
    """
    principal.require(Permission.MEMBERS)
    if not 0 < len(group) <= GROUP_CHARACTERS_MAX or not group.isprintable():
        msg = f"group: {group!r} is not allowed"
        raise Invalid(msg, object_="group", hint="give the name of a group as the identity provider writes it")
    members.require_role(store, principal, role, project=project)
    if len(store.group_roles(tenant=principal.tenant)) >= GROUPS_MAX:
        msg = f"there are {GROUPS_MAX} roles of groups already"
        raise Invalid(msg, object_="group", hint="remove those that are not needed: mainstay group list")
    numbers = {"by": principal.name, "role": role, "where": _where(project)}
    action = SetGroupRole(
        tenant=principal.tenant,
        group=group,
        project=project,
        role=role,
        within=principal.everywhere,
        reason=Reason(code=Code.GROUP_ROLE_SET, object=group, numbers=numbers),
    )
    committed(store, principal, action, now=now, request=None, hint=AGAIN)
    return GroupRole(tenant=principal.tenant, group=group, project=project, role=role)


def remove(
    store: Store, principal: Principal, group: str, *, project: str, now: int, request: RequestKey | None
) -> Done:
    """Take the role of a group back: from the next request of its members on. Raises NotFound, Forbidden."""
    principal.require(Permission.MEMBERS)
    if done := replayed(store, principal, request):
        return done
    there = {(role.group, role.project) for role in store.group_roles(tenant=principal.tenant)}
    if (group, project) not in there:
        msg = f"group {group} has no role {_where(project)}"
        raise NotFound(msg, object_=group, hint="list them with: mainstay group list")
    action = RemoveGroupRole(
        tenant=principal.tenant,
        group=group,
        project=project,
        within=principal.everywhere,
        reason=Reason(
            code=Code.GROUP_ROLE_REMOVED, object=group, numbers={"by": principal.name, "where": _where(project)}
        ),
    )
    return committed(store, principal, action, now=now, request=request, hint=AGAIN)


def _where(project: str) -> str:
    return f"in project {project}" if project else "in the tenant"
