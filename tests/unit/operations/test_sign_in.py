"""What a browser carries while it signs in elsewhere, and what it must bring back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from mainstay.domain.errors import Unauthenticated
from mainstay.domain.identity import Identity, SignInBegun
from mainstay.operations import sign_in
from mainstay.ports import Identities
from tests.unit.web.site import services_of


class Provider:
    """Vouches for whoever gets as far as asking it."""

    def __init__(self) -> None:
        self.asked = 0

    async def begin(self, *, back: str) -> SignInBegun:
        self.asked += 1
        return SignInBegun(url=back, state=f"state-{self.asked}", nonce="nonce", verifier="verifier")

    async def finish(self, code: str, *, begun: SignInBegun, back: str) -> Identity:
        pytest.fail(f"the provider was asked about {code} of {begun.state}, to come back to {back}")


async def test_who_brings_the_state_of_another_sign_in_back_signs_nobody_in(tmp_path: Path) -> None:
    with services_of(tmp_path, url="https://platform.test") as plain:
        services = replace(plain, identities=cast("Identities", Provider()))
        _, ours = await sign_in.begin(services)
        _, theirs = await sign_in.begin(services)
        for state, carried in (("state-2", ours), ("state-1", theirs), ("", ours), ("state-1", ""), ("state-1", "x")):
            with pytest.raises(Unauthenticated, match="begun somewhere else"):
                await sign_in.finish(services, code="code", state=state, carried=carried)
