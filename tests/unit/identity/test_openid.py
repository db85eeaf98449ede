"""What is asked of a provider and believed of it when somebody signs in, without a provider: what it answers is made up."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from mainstay.domain.errors import Unauthenticated, Unavailable
from mainstay.identity import Client, OpenId
from mainstay.identity.openid import new_http
from tests.clock import ManualClock
from tests.forged import AUDIENCE, ISSUER, NOW, Keys, make_keys, signed

BACK = "https://platform.test/sign-in/back"


@pytest.fixture(scope="module")
def keys() -> Keys:
    return make_keys()


class Provider:
    """Answers each code with a token that carries `nonce`, to whoever shows the verifier of `challenge`."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.nonce = self.challenge = self.moved = ""

    def opened(self) -> OpenId:
        http = new_http()
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self.answer), follow_redirects=http.follow_redirects)
        return OpenId(ISSUER, client=Client(id=AUDIENCE), clock=ManualClock(wall_us=NOW), http=http)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        match request.url.path:
            case "/.well-known/openid-configuration" if self.moved:
                return httpx2.Response(302, headers={"Location": self.moved})
            case "/.well-known/openid-configuration" | "/moved":
                places = {
                    "authorization_endpoint": f"{ISSUER}/auth",
                    "token_endpoint": f"{ISSUER}/token",
                    "jwks_uri": f"{ISSUER}/keys",
                }
                return httpx2.Response(200, json={"issuer": ISSUER, **places})
            case "/keys":
                return httpx2.Response(200, json=self.keys.document())
            case "/token":
                return self.token(parse_qs(request.content.decode()))
        return httpx2.Response(404)

    def token(self, form: dict[str, list[str]]) -> httpx2.Response:
        (verifier,) = form.get("code_verifier", [""])
        if challenge_of(verifier) != self.challenge:
            return httpx2.Response(400, json={"error": "invalid_grant"})
        return httpx2.Response(200, json={"id_token": signed(self.keys.rsa, "RS256", kid="rsa", nonce=self.nonce)})


def challenge_of(verifier: str) -> str:
    """Source: RFC 7636, 4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


async def test_a_code_counts_only_where_its_sign_in_was_begun(keys: Keys) -> None:
    provider = Provider(keys)
    async with provider.opened() as openid:
        begun, other = await openid.begin(back=BACK), await openid.begin(back=BACK)
        sent = {name: values[0] for name, values in parse_qs(urlsplit(begun.url).query).items()}
        assert (sent["code_challenge_method"], sent["response_type"]) == ("S256", "code")
        assert (sent["state"], sent["nonce"]) == (begun.state, begun.nonce)
        assert len({begun.state, begun.nonce, begun.verifier, other.state, other.nonce, other.verifier}) == 6
        assert begun.verifier not in begun.url
        provider.challenge, provider.nonce = sent["code_challenge"], sent["nonce"]
        assert (await openid.finish("code", begun=begun, back=BACK)).subject == "u-1"
        for stranger in (replace(begun, verifier=other.verifier), replace(begun, nonce=other.nonce), other):
            with pytest.raises(Unauthenticated):
                await openid.finish("code", begun=stranger, back=BACK)
        provider.nonce = ""
        with pytest.raises(Unauthenticated):
            await openid.finish("code", begun=begun, back=BACK)


async def test_a_provider_leads_nobody_elsewhere(keys: Keys) -> None:
    provider = Provider(keys)
    provider.moved = f"{ISSUER}/moved"
    async with provider.opened() as openid:
        with pytest.raises(Unavailable, match="it answered 302"):
            await openid.begin(back=BACK)


async def test_a_token_of_a_sign_in_is_no_key(keys: Keys) -> None:
    async with Provider(keys).opened() as openid:
        assert (await openid.of_token(signed(keys.rsa, "RS256", kid="rsa"))).subject == "u-1"
        with pytest.raises(Unauthenticated, match="opens nothing"):
            await openid.of_token(signed(keys.rsa, "RS256", kid="rsa", nonce="n"))
