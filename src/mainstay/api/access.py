"""Who may what: tenants, projects, roles, members and tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query, Response
from pydantic import TypeAdapter

from mainstay.api import convert_access as convert
from mainstay.api.limits import PAGE_DEFAULT, Cursor, PageLimit
from mainstay.api.routes import Caller, Routes, done, json_response
from mainstay.domain.access import MemberKind, Permission
from mainstay.domain.caps import NOTHING_USED
from mainstay.operations import groups, members, projects, tenants, tokens
from mainstay.wire.access import (
    AdministratorRequest,
    GroupRoleRequest,
    GroupRoleView,
    MemberRequest,
    MemberView,
    NewAdministratorView,
    NewTenantView,
    NewTokenView,
    ProjectRequest,
    ProjectView,
    RoleRequest,
    RoleView,
    TenantRequest,
    TenantView,
    TokenRequest,
    TokenView,
)
from mainstay.wire.views import Page, View

routes = Routes("access")
V = TypeVar("V", bound=View)
_TENANTS, _PROJECTS = TypeAdapter(Page[TenantView]), TypeAdapter(Page[ProjectView])
_GROUPS = TypeAdapter(Page[GroupRoleView])
_ROLES, _MEMBERS, _TOKENS = TypeAdapter(Page[RoleView]), TypeAdapter(Page[MemberView]), TypeAdapter(Page[TokenView])
Group = Annotated[str, Query(max_length=200, description="As the identity provider writes it.")]
Removed = Annotated[bool, Query(description="Those that were removed, instead.")]
Project = Annotated[str, Query(max_length=40, description="Only the role in this project.")]


@routes.add("GET", "/v1/tenants", needs=Permission.READ, answers=Page[TenantView], of_projects=True)
async def list_tenants(
    call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT, *, removed: Removed = False
) -> Response:
    """Every tenant, for who administers the platform; else one's own."""
    found = await call.services.offload(tenants.tenants, call.services.store, call.principal, removed=removed)
    return json_response(_TENANTS.dump_json(_page(found, convert.tenant_view, lambda one: one.name, cursor, limit)))


@routes.add("POST", "/v1/tenants", needs=Permission.MANAGE, answers=NewTenantView, status=201, keyed=True)
async def create_tenant(call: Caller, body: TenantRequest) -> Response:
    """Make a tenant and its first administrator, whose token is shown here and never again."""
    services = call.services
    token = await services.offload(
        tenants.create,
        services.store,
        call.principal,
        body.name,
        administrator=body.administrator,
        now=services.clock.now(),
        request=call.key,
    )
    view = NewTenantView(name=body.name, administrator=body.administrator, token=token)
    return json_response(view.model_dump_json(), status=201)


@routes.add("DELETE", "/v1/tenants/{name}", needs=Permission.MANAGE, status=204, keyed=True)
async def remove_tenant(call: Caller, name: str) -> Response:
    """End a tenant for good, with its members, tokens, roles, secrets and webhooks. Refused while anything lives there."""
    services = call.services
    result = await services.offload(
        tenants.remove, services.store, call.principal, name, now=services.clock.now(), request=call.key
    )
    return done(result, status=204)


@routes.add(
    "POST",
    "/v1/tenants/{name}/administrators",
    needs=Permission.MANAGE,
    answers=NewAdministratorView,
    status=201,
    keyed=True,
)
async def appoint_administrator(call: Caller, name: str, body: AdministratorRequest) -> Response:
    """Make somebody administrator of a tenant, be it that none is left. Their token is shown here and never again."""
    services = call.services
    token = await services.offload(
        tenants.appoint,
        services.store,
        call.principal,
        name,
        administrator=body.administrator,
        now=services.clock.now(),
        request=call.key,
    )
    view = NewAdministratorView(tenant=name, administrator=body.administrator, token=token)
    return json_response(view.model_dump_json(), status=201)


@routes.add("GET", "/v1/projects", needs=Permission.READ, answers=Page[ProjectView], of_projects=True)
async def list_projects(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """The projects of the tenant that one may look into, by name."""
    found = await call.services.offload(projects.projects, call.services.store, call.principal)
    return json_response(_PROJECTS.dump_json(_page(found, convert.project_view, lambda one: one.name, cursor, limit)))


@routes.add("POST", "/v1/projects", needs=Permission.MEMBERS, status=204, keyed=True)
async def create_project(call: Caller, body: ProjectRequest) -> Response:
    """Make a project. Whoever has a role in the whole tenant has it there, too."""
    services = call.services
    result = await services.offload(
        projects.create, services.store, call.principal, body.name, now=services.clock.now(), request=call.key
    )
    return done(result, status=204)


@routes.add("DELETE", "/v1/projects/{name}", needs=Permission.MEMBERS, status=204, keyed=True)
async def remove_project(call: Caller, name: str) -> Response:
    """End a project for good, with the roles in it and its webhooks. Refused while anything lives in it."""
    services = call.services
    result = await services.offload(
        projects.remove, services.store, call.principal, name, now=services.clock.now(), request=call.key
    )
    return done(result, status=204)


@routes.add("GET", "/v1/roles", needs=Permission.READ, answers=Page[RoleView], of_projects=True)
async def list_roles(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """Every role with all that it may: those that are built in, and those of the tenant's own."""
    own = await call.services.offload(projects.own_roles, call.services.store, call.principal)
    found = sorted([*convert.built_in_roles(), *map(convert.role_view, own)], key=lambda one: one.name)
    return json_response(_ROLES.dump_json(_page(found, lambda one: one, lambda one: one.name, cursor, limit)))


@routes.add("PUT", "/v1/roles/{name}", needs=Permission.MEMBERS, answers=RoleView)
async def set_role(call: Caller, name: str, body: RoleRequest) -> Response:
    """Make a role, or say anew what one may: its members may so with their next request."""
    services = call.services
    permissions = frozenset(map(Permission, body.may))
    made = await services.offload(
        projects.set_role, services.store, call.principal, name, permissions, now=services.clock.now()
    )
    return json_response(convert.role_view(made).model_dump_json())


@routes.add("DELETE", "/v1/roles/{name}", needs=Permission.MEMBERS, status=204, keyed=True)
async def remove_role(call: Caller, name: str) -> Response:
    """Forget a role of the tenant's own. Refused while a member has it."""
    services = call.services
    result = await services.offload(
        projects.remove_role, services.store, call.principal, name, now=services.clock.now(), request=call.key
    )
    return done(result, status=204)


@routes.add("GET", "/v1/members", needs=Permission.READ, answers=Page[MemberView], of_projects=True)
async def list_members(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """Everybody of the tenant with their roles, by name."""
    found = await call.services.offload(members.members, call.services.store, call.principal)
    page = _page(found, convert.member_view, lambda one: one.member.name, cursor, limit)
    return json_response(_MEMBERS.dump_json(page))


@routes.add("PUT", "/v1/members/{name}", needs=Permission.MEMBERS, answers=MemberView)
async def set_member(call: Caller, name: str, body: MemberRequest) -> Response:
    """Give somebody a role, in all of the tenant or in one project, from their next request on. A new name is a new member."""
    services = call.services
    made = await services.offload(
        members.put,
        services.store,
        call.principal,
        name,
        role=body.role,
        kind=MemberKind(body.kind) if body.kind else None,
        project=body.project,
        identity=convert.identity_of(body, provider=services.identities.provider if services.identities else ""),
        now=services.clock.now(),
    )
    return json_response(convert.member_view(made).model_dump_json())


@routes.add("DELETE", "/v1/members/{name}", needs=Permission.MEMBERS, status=204, keyed=True)
async def remove_member(call: Caller, name: str, project: Project = "") -> Response:
    """Take somebody out of the tenant, with all tokens, or out of one project: from their next request on."""
    services = call.services
    result = await services.offload(
        members.remove,
        services.store,
        call.principal,
        name,
        project=project,
        now=services.clock.now(),
        request=call.key,
    )
    return done(result, status=204)


@routes.add("GET", "/v1/group-roles", needs=Permission.READ, answers=Page[GroupRoleView], of_projects=True)
async def list_group_roles(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """What groups of the identity provider may in the tenant, by group and project."""
    found = await call.services.offload(groups.group_roles, call.services.store, call.principal)
    return json_response(
        _GROUPS.dump_json(
            _page(found, convert.group_role_view, lambda one: f"{one.group}\n{one.project}", cursor, limit)
        )
    )


@routes.add("PUT", "/v1/group-roles", needs=Permission.MEMBERS, answers=GroupRoleView)
async def set_group_role(call: Caller, body: GroupRoleRequest) -> Response:
    """Give the members of a group of the identity provider a role: from their next sign-in, or next request, on."""
    services = call.services
    made = await services.offload(
        groups.put,
        services.store,
        call.principal,
        body.group,
        role=body.role,
        project=body.project,
        now=services.clock.now(),
    )
    return json_response(convert.group_role_view(made).model_dump_json())


@routes.add("DELETE", "/v1/group-roles", needs=Permission.MEMBERS, status=204, keyed=True)
async def remove_group_role(call: Caller, group: Group, project: Project = "") -> Response:
    """Take the role of a group back, from the next request of its members on."""
    services = call.services
    result = await services.offload(
        groups.remove,
        services.store,
        call.principal,
        group,
        project=project,
        now=services.clock.now(),
        request=call.key,
    )
    return done(result, status=204)


@routes.add("GET", "/v1/tokens", needs=Permission.READ, answers=Page[TokenView], of_projects=True)
async def list_tokens(call: Caller, cursor: Cursor = "", limit: PageLimit = PAGE_DEFAULT) -> Response:
    """One's own tokens, or, for who may administer members, those of all, by id, with what is used of their caps. None of them is
    shown.
    """
    services = call.services
    found = await services.offload(tokens.with_use, services.store, call.principal)
    ordered, now = sorted(found, key=lambda one: one[0].id), services.clock.now()
    page = _page(ordered, lambda one: convert.token_view(*one, now=now), lambda one: one[0].id, cursor, limit)
    return json_response(_TOKENS.dump_json(page))


@routes.add("GET", "/v1/tokens/{id}", needs=Permission.READ, answers=TokenView, of_projects=True)
async def get_token(call: Caller, id: str) -> Response:  # noqa: A002 its public name
    """One of these tokens, with what is used of its caps."""
    services = call.services
    found = await services.offload(tokens.one_with_use, services.store, call.principal, id)
    return json_response(convert.token_view(*found, now=services.clock.now()).model_dump_json())


@routes.add("POST", "/v1/tokens", needs=Permission.READ, answers=NewTokenView, status=201, keyed=True, of_projects=True)
async def create_token(call: Caller, body: TokenRequest) -> Response:
    """Make a token for oneself or, by who may administer members, for another. It is shown here and never again."""
    services, now = call.services, call.services.clock.now()
    record, token = await services.offload(
        tokens.make, services.store, call.principal, convert.token_wish(body), now=now, request=call.key
    )
    view = convert.token_view(record, NOTHING_USED if record.caps.of_runs else None, now=now)
    return json_response(NewTokenView(**view.model_dump(), token=token).model_dump_json(), status=201)


@routes.add("DELETE", "/v1/tokens/{id}", needs=Permission.READ, status=204, keyed=True, of_projects=True)
async def revoke_token(call: Caller, id: str) -> Response:  # noqa: A002 its public name
    """End a token at once, on every replica: one's own, or, by who may administer members, that of another."""
    services = call.services
    result = await services.offload(
        tokens.revoke, services.store, call.principal, id, now=services.clock.now(), request=call.key
    )
    return done(result, status=204)


T = TypeVar("T")


def _page(found: Sequence[T], view: Callable[[T], V], name: Callable[[T], str], cursor: str, limit: int) -> Page[V]:
    """Those that follow the name of the cursor. There are never so many that reading them all would matter."""
    rest = [one for one in found if name(one) > cursor]
    return Page(items=[view(one) for one in rest[:limit]], next=name(rest[limit - 1]) if len(rest) > limit else "")
