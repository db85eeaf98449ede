"""Tokens of members: made, shown once, revoked; and who stands behind one at this moment.

A token is `mst_ID_SECRETCHECK`: the id finds its row, the secret is 256 bits of chance, and the checksum tells a typo, and a
scanner of repositories, at once that it is (none of) ours. What is kept is SHA-256 of all of it, and everything that it may is
read anew at each request: whoever is revoked, removed or lowered is so with the next one, on every replica (security.md C3).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mainstay.domain.access import (
    NO_CAPS,
    ROLES,
    TOKEN_DAYS_MAX,
    Authority,
    Caps,
    GroupRole,
    Member,
    NewToken,
    Permission,
    Standing,
    TokenKind,
    TokenRecord,
)
from mainstay.domain.caps import NOTHING_USED, CapUse
from mainstay.domain.errors import Conflict, Ended, Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from mainstay.domain.plan import AddToken, Plan, RevokeToken, UseToken
from mainstay.domain.quantity import MICROSECONDS_PER_HOUR, MICROSECONDS_PER_SECOND, counted, decimal
from mainstay.domain.reason import Code, Reason
from mainstay.operations import projects
from mainstay.operations.principal import Done, Principal, RequestKey, replayed
from mainstay.ports import Store

ID_BYTES: Final = 6
SECRET_BYTES: Final = 32
"""256 bits (security.md C3)."""
FORM: Final = re.compile(r"mst_([0-9a-f]{12})_([0-9a-f]{64})([0-9a-f]{8})\Z")
"""The token of the administrator of a machine begins alike and is shorter: it lies in a file and is no row."""
TOKENS_MAX: Final = 100
"""Of one member that are valid at a time."""
NAME_CHARACTERS_MAX: Final = 100
DAY_MICROSECONDS: Final = 86_400 * MICROSECONDS_PER_SECOND
USED_EVERY_MICROSECONDS: Final = MICROSECONDS_PER_HOUR
"""So often at most its use goes on record: a commit for each request would cost more than the requests."""
REPLACE_HINT: Final = "log in again: mainstay login; or ask an administrator of the tenant for another token"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWish:
    """A token that somebody wants. `member` empty: for whoever asks."""

    name: str
    member: str = ""
    caps: Caps = NO_CAPS
    seconds: int
    """For so long it is valid."""


def new_token() -> tuple[str, str]:
    """Its id, and the token."""
    id_, secret = secrets.token_hex(ID_BYTES), secrets.token_hex(SECRET_BYTES)
    return id_, f"mst_{id_}_{secret}{_check(id_, secret)}"


def _check(id_: str, secret: str) -> str:
    return f"{zlib.crc32(f'{id_}_{secret}'.encode()):08x}"


def digest_of(token: str) -> str:
    """SHA-256 in hex: 256 bits of chance cannot be found from it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_token(text: str) -> bool:
    """Whether this has the form of a member's token, mistyped or not."""
    return FORM.match(text) is not None


def authenticated(store: Store, token: str, *, now: int, kind: TokenKind = TokenKind.TOKEN) -> Principal:
    """Whose token it is and what it may now. Raises Unauthenticated, saying why only to who has shown a true one.

    One of another kind than is asked for opens nothing: a cookie is no key, and a link is good once.
    """
    found = FORM.match(token)
    if found is None or not hmac.compare_digest(_check(found[1], found[2]), found[3]):
        msg = "this token is mistyped: its checksum does not fit"
        raise Unauthenticated(msg, hint="copy all of it, from `mst_` to its end")
    authority = store.authority(found[1])
    true = authority is not None and hmac.compare_digest(authority.digest, digest_of(token))
    if authority is None or not true or authority.token.kind is not kind:
        msg = "this token is not valid"
        raise Unauthenticated(msg, object_=found[1], hint=REPLACE_HINT)
    principal = _principal(authority, now=now)
    if now - authority.token.used_at > USED_EVERY_MICROSECONDS:
        reason = Reason(code=Code.TOKEN_MADE, object=found[1])
        with contextlib.suppress(Unavailable):  # a full disk must not keep people from reading
            store.commit(Plan(actor=principal.name, now=now, actions=(UseToken(id=found[1], reason=reason),)))
    return principal


def renewed(store: Store, principal: Principal, *, now: int) -> Principal:
    """The same caller as of now. Raises Unauthenticated if what they came with has ended. O(1): one read."""
    if principal.identity:
        return known_as(store, *principal.identity, until=principal.until, now=now)
    if not principal.token:
        return principal
    authority = store.authority(principal.token)
    if authority is None:
        msg = "the member of this token was removed"
        raise Unauthenticated(msg, hint="ask an administrator of the tenant")
    return _principal(authority, now=now)


def _principal(authority: Authority, *, now: int) -> Principal:
    token, standing = authority.token, authority.standing
    tenant, member = token.tenant, token.member
    if token.revoked_at:
        msg = f"this token was revoked: {token.id}"
        raise Ended(msg, tenant=tenant, member=member, object_=token.id, hint=REPLACE_HINT)
    if now >= token.expires_at:
        msg = f"this token has expired: {token.id}"
        raise Ended(msg, tenant=tenant, member=member, object_=token.id, hint=REPLACE_HINT)
    if standing is None:
        msg = f"{token.member} is no member any more"
        raise Ended(msg, tenant=tenant, member=member, object_=member, hint="ask an administrator of the tenant")
    root = token.root or (token.id if token.kind is TokenKind.TOKEN else "")
    return replace(_standing(standing), caps=token.caps, token=token.id, root=root)


def known_as(store: Store, issuer: str, subject: str, *, until: int, now: int) -> Principal:
    """Somebody whom an identity provider vouches for until then: as the member that they are here. Raises Unauthenticated."""
    standing = store.standing(issuer=issuer, subject=subject)
    if standing is None:
        msg = f"nobody here is {subject!r} of {issuer}"
        hint = f"ask an administrator of a tenant: mainstay member add NAME --role ROLE --issuer {issuer} --subject {subject}"
        raise Unauthenticated(msg, object_=subject, hint=hint)
    if now >= until:
        msg, member = "this token has expired", standing.member
        raise Ended(msg, tenant=member.tenant, member=member.name, hint=REPLACE_HINT)
    return replace(_standing(standing), identity=(issuer, subject), until=until)


def _standing(standing: Standing) -> Principal:
    """What somebody may by name and by groups together; the role that is shown is the widest of the whole tenant."""
    member = standing.member
    given = [GroupRole(tenant=member.tenant, group="", role=member.role)] if member.role else []
    given += [GroupRole(tenant=member.tenant, group="", project=at, role=role) for at, role in member.grants.items()]
    in_tenant: dict[str, frozenset[Permission]] = {}
    grants: dict[str, frozenset[Permission]] = {}
    for each in (*given, *standing.group_roles):
        permissions = _permissions(each.role, standing.own_roles)
        if each.project:
            grants[each.project] = grants.get(each.project, frozenset()) | permissions
        else:
            in_tenant[each.role] = permissions
    return Principal(
        name=member.name,
        tenant=member.tenant,
        role=max(in_tenant, key=lambda role: len(in_tenant[role]), default=""),
        own_role=frozenset().union(*in_tenant.values()),
        grants=grants,
    )


def _permissions(role: str, own_roles: Mapping[str, frozenset[Permission]]) -> frozenset[Permission]:
    """A built-in role goes before one of the tenant's of the same name, which no tenant can make."""
    return ROLES[role] if role in ROLES else own_roles.get(role, frozenset())


def make(
    store: Store, principal: Principal, wish: TokenWish, *, now: int, request: RequestKey | None
) -> tuple[TokenRecord, str]:
    """A token for oneself or, by who may administer members, for another. It is shown here and never again.

    A repetition answers with the record and an empty token. Raises Forbidden, Invalid, NotFound, Conflict.
    """
    principal.require_somewhere(Permission.READ)
    if done := replayed(store, principal, request):
        return _record(store, principal, done.reply), ""
    member = _member(store, principal, wish.member or principal.name)
    _check_wish(store, principal, wish)
    require_fewer(store, tenant=member.tenant, member=member.name, now=now)
    id_, token = new_token()
    new = NewToken(
        id=id_,
        tenant=member.tenant,
        member=member.name,
        name=wish.name,
        digest=digest_of(token),
        caps=wish.caps,
        expires_at=now + wish.seconds * MICROSECONDS_PER_SECOND,
    )
    numbers = {"by": principal.name, "member": member.name, "detail": words_of(wish.caps)}
    action = AddToken(
        token=new, within=principal.anywhere, reason=Reason(code=Code.TOKEN_MADE, object=id_, numbers=numbers)
    )
    kept = request.with_reply(id_, principal) if request else None
    try:
        result = store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True, idempotency=kept))
    except Conflict as error:
        hint = "only who may as much makes a token for them; look: mainstay member list"
        raise Forbidden(error.message, object_=member.name, hint=hint) from error
    if result.reply is not None:
        return _record(store, principal, result.reply), ""
    return _record(store, principal, id_), token


def _member(store: Store, principal: Principal, name: str) -> Member:
    require_no_limits(principal)
    if name != principal.name:
        principal.require(Permission.MEMBERS)
    for record in store.members(tenant=principal.tenant):
        if record.member.name == name:
            return record.member
    msg = f"no such member: {name}"
    raise NotFound(msg, object_=name, hint="list them with: mainstay member list")


def require_no_limits(principal: Principal) -> None:
    """Else a token with limits could make one that has none. Raises Forbidden."""
    if principal.caps != NO_CAPS:
        msg = "a token with limits makes no others"
        raise Forbidden(msg, object_=principal.name, hint="use one without limits of your own")


def _check_wish(store: Store, principal: Principal, wish: TokenWish) -> None:
    if not 0 < len(wish.name) <= NAME_CHARACTERS_MAX or not wish.name.isprintable():
        msg = f"name: {wish.name!r} is not allowed"
        raise Invalid(msg, object_="name", hint=f"say what it is for, in 1 to {NAME_CHARACTERS_MAX} characters")
    if not 60 <= wish.seconds <= TOKEN_DAYS_MAX * 86_400:
        msg = f"expires: {wish.seconds} s is not allowed"
        raise Invalid(
            msg, object_="expires", hint=f"from a minute to {TOKEN_DAYS_MAX} days; make the next before it ends"
        )
    if wish.caps.gpus is not None and wish.caps.gpus < 0:
        msg = f"gpus: {wish.caps.gpus} is not allowed"
        raise Invalid(msg, object_="gpus", hint="0 or more, of all its open runs together")
    for project in sorted(wish.caps.projects or ()):
        projects.require_project(store, principal.tenant, project)


def require_fewer(store: Store, *, tenant: str, member: str, now: int) -> None:
    """Raises Conflict for a member who has as many as there may be."""
    valid = [
        token
        for token in store.tokens(tenant=tenant, member=member)
        if not token.revoked_at and token.expires_at > now and token.kind is TokenKind.TOKEN
    ]
    if len(valid) >= TOKENS_MAX:
        msg = f"{member} has {len(valid)} valid tokens already"
        raise Conflict(msg, object_=member, hint="revoke those that nobody uses: mainstay token list")


def words_of(caps: Caps) -> str:
    """What a token allows at most, for people."""
    words = []
    if caps.permissions is not None:
        words.append("only " + (", ".join(sorted(caps.permissions)) or "nothing"))
    if caps.projects is not None:
        words.append("in " + (", ".join(sorted(caps.projects)) or "no project"))
    if caps.gpus is not None:
        words.append(f"at most {counted(caps.gpus, 'GPU')} at a time")
    if caps.spend_micros is not None:
        words.append(f"at most {decimal(caps.spend_micros)} spent")
    return "; ".join(words) or "all that its member may"


def tokens(store: Store, principal: Principal) -> tuple[TokenRecord, ...]:
    """One's own, or, for who may administer members, those of all; the oldest first."""
    principal.require_somewhere(Permission.READ)
    everybody = principal.may(Permission.MEMBERS)
    return store.tokens(tenant=principal.tenant, member="" if everybody else principal.name)


def with_use(store: Store, principal: Principal) -> tuple[tuple[TokenRecord, CapUse | None], ...]:
    """The same, each with what its runs take of its caps; None where it has no caps of runs."""
    return _with_use(store, tokens(store, principal))


def one_with_use(store: Store, principal: Principal, token_id: str) -> tuple[TokenRecord, CapUse | None]:
    """One of these. Raises NotFound, also for one of somebody else."""
    (found,) = _with_use(store, [_record(store, principal, token_id)])
    return found


def _with_use(store: Store, found: Sequence[TokenRecord]) -> tuple[tuple[TokenRecord, CapUse | None], ...]:
    capped = {token.id: token.root or token.id for token in found if token.caps.of_runs}
    used = store.cap_uses(set(capped.values())) if capped else {}
    return tuple((one, used.get(capped[one.id], NOTHING_USED) if one.id in capped else None) for one in found)


def revoke(store: Store, principal: Principal, token_id: str, *, now: int, request: RequestKey | None) -> Done:
    """End a token, for good and on every replica. Raises NotFound, also for one of somebody else."""
    if done := replayed(store, principal, request):
        return done
    record = _record(store, principal, token_id)
    numbers = {"by": principal.name, "member": record.member}
    action = RevokeToken(
        tenant=principal.tenant,
        id=token_id,
        reason=Reason(code=Code.TOKEN_REVOKED, object=token_id, numbers=numbers),
    )
    kept = request.with_reply("", principal) if request else None
    try:
        store.commit(Plan(actor=principal.name, now=now, actions=(action,), atomic=True, idempotency=kept))
    except Conflict as error:
        raise _no_such(token_id) from error
    return Done(reply="", replayed=False)


def _record(store: Store, principal: Principal, token_id: str) -> TokenRecord:
    for record in tokens(store, principal):
        if record.id == token_id:
            return record
    raise _no_such(token_id)


def _no_such(token_id: str) -> NotFound:
    msg = f"no such token: {token_id}"
    return NotFound(msg, object_=token_id, hint="list them with: mainstay token list")
