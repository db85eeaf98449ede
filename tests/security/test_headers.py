"""Headers that tell a browser to trust nothing stand on every answer, errors included; and who may write with a cookie."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.routing import Route

from mainstay.api.headers import SECURITY_HEADERS
from mainstay.api.streams import MEDIA_TYPE
from mainstay.operations import sessions
from mainstay.operations.sessions import FORM_HEADER, cookie_name
from tests.figures import Figure
from tests.stores import put_on_record
from tests.unit.api.conftest import PEOPLE
from tests.unit.web.site import app_of, services_of

URL = "http://platform.test"
EVIL = "https://evil.test"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[Any, httpx2.AsyncClient]]:
    with services_of(tmp_path, url=URL) as given:
        app = app_of(replace(given, authenticate=PEOPLE.get))
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
            yield app, http


def trusts_nothing(answer: httpx2.Response) -> bool:
    policy = answer.headers.get("content-security-policy", "")
    return (
        all(name in answer.headers for name in SECURITY_HEADERS)
        and "default-src 'none'" in policy
        and ("frame-ancestors 'none'" in policy or "sandbox" in policy)
        and "unsafe" not in policy
        and answer.headers["x-content-type-options"] == "nosniff"
        and answer.headers["x-frame-options"] == "DENY"
        and "cache-control" in answer.headers
        and "server" not in answer.headers
    )


async def test_every_answer_of_every_route_tells_a_browser_to_trust_nothing(site, figure: Figure):
    app, http = site
    routes = [route for route in app.router.routes if isinstance(route, Route)]
    seen = dict[int, int]()
    for route, token in itertools.product(routes, ("admin-token", "viewer-token", "")):
        if token and route.path.endswith("/stream"):
            continue  # one that is allowed has no end
        path = route.path
        for name in route.param_convertors:
            path = path.replace("{" + name + "}", "x").replace("{" + name + ":path}", "x")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        for method in sorted({*(route.methods or ()), "OPTIONS", "PATCH"}):
            answer = await http.request(method, path, headers=headers)
            assert answer.headers.get("content-type") != MEDIA_TYPE
            assert trusts_nothing(answer), (method, path, answer.status_code, dict(answer.headers))
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
    for method, path, options in (
        ("GET", "/nothing", {}),
        ("POST", "/v1/workloads", {"content": b"x" * (2 << 20)}),
        ("POST", "/v1/workloads", {"content": b"["}),
    ):
        answer = await http.request(method, path, headers={"Authorization": "Bearer admin-token"}, **options)
        assert trusts_nothing(answer)
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
    assert {200, 401, 403, 404, 405, 413, 422} <= set(seen)
    figure("answers of all routes, errors included: all with all headers", sum(seen.values()))


async def test_an_error_of_ours_has_the_headers_too(site, monkeypatch: pytest.MonkeyPatch):
    app, http = site
    monkeypatch.setattr(type(app.state.services.store), "workloads", lambda *_, **__: 1 / 0)
    answer = await http.get("/v1/workloads", headers={"Authorization": "Bearer user-token"})
    assert answer.status_code == 500
    assert trusts_nothing(answer)


SITES = (None, "same-origin", "same-site", "cross-site", "none")
ORIGINS = (None, URL, EVIL, "null", URL + ".evil.test", URL.upper())
FORMS = ("right", "wrong", "")


async def test_a_write_with_a_cookie_comes_from_our_own_page_or_is_refused(site, figure: Figure):
    app, http = site
    services = app.state.services
    store, now = services.store, services.clock.now()
    cookie = sessions.begin(store, put_on_record(store, PEOPLE["user-token"], now=now), now=now)
    form_token = sessions.session(store, cookie, now=now).form_token
    allowed = refused = 0
    for site_, origin, form in itertools.product(SITES, ORIGINS, FORMS):
        headers = {"Cookie": f"{cookie_name(services.system, secure=False)}={cookie}"}
        headers |= {"Sec-Fetch-Site": site_} if site_ else {}
        headers |= {"Origin": origin} if origin else {}
        headers |= {FORM_HEADER: {"right": form_token, "wrong": "x"}[form]} if form else {}
        for method, path in (("POST", "/v1/workloads"), ("PUT", "/v1/secrets/a"), ("DELETE", "/v1/secrets/a")):
            answer = await http.request(method, path, headers=headers, json={})
            ours = form == "right" and (site_ == "same-origin" if site_ else origin == URL)
            assert (answer.status_code != 403) == ours, (method, headers, answer.status_code)
            allowed, refused = allowed + ours, refused + (not ours)
        assert (await http.get("/v1/workloads", headers=headers)).status_code == 200
    figure("writes with a cookie that are not from our own page: all refused", refused)
