"""Verifying a JSON Web Token: which key, which algorithm, for whom, and from when until when (RFC 8725, security.md C1).

Nothing is fetched here. Of what a token says about itself only `alg`, `kid`, `crit` and `typ` are looked at before its
signature has been verified; keys and addresses that it brings along (`jwk`, `jku`, `x5c`, `x5u`) never are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import AllowedPublicKeys
from jwt.types import Options

from mainstay.domain.errors import Unauthenticated

ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""All asymmetric: with a shared secret whoever verifies could sign (RFC 8725, 3.1 and 3.2)."""
TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""What `typ` may say if it says anything: tokens of other kinds are made by the same key for other ends (RFC 8725, 3.11)."""
LOGOUT_TYPES: Final = frozenset({"jwt", "logout+jwt", "application/logout+jwt"})
"""Of a token that says that somebody has signed out. Source: OpenID Connect Back-Channel Logout 1.0, 2.4."""
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_SECONDS_MAX: Final = 3_600
"""Such a token lasts no longer, so that it has ended long before we forget that it was used; providers give it two minutes."""
TOKEN_CHARACTERS_MAX: Final = 16 * 1024
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")
LEEWAY_SECONDS: Final = 60
"""By so much two clocks may differ."""
RSA_BITS_MIN: Final = 2048
SUBJECT_CHARACTERS_MAX: Final = 255
"""Source: OpenID Connect Core 1.0, section 2."""

Claims = Mapping[str, Any]
"""What a token says; `Any`: JSON of somebody else."""

_OPTIONS: Final[Options] = {
    # Instants are compared with our own clock, below.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A public key of an issuer."""

    name: str
    """`kid`; empty if it has none."""
    algorithms: frozenset[str]
    """What it may verify: by its kind and curve, or only what it states."""
    public: AllowedPublicKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """As much of the header of a token as decides which key verifies it."""

    algorithm: str
    key: str
    """`kid`; empty if it names none."""


def header_of(token: str, *, types: frozenset[str] = TYPES) -> Header:
    """Raises Unauthenticated for what no issuer of ours would make. `types`: what `typ` may say if it says anything."""
    if len(token) > TOKEN_CHARACTERS_MAX:
        _refuse(f"it has more than {TOKEN_CHARACTERS_MAX} characters")
    if not _PLAIN.fullmatch(token):
        _refuse(
            "it is not three parts of base64url (RFC 7515)"
        )  # PyJWT overlooks what is none: one token in many spellings
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        _refuse("it is not a signed JSON Web Token")
    algorithm, key, kind = header.get("alg"), header.get("kid", ""), header.get("typ", "JWT")
    if algorithm not in ALGORITHMS:
        _refuse(f"the algorithm {algorithm!r} is not accepted")
    if "crit" in header:
        _refuse("it demands extensions that are not understood")
    if not isinstance(key, str) or not isinstance(kind, str) or kind.lower() not in types:
        _refuse(f"it is of another kind: {kind!r}")
    return Header(algorithm=algorithm, key=key)


def issuer_of(token: str) -> str:
    """Who is said to have made it: to choose among issuers that are known, and for nothing else."""
    try:
        issuer = jwt.decode_complete(token, options={"verify_signature": False})["payload"].get("iss")
    except jwt.InvalidTokenError:
        _refuse("it is not a signed JSON Web Token")
    return issuer if isinstance(issuer, str) else ""


def signing_keys(document: object) -> tuple[SigningKey, ...]:
    """The keys of a JWK set that may verify signatures; those that we cannot use are left out. Source: RFC 7517, 4 and 5."""
    listed = document.get("keys") if isinstance(document, dict) else None
    keys = (_signing_key(one) for one in listed if isinstance(one, dict)) if isinstance(listed, list) else ()
    return tuple(key for key in keys if key is not None)


def key_for(header: Header, keys: Sequence[SigningKey]) -> SigningKey | None:
    """The key that a token was signed with, by name; without a name the only one that could be it."""
    fitting = [key for key in keys if header.algorithm in key.algorithms]
    if header.key:
        return next((key for key in fitting if key.name == header.key), None)
    return fitting[0] if len(fitting) == 1 else None


def verified(token: str, header: Header, key: SigningKey, *, issuer: str, audience: str, now: int) -> Claims:
    """What the token says, if all of it holds. `now` in UTC microseconds. Raises Unauthenticated."""
    claims = _signed(token, header, key, issuer=issuer, audience=audience, required=("iss", "sub", "aud", "exp"))
    _require_times(claims, now // 1_000_000)
    _require_party(claims, audience)
    _require_text(claims, "sub")
    return claims


def verified_logout(token: str, header: Header, key: SigningKey, *, issuer: str, audience: str, now: int) -> Claims:
    """What a token says that tells us that somebody has signed out. Raises Unauthenticated.

    It must be nothing else: an ID token of somebody, which other sites see, must not sign them out here.
    Source: OpenID Connect Back-Channel Logout 1.0, 2.4 and 2.6.
    """
    required = ("iss", "aud", "iat", "exp", "jti", "events")
    claims = _signed(token, header, key, issuer=issuer, audience=audience, required=required)
    _require_times(claims, now // 1_000_000)
    _require_party(claims, audience)
    if _instant(claims, "exp", now // 1_000_000) > now // 1_000_000 + LOGOUT_SECONDS_MAX:
        _refuse("it lasts too long")
    events = claims["events"]
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        _refuse("it does not say that somebody has signed out")
    if "nonce" in claims:
        _refuse("it is of a sign-in")
    if "sub" not in claims and "sid" not in claims:
        _refuse("it does not say who has signed out")
    for name in ("jti", *({"sub", "sid"} & claims.keys())):
        _require_text(claims, name)
    return claims


def _signed(
    token: str, header: Header, key: SigningKey, *, issuer: str, audience: str, required: Sequence[str]
) -> Claims:
    """What a token of that issuer for us says, with these claims in it at least."""
    options: Options = {**_OPTIONS, "require": list(required)}
    try:
        claims: Claims = jwt.decode(
            token, key.public, algorithms=[header.algorithm], audience=audience, issuer=issuer, options=options
        )
    except jwt.InvalidSignatureError:
        _refuse("its signature is wrong")
    except jwt.InvalidAudienceError:
        _refuse("it was made for somebody else")
    except (jwt.InvalidTokenError, ValueError, TypeError) as error:
        _refuse(str(error).lower() or "it cannot be read")
    return claims


def _require_text(claims: Claims, name: str) -> None:
    text = claims[name]
    if not isinstance(text, str) or not 0 < len(text) <= SUBJECT_CHARACTERS_MAX or not text.isprintable():
        _refuse(f"its {name} cannot be one")


def _require_times(claims: Claims, now: int) -> None:
    expires = _instant(claims, "exp", now)
    if expires + LEEWAY_SECONDS <= now:
        _refuse("it has expired", hint="log in again: mainstay login")
    for name in ("nbf", "iat"):
        if name in claims and _instant(claims, name, now) - LEEWAY_SECONDS > now:
            _refuse(f"it is not valid yet ({name})", hint="is the clock of this machine right?")


def _instant(claims: Claims, name: str, now: int) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < now * 1000:
        _refuse(f"{name} is no instant")
    return value


def _require_party(claims: Claims, audience: str) -> None:
    """One that is for several must be ours first. Source: OpenID Connect Core 1.0, 3.1.3.7."""
    audiences, party = claims["aud"], claims.get("azp")
    if isinstance(audiences, list) and len(audiences) > 1 and party != audience:
        _refuse("it was made for several, and not for us first")


def _signing_key(data: dict[str, Any]) -> SigningKey | None:
    """None for one of another use or kind, for a weak one, and for one that cannot be read."""
    name, stated = data.get("kid", ""), data.get("alg")
    kind = data.get("kty"), data.get("crv") if data.get("kty") != "RSA" else None
    algorithms = _ALGORITHMS_OF.get(kind, frozenset())
    if stated is not None:
        algorithms &= {stated}
    if not algorithms or not isinstance(name, str) or data.get("use", "sig") != "sig" or "d" in data:
        return None
    try:
        public = jwt.PyJWK.from_dict(data, min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size < RSA_BITS_MIN:
        return None
    return SigningKey(name=name, algorithms=algorithms, public=public)


_ALGORITHMS_OF: Final[Mapping[tuple[object, object], frozenset[str]]] = {
    ("RSA", None): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
"""By kind and curve. Source: RFC 7518, 3.1; RFC 8037, 3.1."""


def _refuse(why: str, *, hint: str = "ask its issuer for a new one") -> NoReturn:
    """Raises Unauthenticated, never with the token or a part of it."""
    msg = f"this token is not valid: {why}"
    raise Unauthenticated(msg, hint=hint)
