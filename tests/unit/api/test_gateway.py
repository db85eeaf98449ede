"""The gateway: what reaches a model server, what comes back from it, and what happens when it does not answer."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest

from mainstay.api import gateway
from mainstay.domain.plan import SwitchEndpoint
from mainstay.domain.reason import Code
from tests.stores import TENANT
from tests.unit.api.test_routes import is_problem
from tests.unit.web.site import TOKEN, VIEWER_TOKEN, Site, running_site, why

numbers = itertools.count(1)


@dataclass
class Upstream:
    """A model server that does what the test says; it remembers what reached it."""

    answer: Callable[[BaseHTTPRequestHandler, bytes], None]
    address: str = ""
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


def as_json(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    content = json.dumps({"got": body.decode()}).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    given = Upstream(as_json)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            given.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            given.answer(self, body)

        do_GET = do_POST  # noqa: N815 the name that the base class looks for

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), Handler)
    given.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield given
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    with running_site(folder) as given:
        given.fleet()
        yield given


@pytest.fixture
async def http(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with asyncio.timeout(10), httpx2.AsyncClient(base_url=site.url, headers=headers) as client:
        yield client


def serving(site: Site, address: str) -> str:
    """The name of an endpoint that a model server at this address serves."""
    name = f"e{next(numbers)}"
    service = site.scene.deploy(name)
    site.place(service, "atlas")
    replace(site, model=address).running(service)
    site.scene.applied(
        SwitchEndpoint(tenant=TENANT, endpoint=name, reason=why(Code.ENDPOINT_SWITCHED, endpoint=name, version=1))
    )
    assert site.store.endpoint(name, tenant="physics").address == address
    return name


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def test_a_prediction_reaches_the_model_and_its_answer_the_caller(
    site: Site, http: httpx2.AsyncClient, upstream: Upstream
):
    name = serving(site, upstream.address)
    answer = await http.post(f"/endpoints/{name}/v2/models/{name}/infer?a=1&a=2", content=b'{"inputs": []}')
    assert (answer.status_code, answer.json()) == (200, {"got": '{"inputs": []}'})
    ((method, path, _, body),) = upstream.seen
    assert (method, path, body) == ("POST", f"/v2/models/{name}/infer?a=1&a=2", b'{"inputs": []}')


async def test_a_model_server_never_sees_our_credentials(site: Site, http: httpx2.AsyncClient, upstream: Upstream):
    name = serving(site, upstream.address)
    headers = {
        "Cookie": "mainstay=secret",
        "X-Forwarded-For": "10.0.0.1",
        "X-Mainstay-Form-Token": "secret",
        "Connection": "close, X-Private",
        "X-Private": "hop",
        "X-Request-Id": "kept",
    }
    assert (await http.get(f"/endpoints/{name}/v2/health/ready", headers=headers)).status_code == 200
    ((_, _, seen, _),) = upstream.seen
    assert {"authorization", "cookie", "x-forwarded-for", "x-mainstay-form-token", "x-private"} & set(seen) == set()
    assert seen["x-request-id"] == "kept"
    assert seen["host"] == upstream.address


async def test_a_model_server_sets_no_header_of_our_origin(site: Site, http: httpx2.AsyncClient, upstream: Upstream):
    def hostile(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(302)
        for header in (
            ("Set-Cookie", "mainstay=stolen"),
            ("Location", "https://evil.example"),
            ("Access-Control-Allow-Origin", "*"),
            ("Content-Security-Policy", "default-src *"),
            ("Content-Type", "text/html"),
            ("Content-Length", "25"),
        ):
            handler.send_header(*header)
        handler.end_headers()
        handler.wfile.write(b"<script>alert(1)</script>")

    upstream.answer = hostile
    answer = await http.get(f"/endpoints/{serving(site, upstream.address)}/v2/x")
    assert {"set-cookie", "location", "access-control-allow-origin"} & set(answer.headers) == set()
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(upstream.seen) == 1


async def test_what_one_model_server_sets_the_next_never_sees(site: Site, http: httpx2.AsyncClient, upstream: Upstream):
    def marking(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Set-Cookie", "mark=1; Path=/")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    upstream.answer = marking
    for name in (serving(site, upstream.address), serving(site, upstream.address)):
        await http.get(f"/endpoints/{name}/v2/x")
    assert [set(headers) & {"cookie"} for _, _, headers, _ in upstream.seen] == [set(), set()]


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
async def test_a_refusal_of_the_model_server_is_passed_on(
    site: Site, http: httpx2.AsyncClient, upstream: Upstream, status: int
):
    def refuse(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"no")

    upstream.answer = refuse
    answer = await http.post(f"/endpoints/{serving(site, upstream.address)}/v2/x", content=b"")
    assert (answer.status_code, answer.text) == (status, "no")
    assert len(upstream.seen) == 1


async def test_an_endpoint_that_is_still_starting_says_when_to_come_back(site: Site, http: httpx2.AsyncClient):
    name = f"e{next(numbers)}"
    candidate = site.scene.deploy(name)
    answer = await http.get(f"/endpoints/{name}/v2/health/ready")
    problem = is_problem(answer, 503)
    assert problem["object"] == name
    assert candidate.id in problem["hint"]
    assert int(answer.headers["retry-after"]) > 0


async def test_a_model_server_that_is_gone_is_unavailable(site: Site, http: httpx2.AsyncClient):
    name = serving(site, f"127.0.0.1:{free_port()}")
    problem = is_problem(await http.post(f"/endpoints/{name}/v2/x", content=b""), 503)
    assert "cannot be reached" in problem["detail"]


async def test_a_model_server_that_hangs_up_or_talks_nonsense_is_unavailable(
    site: Site, http: httpx2.AsyncClient, upstream: Upstream
):
    def hang_up(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.close_connection = True

    def nonsense(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.wfile.write(b"\x00\xff not http\r\n\r\n")
        handler.close_connection = True

    for answer in (hang_up, nonsense):
        upstream.answer = answer
        is_problem(await http.get(f"/endpoints/{serving(site, upstream.address)}/v2/x"), 503)


async def test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one(
    site: Site, http: httpx2.AsyncClient, upstream: Upstream
):
    def half(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True

    upstream.answer = half
    with pytest.raises(httpx2.RemoteProtocolError):
        await http.get(f"/endpoints/{serving(site, upstream.address)}/v2/x")
    assert (await http.get("/healthz")).status_code == 200


async def test_a_model_server_that_says_nothing_is_given_up(site: Site, http: httpx2.AsyncClient, upstream: Upstream):
    done = threading.Event()

    def silent(*_: Any) -> None:
        done.wait(5)

    upstream.answer = silent
    usual = site.app.state.gateway
    async with httpx2.AsyncClient(trust_env=False, timeout=0.1) as impatient:
        site.app.state.gateway = impatient
        try:
            problem = is_problem(await http.get(f"/endpoints/{serving(site, upstream.address)}/v2/x"), 503)
        finally:
            site.app.state.gateway = usual
            done.set()
    assert "took too long" in problem["detail"]
    assert usual.timeout.read == gateway.ANSWER_SECONDS


@pytest.mark.parametrize("path", ["%2e%2e/admin", "a/%2e%2e/%2e%2e/admin", "./x", "a/..%2f..%2fadmin"])
async def test_no_path_climbs_out_of_the_protocol(site: Site, http: httpx2.AsyncClient, upstream: Upstream, path: str):
    name = serving(site, upstream.address)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port)
    lines = f"GET /endpoints/{name}/v2/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close"
    writer.write(lines.encode() + b"\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"422"
    writer.close()
    assert upstream.seen == []


@pytest.mark.parametrize("path", ["a%3Fb=c", "a%23b", "a%20b", "%E4%BD%A0", "a%25b", "@evil.example/"])
async def test_an_odd_path_stays_a_path(site: Site, http: httpx2.AsyncClient, upstream: Upstream, path: str):
    await http.get(f"/endpoints/{serving(site, upstream.address)}/v2/{path}")
    ((_, seen, _, _),) = upstream.seen
    assert unquote(seen) == "/v2/" + unquote(path)
    assert "?" not in seen


async def test_a_path_of_two_lines_is_none_of_ours(site: Site, http: httpx2.AsyncClient, upstream: Upstream):
    is_problem(await http.get(f"/endpoints/{serving(site, upstream.address)}/v2/a%0d%0aX:1"), 404)
    assert upstream.seen == []


async def test_who_may_read_may_ask_and_nobody_without_a_token(
    site: Site, http: httpx2.AsyncClient, upstream: Upstream
):
    path = f"/endpoints/{serving(site, upstream.address)}/v2/x"
    assert (await http.post(path, headers={"Authorization": f"Bearer {VIEWER_TOKEN}"})).status_code == 200
    is_problem(await http.post(path, headers={"Authorization": "Bearer wrong"}), 401)
    assert len(upstream.seen) == 1


async def test_an_endpoint_that_is_none_is_not_found(http: httpx2.AsyncClient):
    is_problem(await http.get("/endpoints/none/v2/x"), 404)
