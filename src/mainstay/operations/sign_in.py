"""Signing in at an identity provider: whom it vouches for, and as whom they come in.

Somebody is the issuer and the subject together, whatever they are called (security.md C1). Who is on record by that is that
member; who is not becomes one if a role was given to a group of theirs. What they may is read anew at each request.
"""

from __future__ import annotations

import json
import re
from typing import Final

from mainstay.domain.access import NewToken, Permission
from mainstay.domain.errors import Conflict, Denied, Forbidden, Invalid, MainstayError, Unauthenticated
from mainstay.domain.identity import DeviceBegun, Identity, SignInBegun
from mainstay.domain.plan import AddToken, AdmitMember, Plan
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.operations import sessions, tokens
from mainstay.operations.principal import Principal
from mainstay.operations.services import Services
from mainstay.ports import Identities, Store

BEGUN_SECONDS: Final = 600
"""So long somebody may take at the provider."""
TERMINAL_SECONDS: Final = 12 * 3_600
"""So long a terminal is signed in."""
BACK: Final = "/sign-in/back"
"""Where the provider sends a browser back to."""
TERMINAL: Final = "terminal"
_VOUCHED_SECONDS: Final = 60
"""So long we believe that somebody who has just signed in is there."""


async def of_token(services: Services, token: str) -> Principal:
    """Who comes with a token that an issuer of ours has made. Raises Unauthenticated, Unavailable."""
    identity = await identities_of(services).of_token(token)
    now = services.clock.now()
    return await services.offload(
        tokens.known_as, services.store, identity.issuer, identity.subject, until=identity.until, now=now
    )


async def begin(services: Services) -> tuple[str, str]:
    """Where a browser goes, and what it carries meanwhile in a cookie that only we can read. Raises Invalid, Unavailable."""
    begun = await identities_of(services).begin(back=services.url + BACK)
    carried = {"state": begun.state, "nonce": begun.nonce, "verifier": begun.verifier, "until": _until(services)}
    return begun.url, services.sealing.sealed_sign_in(json.dumps(carried).encode())


async def finish(services: Services, *, code: str, state: str, carried: str) -> str:
    """The cookie of a session for who has come back. Raises Unauthenticated, Forbidden, Unavailable."""
    kept = _opened(services, carried)
    if not state or kept.get("state") != state:
        raise _elsewhere()
    begun = SignInBegun(url="", state=state, nonce=str(kept["nonce"]), verifier=str(kept["verifier"]))
    identity = await identities_of(services).finish(code, begun=begun, back=services.url + BACK)
    principal = await services.offload(admitted, services.store, identity, now=services.clock.now())
    return await services.offload(
        sessions.begin,
        services.store,
        principal,
        now=services.clock.now(),
        provider_session=identity.session,
    )


async def begin_device(services: Services) -> tuple[DeviceBegun, str]:
    """What a terminal shows, and what it comes back with: the code of the provider, sealed."""
    begun = await identities_of(services).begin_device()
    carried = {"device": begun.device_code, "until": _until(services, begun.seconds)}
    return begun, services.sealing.sealed_sign_in(json.dumps(carried).encode())


async def finish_device(services: Services, carried: str) -> tuple[str, str]:
    """The id of a token for a terminal, and the token. Raises NotYet until the code was entered, Unauthenticated, Forbidden."""
    kept = _opened(services, carried)
    if "device" not in kept:
        raise _elsewhere()
    identity = await identities_of(services).finish_device(str(kept["device"]))
    principal = await services.offload(admitted, services.store, identity, now=services.clock.now())
    return await services.offload(_terminal_token, services.store, principal, now=services.clock.now())


def admitted(store: Store, identity: Identity, *, now: int) -> Principal:
    """Who has just signed in, as the member that they are or become. Raises Forbidden for who is nobody here."""
    known = store.standing(issuer=identity.issuer, subject=identity.subject)
    tenant = known.member.tenant if known else _tenant_of(store, identity)
    taken = {record.member.name for record in store.members(tenant=tenant)}
    name = known.member.name if known else _free_name(identity.name, taken)
    numbers = {"issuer": identity.issuer}
    reason = Reason(code=Code.MEMBER_SIGNED_IN, object=name, numbers=numbers)
    action = AdmitMember(tenant=tenant, name=name, identity=identity, reason=reason)
    try:
        store.commit(Plan(actor=name, now=now, actions=(action,), atomic=True))
    except Conflict as error:
        # Somebody of that name, or they themselves at another replica, came in meanwhile.
        raise Conflict(error.message, object_=name, hint="sign in again") from error
    until = now + _VOUCHED_SECONDS * MICROSECONDS_PER_SECOND
    principal = tokens.known_as(store, identity.issuer, identity.subject, until=until, now=now)
    if not principal.anywhere:
        msg = f"{principal.name} has no role in tenant {tenant}"
        raise Forbidden(msg, object_=principal.name, hint="ask an administrator of the tenant: mainstay member add")
    return principal


def _tenant_of(store: Store, identity: Identity) -> str:
    """The tenant that gives a role to a group of theirs. Raises Forbidden if none does, or several do."""
    tenants = sorted({role.tenant for role in store.roles_of_groups(identity.groups)})
    if len(tenants) == 1:
        return tenants[0]
    member = f"mainstay member add NAME --role ROLE --issuer {identity.issuer} --subject {identity.subject}"
    if not tenants:
        msg = f"{identity.name} is known at {identity.issuer}, and to no tenant here"
        hint = f"an administrator lets you in: {member}; or gives a role to a group of yours: mainstay group set"
        raise Forbidden(msg, object_=identity.subject, hint=hint)
    msg = f"the groups of {identity.name} have roles in {len(tenants)} tenants, and nobody is a member of two"
    raise Forbidden(msg, object_=identity.subject, hint=f"an administrator says which one: {member}")


def _free_name(proposed: str, taken: set[str]) -> str:
    """A name of a member like the one that the provider proposes, which nobody has."""
    name = re.sub(r"[^A-Za-z0-9._@+-]+", "-", proposed).lstrip("._@+-")[:90] or "member"
    number = 2
    free = name
    while free in taken:
        free = f"{name}-{number}"
        number += 1
    return free


def _terminal_token(store: Store, principal: Principal, *, now: int) -> tuple[str, str]:
    id_, token = tokens.new_token()
    new = NewToken(
        id=id_,
        tenant=principal.tenant,
        member=principal.name,
        name=TERMINAL,
        issuer=principal.identity[0] if principal.identity else "",
        digest=tokens.digest_of(token),
        expires_at=now + TERMINAL_SECONDS * MICROSECONDS_PER_SECOND,
    )
    numbers = {"by": principal.name, "member": principal.name, "detail": TERMINAL}
    reason = Reason(code=Code.TOKEN_MADE, object=id_, numbers=numbers)
    action = AddToken(token=new, within=frozenset(Permission), reason=reason)
    store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True))
    return id_, token


def identities_of(services: Services) -> Identities:
    """The providers. Raises Invalid without one."""
    if services.identities is None:
        msg = "this platform has no identity provider"
        raise Invalid(
            msg, hint="use a token: mainstay login --server URL --token-stdin; or start it with --oidc-issuer"
        )
    return services.identities


def _until(services: Services, seconds: int = BEGUN_SECONDS) -> int:
    return services.clock.now() + seconds * MICROSECONDS_PER_SECOND


def _opened(services: Services, carried: str) -> dict[str, object]:
    try:
        kept: dict[str, object] = json.loads(services.sealing.opened_sign_in(carried))
    except Denied:
        raise _elsewhere() from None
    until = kept.get("until")
    if not isinstance(until, int) or services.clock.now() >= until:
        msg = "this sign-in took too long"
        raise Unauthenticated(msg, hint="begin again")
    return kept


def _elsewhere() -> MainstayError:
    return Unauthenticated("this sign-in was begun somewhere else", hint="begin again: open the page once more")
