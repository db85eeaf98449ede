"""Sealed credentials open for their own cluster under their own key, and say in words why they do not."""

from __future__ import annotations

import pytest

from mainstay.domain.errors import Denied
from mainstay.domain.fleet import Credentials
from mainstay.operations.sealing import KEY_BYTES, Sealing

CANARY = Credentials(kubeconfig="apiVersion: v1\nusers: [{user: {token: canary}}] ü")
OURS, OTHER = Sealing(key=b"a" * KEY_BYTES), Sealing(key=b"b" * KEY_BYTES)


def test_what_was_sealed_opens_and_shows_nothing_before():
    sealed = OURS.sealed("east", CANARY)
    assert OURS.opened("east", sealed) == CANARY
    assert "canary" not in sealed + repr(OURS) + repr(CANARY)
    assert "aaaa" not in sealed + repr(OURS)


def test_the_same_credentials_are_never_sealed_to_the_same_text():
    assert len({OURS.sealed("east", CANARY) for _ in range(100)}) == 100


def test_no_credentials_are_no_secret():
    assert OURS.sealed("east", Credentials()) == ""
    assert OURS.opened("east", "") == Credentials()


def test_another_key_is_named_in_words():
    with pytest.raises(Denied, match=f"sealed with the key {OURS.key_id}, this replica has {OTHER.key_id}") as error:
        OTHER.opened("east", OURS.sealed("east", CANARY))
    assert "--secrets-key" in error.value.hint


def test_what_was_sealed_for_one_cluster_opens_for_no_other():
    with pytest.raises(Denied, match="sealed for another cluster"):
        OURS.opened("west", OURS.sealed("east", CANARY))


@pytest.mark.parametrize("harm", [lambda text: text[:-4], lambda text: text[:-2] + "é", lambda text: text + "A" * 4])
def test_damage_is_found(harm):
    with pytest.raises(Denied, match="damaged") as error:
        OURS.opened("east", harm(OURS.sealed("east", CANARY)))
    assert error.value.__cause__ is None


@pytest.mark.parametrize("text", ["nonsense", "2.key.x", "."])
def test_what_is_no_sealed_text_of_ours_is_refused(text: str):
    with pytest.raises(Denied):
        OURS.opened("east", text)


def test_every_byte_counts():
    sealed = OURS.sealed("east", CANARY)
    head, payload = sealed.rsplit(".", 1)
    for place in range(0, len(payload) - 2, 7):
        flipped = payload[:place] + ("A" if payload[place] != "A" else "B") + payload[place + 1 :]
        with pytest.raises(Denied):
            OURS.opened("east", f"{head}.{flipped}")


def test_a_secret_opens_at_its_own_place_only():
    sealed = OURS.sealed_secret("physics", "hf-token", b"canary")
    assert OURS.opened_secret("physics", "hf-token", sealed) == b"canary"
    assert "canary" not in sealed
    for tenant, name in (("chemistry", "hf-token"), ("physics", "other")):
        with pytest.raises(Denied, match="sealed for another place") as refused:
            OURS.opened_secret(tenant, name, sealed)
        assert "canary" not in refused.value.message
    with pytest.raises(Denied, match=f"sealed with the key {OURS.key_id}"):
        OTHER.opened_secret("physics", "hf-token", sealed)
    with pytest.raises(Denied):
        OURS.opened("physics", sealed)
