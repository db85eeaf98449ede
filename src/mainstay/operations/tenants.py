"""Tenants: made by who administers the platform, each with a first administrator of its own, and given another if it has none."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.domain.access import (
    DEFAULT_TENANT,
    LOCAL_ADMINISTRATOR,
    PLATFORM_ADMIN,
    ROLES,
    TENANT_ADMIN,
    TOKEN_DAYS_MAX,
    NewToken,
    Permission,
    Tenant,
)
from mainstay.domain.errors import Conflict, NotFound, StateUnusable
from mainstay.domain.plan import Action, AddTenant, AddToken, Plan, RemoveTenant, SetMember
from mainstay.domain.reason import Code, Reason
from mainstay.operations import members, projects, tokens
from mainstay.operations.principal import Done, Principal, RequestKey, committed, replayed
from mainstay.ports import Store

SECOND_TENANT_HINT = (
    "run jobs on Kubernetes, drain and remove that cluster (mainstay cluster drain NAME, mainstay cluster remove NAME),"
    " and start `mainstay server` without --local-cluster"
)
FIRST_TOKEN = "first token of the tenant"  # noqa: S105 its name
APPOINTED_TOKEN = "appointed by the platform"  # noqa: S105 as above


def tenants(store: Store, principal: Principal, *, removed: bool = False) -> tuple[Tenant, ...]:
    """All of them for who administers the platform, else the caller's own. `removed`: those that were, instead."""
    principal.require_somewhere(Permission.READ)
    found = tuple(tenant for tenant in store.tenants() if bool(tenant.removed_at) == removed)
    if principal.may(Permission.MANAGE):
        return found
    return tuple(tenant for tenant in found if tenant.name == principal.tenant)


def create(
    store: Store, principal: Principal, name: str, *, administrator: str, now: int, request: RequestKey | None
) -> str:
    """A tenant and its first administrator; the token of that, shown here and never again: empty for a repetition.

    Raises Invalid, Conflict if it is there or jobs of two tenants would run as one user (security.md E6), and Gone if it was.
    """
    principal.require(Permission.MANAGE)
    if replayed(store, principal, request):
        return ""
    projects.require_name(name)
    reason = Reason(code=Code.TENANT_ADDED, object=name, numbers={"by": principal.name})
    made = _Administrator(tenant=name, name=administrator, why=FIRST_TOKEN)
    try:
        return _commit(store, principal, made, AddTenant(tenant=name, reason=reason), now=now, request=request)
    except Conflict as error:
        hint = SECOND_TENANT_HINT if "tenants" in error.numbers else "list them with: mainstay tenant list"
        raise Conflict(error.message, object_=error.object, hint=hint, numbers=error.numbers) from error


def appoint(
    store: Store, principal: Principal, name: str, *, administrator: str, now: int, request: RequestKey | None
) -> str:
    """Make somebody, who may be new, administrator of a tenant that is there; their token, as `create` answers it.

    The way back into a tenant whose administrators are gone: nobody else could make a token there. Members who are there keep
    what they have. Raises Invalid, NotFound, Gone, and Conflict for who administers the platform and would be made less.
    """
    principal.require(Permission.MANAGE)
    if replayed(store, principal, request):
        return ""
    _require_tenant(store, name)
    members.require_not_local(name, administrator, role=TENANT_ADMIN, project="")
    tokens.require_fewer(store, tenant=name, member=administrator, now=now)
    appointed = _Administrator(tenant=name, name=administrator, why=APPOINTED_TOKEN)
    try:
        return _commit(store, principal, appointed, now=now, request=request)
    except Conflict as error:
        msg = f"{administrator} may more than administer the tenant {name}: {error.numbers.get('detail', '')}"
        raise Conflict(msg, object_=administrator, hint="appoint somebody else, who may be new") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Administrator:
    """Somebody who is to administer a tenant. `why` is the name of their token."""

    tenant: str
    name: str
    why: str


def _commit(
    store: Store, principal: Principal, new: _Administrator, *first: Action, now: int, request: RequestKey | None
) -> str:
    """`first`, the role and the token, all or nothing; the token, empty for a repetition.

    Members of the tenant read in their events who of the platform it was. Nobody is made less: `within` is what an
    administrator of a tenant may. Raises Invalid, Forbidden, Conflict, Gone.
    """
    tokens.require_no_limits(principal)
    members.require_name(new.name)
    id_, token = tokens.new_token()
    by = f"{principal.name} of tenant {principal.tenant}"
    within = principal.everywhere & ROLES[TENANT_ADMIN]
    role = {"by": by, "role": TENANT_ADMIN, "where": "in the tenant"}
    made = {"by": by, "member": new.name, "detail": new.why}
    actions = (
        *first,
        SetMember(
            tenant=new.tenant,
            name=new.name,
            role=TENANT_ADMIN,
            within=within,
            reason=Reason(code=Code.MEMBER_SET, object=new.name, numbers=role),
        ),
        AddToken(
            token=NewToken(
                id=id_,
                tenant=new.tenant,
                member=new.name,
                name=new.why,
                digest=tokens.digest_of(token),
                expires_at=now + TOKEN_DAYS_MAX * tokens.DAY_MICROSECONDS,
            ),
            within=within,
            reason=Reason(code=Code.TOKEN_MADE, object=id_, numbers=made),
        ),
    )
    kept = request.with_reply("made", principal) if request else None
    result = store.commit(Plan(actor=principal.name, now=now, actions=actions, atomic=True, idempotency=kept))
    return "" if result.reply is not None else token


def remove(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> Done:
    """End a tenant for good. Raises NotFound, Gone if it was removed, Conflict while anything lives there, with its names."""
    principal.require(Permission.MANAGE)
    if done := replayed(store, principal, request):
        return done
    _require_tenant(store, name)
    if name == principal.tenant != DEFAULT_TENANT:
        msg = f"{name} is your own tenant, and you would be gone with it"
        raise Conflict(msg, object_=name, hint="somebody of another tenant who administers the platform removes it")
    reason = Reason(code=Code.TENANT_REMOVED, object=name, numbers={"by": principal.name})
    action = RemoveTenant(tenant=name, reason=reason)
    try:
        return committed(store, principal, action, now=now, request=request, hint="")
    except Conflict as error:
        hint = (
            f"its members do so first: {ends}; if none is left: mainstay tenant appoint {name} --admin MEMBER"
            if (ends := projects.ends_of(error))
            else "list them with: mainstay tenant list"
        )
        raise Conflict(error.message, object_=error.object, hint=hint, numbers=error.numbers) from error


def _require_tenant(store: Store, name: str) -> None:
    """Raises NotFound; whether it was removed the commit says."""
    if name not in {tenant.name for tenant in store.tenants()}:
        msg = f"no such tenant: {name}"
        raise NotFound(msg, object_=name, hint="list them with: mainstay tenant list")


def at_start(store: Store, *, now: int) -> None:
    """The default tenant and the administrator of the machine are on record from the first start on."""
    actor, by = "mainstay", {"by": "mainstay"}
    if DEFAULT_TENANT not in {tenant.name for tenant in store.tenants()}:
        reason = Reason(code=Code.TENANT_ADDED, object=DEFAULT_TENANT, numbers=dict(by))
        action = AddTenant(tenant=DEFAULT_TENANT, reason=reason)
        refused = store.commit(Plan(actor=actor, now=now, actions=(action,))).refused
        if refused and refused[0].reason.code is Code.ONE_USER:
            raise StateUnusable(refused[0].reason.sentence, hint=SECOND_TENANT_HINT)
    numbers: dict[str, int | float | str] = {**by, "role": PLATFORM_ADMIN, "where": "in the tenant"}
    administrator = SetMember(
        tenant=DEFAULT_TENANT,
        name=LOCAL_ADMINISTRATOR,
        role=PLATFORM_ADMIN,
        within=ROLES[PLATFORM_ADMIN],
        reason=Reason(code=Code.MEMBER_SET, object=LOCAL_ADMINISTRATOR, numbers=numbers),
    )
    store.commit(Plan(actor=actor, now=now, actions=(administrator,)))
