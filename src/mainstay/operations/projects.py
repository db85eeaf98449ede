"""Projects of a tenant, and the roles that it makes for itself."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

from mainstay.domain.access import (
    DEFAULT_PROJECT,
    GONE_HINT,
    NAME,
    NAME_RULE,
    OWN_ROLE_PERMISSIONS,
    ROLES,
    OwnRole,
    Permission,
    Project,
    project_gone,
)
from mainstay.domain.errors import Conflict, Forbidden, Gone, Invalid, NotFound
from mainstay.domain.plan import AddProject, Plan, RemoveOwnRole, RemoveProject, SetOwnRole
from mainstay.domain.reason import Code, Reason
from mainstay.operations.principal import Done, Principal, RequestKey, committed, replayed
from mainstay.ports import Store

PROJECTS_MAX = 1_000
OWN_ROLES_MAX = 100
"""Of one tenant."""


def projects(store: Store, principal: Principal) -> tuple[Project, ...]:
    """Those of the caller's tenant that the caller may look into, the default one first; none that was removed."""
    principal.require_somewhere(Permission.READ)
    default = Project(tenant=principal.tenant, name=DEFAULT_PROJECT, created_at=0, created_by="mainstay")
    found = (default, *_there(store, principal.tenant))
    return tuple(project for project in found if principal.may(Permission.READ, project.name))


def names(store: Store, tenant: str) -> frozenset[str]:
    """Of all projects of the tenant that are there."""
    return frozenset({DEFAULT_PROJECT, *(project.name for project in _there(store, tenant))})


def _there(store: Store, tenant: str) -> tuple[Project, ...]:
    return tuple(project for project in store.projects(tenant=tenant) if not project.removed_at)


def create(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> Done:
    """Put a project on record. Raises Invalid, Conflict if it is there, and Gone if it was."""
    principal.require(Permission.MEMBERS)
    if done := replayed(store, principal, request):
        return done
    require_name(name)
    if len(_there(store, principal.tenant)) >= PROJECTS_MAX:
        msg = f"there are {PROJECTS_MAX} projects already"
        raise Invalid(msg, object_="name", hint="use one that is there: mainstay project list")
    reason = Reason(code=Code.PROJECT_ADDED, object=name, numbers={"by": principal.name})
    action = AddProject(tenant=principal.tenant, project=name, reason=reason)
    return committed(store, principal, action, now=now, request=request, hint="list them with: mainstay project list")


def remove(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> Done:
    """End a project for good. Raises NotFound, Gone if it was removed, Conflict while anything lives in it, with its names."""
    principal.require(Permission.MEMBERS)
    if done := replayed(store, principal, request):
        return done
    here = names(store, principal.tenant)
    if name not in {*here, *(project.name for project in store.projects(tenant=principal.tenant))}:
        near = get_close_matches(name, here, n=1)
        msg = f"no such project: {name}"
        raise NotFound(
            msg, object_=name, hint=f"did you mean {near[0]}?" if near else "list them with: mainstay project list"
        )
    reason = Reason(code=Code.PROJECT_REMOVED, object=name, numbers={"by": principal.name})
    action = RemoveProject(tenant=principal.tenant, project=name, reason=reason)
    try:
        return committed(store, principal, action, now=now, request=request, hint="")
    except Conflict as error:
        hint = f"first: {ends}" if (ends := ends_of(error)) else "list them with: mainstay project list"
        raise Conflict(error.message, object_=error.object, hint=hint, numbers=error.numbers) from error


def ends_of(refused: Conflict) -> str:
    """The commands that end what keeps a project or a tenant from being removed; empty if nothing does."""
    return ", ".join(command for kind, command in _ENDS.items() if kind in refused.numbers)


_ENDS: Final = {
    "endpoint": "mainstay endpoints --remove NAME",
    "open run": "mainstay stop NAME",
    "volume": "mainstay volume remove NAME",
    "project": "mainstay project remove NAME",
}
"""By what lives there, in the order in which it goes: an endpoint takes its runs along."""


def require_project(store: Store, tenant: str, name: str) -> None:
    """Raises Invalid for a project that the tenant has not, with the nearest spelling; Gone for one that was removed."""
    if name == DEFAULT_PROJECT:
        return
    there = {project.name: project.removed_at for project in store.projects(tenant=tenant)}
    if removed_at := there.get(name):
        raise Gone(project_gone(name, removed_at).sentence, object_="project", hint=GONE_HINT)
    if name in there:
        return
    near = get_close_matches(name, [DEFAULT_PROJECT, *(at for at, removed in there.items() if not removed)], n=1)
    msg = f"project: there is no project {name!r}"
    hint = (
        f"did you mean {near[0]}?"
        if near
        else f"an administrator of the tenant makes it: mainstay project create {name}"
    )
    raise Invalid(msg, object_="project", hint=hint)


def own_roles(store: Store, principal: Principal) -> tuple[OwnRole, ...]:
    """Those that the caller's tenant has made, by name."""
    principal.require_somewhere(Permission.READ)
    return store.own_roles(tenant=principal.tenant)


def set_role(store: Store, principal: Principal, name: str, permissions: frozenset[Permission], *, now: int) -> OwnRole:
    """Make a role, or say anew what one may: its members may so with their next request. Raises Invalid, Forbidden."""
    principal.require(Permission.MEMBERS)
    require_name(name)
    if name in ROLES:
        msg = f"name: {name} is a role that is built in"
        raise Invalid(msg, object_="name", hint="choose another name")
    if Permission.READ not in permissions:
        msg = "may: a role that may not read can do nothing"
        raise Invalid(msg, object_="may", hint="say read, too")
    beyond = permissions - OWN_ROLE_PERMISSIONS
    if beyond:
        msg = f"may: {', '.join(sorted(beyond))} is not for roles of a tenant's own"
        raise Invalid(msg, object_="may", hint=f"allowed: {', '.join(sorted(OWN_ROLE_PERMISSIONS))}")
    if permissions - principal.everywhere:
        msg = "nobody gives more than they have"
        raise Forbidden(msg, object_=name, hint="ask somebody who has that role")
    here = {role.name for role in store.own_roles(tenant=principal.tenant)}
    if name not in here and len(here) >= OWN_ROLES_MAX:
        msg = f"there are {len(here)} roles already"
        raise Invalid(msg, object_="name", hint="remove those that nobody has: mainstay role list")
    numbers = {"by": principal.name, "detail": ", ".join(sorted(permissions))}
    reason = Reason(code=Code.ROLE_SET, object=name, numbers=numbers)
    action = SetOwnRole(tenant=principal.tenant, name=name, permissions=permissions, reason=reason)
    store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True))
    return next(role for role in store.own_roles(tenant=principal.tenant) if role.name == name)


def remove_role(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> Done:
    """Forget a role. Raises NotFound, and Conflict while a member has it."""
    principal.require(Permission.MEMBERS)
    if done := replayed(store, principal, request):
        return done
    if name not in {role.name for role in store.own_roles(tenant=principal.tenant)}:
        msg = f"no such role of the tenant's own: {name}"
        raise NotFound(msg, object_=name, hint="list them with: mainstay role list")
    reason = Reason(code=Code.ROLE_REMOVED, object=name, numbers={"by": principal.name})
    action = RemoveOwnRole(tenant=principal.tenant, name=name, reason=reason)
    return committed(
        store,
        principal,
        action,
        now=now,
        request=request,
        hint="give them another: mainstay member add NAME --role ROLE",
    )


def require_name(name: str) -> None:
    """Raises Invalid."""
    if not NAME.match(name):
        msg = f"name: {name!r} is not allowed"
        raise Invalid(msg, object_="name", hint=f"allowed: {NAME_RULE}")
