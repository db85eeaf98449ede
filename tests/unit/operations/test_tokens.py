"""Which token is the one that is on record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mainstay.domain.access import NO_CAPS, USER, Authority, Member, Standing, TokenRecord
from mainstay.domain.errors import Unauthenticated
from mainstay.operations import tokens
from tests.stores import NOON, TENANT


def store_with(token_id: str, digest: str) -> Any:
    """A store that knows one token, by this digest."""
    record = TokenRecord(
        id=token_id,
        tenant=TENANT,
        member="carol",
        name="laptop",
        caps=NO_CAPS,
        created_at=NOON,
        created_by="carol",
        expires_at=NOON + 3_600_000_000,
        used_at=NOON,
    )
    standing = Standing(member=Member(tenant=TENANT, name="carol", role=USER))
    known = Authority(token=record, digest=digest, standing=standing)
    return SimpleNamespace(authority=lambda id_: known if id_ == token_id else None)


def test_every_letter_of_the_digest_counts() -> None:
    id_, token = tokens.new_token()
    digest = tokens.digest_of(token)
    assert tokens.authenticated(store_with(id_, digest), token, now=NOON).name == "carol"
    others = [f"{digest[:at]}{'0' if digest[at] != '0' else '1'}{digest[at + 1 :]}" for at in range(len(digest))]
    for other in (*others, digest[:-1], digest + "0", "", digest.upper() + "x"):
        with pytest.raises(Unauthenticated, match="this token is not valid"):
            tokens.authenticated(store_with(id_, other), token, now=NOON)
