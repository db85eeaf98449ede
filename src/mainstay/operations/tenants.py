"""Tenants: made by who administers the platform, each with a first administrator of its own."""

from __future__ import annotations

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
from mainstay.domain.plan import AddTenant, AddToken, Plan, RemoveTenant, SetMember
from mainstay.domain.reason import Code, Reason
from mainstay.operations import members, projects, tokens
from mainstay.operations.principal import Done, Principal, RequestKey, committed, replayed
from mainstay.ports import Store

SECOND_TENANT_HINT = (
    "run jobs on Kubernetes, drain and remove that cluster (mainstay cluster drain NAME, mainstay cluster remove NAME),"
    " and start `mainstay server` without --local-cluster"
)
FIRST_TOKEN = "first token of the tenant"  # noqa: S105 its name


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
    members.require_name(administrator)
    id_, token = tokens.new_token()
    by: dict[str, int | float | str] = {"by": principal.name}
    within = principal.everywhere
    made = {**by, "member": administrator, "detail": FIRST_TOKEN}
    actions = (
        AddTenant(tenant=name, reason=Reason(code=Code.TENANT_ADDED, object=name, numbers=by)),
        SetMember(
            tenant=name,
            name=administrator,
            role=TENANT_ADMIN,
            within=within,
            reason=Reason(
                code=Code.MEMBER_SET,
                object=administrator,
                numbers={**by, "role": TENANT_ADMIN, "where": "in the tenant"},
            ),
        ),
        AddToken(
            token=NewToken(
                id=id_,
                tenant=name,
                member=administrator,
                name=FIRST_TOKEN,
                digest=tokens.digest_of(token),
                expires_at=now + TOKEN_DAYS_MAX * tokens.DAY_MICROSECONDS,
            ),
            within=within,
            reason=Reason(code=Code.TOKEN_MADE, object=id_, numbers=made),
        ),
    )
    kept = request.with_reply("made", principal) if request else None
    try:
        result = store.commit(Plan(actor=principal.name, now=now, actions=actions, atomic=True, idempotency=kept))
    except Conflict as error:
        hint = SECOND_TENANT_HINT if "tenants" in error.numbers else "list them with: mainstay tenant list"
        raise Conflict(error.message, object_=error.object, hint=hint, numbers=error.numbers) from error
    return "" if result.reply is not None else token


def remove(store: Store, principal: Principal, name: str, *, now: int, request: RequestKey | None) -> Done:
    """End a tenant for good. Raises NotFound, Gone if it was removed, Conflict while anything lives there, with its names."""
    principal.require(Permission.MANAGE)
    if done := replayed(store, principal, request):
        return done
    if name not in {tenant.name for tenant in store.tenants()}:
        msg = f"no such tenant: {name}"
        raise NotFound(msg, object_=name, hint="list them with: mainstay tenant list")
    if name == principal.tenant != DEFAULT_TENANT:
        msg = f"{name} is your own tenant, and you would be gone with it"
        raise Conflict(msg, object_=name, hint="somebody of another tenant who administers the platform removes it")
    reason = Reason(code=Code.TENANT_REMOVED, object=name, numbers={"by": principal.name})
    action = RemoveTenant(tenant=name, reason=reason)
    try:
        return committed(store, principal, action, now=now, request=request, hint="")
    except Conflict as error:
        hint = (
            f"its members do so first: {ends}"
            if (ends := projects.ends_of(error))
            else "list them with: mainstay tenant list"
        )
        raise Conflict(error.message, object_=error.object, hint=hint, numbers=error.numbers) from error


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
