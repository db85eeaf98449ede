"""The calls about who may what, as flows: tenants, projects, roles, members and tokens."""

from __future__ import annotations

from collections.abc import Sequence

from mainstay.sdk.calls import pages, segment
from mainstay.sdk.request import Flow, Request, plain, write
from mainstay.wire.access import (
    AdministratorRequest,
    GroupRoleRequest,
    GroupRoleView,
    Kind,
    MemberRequest,
    MemberView,
    NewAdministratorView,
    NewTenantView,
    NewTokenView,
    ProjectRequest,
    ProjectView,
    RoleRequest,
    RoleView,
    SignedInView,
    SignInCodeRequest,
    SignInCodeView,
    SignInWaysView,
    TenantRequest,
    TenantView,
    TokenRequest,
    TokenView,
)
from mainstay.wire.views import Page


def sign_in_ways() -> Flow[SignInWaysView]:
    """How one signs in."""
    return (yield Request(method="GET", path="/v1/sign-in/ways")).read(SignInWaysView)


def begin_device() -> Flow[SignInCodeView]:
    """A code to show."""
    return (yield Request(method="POST", path="/v1/sign-in/device")).read(SignInCodeView)


def finish_device(device: str) -> Flow[SignedInView]:
    """A token, once the code was entered. Tried once: a second try of the same would be refused."""
    body = SignInCodeRequest(device=device).model_dump_json()
    request = Request(method="POST", path="/v1/sign-in/device/token", json=body, retried=False)
    return (yield request).read(SignedInView)


def tenants(*, removed: bool = False) -> Flow[list[TenantView]]:
    """Those that you may see."""
    return (yield from pages("/v1/tenants", Page[TenantView], {"removed": "true"} if removed else {}))


def create_tenant(name: str, *, administrator: str) -> Flow[NewTenantView]:
    """A tenant and its first administrator."""
    body = TenantRequest(name=name, administrator=administrator)
    return (yield write("POST", "/v1/tenants", json=body.model_dump_json())).read(NewTenantView)


def appoint_administrator(tenant: str, *, administrator: str) -> Flow[NewAdministratorView]:
    """Somebody who administers it from now on."""
    body = AdministratorRequest(administrator=administrator).model_dump_json()
    path = f"/v1/tenants/{segment(tenant)}/administrators"
    return (yield write("POST", path, json=body)).read(NewAdministratorView)


def remove_tenant(name: str) -> Flow[None]:
    """End it for good."""
    yield write("DELETE", f"/v1/tenants/{segment(name)}")


def projects() -> Flow[list[ProjectView]]:
    """Those that you may look into."""
    return (yield from pages("/v1/projects", Page[ProjectView], {}))


def create_project(name: str) -> Flow[None]:
    """A project of your tenant."""
    yield write("POST", "/v1/projects", json=ProjectRequest(name=name).model_dump_json())


def remove_project(name: str) -> Flow[None]:
    """End it for good."""
    yield write("DELETE", f"/v1/projects/{segment(name)}")


def roles() -> Flow[list[RoleView]]:
    """All roles."""
    return (yield from pages("/v1/roles", Page[RoleView], {}))


def set_role(name: str, may: Sequence[str]) -> Flow[RoleView]:
    """A role of the tenant's own."""
    body = RoleRequest.model_validate({"may": list(may)})
    request = Request(method="PUT", path=f"/v1/roles/{segment(name)}", json=body.model_dump_json())
    return (yield request).read(RoleView)


def remove_role(name: str) -> Flow[None]:
    """Forget it."""
    yield write("DELETE", f"/v1/roles/{segment(name)}")


def members() -> Flow[list[MemberView]]:
    """Everybody of your tenant."""
    return (yield from pages("/v1/members", Page[MemberView], {}))


def set_member(
    name: str, role: str, *, project: str = "", kind: Kind | None = None, subject: str = "", issuer: str = ""
) -> Flow[MemberView]:
    """A role for somebody."""
    body = MemberRequest(role=role, project=project, kind=kind, subject=subject, issuer=issuer)
    request = Request(method="PUT", path=f"/v1/members/{segment(name)}", json=body.model_dump_json())
    return (yield request).read(MemberView)


def group_roles() -> Flow[list[GroupRoleView]]:
    """What groups may."""
    return (yield from pages("/v1/group-roles", Page[GroupRoleView], {}))


def set_group_role(group: str, role: str, *, project: str = "") -> Flow[GroupRoleView]:
    """A role for a group."""
    body = GroupRoleRequest(group=group, role=role, project=project)
    return (yield Request(method="PUT", path="/v1/group-roles", json=body.model_dump_json())).read(GroupRoleView)


def remove_group_role(group: str, *, project: str = "") -> Flow[None]:
    """Take it back."""
    yield write("DELETE", "/v1/group-roles", params=plain({"group": group, "project": project}))


def remove_member(name: str, *, project: str = "") -> Flow[None]:
    """Out of the tenant, or out of one project."""
    yield write("DELETE", f"/v1/members/{segment(name)}", params=plain({"project": project}))


def tokens() -> Flow[list[TokenView]]:
    """Your own, or all of the tenant."""
    return (yield from pages("/v1/tokens", Page[TokenView], {}))


def token(token_id: str) -> Flow[TokenView]:
    """One of these."""
    return (yield Request(method="GET", path=f"/v1/tokens/{segment(token_id)}")).read(TokenView)


def create_token(wish: TokenRequest) -> Flow[NewTokenView]:
    """A token, shown once."""
    return (yield write("POST", "/v1/tokens", json=wish.model_dump_json())).read(NewTokenView)


def revoke_token(token_id: str) -> Flow[None]:
    """End it."""
    yield write("DELETE", f"/v1/tokens/{segment(token_id)}")
