"""Which pages there are, and who may see them: a page is a template, a script of the same name and a title."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from fastapi import FastAPI
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from mainstay import __version__
from mainstay.domain.access import Permission
from mainstay.domain.errors import Forbidden, MainstayError, Unauthenticated
from mainstay.operations.services import Services
from mainstay.operations.sessions import Session
from mainstay.operations.sign_in import BACK
from mainstay.operations.sign_out import TOLD
from mainstay.web.sign_in import Doorkeeper
from mainstay.web.static import Assets, load_assets

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`name` is that of its template and its script; `tab` is the path of its entry in the navigation.

    `needs`: to whom the navigation offers it; the API decides in any case what they see.
    """

    path: str
    name: str
    title: str
    tab: str = ""
    needs: Permission = Permission.READ


PAGES: Final = (
    Page(path="/runs", name="runs", title="Runs"),
    Page(path="/runs/{reference}", name="run", title="Run", tab="/runs"),
    Page(path="/queues", name="queues", title="Queues"),
    Page(path="/endpoints", name="endpoints", title="Endpoints"),
    Page(path="/clusters", name="clusters", title="Clusters", needs=Permission.MANAGE),
    Page(path="/nodes", name="nodes", title="Nodes"),
    Page(path="/volumes", name="volumes", title="Volumes"),
    Page(path="/cost", name="cost", title="Cost"),
    Page(path="/events", name="events", title="Events"),
)
"""A page without a `tab` of its own is one."""
HOME: Final = "/runs"
SIGN_IN: Final = "/sign-in"
PROVIDER: Final = f"{SIGN_IN}/provider"


def mount_pages(app: FastAPI, services: Services) -> None:
    """Add all pages, their static files, and signing in and out."""
    assets = load_assets()
    pages = Pages(services, assets)
    door = Doorkeeper(services)
    routes = [
        Route("/", _to_home, methods=["GET"]),
        Route(SIGN_IN, pages.sign_in, methods=["GET"]),
        Route(SIGN_IN, door.sign_in, methods=["POST"]),
        Route(PROVIDER, pages.answered(door.to_provider), methods=["GET"]),
        Route(BACK, pages.answered(door.from_provider), methods=["GET"]),
        Route("/sign-out", door.sign_out, methods=["POST"]),
        Route(TOLD, door.signed_out_elsewhere, methods=["POST"]),
        Route("/static/{digest}/{name}", assets.serve, methods=["GET"]),
        Route("/endpoints/{name}", _to_endpoint, methods=["GET"]),
        *(Route(page.path, pages.handler(page), methods=["GET"], name=page.name) for page in PAGES),
    ]
    app.router.routes.extend(routes)


class Pages:
    """Renders frames. A frame holds nothing but who is signed in: what it shows, its script asks of the API."""

    def __init__(self, services: Services, assets: Assets) -> None:
        self._door = Doorkeeper(services)
        self._assets = assets
        self._system = services.system
        self._provider = services.identities.provider if services.identities else ""
        self._templates = Environment(
            loader=PackageLoader("mainstay.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )

    def handler(self, page: Page) -> Handler:
        """What answers for a page."""

        async def answer(request: Request) -> Response:
            return await self._answer(page, request)

        return answer

    async def _answer(self, page: Page, request: Request) -> Response:
        """The frame of a page; without a session the way to the sign-in."""
        session = await self._door.session(request)
        if session is not None:
            return self._frame(page, session, reference=request.path_params.get("reference", ""))
        if request.headers.get("sec-fetch-site") == "cross-site":
            # A browser that follows a link from elsewhere keeps a SameSite=Strict cookie to itself. Asked by our own
            # page a moment later it sends it. Only our own routes come here: the path cannot lead to another site.
            return self._render("again.html", path=request.url.path, title=page.title)
        return RedirectResponse(SIGN_IN, status_code=303)

    async def sign_in(self, _: Request) -> Response:
        """The page that a link of `mainstay login --page` leads to, and everybody without a session."""
        return self._sign_in()

    def answered(self, handler: Handler) -> Handler:
        """A handler to which a browser comes by itself: a refusal is a page, not a problem."""

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except MainstayError as error:
                if isinstance(error, Unauthenticated | Forbidden):
                    await self._door.note_unknown(request, error)
                return self._sign_in(refused=error.message, hint=error.hint)

        return answer

    def _sign_in(self, *, refused: str = "", hint: str = "") -> Response:
        return self._render(
            "sign_in.html", title="Sign in", provider=self._provider, refused=refused, hint=hint, provider_path=PROVIDER
        )

    def _frame(self, page: Page, session: Session, *, reference: str) -> Response:
        principal = session.principal
        permissions = principal.anywhere
        return self._render(
            f"{page.name}.html",
            page=page,
            title=page.title,
            tabs=[each for each in PAGES if not each.tab and (each.needs in permissions or each is page)],
            tab=page.tab or page.path,
            principal=principal,
            permissions=sorted(permissions),
            form_token=session.form_token,
            system=self._system,
            reference=reference,
        )

    def _render(self, template: str, **context: object) -> Response:
        text = self._templates.get_template(template).render(asset=self._assets.url, version=__version__, **context)
        return HTMLResponse(text)


async def _to_home(_: Request) -> Response:
    """The first page."""
    return RedirectResponse(HOME, status_code=303)


async def _to_endpoint(request: Request) -> Response:
    """The address of an endpoint, opened in a browser: its place on the page of all endpoints."""
    return RedirectResponse(f"/endpoints#{request.path_params['name']}", status_code=303)
