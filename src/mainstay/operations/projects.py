"""Projects of a tenant, and the roles that it makes for itself."""

from __future__ import annotations

from difflib import get_close_matches

from mainstay.domain.access import (
    DEFAULT_PROJECT,
    NAME,
    NAME_RULE,
    OWN_ROLE_PERMISSIONS,
    ROLES,
    OwnRole,
    Permission,
    Project,
)
from mainstay.domain.errors import Forbidden, Invalid, NotFound
from mainstay.domain.plan import AddProject, Plan, RemoveOwnRole, SetOwnRole
from mainstay.domain.reason import Code, Reason
from mainstay.operations.principal import Done, Principal, RequestKey, committed, replayed
from mainstay.ports import Store

PROJECTS_MAX = 1_000
OWN_ROLES_MAX = 100
"""Of one tenant."""


def projects(store: Store, principal: Principal) -> tuple[Project, ...]:
    """Those of the caller's tenant that the caller may look into, the default one first."""
    principal.require_somewhere(Permission.READ)
    default = Project(tenant=principal.tenant, name=DEFAULT_PROJECT, created_at=0, created_by="mainstay")
    found = (default, *store.projects(tenant=principal.tenant))
    return tuple(project for project in found if principal.may(Permission.READ, project.name))


def create(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> Done:
    """Put a project on record. Raises Invalid, and Conflict if it is there."""
    principal.require(Permission.MEMBERS)
    if done := replayed(store, principal, request):
        return done
    require_name(name)
    if len(store.projects(tenant=principal.tenant)) >= PROJECTS_MAX:
        msg = f"there are {PROJECTS_MAX} projects already"
        raise Invalid(msg, object_="name", hint="use one that is there: mainstay project list")
    reason = Reason(code=Code.PROJECT_ADDED, object=name, numbers={"by": principal.name})
    action = AddProject(tenant=principal.tenant, project=name, reason=reason)
    return committed(store, principal, action, now=now, request=request, hint="list them with: mainstay project list")


def require_project(store: Store, tenant: str, name: str) -> None:
    """Raises Invalid for a project that the tenant has not, with the nearest spelling."""
    if name == DEFAULT_PROJECT:
        return
    here = [DEFAULT_PROJECT, *(project.name for project in store.projects(tenant=tenant))]
    if name in here:
        return
    near = get_close_matches(name, here, n=1)
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
