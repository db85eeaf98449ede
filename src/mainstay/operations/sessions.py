"""Signing a browser in: a link that is good once becomes a session, which a cookie names.

Both are tokens on record (`tokens.py`): known to every replica, read anew at each request, and ended with the token that they
were made with. What is kept of them is their digest (security.md C2, C3, F2).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from mainstay.domain.access import NewToken, Permission, TokenKind
from mainstay.domain.errors import Conflict, Unauthenticated
from mainstay.domain.plan import AddToken, Plan, RevokeToken, SpendToken
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.operations import tokens
from mainstay.operations.principal import Principal
from mainstay.ports import Store

SESSION_SECONDS: Final = 12 * 3_600
SECONDS: Final = {TokenKind.LINK: 600, TokenKind.SESSION: SESSION_SECONDS}
FORM_HEADER: Final = "x-mainstay-form-token"
"""Where a page sends the `form_token` of its session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Who a cookie stands for. `form_token` must come with every write, in a header that only our page can set."""

    principal: Principal
    form_token: str


def link(store: Store, principal: Principal, *, now: int) -> str:
    """A code that signs `principal` in, once, within ten minutes, to no more than they may now.

    Raises Unauthenticated if what they came with has ended since they were let in.
    """
    code, made = _made(store, principal, TokenKind.LINK, parent=principal.token, now=now)
    try:
        store.commit(Plan(actor=principal.name, now=now, actions=(made,), atomic=True))
    except Conflict as error:
        if not principal.token:
            raise
        raise Unauthenticated(error.message, object_=principal.token, hint=tokens.REPLACE_HINT) from error
    return code


def exchange(store: Store, code: str, *, now: int) -> str:
    """The value of a cookie for a code. Raises Unauthenticated if the code is unknown, used or too old."""
    try:
        principal = tokens.authenticated(store, code, now=now, kind=TokenKind.LINK)
        authority = store.authority(principal.token)
        parent = authority.token.parent if authority else ""
        spent = SpendToken(tenant=principal.tenant, id=principal.token, reason=_ended(principal))
        cookie, made = _made(store, principal, TokenKind.SESSION, parent=parent, now=now)
        store.commit(Plan(actor=principal.name, now=now, actions=(spent, made), atomic=True))
    except (Unauthenticated, Conflict) as error:
        msg = "this link has been used, or is older than ten minutes"
        raise Unauthenticated(msg, hint="get a new one with: mainstay login --page") from error
    return cookie


def begin(store: Store, principal: Principal, *, now: int, provider_session: str = "") -> str:
    """The value of a cookie for somebody whom an identity provider has just vouched for, in that session there."""
    cookie, made = _made(store, principal, TokenKind.SESSION, parent="", now=now, provider_session=provider_session)
    store.commit(Plan(actor=principal.name, now=now, actions=(made,), atomic=True))
    return cookie


def session(store: Store, cookie: str, *, now: int) -> Session | None:
    """Whom a cookie stands for; None without one. Raises Unauthenticated."""
    if not cookie:
        return None
    principal = tokens.authenticated(store, cookie, now=now, kind=TokenKind.SESSION)
    # The page is told what only the holder of the cookie could work out, and a script cannot read the cookie.
    return Session(principal=principal, form_token=hmac.digest(cookie.encode(), b"form token", "sha256").hex())


def end(store: Store, principal: Principal, *, now: int) -> None:
    """Sign out: the session of `principal` opens nothing any more, on any replica."""
    action = RevokeToken(tenant=principal.tenant, id=principal.token, reason=_ended(principal))
    store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True))


def cookie_name(system: str, *, secure: bool) -> str:
    """One per platform, since browsers share cookies between the ports of a machine. `__Host-` needs TLS."""
    name = f"mainstay-{hashlib.sha256(system.encode()).hexdigest()[:12]}"
    return f"__Host-{name}" if secure else name


def _made(
    store: Store, principal: Principal, kind: TokenKind, *, parent: str, now: int, provider_session: str = ""
) -> tuple[str, AddToken]:
    """The token, and the action that puts it on record. It may what `principal` may and ends no later than they do."""
    id_, token = tokens.new_token()
    ends = [now + SECONDS[kind] * MICROSECONDS_PER_SECOND]
    if parent and (authority := store.authority(parent)):
        ends.append(authority.token.expires_at)
    if principal.until:
        ends.append(principal.until)
    name = f"{kind.value} of a browser"
    new = NewToken(
        id=id_,
        tenant=principal.tenant,
        member=principal.name,
        name=name,
        kind=kind,
        parent=parent,
        root=principal.root,
        issuer=principal.identity[0] if principal.identity and kind is TokenKind.SESSION else "",
        provider_session=provider_session,
        digest=tokens.digest_of(token),
        caps=principal.caps,
        expires_at=min(ends),
    )
    reason = Reason(code=Code.TOKEN_MADE, object=id_, numbers={**_who(principal), "detail": name})
    # Its limits are those of its maker, who is its member: so it is within what they may.
    return token, AddToken(token=new, within=frozenset(Permission), reason=reason)


def _ended(principal: Principal) -> Reason:
    return Reason(code=Code.TOKEN_REVOKED, object=principal.token, numbers=_who(principal))


def _who(principal: Principal) -> dict[str, int | float | str]:
    return {"by": principal.name, "member": principal.name}
