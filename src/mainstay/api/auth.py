"""Who asks: a bearer token, or the cookie of a page. Decided before the body of a request is read."""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from mainstay.api.denials import note_denial, note_stranger
from mainstay.api.pace import HEALTH, PAGES, UNKNOWN, Owner, Pacing
from mainstay.api.problems import refusal_response
from mainstay.domain.errors import Forbidden, MainstayError, TooFast, Unauthenticated, Unavailable
from mainstay.operations import agents, sign_in, tokens
from mainstay.operations.offload import in_lane
from mainstay.operations.principal import Principal
from mainstay.operations.services import Services
from mainstay.operations.sessions import FORM_HEADER, cookie_name
from mainstay.wire import agent as wire

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
GUARDED = ("/v1/", "/endpoints/", "/metrics")
"""Requests to these paths need a token. `/endpoints/` is the gateway; the pages of endpoints guard themselves."""
HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
ASSETS = "/static/"
OPEN = frozenset(
    {"/v1/openapi.json", "/v1/schema/job", "/v1/sign-in/ways", "/v1/sign-in/device", "/v1/sign-in/device/token"}
)
"""Descriptions without data, for editors and generators; and what leads to a token."""


class Authentication:
    """Puts `principal` into the state of the request, or answers 401 without having read a byte of its body.

    A route that is not passed through here finds no principal and refuses by itself: two locks, one key.
    """

    def __init__(self, app: ASGIApp, *, services: Services) -> None:
        self._app = app
        self._pacing = Pacing(services)
        self._services = services
        self._cookie = cookie_name(services.system, secure=services.url.startswith("https:"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and needs_token(scope["path"]):
            headers = Headers(scope=scope)
            try:
                if scope["type"] == "websocket":
                    _require_own_origin(headers, self._services.url)
                principal = await self._in_turn(headers, scope.get("method", "GET"))
                if principal.cluster and not scope["path"].startswith(wire.PATHS):
                    await self._deny(principal, scope["path"])
            except MainstayError as error:
                await refusal_response(await self._on_record(scope, error))(scope, receive, send)
                return
            scope.setdefault("state", {})["principal"] = principal
            lane = Owner.of(principal).lane
        else:
            try:
                lane = self._lane_of_page(scope)
            except TooFast as error:
                await refusal_response(error)(scope, receive, send)
                return
        with in_lane(lane):
            await self._app(scope, receive, send)

    def _lane_of_page(self, scope: Scope) -> str:
        """Of what needs no token. Whose cookie is known has no more pages than other answers: raises TooFast."""
        if scope["type"] != "http" or scope["path"] in HEALTH_PATHS:
            return HEALTH
        known = self._pacing.owner(_cookie(Headers(scope=scope), self._cookie))
        if known and not scope["path"].startswith(ASSETS):
            self._pacing.count(known, scope["method"])
        return known.lane if known else PAGES

    async def _in_turn(self, headers: Headers, method: str) -> Principal:
        """Whoever asks, and may ask now: a credential that is known is looked up only where its owner is not too fast.

        Raises TooFast, and as `_principal`.
        """
        credential = _token(headers) or _cookie(headers, self._cookie)
        known = self._pacing.owner(credential)
        if known:
            self._pacing.count(known, method)
        try:
            with in_lane(known.lane if known else UNKNOWN):
                principal = await self._principal(headers, method)
        except Unauthenticated:
            self._pacing.refused(credential)
            raise
        owner = Owner.of(principal)
        if not known:
            self._pacing.count(owner, method)
        self._pacing.found(credential, owner)
        return principal

    async def _principal(self, headers: Headers, method: str) -> Principal:
        """Raises Unauthenticated, or Forbidden for a write that another site may have sent (security.md F2)."""
        if "authorization" in headers:
            token = _token(headers)
            principal = await self._bearer(token) if token else None
            if principal is None and token.startswith(wire.TOKEN_PREFIX):
                msg = "this token of an agent is not valid: it was replaced, or its cluster was removed"
                raise Unauthenticated(msg, hint=agents.TOKEN_HINT)
            if principal is None:
                msg = "this token is not valid"
                raise Unauthenticated(msg, hint="log in again: mainstay login")
            return principal
        session = await self._services.signed_in(_cookie(headers, self._cookie))
        if session is None:
            msg = "this needs a token"
            raise Unauthenticated(msg, hint="send the header Authorization: Bearer TOKEN")
        if method not in SAFE_METHODS:
            _require_own_page(headers, session.form_token, self._services.url)
        return session.principal

    async def _bearer(self, token: str) -> Principal | None:
        services = self._services
        if token.startswith(wire.TOKEN_PREFIX):
            return await services.offload(agents.authenticated, services.store, token)
        if tokens.is_token(token):
            return await services.offload(tokens.authenticated, services.store, token, now=services.clock.now())
        if services.identities and token.count(".") == 2:
            return await sign_in.of_token(services, token)
        return services.authenticate(token)

    async def _on_record(self, scope: Scope, error: MainstayError) -> MainstayError:
        """What is answered: the refusal of what was shown once it is on record, or why it cannot be put there."""
        connection = HTTPConnection(scope)
        shown = "authorization" in connection.headers or _cookie(connection.headers, self._cookie)
        if isinstance(error, Unauthenticated) and shown:
            try:
                with in_lane(UNKNOWN):
                    await note_stranger(self._services, connection, error)
            except Unavailable as fault:
                return fault
        return error

    async def _deny(self, principal: Principal, path: str) -> None:
        """An agent that asks for anything but its own: raises Forbidden, once that is on record."""
        error = agents.not_its_own("an agent has no business here", object_=path)
        await note_denial(self._services, principal, error)
        raise error


def needs_token(path: str) -> bool:
    """Whether a path belongs to the API and shows or changes data."""
    if path.startswith("/endpoints/") and path.split("/")[3:4] != ["v2"]:
        return False
    return path.startswith(GUARDED) and path not in OPEN


def _require_own_origin(headers: Headers, url: str) -> None:
    """A browser opens a WebSocket to anybody for any page, cookie included; it says for which (security.md F2)."""
    origin = headers.get("origin")
    if origin is None and "cookie" in headers and "authorization" not in headers:
        msg = "a connection with a cookie must say which page opens it"
        raise Forbidden(msg, hint="send the header Authorization: Bearer TOKEN")
    if origin is not None and origin != url:
        msg = "a connection of a browser must come from our own page"
        raise Forbidden(msg, hint="send the header Authorization: Bearer TOKEN, without Origin")


def _token(headers: Headers) -> str:
    """What is sent as a bearer token, however it is set in its header; empty if nothing is."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _cookie(headers: Headers, name: str) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _require_own_page(headers: Headers, form_token: str, url: str) -> None:
    """The browser says where the request comes from, and only our page knows the token: both must be right."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    from_us = site == "same-origin" if site is not None else origin == url
    given = headers.get(FORM_HEADER, "").encode("utf-8", "surrogatepass")
    if not from_us or not hmac.compare_digest(given, form_token.encode()):
        msg = "a write with a cookie must come from our own page"
        raise Forbidden(msg, hint="reload the page, or send the header Authorization: Bearer TOKEN")
