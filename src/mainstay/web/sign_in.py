"""Signing a browser in and out: a code for a cookie, and the end of it (security.md C2, F2)."""

from __future__ import annotations

import hmac
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from mainstay.domain.errors import Forbidden, Invalid, Unauthenticated
from mainstay.operations.services import Services
from mainstay.operations.sessions import FORM_HEADER, SESSION_SECONDS, Session, cookie_name

CODE_BYTES_MAX: Final = 200


class Doorkeeper:
    """Who stands behind a cookie, and how a cookie is got and given back."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._secure = services.url.startswith("https:")
        self._cookie = cookie_name(services.system, secure=self._secure)

    async def session(self, request: Request) -> Session | None:
        """None without a cookie that is valid."""
        return await self._services.signed_in(request.cookies.get(self._cookie, ""))

    async def sign_in(self, request: Request) -> Response:
        """Take the code of a link as the body and answer with a cookie. Raises Unauthenticated for a used code."""
        self._require_own_page(request)
        code = await _code(request)
        cookie = self._services.sessions.exchange(code)
        if cookie is None:
            msg = "this link has been used, or is older than ten minutes"
            raise Unauthenticated(msg, hint="get a new one with: mainstay login --page")
        self._services.sessions.end(request.cookies.get(self._cookie, ""))
        response = Response(status_code=204)
        response.set_cookie(
            self._cookie,
            cookie,
            max_age=SESSION_SECONDS,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="strict",
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session and take the cookie away; without a session there is nothing to do."""
        self._require_own_page(request)
        session = await self.session(request)
        if session is not None:
            given = request.headers.get(FORM_HEADER, "").encode("utf-8", "surrogatepass")
            if not hmac.compare_digest(given, session.form_token.encode()):
                raise _foreign()
            self._services.sessions.end(request.cookies[self._cookie])
        response = Response(status_code=204)
        response.delete_cookie(self._cookie, path="/", secure=self._secure, httponly=True, samesite="strict")
        return response

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


def _foreign() -> Forbidden:
    return Forbidden("this must come from our own page", hint="reload the page")
