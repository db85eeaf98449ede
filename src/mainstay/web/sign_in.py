"""Signing a browser in and out: a code for a cookie, or a way to the identity provider and back, and the end of it.

Source: security.md C2, F2.
"""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from mainstay.domain.errors import Forbidden, Invalid, MainstayError, Unauthenticated
from mainstay.operations import sessions, sign_in, sign_out
from mainstay.operations.denials import note_unknown
from mainstay.operations.services import Services
from mainstay.operations.sessions import FORM_HEADER, SESSION_SECONDS, Session, cookie_name

CODE_BYTES_MAX: Final = 200
LOGOUT_BYTES_MAX: Final = 32 * 1024
"""Of a form with a token, which has half as many characters at most."""
FIELDS_MAX: Final = 10
_NOT_KEPT: Final = {"Cache-Control": "no-store"}


class Doorkeeper:
    """Who stands behind a cookie, and how a cookie is got and given back."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._secure = services.url.startswith("https:")
        self._cookie = cookie_name(services.system, secure=self._secure)
        self._begun = f"{self._cookie}-begun"

    async def session(self, request: Request) -> Session | None:
        """None without a cookie that is valid."""
        try:
            return await self._services.signed_in(request.cookies.get(self._cookie, ""))
        except Unauthenticated:
            return None

    async def sign_in(self, request: Request) -> Response:
        """Take the code of a link as the body and answer with a cookie. Raises Unauthenticated for a used code."""
        self._require_own_page(request)
        code, services = await _code(request), self._services
        cookie = await services.offload(sessions.exchange, services.store, code, now=services.clock.now())
        await self._end(request)
        response = Response(status_code=204)
        self._give(response, cookie)
        return response

    async def to_provider(self, _: Request) -> Response:
        """To the identity provider, with a cookie that comes back from there. Raises Invalid, Unavailable."""
        url, carried = await sign_in.begin(self._services)
        response = RedirectResponse(url, status_code=303)
        response.set_cookie(
            self._begun,
            carried,
            max_age=sign_in.BEGUN_SECONDS,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",  # the provider is another site, and sends the browser back with a link
        )
        return response

    async def from_provider(self, request: Request) -> Response:
        """Back from there: a session, or in words why not. One that was there ends (security.md C2)."""
        query = request.query_params
        if "error" in query:
            msg = (
                f"the identity provider refused the sign-in: {_words(query.get('error_description') or query['error'])}"
            )
            raise Unauthenticated(msg, hint="begin again")
        cookie = await sign_in.finish(
            self._services,
            code=query.get("code", ""),
            state=query.get("state", ""),
            carried=request.cookies.get(self._begun, ""),
        )
        await self._end(request)
        response = RedirectResponse("/", status_code=303)
        self._give(response, cookie)
        response.delete_cookie(self._begun, path="/", secure=self._secure, httponly=True, samesite="lax")
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session and take the cookie away, and say where to go on: to the provider that began the session, if one did.

        Without a session there is nothing to do.
        """
        self._require_own_page(request)
        session, way = await self.session(request), sign_out.DONE
        if session is not None:
            given = request.headers.get(FORM_HEADER, "").encode("utf-8", "surrogatepass")
            if not hmac.compare_digest(given, session.form_token.encode()):
                raise _foreign()
            await self._end(request)
            way = await sign_out.way_out(self._services, session.principal)
        response = JSONResponse({"go_to": way})
        response.delete_cookie(self._cookie, path="/", secure=self._secure, httponly=True, samesite="strict")
        return response

    async def signed_out_elsewhere(self, request: Request) -> Response:
        """The provider tells us that somebody has signed out there. Refusals are as it expects them.

        Source: OpenID Connect Back-Channel Logout 1.0, 2.5 to 2.8.
        """
        try:
            await sign_out.told(self._services, await _logout_token(request))
        except (Invalid, Unauthenticated) as error:
            if isinstance(error, Unauthenticated):
                await self.note_unknown(request, error)
            body = {"error": "invalid_request", "error_description": error.message}
            return JSONResponse(body, status_code=400, headers=_NOT_KEPT)
        return Response(status_code=200, headers=_NOT_KEPT)

    async def note_unknown(self, request: Request, error: MainstayError) -> None:
        """Who comes back from the provider and is not let in is in the audit."""
        address = request.client.host if request.client else ""
        asked = f"{request.method} {request.url.path}"
        await note_unknown(self._services, error, asked=asked, address=address)

    def _give(self, response: Response, cookie: str) -> None:
        response.set_cookie(
            self._cookie,
            cookie,
            max_age=SESSION_SECONDS,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="strict",
        )

    async def _end(self, request: Request) -> None:
        session, services = await self.session(request), self._services
        if session is not None:
            await services.offload(sessions.end, services.store, session.principal, now=services.clock.now())

    def _require_own_page(self, request: Request) -> None:
        """Another site may neither sign somebody in under a name of its choice nor sign them out."""
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if not (site == "same-origin" if site is not None else origin == self._services.url):
            raise _foreign()


async def _code(request: Request) -> str:
    """Raises Invalid for a body that cannot be a code."""
    body = await request.body()
    if not 0 < len(body) <= CODE_BYTES_MAX or not body.isascii():
        msg = "this is not a code to sign in with"
        raise Invalid(msg, hint="open the whole link that mainstay login --page printed")
    return body.decode()


async def _logout_token(request: Request) -> str:
    """Raises Invalid for a body that is not a form with one."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind != "application/x-www-form-urlencoded" or not body.isascii() or len(body) > LOGOUT_BYTES_MAX:
        msg = "this is not a form"
        raise Invalid(msg, hint="send logout_token as application/x-www-form-urlencoded")
    try:
        given = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_MAX).get("logout_token", [])
    except ValueError:
        given = []
    if len(given) != 1:
        msg = "there must be one logout_token"
        raise Invalid(msg, hint="send it once")
    return given[0]


def _words(text: str) -> str:
    """Of somebody else: short, and nothing but text."""
    return "".join(letter for letter in text[:200] if letter.isprintable())


def _foreign() -> Forbidden:
    return Forbidden("this must come from our own page", hint="reload the page")
