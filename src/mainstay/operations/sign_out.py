"""Signing out at an identity provider: we send browsers there, and it tells us who has signed out elsewhere.

Sources: OpenID Connect RP-Initiated Logout 1.0; Back-Channel Logout 1.0.
"""

from __future__ import annotations

import contextlib
from typing import Final

from mainstay.domain.access import TokenRecord
from mainstay.domain.errors import Conflict, Unauthenticated, Unavailable
from mainstay.domain.identity import SignedOut
from mainstay.domain.plan import Idempotency, Plan, RevokeToken
from mainstay.domain.reason import Code, Reason
from mainstay.operations import sign_in
from mainstay.operations.principal import Principal
from mainstay.operations.services import Services
from mainstay.ports import Store

DONE: Final = "/sign-in"
"""The page to which a browser comes back from the provider. It must be registered there, to the letter."""
TOLD: Final = "/sign-in/back-channel-logout"
"""Where the provider tells us."""
TRIES: Final = 3
"""A session that is forgotten between reading and ending it was over for a day."""


async def way_out(services: Services, principal: Principal) -> str:
    """Where a browser goes whose session has ended here: to the provider, if that began it. The end here waits for nobody."""
    with contextlib.suppress(Unavailable):
        authority = await services.offload(services.store.authority, principal.token)
        if services.identities and authority and authority.token.issuer == services.identities.provider:
            return await services.identities.sign_out(back=services.url + DONE) or DONE
    return DONE


async def told(services: Services, token: str) -> None:
    """The provider says who has signed out: what that sign-in opened ends, on every replica.

    Raises Unauthenticated for what the provider did not say, or has said already, Invalid without one, Unavailable.
    """
    out = await sign_in.identities_of(services).signed_out(token)
    await services.offload(_end, services.store, out, now=services.clock.now())


def _end(store: Store, out: SignedOut, *, now: int) -> None:
    """In one transaction with the name of the token: whoever has seen it must not end the next session with it."""
    # The same name on another token is a repetition, too: it need not be told apart from one with another body.
    name = f"{out.issuer} {out.id}"
    once = Idempotency(tenant="", member="", route=f"POST {TOLD}", key=name, body_hash="", reply="ended")
    for _ in range(TRIES):
        ended = _sessions_of(store, out)
        plan = Plan(
            actor=ended[0].member if ended else out.issuer,
            now=now,
            actions=tuple(_revoke(token, out) for token in ended),
            atomic=True,
            idempotency=once,
        )
        with contextlib.suppress(Conflict):
            if store.commit(plan).reply is not None:
                msg = "this token is not valid: it was used before"
                raise Unauthenticated(msg, hint="ask its issuer for a new one")
            return
    msg = "the sessions change faster than they end"
    raise Unavailable(msg, object_=out.issuer, hint="send it again")


def _revoke(token: TokenRecord, out: SignedOut) -> RevokeToken:
    numbers = {"by": out.issuer, "member": token.member}
    reason = Reason(code=Code.TOKEN_REVOKED, object=token.id, numbers=numbers)
    return RevokeToken(tenant=token.tenant, id=token.id, reason=reason)


def _sessions_of(store: Store, out: SignedOut) -> list[TokenRecord]:
    """Those of the session at the provider; where it names none, all of the subject, with terminals. Nobody else's ever."""
    standing = store.standing(issuer=out.issuer, subject=out.subject) if out.subject else None
    member = standing.member if standing else None
    if out.session:
        found = store.tokens_of_session(issuer=out.issuer, session=out.session)
    else:
        found = store.tokens(tenant=member.tenant, member=member.name) if member else ()
    return [
        token
        for token in found
        if token.issuer == out.issuer
        and not token.revoked_at
        and (not out.subject or (member and (token.tenant, token.member) == (member.tenant, member.name)))
    ]
