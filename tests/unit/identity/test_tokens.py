"""Which tokens of an issuer are believed."""

from __future__ import annotations

import pytest

from mainstay.domain.errors import Unauthenticated
from mainstay.identity.tokens import header_of, issuer_of, key_for, signing_keys, verified
from tests.figures import Figure
from tests.forged import AUDIENCE, ISSUER, NOW, SECOND, Keys, forged, good, make_keys, signed

HOUR = 3_600 * SECOND


@pytest.fixture(scope="module")
def keys() -> Keys:
    return make_keys()


def believed(token: str, keys: Keys, *, now: int = NOW) -> str:
    """The subject, as a caller gets it. Raises Unauthenticated."""
    header = header_of(token)
    if issuer_of(token) != ISSUER:
        raise Unauthenticated(issuer_of(token))
    key = key_for(header, signing_keys(keys.document()))
    if key is None:
        raise Unauthenticated(header.key)
    return verified(token, header, key, issuer=ISSUER, audience=AUDIENCE, now=now)["sub"]


def test_good_tokens_are_believed(keys: Keys) -> None:
    assert {name: believed(token, keys) for name, token in good(keys)} == dict.fromkeys(dict(good(keys)), "u-1")


def test_no_forged_token_is_believed(keys: Keys, figure: Figure) -> None:
    tried = list(forged(keys))
    for name, token in tried:
        with pytest.raises(Unauthenticated) as refused:
            pytest.fail(f"believed: {name}: {believed(token, keys)}")
        assert len(token) < 40 or token[:40] not in str(refused.value), f"{name}: the refusal shows the token"
    assert len(tried) >= 40
    figure("forged tokens: all refused", len(tried))


@pytest.mark.parametrize("shift", [-HOUR, HOUR])
def test_a_clock_that_is_an_hour_off_refuses_what_is_too_old_or_too_new(keys: Keys, shift: int) -> None:
    with pytest.raises(Unauthenticated):
        believed(signed(keys.rsa, "RS256", kid="rsa"), keys, now=NOW + shift)


def test_private_weak_and_unreadable_keys_are_left_out(keys: Keys) -> None:
    document = keys.document()
    document["keys"] += [
        {"kty": "RSA", "kid": "x", "n": "!!", "e": "AQAB"},
        {"kty": "EC", "crv": "P-192"},
        "text",
        None,
    ]
    assert sorted(key.name for key in signing_keys(document)) == ["ec", "ed", "rsa"]
    assert signing_keys({"keys": "none"}) == signing_keys([]) == ()
