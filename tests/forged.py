"""Tokens that somebody might forge: each is wrong in one way, and would be let in by a verifier that forgets one rule.

Sources: RFC 8725 (best practice for JSON Web Tokens), security.md C1 and the advisories it names.
"""

from __future__ import annotations

import base64
import hmac
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

SECOND = 1_000_000
NOW = 1_764_000_000 * SECOND
ISSUER = "https://idp.example.com"
AUDIENCE = "mainstay"
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


def claims(**changed: Any) -> dict[str, Any]:
    """Those of a good token; None takes one away."""
    now = NOW // SECOND
    good = {"iss": ISSUER, "sub": "u-1", "aud": AUDIENCE, "iat": now, "exp": now + 600, "groups": ["vision"]}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Those of the issuer, and those of somebody else."""

    rsa: rsa.RSAPrivateKey
    ec: ec.EllipticCurvePrivateKey
    ed: ed25519.Ed25519PrivateKey
    foreign: rsa.RSAPrivateKey
    weak: rsa.RSAPrivateKey
    retired: rsa.RSAPrivateKey
    """The issuer's, for encryption only."""

    def document(self) -> dict[str, Any]:
        """What the issuer publishes."""
        return {
            "keys": [
                jwk(self.rsa.public_key(), kid="rsa", use="sig", alg="RS256"),
                jwk(self.ec.public_key(), kid="ec", use="sig"),
                jwk(self.ed.public_key(), kid="ed"),
                jwk(self.weak.public_key(), kid="weak", use="sig"),
                jwk(self.retired.public_key(), kid="enc", use="enc"),
                {"kty": "oct", "kid": "shared", "k": b64(b"a shared secret of the issuer 123")},
            ]
        }


def make_keys() -> Keys:
    """New ones; takes a second or two, so once per session."""
    return Keys(
        rsa=rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ec=ec.generate_private_key(ec.SECP256R1()),
        ed=ed25519.Ed25519PrivateKey.generate(),
        foreign=rsa.generate_private_key(public_exponent=65537, key_size=2048),
        weak=rsa.generate_private_key(public_exponent=65537, key_size=1024),
        retired=rsa.generate_private_key(public_exponent=65537, key_size=2048),
    )


def good(keys: Keys) -> Iterator[tuple[str, str]]:
    """Tokens that must be let in, by name: else a verifier that refuses everything would pass."""
    yield "rsa", signed(keys.rsa, "RS256", kid="rsa")
    yield "ec", signed(keys.ec, "ES256", kid="ec")
    yield "ed25519", signed(keys.ed, "EdDSA", kid="ed")
    yield "no name, one key of that kind", signed(keys.ec, "ES256", kid=None)
    yield "a list of one audience", signed(keys.rsa, "RS256", kid="rsa", aud=[AUDIENCE])
    yield "several audiences, ours first", signed(keys.rsa, "RS256", kid="rsa", aud=[AUDIENCE, "other"], azp=AUDIENCE)
    yield "ended within the leeway", signed(keys.rsa, "RS256", kid="rsa", exp=NOW // SECOND - 59)
    yield "made by a clock that is ahead", signed(keys.rsa, "RS256", kid="rsa", iat=NOW // SECOND + 59)
    yield "an access token", signed(keys.rsa, "RS256", kid="rsa", header={"typ": "at+jwt"})


def forged(keys: Keys) -> Iterator[tuple[str, str]]:
    """Tokens that must be refused, by what is wrong with them."""
    yield from _algorithms(keys)
    yield from _keys(keys)
    yield from _claims(keys)
    yield from _shapes(keys)


def signed_out(key: Any, algorithm: str = "RS256", *, kid: str | None = "rsa", **changed: Any) -> str:
    """A token that tells us that somebody has signed out, with claims changed; None takes one away."""
    now = NOW // SECOND
    header = changed.pop("header", {"typ": "logout+jwt"})
    said = {"exp": now + 120, "jti": "j-1", "sid": "s-1", "events": {LOGOUT_EVENT: {}}, "groups": None}
    return signed(key, algorithm, kid=kid, header=header, **{**said, **changed})


def good_logouts(keys: Keys) -> Iterator[tuple[str, str]]:
    """Tokens that tell us truly that somebody has signed out, each under a name of its own."""
    yield "session and subject", signed_out(keys.rsa, jti="good-1")
    yield "session alone", signed_out(keys.rsa, jti="good-2", sub=None)
    yield "subject alone", signed_out(keys.rsa, jti="good-3", sid=None)
    yield "of no kind", signed_out(keys.rsa, jti="good-4", header={"typ": "JWT"})
    yield "by another key", signed_out(keys.ed, "EdDSA", kid="ed", jti="good-5")
    yield "with another event beside", signed_out(keys.rsa, jti="good-6", events={LOGOUT_EVENT: {}, "urn:other": {}})


def forged_logouts(keys: Keys) -> Iterator[tuple[str, str]]:
    """What must sign nobody out, by what is wrong with it: of each token that is no key, and of each rule for these."""
    now = NOW // SECOND
    yield "an ID token", signed(keys.rsa, "RS256", kid="rsa", nonce="n", sid="s-1", jti="j-1")
    yield "an access token", signed(keys.rsa, "RS256", kid="rsa", header={"typ": "at+jwt"}, jti="j-1")
    yield "an access token with the event", signed_out(keys.rsa, header={"typ": "at+jwt"})
    yield "an ID token with the event", signed_out(keys.rsa, nonce="n")
    yield "with an empty nonce", signed_out(keys.rsa, nonce="")
    for name in ("iss", "aud", "iat", "exp", "jti", "events"):
        yield f"without {name}", signed_out(keys.rsa, **{name: None})
    yield "of nobody", signed_out(keys.rsa, sub=None, sid=None)
    for events in (
        {},
        {"urn:other": {}},
        [LOGOUT_EVENT],
        LOGOUT_EVENT,
        {LOGOUT_EVENT: True},
        {LOGOUT_EVENT: "x"},
        True,
    ):
        yield f"events {events!r}", signed_out(keys.rsa, events=events)
    for name in ("jti", "sub", "sid"):
        for text in ("", 7, ["x"], "x\n", "x" * 256):
            yield f"{name} {text!r:.20}", signed_out(keys.rsa, **{name: text})
    for issuer in (f"{ISSUER}/", "https://other.example.com"):
        yield f"issuer {issuer}", signed_out(keys.rsa, iss=issuer)
    for audience in ("other", [], ["other"], f"{AUDIENCE} "):
        yield f"audience {audience!r}", signed_out(keys.rsa, aud=audience)
    yield "for several, another first", signed_out(keys.rsa, aud=[AUDIENCE, "x"], azp="x")
    yield "ended", signed_out(keys.rsa, exp=now - 61)
    yield "that lasts a day", signed_out(keys.rsa, exp=now + 86_400)
    yield "made an hour from now", signed_out(keys.rsa, iat=now + 3_600, exp=now + 3_600)
    yield "not valid yet", signed_out(keys.rsa, nbf=now + 3_600)
    yield "the key of somebody else", signed_out(keys.foreign)
    yield "the key of somebody else, by a new name", signed_out(keys.foreign, kid="new")
    foreign = jwk(keys.foreign.public_key(), kid="rsa", use="sig", alg="RS256")
    yield (
        "the key of somebody else, brought along",
        signed_out(keys.foreign, header={"typ": "logout+jwt", "jwk": foreign}),
    )
    yield "a weak key", signed_out(keys.weak, kid="weak")
    yield "a key for encryption", signed_out(keys.retired, kid="enc")
    yield "PS256 where the key says RS256", signed_out(keys.rsa, "PS256")
    yield "extensions that must be understood", signed_out(keys.rsa, header={"crit": ["exp"], "exp": 1})
    header, body, signature = signed_out(keys.rsa).split(".")
    for name in ("none", "None", ""):
        yield f"algorithm {name!r}", f"{b64(json.dumps({'alg': name, 'kid': 'rsa'}).encode())}.{body}."
    other = signed_out(keys.foreign, sub="u-2").split(".")[1]
    yield "another body", f"{header}.{other}.{signature}"
    yield "without its signature", f"{header}.{body}."
    yield "four parts", f"{header}.{body}.{signature}.{signature}"
    yield "words", "sign them out"
    yield "nothing", ""
    yield "too long", signed_out(keys.rsa, padding="x" * 20_000)


def _algorithms(keys: Keys) -> Iterator[tuple[str, str]]:
    for name in ("none", "None", "NONE", "nOnE", ""):
        yield f"algorithm {name!r} without a signature", raw({"alg": name, "typ": "JWT", "kid": "rsa"}, claims(), b"")
    yield "algorithm none with the signature of another", raw({"alg": "none", "kid": "rsa"}, claims(), b"x" * 256)
    pem = keys.rsa.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    der = keys.rsa.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for algorithm, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")):
        yield f"{algorithm} with the public key as secret", shared(pem, algorithm, digest, kid="rsa")
    yield "HS256 with the public key in DER", shared(der, "HS256", "sha256", kid="rsa")
    yield (
        "HS256 with the shared key of the issuer",
        shared(b"a shared secret of the issuer 123", "HS256", "sha256", kid="shared"),
    )
    yield "HS256 with an empty secret", shared(b"", "HS256", "sha256", kid="rsa")
    yield "PS256 where the key says RS256", signed(keys.rsa, "PS256", kid="rsa")
    yield "RS512 where the key says RS256", signed(keys.rsa, "RS512", kid="rsa")
    yield "RS256 by the name of another kind of key", signed(keys.rsa, "RS256", kid="ec")
    yield "algorithm that is no text", raw({"alg": 256, "kid": "rsa"}, claims(), b"x")
    yield "algorithm left out", raw({"kid": "rsa"}, claims(), b"x")
    header, body, _ = signed(keys.ec, "ES256", kid="ec").split(".")
    yield "ECDSA of zeros (CVE-2022-21449)", f"{header}.{body}.{b64(bytes(64))}"


def _keys(keys: Keys) -> Iterator[tuple[str, str]]:
    foreign = jwk(keys.foreign.public_key(), kid="rsa", use="sig", alg="RS256")
    yield "the key of somebody else", signed(keys.foreign, "RS256", kid="rsa")
    yield "the key of somebody else, by a new name", signed(keys.foreign, "RS256", kid="new")
    yield "the key of somebody else, brought along", signed(keys.foreign, "RS256", kid="rsa", header={"jwk": foreign})
    for name in ("jku", "x5u"):
        header = {name: "https://evil.example.com/keys"}
        yield (
            f"the key of somebody else, at an address ({name})",
            signed(keys.foreign, "RS256", kid="rsa", header=header),
        )
    yield (
        "the key of somebody else, as a certificate",
        signed(keys.foreign, "RS256", kid="rsa", header={"x5c": [b64(b"certificate")]}),
    )
    yield "a weak key", signed(keys.weak, "RS256", kid="weak")
    yield "a key for encryption", signed(keys.retired, "RS256", kid="enc")
    yield "a name that is a path", signed(keys.foreign, "RS256", kid="../../../../dev/null")
    yield "a name that is a query", signed(keys.foreign, "RS256", kid="x' UNION SELECT 'secret")
    yield "a name that is no text", raw({"alg": "RS256", "kid": 7}, claims(), b"x")
    yield "extensions that must be understood", signed(keys.rsa, "RS256", kid="rsa", header={"crit": ["exp"], "exp": 1})
    yield "no extension that must be understood", signed(keys.rsa, "RS256", kid="rsa", header={"crit": []})


def _claims(keys: Keys) -> Iterator[tuple[str, str]]:
    now = NOW // SECOND
    for name in ("iss", "sub", "aud", "exp"):
        yield f"without {name}", signed(keys.rsa, "RS256", kid="rsa", **{name: None})
    for issuer in (f"{ISSUER}/", ISSUER.upper(), f"{ISSUER}.evil.com", "http://idp.example.com", [ISSUER], ""):
        yield f"issuer {issuer!r}", signed(keys.rsa, "RS256", kid="rsa", iss=issuer)
    for audience in ("other", [], ["other"], "", f"{AUDIENCE} ", {AUDIENCE: 1}, 7):
        yield f"audience {audience!r}", signed(keys.rsa, "RS256", kid="rsa", aud=audience)
    yield "several audiences, another first", signed(keys.rsa, "RS256", kid="rsa", aud=[AUDIENCE, "x"], azp="x")
    yield "several audiences, nobody first", signed(keys.rsa, "RS256", kid="rsa", aud=[AUDIENCE, "x"])
    yield "ended an hour ago", signed(keys.rsa, "RS256", kid="rsa", exp=now - 3_600)
    yield "ended beyond the leeway", signed(keys.rsa, "RS256", kid="rsa", exp=now - 61)
    yield "not before an hour from now", signed(keys.rsa, "RS256", kid="rsa", nbf=now + 3_600)
    yield "made an hour from now", signed(keys.rsa, "RS256", kid="rsa", iat=now + 3_600)
    for end in ("never", True, [now + 600], {"at": now}, 1e300, str(now + 600)):
        yield f"end {end!r}", signed(keys.rsa, "RS256", kid="rsa", exp=end)
    for subject in ("", 7, ["u-1"], "u-1\n", "u" * 256):
        yield f"subject {subject!r:.20}", signed(keys.rsa, "RS256", kid="rsa", sub=subject)


def _shapes(keys: Keys) -> Iterator[tuple[str, str]]:
    token = signed(keys.rsa, "RS256", kid="rsa")
    header, body, signature = token.split(".")
    yield "empty", ""
    yield "words", "let me in"
    yield "two parts", f"{header}.{body}"
    yield "two parts and a dot", f"{header}.{body}."
    yield "four parts", f"{token}.{signature}"
    yield "five parts, as an encrypted one", f"{header}.{body}.{body}.{body}.{signature}"
    yield "another body", f"{header}.{b64(json.dumps(claims(sub='u-2')).encode())}.{signature}"
    yield "another header", f"{b64(json.dumps({'alg': 'RS256', 'kid': 'rsa', 'x': 1}).encode())}.{body}.{signature}"
    yield "signature cut short", f"{header}.{body}.{signature[:-8]}"
    yield "signature with a bit turned", f"{header}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    yield "body that is no JSON", signed_bytes(keys.rsa, b"iss=https://idp.example.com")
    yield "body that is a list", signed_bytes(keys.rsa, b"[1, 2]")
    yield "body that is nested deep", signed_bytes(keys.rsa, b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}")
    yield "header that is a list", f"{b64(b'[]')}.{body}.{signature}"
    yield "of another kind", signed(keys.rsa, "RS256", kid="rsa", header={"typ": "logout+jwt"})
    yield "of a kind that is no text", signed(keys.rsa, "RS256", kid="rsa", header={"typ": 7})
    yield "too long", signed(keys.rsa, "RS256", kid="rsa", padding="x" * 20_000)
    yield "unencoded payload (RFC 7797)", signed(keys.rsa, "RS256", kid="rsa", header={"b64": False, "crit": ["b64"]})


def signed(key: Any, algorithm: str, *, kid: str | None, header: dict[str, Any] | None = None, **changed: Any) -> str:
    """A token whose signature is right for `key`, with claims changed."""
    headers = {**({"kid": kid} if kid is not None else {}), **(header or {})}
    body = json.dumps(claims(**changed)).encode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a weak key is meant
        return jwt.PyJWS().encode(body, key, algorithm=algorithm, headers={"typ": "JWT", **headers})


def signed_bytes(key: rsa.RSAPrivateKey, body: bytes) -> str:
    """A right signature over what need not be claims."""
    return jwt.PyJWS().encode(body, key, algorithm="RS256", headers={"kid": "rsa"})


def shared(secret: bytes, algorithm: str, digest: str, *, kid: str) -> str:
    """Signed with a secret that everybody may know. By hand: a library refuses to."""
    head = f"{b64(json.dumps({'alg': algorithm, 'kid': kid}).encode())}.{b64(json.dumps(claims()).encode())}"
    return f"{head}.{b64(hmac.digest(secret, head.encode(), digest))}"


def raw(header: dict[str, Any], body: dict[str, Any], signature: bytes) -> str:
    """Put together without a look at anything."""
    return ".".join((b64(json.dumps(header).encode()), b64(json.dumps(body).encode()), b64(signature)))


def jwk(public: Any, **more: str) -> dict[str, Any]:
    """A public key as an issuer publishes it."""
    if isinstance(public, rsa.RSAPublicKey):
        return {**RSAAlgorithm.to_jwk(public, as_dict=True), **more}
    if isinstance(public, ec.EllipticCurvePublicKey):
        return {**ECAlgorithm.to_jwk(public, as_dict=True), **more}
    return {**OKPAlgorithm.to_jwk(public, as_dict=True), **more}


def b64(raw_bytes: bytes) -> str:
    """Base 64 as in tokens."""
    return base64.urlsafe_b64encode(raw_bytes).rstrip(b"=").decode()
