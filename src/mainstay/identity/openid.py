"""Signing in with OpenID Connect: people by authorization code with PKCE, terminals by device code, machines by a token.

And signing out: where the provider is told, and where it tells us.

Sources: OpenID Connect Core 1.0, RP-Initiated Logout 1.0 and Back-Channel Logout 1.0;
RFC 7636 (PKCE); RFC 8628 (device code); RFC 9700 (best practice).
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import httpx2

from mainstay.domain.errors import Invalid, NotYet, Unauthenticated, Unavailable
from mainstay.domain.identity import DeviceBegun, Identity, SignedOut, SignInBegun
from mainstay.identity.issuer import Document, Issuer, limited, parsed
from mainstay.identity.tokens import LEEWAY_SECONDS, SUBJECT_CHARACTERS_MAX, Claims, issuer_of
from mainstay.ports import Clock

SCOPES: Final = ("openid", "profile", "email", "groups")
"""Those of them that the provider offers; `openid` always."""
NAMES: Final = ("preferred_username", "email", "name", "sub")
"""What somebody is called, in this order."""
ANSWER_SECONDS: Final = 10.0
RANDOM_BYTES: Final = 32
GROUPS_MAX: Final = 1_000
GROUP_CHARACTERS_MAX: Final = 200
DEVICE_SECONDS_MAX: Final = 1_800
INTERVAL_SECONDS: Final = 5
"""Where the provider names none. Source: RFC 8628, 3.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """How the provider knows us."""

    id: str
    secret: str = field(default="", repr=False)
    """Empty: a public client, which PKCE alone protects."""


class OpenId:
    """One provider for people, and issuers whose tokens machines bring. `ports.Identities`."""

    def __init__(
        self,
        issuer: str,
        *,
        client: Client,
        clock: Clock,
        machines: tuple[str, ...] = (),
        groups_claim: str = "groups",
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        """`machines`: further issuers, by their exact names; their tokens must be made for `client.id`."""
        self._http = http or new_http()
        self._client, self._groups_claim = client, groups_claim
        self._provider = Issuer(issuer, http=self._http, clock=clock)
        others = (Issuer(url, http=self._http, clock=clock) for url in machines)
        self._issuers = {one.url: one for one in (self._provider, *others)}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._http.aclose()

    @property
    def provider(self) -> str:
        """The issuer at which people sign in."""
        return self._provider.url

    async def of_token(self, token: str) -> Identity:
        """Whom a bearer token stands for. Raises Unauthenticated, Unavailable."""
        issuer = self._issuers.get(issuer_of(token))
        if issuer is None:
            msg = "this token is not valid: its issuer is not one of ours"
            raise Unauthenticated(msg, hint="log in with: mainstay login")
        claims = await issuer.claims(token, audience=self._client.id)
        if "nonce" in claims:
            # An ID token says who has signed in; it was never meant to be sent along as a key (RFC 9700, RFC 8725 3.12).
            msg = "this token is not valid: it is of a sign-in and opens nothing"
            raise Unauthenticated(msg, hint="log in with: mainstay login")
        return self._identity(claims)

    async def begin(self, *, back: str) -> SignInBegun:
        """Where a browser goes to sign in. `back` is our page that it comes back to. Raises Unavailable."""
        address = await self._address("authorization_endpoint")
        state, nonce, verifier = (secrets.token_urlsafe(RANDOM_BYTES) for _ in range(3))
        query = {
            "response_type": "code",
            "client_id": self._client.id,
            "redirect_uri": back,
            "scope": await self._scope(),
            "state": state,
            "nonce": nonce,
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in address else "?"
        return SignInBegun(url=f"{address}{joint}{urlencode(query)}", state=state, nonce=nonce, verifier=verifier)

    async def finish(self, code: str, *, begun: SignInBegun, back: str) -> Identity:
        """Who has come back with a code. Raises Unauthenticated, Unavailable."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": back,
            "code_verifier": begun.verifier,
        }
        status, answer = await self._post(await self._address("token_endpoint"), form)
        if status != 200:
            raise _refused(answer)
        return await self._signed_in(answer, nonce=begun.nonce)

    async def sign_out(self, *, back: str) -> str:
        """Where a browser goes to sign out at the provider, to come back to `back`; empty where it has no such page.

        Raises Unavailable. Source: OpenID Connect RP-Initiated Logout 1.0, 2.
        """
        address = await self._provider.address("end_session_endpoint")
        query = urlencode({"client_id": self._client.id, "post_logout_redirect_uri": back})
        return f"{address}{'&' if '?' in address else '?'}{query}" if address else ""

    async def signed_out(self, token: str) -> SignedOut:
        """Who has signed out at the provider, as it tells us. Raises Unauthenticated for what it did not say, Unavailable."""
        if issuer_of(token) != self._provider.url:
            msg = "this token is not valid: it is not of the identity provider"
            raise Unauthenticated(msg, hint="ask its issuer for a new one")
        claims = await self._provider.logout_claims(token, audience=self._client.id)
        subject, session = claims.get("sub", ""), claims.get("sid", "")
        return SignedOut(issuer=claims["iss"], subject=subject, session=session, id=claims["jti"])

    async def begin_device(self) -> DeviceBegun:
        """What a terminal shows. Raises Unavailable, Invalid where the provider does not offer it."""
        address = await self._provider.address("device_authorization_endpoint")
        if not address:
            msg = "the identity provider does not let terminals sign in"
            raise Invalid(msg, hint="sign in with a browser and make a token there")
        status, answer = await self._post(address, {"scope": await self._scope()})
        texts = {name: answer.get(name, "") for name in ("device_code", "user_code", "verification_uri")}
        if status != 200 or not all(isinstance(text, str) and text for text in texts.values()):
            raise _refused(answer)
        complete = answer.get("verification_uri_complete")
        return DeviceBegun(
            device_code=texts["device_code"],
            user_code=texts["user_code"],
            url=texts["verification_uri"],
            url_complete=complete if isinstance(complete, str) else "",
            seconds=_whole(answer.get("expires_in"), most=DEVICE_SECONDS_MAX, otherwise=DEVICE_SECONDS_MAX),
            interval=_whole(answer.get("interval"), most=60, otherwise=INTERVAL_SECONDS),
        )

    async def finish_device(self, device_code: str) -> Identity:
        """Who has entered the code. Raises NotYet until somebody has, Unauthenticated, Unavailable."""
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": device_code}
        status, answer = await self._post(await self._address("token_endpoint"), form)
        if status != 200 and answer.get("error") in {"authorization_pending", "slow_down"}:
            msg = "nobody has entered the code yet"
            raise NotYet(msg, numbers={"slower": int(answer["error"] == "slow_down")})
        if status != 200:
            raise _refused(answer)
        return await self._signed_in(answer, nonce=None)

    async def _signed_in(self, answer: Document, *, nonce: str | None) -> Identity:
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise _refused(answer)
        claims = await self._provider.claims(token, audience=self._client.id)
        if nonce is not None and not secrets.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            msg = "this sign-in was begun somewhere else"
            raise Unauthenticated(msg, hint="begin again: open the page once more")
        return self._identity({**await self._told_of(answer.get("access_token"), claims), **claims})

    async def _told_of(self, token: object, claims: Claims) -> Claims:
        """What the provider says of somebody where it does not say it in the token. Source: OpenID Connect Core 1.0, 5.3."""
        address = await self._provider.address("userinfo_endpoint")
        if not address or not isinstance(token, str) or self._groups_claim in claims:
            return {}
        answer = await self._sent("GET", address, headers={"Authorization": f"Bearer {token}"})
        told = parsed(answer[1]) if answer[0] == 200 else None
        return told if told and told.get("sub") == claims["sub"] else {}

    def _identity(self, claims: Claims) -> Identity:
        name = next((value for key in NAMES if isinstance(value := claims.get(key), str) and value), "")
        listed = claims.get(self._groups_claim, ())
        groups = {one for one in listed[:GROUPS_MAX] if _is_group(one)} if isinstance(listed, list) else set()
        session = claims.get("sid", "")
        return Identity(
            issuer=claims["iss"],
            subject=claims["sub"],
            name=name[:GROUP_CHARACTERS_MAX],
            groups=tuple(sorted(groups)),
            session=session if isinstance(session, str) and len(session) <= SUBJECT_CHARACTERS_MAX else "",
            until=(int(claims["exp"]) + LEEWAY_SECONDS) * 1_000_000,
        )

    async def _address(self, name: str) -> str:
        address = await self._provider.address(name)
        if not address:
            msg = f"the identity provider has no {name}"
            raise Unavailable(msg, object_=self._provider.url, hint="is it one that speaks OpenID Connect?")
        return address

    async def _scope(self) -> str:
        offered = await self._provider.offers("scopes_supported")
        return " ".join(scope for scope in SCOPES if scope == "openid" or scope in offered)

    async def _post(self, address: str, form: Mapping[str, str]) -> tuple[int, Document]:
        """As ourselves: by Basic if there is a secret, unless the provider takes it only in the form. Source: RFC 6749, 2.3.1."""
        methods = await self._provider.offers("token_endpoint_auth_methods_supported")
        basic = bool(self._client.secret) and (not methods or "client_secret_basic" in methods)
        sent, headers = dict(form), {"Accept": "application/json"}
        if basic:
            pair = f"{quote(self._client.id, safe='')}:{quote(self._client.secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            sent["client_id"] = self._client.id
            if self._client.secret:
                sent["client_secret"] = self._client.secret
        if basic and address != await self._provider.address("token_endpoint"):
            sent["client_id"] = self._client.id
        status, body = await self._sent("POST", address, headers=headers, form=sent)
        return status, parsed(body) or {}

    async def _sent(
        self, method: str, address: str, *, headers: Mapping[str, str], form: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        try:
            async with self._http.stream(method, address, headers=headers, data=form) as response:
                return response.status_code, await limited(response)
        except httpx2.HTTPError as error:
            msg = f"the identity provider {self._provider.url} cannot be reached: {type(error).__name__}"
            raise Unavailable(msg, object_=self._provider.url, hint="try again in a moment") from error


def new_http() -> httpx2.AsyncClient:
    """No proxies and no credentials from the environment, no redirects."""
    return httpx2.AsyncClient(timeout=ANSWER_SECONDS, follow_redirects=False, trust_env=False)


def _challenge(verifier: str) -> str:
    """Source: RFC 7636, 4.2."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _refused(answer: Document) -> Unauthenticated:
    """In the words of the provider, as far as they are words (RFC 6749, 5.2)."""
    error, words = answer.get("error"), answer.get("error_description")
    why = words if isinstance(words, str) and words.isprintable() else error
    said = f": {str(why)[:200]}" if isinstance(why, str) and why.isprintable() else ""
    return Unauthenticated(f"the identity provider refused the sign-in{said}", hint="begin again")


def _is_group(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= GROUP_CHARACTERS_MAX and value.isprintable()


def _whole(value: object, *, most: int, otherwise: int) -> int:
    return min(max(value, 1), most) if isinstance(value, int) else otherwise
