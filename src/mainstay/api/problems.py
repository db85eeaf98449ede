"""Every refusal as an RFC 9457 problem: a stable code, what it is about, the figures, a hint; never a stack."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mainstay.api.denials import note_refused_request
from mainstay.domain.errors import (
    Conflict,
    Denied,
    Fenced,
    Forbidden,
    Gone,
    Invalid,
    KeyReused,
    MainstayError,
    NoCapacity,
    NotFound,
    NotYet,
    StorageFull,
    TooFast,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from mainstay.wire.faults import field_problem
from mainstay.wire.views import FieldProblem, Problem

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
STATUSES: Mapping[type[MainstayError], int] = {
    Invalid: 422,
    NotFound: 404,
    Conflict: 409,
    Denied: 422,
    KeyReused: 422,
    NoCapacity: 409,
    NotYet: 409,
    TooMany: 429,
    TooFast: 429,
    Gone: 410,
    Fenced: 409,
    Unauthenticated: 401,
    Forbidden: 403,
    StorageFull: 507,
    Unavailable: 503,
}
"""An error that is not here is our fault: 500."""
STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start", "websocket.close"})
ERRORS_MAX = 100
"""A body of a megabyte may hold ten thousand faults; nobody reads them all."""


def handle_errors(app: FastAPI) -> None:
    """Let every refusal of routes and framework become a problem."""
    app.add_exception_handler(MainstayError, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(WebSocketRequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The problem as the body of a response."""
    return Response(
        problem.model_dump_json(), status_code=problem.status, media_type=MEDIA_TYPE, headers=dict(headers or {})
    )


def refusal_response(error: MainstayError) -> Response:
    """What a refusal looks like; `Retry-After` where waiting helps, `WWW-Authenticate` where a token is missing."""
    status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)
    if status == 500:
        return unexpected_response(error)
    headers = {}
    if status == 503 or isinstance(error, TooFast):
        headers["Retry-After"] = str(error.numbers.get("retry_after_seconds", RETRY_SECONDS))
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="mainstay"'
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=_encodable(error.message),
        code=error.code,
        object=_encodable(error.object),
        numbers={name: _encodable(value) if isinstance(value, str) else value for name, value in error.numbers.items()},
        hint=_encodable(error.hint),
    )
    return problem_response(problem, headers)


def explained(error: BaseException) -> str:
    """Our own fault in words: an id to look for in the log, and nothing else of what happened."""
    number = _logged(error)
    return f"something went wrong here; the log of the platform has it under {number}"


def _logged(error: BaseException) -> str:
    number = secrets.token_hex(8)
    log.error("unexpected_error", id=number, exc_info=error)
    return number


def unexpected_response(error: BaseException) -> Response:
    """Our own fault: the answer has an id to look for in the log, and nothing else of what happened."""
    number = _logged(error)
    return problem_response(
        Problem(
            title=HTTPStatus.INTERNAL_SERVER_ERROR.phrase,
            status=500,
            detail=f"something went wrong here; the log of the platform has it under {number}",
            code="internal",
            object=number,
            hint="try again; if it stays, send the id to whoever runs the platform",
        )
    )


class Failures:
    """The last net: whatever a request raises becomes a problem, if nothing has been sent yet."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] in STARTS
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except MainstayError as error:
            if started:
                raise
            await refusal_response(error)(scope, receive, send)
        except Exception as error:  # the one place where any fault of a request ends
            if started or scope["type"] == "lifespan":
                raise
            await unexpected_response(error)(scope, receive, send)


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, MainstayError)
    if isinstance(error, Forbidden | Unauthenticated):
        await note_refused_request(request, error)
    return refusal_response(error)


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError | WebSocketRequestValidationError)
    faults = error.errors()
    fields = [_field_problem(fault) for fault in faults[:ERRORS_MAX]]
    words = "; ".join(f"{field.field}: {field.message}" for field in fields[:3])
    return problem_response(
        Problem(
            title=HTTPStatus.UNPROCESSABLE_ENTITY.phrase,
            status=422,
            detail=words + (f"; and {len(faults) - 3} more" if len(faults) > 3 else ""),
            code="invalid",
            object=fields[0].field if fields else "",
            numbers={"errors": len(faults)},
            hint=_hint(fields),
            errors=fields,
        )
    )


async def _on_http(request: Request, error: Exception) -> Response:
    """What the framework itself refuses: unknown paths, methods, bodies that are too large."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    return problem_response(
        Problem(
            title=phrase,
            status=error.status_code,
            detail=_encodable(f"{request.method} {request.url.path}: {phrase.lower()}"),
            code=phrase.lower().replace(" ", "_"),
            object=_encodable(request.url.path),
            hint="the routes are listed in /v1/openapi.json" if error.status_code in {404, 405} else "",
        ),
        error.headers,
    )


def _field_problem(fault: Mapping[str, Any]) -> FieldProblem:
    place = [_encodable(str(part)) for part in fault["loc"] if part != "body"]
    found = field_problem(fault, place, job=place[place.index("job") + 1 :] if "job" in place else None)
    return found.model_copy(update={"message": _encodable(found.message)})


def _hint(fields: Sequence[FieldProblem]) -> str:
    field = next((field for field in fields if field.nearest or field.allowed), None)
    if field is None:
        return ""
    return f"did you mean {field.nearest}?" if field.nearest else f"allowed: {', '.join(field.allowed)}"


def _encodable(text: str) -> str:
    """What the caller sent may hold half a surrogate pair, which no JSON can carry."""
    return text.encode("utf-8", "replace").decode()
