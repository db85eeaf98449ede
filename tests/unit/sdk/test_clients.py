"""The sync and the async client against a server that misbehaves on purpose, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trustme

from mainstay.sdk.aio import AsyncClient
from mainstay.sdk.client import Client
from mainstay.sdk.config import find, process_start, save_login, trusted
from mainstay.sdk.errors import ApiError, FilesRefused, NameRefused, NotConfigured, Unreachable
from mainstay.sdk.files import scan
from mainstay.wire.job import Job

VIEW = {
    "id": "a-1",
    "name": "a",
    "kind": "job",
    "project": "p",
    "queue": "q",
    "submitted_by": "me",
    "priority": 50,
    "phase": "pending",
    "reason": {"code": "x", "sentence": "x"},
    "attempt": 1,
    "nodes": 1,
    "run": ["true"],
    "resources": {"cpu": 1, "memory_bytes": 1},
    "submitted_at": "2026-01-01T00:00:00Z",
}
NODES = {"items": [], "next": ""}


class Misbehaving:
    """Answers from a list; each answer is (status, headers, body), or None to hang up."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    self.close_connection = True
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.asked.append((self.command, self.path, headers, body))
                given = outer.answers.pop(0)
                if given is None:
                    self.close_connection = True
                    return
                status, extra, content = given
                self.send_response(status)
                length = {} if extra.get("Cut") else {"Content-Length": str(len(content))}
                for name, value in {**length, "Connection": "close", **extra}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = True

            do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    made = Misbehaving()
    yield made
    made.close()


Call = Callable[[Any], Any]
Ask = Callable[[Misbehaving, Call], Any]


def ask_sync(server: Misbehaving, call: Call, **options: Any) -> Any:
    slept: list[float] = []
    with Client(server=server.url, token="t", sleep=slept.append, **options) as client:
        result = call(client)
        result = list(result) if isinstance(result, Iterator) else result
    ask_sync.slept = slept  # type: ignore[attr-defined]
    return result


def ask_async(server: Misbehaving, call: Call, **options: Any) -> Any:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def main() -> Any:
        async with AsyncClient(server=server.url, token="t", sleep=sleep, **options) as client:
            result = call(client)
            return [item async for item in result] if hasattr(result, "__aiter__") else await result

    result = asyncio.run(main())
    ask_sync.slept = slept  # type: ignore[attr-defined]
    return result


@pytest.fixture(params=[ask_sync, ask_async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Any:
    return request.param


def ok(body: Any, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(body).encode()


def problem(status: int, code: str = "x", **headers: str) -> tuple[int, dict[str, str], bytes]:
    body = {"title": "t", "status": status, "detail": "it is so", "code": code, "hint": "do that"}
    return status, headers, json.dumps(body).encode()


def test_what_may_pass_is_tried_again_under_the_same_key(server, ask):
    server.answers = [problem(503), None, problem(502), ok(VIEW, 201)]
    assert ask(server, lambda client: client.submit(Job(name="a", run="true"))).id == "a-1"
    keys = {headers["idempotency-key"] for _, _, headers, _ in server.asked}
    assert (len(server.asked), len(keys)) == (4, 1)
    assert len({body for *_, body in server.asked}) == 1
    assert len(ask_sync.slept) == 3


def test_two_calls_have_two_keys(server, ask):
    for _ in range(2):
        server.answers = [ok(VIEW, 201)]
        ask(server, lambda client: client.submit(Job(name="a", run="true")))
    assert len({headers["idempotency-key"] for _, _, headers, _ in server.asked}) == 2


def test_a_refusal_is_told_at_once_with_its_code_and_hint(server, ask):
    server.answers = [problem(409, "no_capacity")]
    with pytest.raises(ApiError) as caught:
        ask(server, lambda client: client.nodes())
    assert (caught.value.code, caught.value.message, caught.value.hint) == ("no_capacity", "it is so", "do that")
    assert len(server.asked) == 1


def test_a_pause_that_the_server_asks_for_is_kept(server, ask):
    server.answers = [problem(429, **{"Retry-After": "7"}), ok(NODES)]
    ask(server, lambda client: client.nodes())
    assert ask_sync.slept == [7.0]


def test_that_there_is_too_much_is_told_at_once_since_no_moment_changes_it(server, ask):
    server.answers = [problem(429, "too_many", **{"Content-Type": "application/problem+json"})]
    with pytest.raises(ApiError) as caught:
        ask(server, lambda client: client.submit(Job(name="a", run="true")))
    assert (caught.value.code, len(server.asked)) == ("too_many", 1)
    server.answers = [(429, {}, b"a proxy is busy"), ok(NODES)]
    ask(server, lambda client: client.nodes())
    assert len(server.asked) == 3


def test_tries_end(server, ask):
    server.answers = [problem(503)] * 3
    with pytest.raises(ApiError):
        ask(server, lambda client: client.nodes(), retries=2)
    server.answers = [None] * 3
    with pytest.raises(Unreachable, match="does not answer"):
        ask(server, lambda client: client.nodes(), retries=2)


def test_a_prediction_is_sent_once(server, ask):
    """It has no key, so nobody knows whether twice is harmless."""
    for answer, error in ((None, Unreachable), (problem(503), ApiError)):
        server.answers, before = [answer, ok({})], len(server.asked)
        with pytest.raises(error):
            ask(server, lambda client: client.predict("digits", {"inputs": []}))
        assert len(server.asked) == before + 1


def test_what_is_no_platform_is_told_as_that(server, ask):
    server.answers = [(200, {}, b"<html>hello</html>")]
    with pytest.raises(ApiError, match="not a mainstay platform"):
        ask(server, lambda client: client.nodes())
    server.answers = [(404, {}, b"not here")]
    with pytest.raises(ApiError):
        ask(server, lambda client: client.nodes())


def log_frame(text: str, offset: int) -> bytes:
    piece = {"pod": "a-1-1-0", "rank": 0, "attempt": 1, "text": text, "next_offset": offset}
    return f"event: log\nid: {offset}\ndata: {json.dumps(piece)}\n\n".encode()


def test_a_stream_that_breaks_goes_on_where_it_was_without_gap_or_repeat(server, ask):
    end = {"workload": "a-1", "rank": 0, "attempt": 1, "next_attempt": 0, "phase": "succeeded"}
    stream = {"Content-Type": "text/event-stream", "Cut": "yes"}
    half = log_frame("three\n", 14)
    server.answers = [
        (200, stream, log_frame("one\n", 4) + log_frame("two\n", 8) + half[: len(half) // 2]),
        problem(503),
        (200, stream, log_frame("three\n", 14) + f"event: end\ndata: {json.dumps(end)}\n\n".encode()),
    ]
    pieces = ask(server, lambda client: client.logs("a-1", follow=True))
    assert "".join(piece.text for piece in pieces) == "one\ntwo\nthree\n"
    assert "offset=8" in server.asked[2][1]


def tree(content: bytes, path: str = "model/weights", digest: str = "") -> dict[str, Any]:
    digest = digest or hashlib.sha256(content).hexdigest()
    return {"digest": "0" * 64, "entries": [{"path": path, "size": len(content), "digest": digest}]}


def test_a_download_arrives_whole_and_as_announced(server, ask, tmp_path):
    server.answers = [ok(VIEW), ok(tree(b"weights")), (200, {}, b"weights")]
    assert ask(server, lambda client: client.download("a-1", tmp_path)) == [tmp_path / "model" / "weights"]
    assert (tmp_path / "model" / "weights").read_bytes() == b"weights"


def test_a_download_with_another_content_is_refused_and_leaves_nothing(server, ask, tmp_path):
    server.answers = [ok(VIEW), ok(tree(b"weights")), (200, {}, b"forged!")]
    with pytest.raises(FilesRefused):
        ask(server, lambda client: client.download("a-1", tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a\\..\\x", ""])
def test_a_path_that_leaves_the_folder_is_refused(server, ask, tmp_path, path):
    server.answers = [ok(VIEW), ok(tree(b"x", path))]
    with pytest.raises(FilesRefused):
        ask(server, lambda client: client.download("a-1", tmp_path / "in"))
    assert not (tmp_path / "x").exists()


def test_a_download_does_not_write_through_a_link(server, ask, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "model").symlink_to(tmp_path)
    server.answers = [ok(VIEW), ok(tree(b"x"))]
    with pytest.raises(FilesRefused, match="link"):
        ask(server, lambda client: client.download("a-1", tmp_path / "in"))


def test_both_clients_ask_the_same_questions(server):
    calls: list[tuple[Call, Any]] = [
        (lambda client: client.plan(Job(name="a", run="x")), {"name": "a", "options": [], "position": 0}),
        (lambda client: client.list(name="a", all=True), {"items": [VIEW], "next": ""}),
        (lambda client: client.get("a b?c"), VIEW),
        (lambda client: client.events(workload="a", after=3, newest=True), {"items": [], "next": ""}),
        (lambda client: client.stop("a"), VIEW),
        (lambda client: client.models(model="m"), {"items": [], "next": ""}),
    ]
    for call, answer in calls:
        for ask in (ask_sync, ask_async):
            server.answers = [ok(answer)]
            ask(server, call)
        (one, other) = server.asked[-2:]
        assert (one[0], one[1], one[3]) == (other[0], other[1], other[3])
        assert one[2]["authorization"] == other[2]["authorization"] == "Bearer t"


@pytest.mark.parametrize("name", ["", ".", "..", "../clusters/local", "a/b"])
def test_a_name_that_would_lead_to_another_path_is_not_sent(server, ask, name):
    with pytest.raises(NameRefused, match="not a name"):
        ask(server, lambda client: client.remove_secret(name))
    assert server.asked == []


def test_the_platform_is_found_in_the_order_that_is_documented(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("MAINSTAY_SERVER", "MAINSTAY_TOKEN", "MAINSTAY_STATE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(NotConfigured, match="nobody has logged in"):
        find()
    for folder, url in ((tmp_path / ".mainstay", "http://localhost:1"), (tmp_path / "state", "http://localhost:2")):
        folder.mkdir()
        where = {"url": url, "token": "t", "pid": os.getpid(), "started": process_start(os.getpid())}
        (folder / "server.json").write_text(json.dumps(where))
    assert find().url == "http://localhost:1"
    assert save_login("https://login.test/", "secret").stat().st_mode & 0o777 == 0o600
    assert find().url == "https://login.test"
    monkeypatch.setenv("MAINSTAY_STATE", str(tmp_path / "state"))
    assert find().url == "http://localhost:2"
    monkeypatch.setenv("MAINSTAY_SERVER", "https://env.test")
    with pytest.raises(NotConfigured, match="no token"):
        find()
    monkeypatch.setenv("MAINSTAY_TOKEN", "s3cret")
    assert (find().url, find().token) == ("https://env.test", "s3cret")
    assert find(server="https://arg.test", token="a").url == "https://arg.test"
    assert (
        "e"
        not in repr(find()).replace("server", "").replace("https://env.test", "").replace("Server", "").split("=")[-1]
    )


def test_a_token_does_not_travel_in_the_open():
    with pytest.raises(NotConfigured, match="plain http"):
        find(server="http://example.com", token="t")
    with pytest.raises(NotConfigured, match="not the address"):
        find(server="ftp://example.com", token="t")


@pytest.mark.parametrize("rest", ["host:99999", "host:x", "[::1", "host?a=1", "host#a"])
def test_what_is_no_address_of_a_platform_is_refused_before_it_is_asked(rest: str):
    with pytest.raises(NotConfigured, match="not the address"):
        find(server=f"https://{rest}", token="t")


def test_a_password_in_an_address_is_refused_and_not_shown():
    with pytest.raises(NotConfigured, match="no password") as refused:
        find(server="https://me:s3cret@example.com", token="t")
    assert "s3cret" not in f"{refused.value.message} {refused.value.hint}"


def test_a_folder_is_sent_without_what_its_ignore_file_names(tmp_path):
    for name in ("train.py", "data/big.bin", "data/small.csv", "__pycache__/x.pyc", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".mainstayignore").write_text("*.bin\n")
    (tmp_path / "train.py").chmod(0o755)
    found = {entry.path: entry.executable for entry in scan(tmp_path).entries}
    assert found == {".mainstayignore": False, "data/small.csv": False, "train.py": True}


def test_links_out_of_the_folder_and_pipes_are_not_sent(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret").write_text("s")
    (inside / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(FilesRefused, match="leaves the folder"):
        scan(inside)
    (inside / "link").unlink()
    (inside / "folder").symlink_to(tmp_path)
    with pytest.raises(FilesRefused, match="link to a folder"):
        scan(inside)
    with pytest.raises(FilesRefused, match="not a folder"):
        scan(tmp_path / "nothing")


def test_the_sdk_loads_nothing_of_the_control_plane():
    script = (
        "import sys; import mainstay.sdk\n"
        "heavy = {'numpy', 'sqlalchemy', 'fastapi', 'uvicorn', 'rich', 'yaml'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_authorities_of_a_platform_may_be_named_and_a_file_without_any_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("MAINSTAY_CA_FILE", raising=False)
    assert trusted() is True
    authority = tmp_path / "ca.crt"
    trustme.CA().cert_pem.write_to_path(str(authority))
    monkeypatch.setenv("MAINSTAY_CA_FILE", str(authority))
    context = trusted()
    assert isinstance(context, ssl.SSLContext)
    assert len(context.get_ca_certs()) == 1
    for path in ("/nowhere", __file__):
        monkeypatch.setenv("MAINSTAY_CA_FILE", path)
        with pytest.raises(NotConfigured, match="no certificates of authorities"):
            trusted()
