"""How routes are declared: each with the permission it needs, so that none can be open by mistake (security.md D3)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import Depends, Request, Response
from starlette.requests import HTTPConnection

from mainstay.domain.access import Permission
from mainstay.domain.errors import Invalid, Unauthenticated
from mainstay.operations.principal import Done, Principal, RequestKey
from mainstay.operations.services import Services

Method = Literal["GET", "PUT", "POST", "DELETE"]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[Any]])

PUBLIC: Final = None
"""The permission of a route that needs none and shows no data."""
IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One route. `answers` is the model of its body, None for bytes or nothing."""

    method: Method
    path: str
    endpoint: Callable[..., Awaitable[Any]]
    permission: Permission | None
    status: int
    answers: Any
    media_type: str
    body: dict[str, Any] | None
    keyed: bool
    listed: bool
    of_projects: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredSocket:
    """One route to a WebSocket, and the subprotocol that is spoken over it."""

    path: str
    endpoint: Callable[..., Awaitable[None]]
    permission: Permission
    protocol: str
    of_projects: bool


@dataclass(slots=True)
class Routes:
    """The routes of one topic, in order."""

    topic: str
    declared: list[Declared] = field(default_factory=list)
    sockets: list[DeclaredSocket] = field(default_factory=list)

    def socket(
        self, path: str, *, needs: Permission, speaks: str, of_projects: bool = False
    ) -> Callable[[Endpoint], Endpoint]:
        """Declare the decorated coroutine as a route to a WebSocket: refused before it is opened, like any other."""

        def decorate(endpoint: Endpoint) -> Endpoint:
            self.sockets.append(
                DeclaredSocket(path=path, endpoint=endpoint, permission=needs, protocol=speaks, of_projects=of_projects)
            )
            return endpoint

        return decorate

    def add(
        self,
        method: Method,
        path: str,
        *,
        needs: Permission | None,
        answers: Any = None,
        status: int = 200,
        media_type: str = "application/json",
        body: dict[str, Any] | None = None,
        keyed: bool = False,
        listed: bool = True,
        of_projects: bool = False,
    ) -> Callable[[Endpoint], Endpoint]:
        """Declare the decorated coroutine as a route. `needs` has no default: forgetting it fails at import.

        `body` describes a request body that is not JSON; `keyed` says that an Idempotency-Key makes it happen once (a
        write without it changes nothing when it is repeated); `listed` says whether it stands in the OpenAPI description.
        `of_projects`: whoever may it in some projects only is let in, and the operation asks of each object where it lies.
        """
        declared: object = needs
        if declared is not PUBLIC and not isinstance(declared, Permission):
            msg = f"{method} {path}: a route needs a Permission or is PUBLIC, not {needs!r}"
            raise TypeError(msg)

        def decorate(endpoint: Endpoint) -> Endpoint:
            self.declared.append(
                Declared(
                    method=method,
                    path=path,
                    endpoint=endpoint,
                    permission=needs,
                    status=status,
                    answers=answers,
                    media_type=media_type,
                    body=body,
                    keyed=keyed,
                    listed=listed,
                    of_projects=of_projects,
                )
            )
            return endpoint

        return decorate


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What every route gets: who asks, what it may use, and under which key it is done at most once."""

    services: Services
    principal: Principal
    key: RequestKey | None


async def current_call(request: HTTPConnection) -> Call:
    """The caller was authenticated before the body was read; a route that was not passed that way is refused here."""
    principal = getattr(request.state, "principal", None)
    if not isinstance(principal, Principal):
        msg = "this needs a token"
        raise Unauthenticated(msg, hint="send the header Authorization: Bearer TOKEN")
    return Call(
        services=request.app.state.services,
        principal=principal,
        key=await _request_key(request) if isinstance(request, Request) and request.method != "GET" else None,
    )


Caller = Annotated[Call, Depends(current_call)]


def guard(permission: Permission, *, of_projects: bool = False) -> Callable[[Call], Awaitable[None]]:
    """A dependency that refuses callers without a permission, before anything of the request is looked at.

    `of_projects`: those who have it nowhere, else those who have it not in all of their tenant.
    """

    async def check(call: Caller) -> None:
        (call.principal.require_somewhere if of_projects else call.principal.require)(permission)

    return check


def json_response(text: str | bytes, *, status: int = 200) -> Response:
    """JSON that is already text."""
    return Response(text, status_code=status, media_type="application/json")


def done(result: Done, *, status: int) -> Response:
    """The answer of a write, byte for byte the first one if it is a repetition."""
    response = json_response(result.reply, status=status) if result.reply else Response(status_code=status)
    if result.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


async def _request_key(request: Request) -> RequestKey | None:
    """Source: reliability.md R10. The hash is over the body as it was sent."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not IDEMPOTENCY_KEY.match(key):
        msg = "the Idempotency-Key must be 1 to 200 printable ASCII characters"
        raise Invalid(msg, object_="Idempotency-Key")
    body = b"" if is_stream(request) else await request.body()
    return RequestKey(route=f"{request.method} {request.url.path}", key=key, body_hash=hashlib.sha256(body).hexdigest())


def is_stream(request: Request) -> bool:
    """Whether the body is a blob, which is named by its digest and may be sent again at will."""
    return request.url.path.startswith(("/v1/blobs/", "/v1/agent/blobs/"))
