"""Bodies that stand for gigabytes, nest without end, do not end or are no JSON: refused by a real server, in little memory."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import subprocess
import sys
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.platform import Platform, environment_of, until
from tests.figures import Figure

pytestmark = pytest.mark.xdist_group("hostile bodies")

GROWTH_MIB_MAX = 200
"""Of a server that has been sent all of them, one after the other. The most takes an object of 60,000 unknown keys, each of which
is a refusal of its own; less than any of the bombs stands for.
"""
BOMB_MIB = 256
MIB = 1 << 20
SECONDS = 20.0
DEEP = 100_000
BODIES: dict[str, bytes] = {
    "lists": b"[" * DEEP,
    "mappings": b'{"a":' * DEEP,
    "lists that end": b"[" * DEEP + b"]" * DEEP,
    "lists within the job": b'{"job":{"run":' + b"[" * DEEP + b"]" * DEEP + b"}}",
    "a mebibyte of lists": b"[" * MIB,
    "a huge number": b'{"job":{"nodes":' + b"9" * 1_000_000 + b"}}",
    "a huge exponent": b'{"job":{"nodes":1e999999999}}',
    "a number of many digits": b'{"job":{"nodes":0.' + b"1" * 1_000_000 + b"}}",
    "no number": b'{"job":{"nodes":NaN,"run":Infinity}}',
    "the same key": b'{"job":{' + b",".join([b'"run":"true"'] * 50_000) + b"}}",
    "the same object": b"{" + b",".join([b'"job":{"run":"true","nodes":1}'] * 20_000) + b"}",
    "many keys": b'{"job":{' + b",".join(b'"k%d":1' % n for n in range(60_000)) + b"}}",
    "many environments": b'{"job":{"run":"true","env":{' + b",".join(b'"K%d":"v"' % n for n in range(60_000)) + b"}}}",
    "no UTF-8": b'{"job":{"run":"\xff\xfe\xc0\x80"}}',
    "half a character": b'{"job":{"run":"\\ud800"}}',
    "UTF-16": '{"job":{"run":"true"}}'.encode("utf-16"),
    "UTF-32": '{"job":{"run":"true"}}'.encode("utf-32"),
    "a byte order mark": b'\xef\xbb\xbf{"job":{}}',
    "NUL": b'{"job":{"run":"\\u0000","name":"\\u0000"}}',
    "a long text": b'{"job":{"run":"' + b"x" * 1_000_000 + b'"}}',
    "a long name": b'{"job":{"name":"' + b"x" * 1_000_000 + b'"}}',
    "escapes": b'{"job":{"run":"' + b"\\u0041" * 170_000 + b'"}}',
    "spaces": b" " * 1_000_000 + b"{}",
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a bare text": b'"' + b"x" * 1_000_000 + b'"',
    "two": b"{}{}",
    "a comment": b"// {}\n{}",
    "too large": b"x" * (MIB + 1),
}
JSON = "Content-Type: application/json"
TYPES = {
    "multipart": "Content-Type: multipart/form-data; boundary=x",
    "a form": "Content-Type: application/x-www-form-urlencoded",
    "a text": "Content-Type: text/plain",
    "XML": "Content-Type: application/xml",
    "a charset": "Content-Type: application/json; charset=utf-7",
    "a strange type": "Content-Type: " + "a/" * 500,
    "pickle": "Content-Type: application/python-pickle",
}
MULTIPART = (
    b"".join(b'--x\r\nContent-Disposition: form-data; name="f%d"\r\n\r\nx\r\n' % n for n in range(15_000))
    + b"--x--\r\n"
)
ROUTES = (
    "POST /v1/workloads",
    "POST /v1/workloads/bulk",
    "POST /v1/trees",
    "PUT /v1/secrets/a",
    "PUT /v1/queues/a",
    "POST /v1/endpoints",
    "POST /v1/agent/plans",
    "POST /v1/sign-in/device/token",
)
"""Of each kind: with a model for its body, large, with base 64, of agents, and one that anybody may ask."""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Started cold: what is forked warm is not the process whose memory is measured."""
    state = tmp_path_factory.mktemp("platform") / "state"
    environment = environment_of(state)
    command = (sys.executable, "-m", "mainstay", "up", "--port", "0", "--state", str(state))
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: (state / "server.json").exists() or process.poll() is not None)
        yield Platform(state=state, process=process, environment=environment)
        process.terminate()


class Raw:
    """A connection to the server, over which anything can be said."""

    def __init__(self, up: Platform) -> None:
        self.token = str(json.loads((up.state / "server.json").read_text())["token"])
        url = urlsplit(up.url)
        self.socket = socket.create_connection((url.hostname, url.port), timeout=SECONDS)

    def head(self, route: str, *headers: str) -> bytes:
        method, path = route.split()
        lines = (f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {self.token}", *headers)
        return "\r\n".join((*lines, "", "")).encode()

    def say(self, *pieces: bytes) -> None:
        """As much as it takes: it may answer and hang up before it has heard all."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                self.socket.sendall(piece)

    def status(self) -> int:
        """0 if it hangs up without an answer."""
        with contextlib.suppress(ConnectionResetError):
            line = self.socket.makefile("rb").readline(1_000)
            return int(line.split()[1]) if line else 0
        return 0


def status_of(up: Platform, head: tuple[str, ...], *pieces: bytes) -> int:
    raw = Raw(up)
    with raw.socket:
        raw.say(raw.head(*head), *pieces)
        return raw.status()


def whole(up: Platform, route: str, body: bytes, *headers: str) -> int:
    return status_of(up, (route, *headers, f"Content-Length: {len(body)}", "Connection: close"), body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def bombs() -> dict[str, tuple[str, bytes]]:
    """Some hundred mebibytes in some hundred kilobytes, and once more within: nobody is to look into them."""
    zipped, deflated = bomb(16 + zlib.MAX_WBITS), bomb(zlib.MAX_WBITS)
    return {
        "gzip": ("gzip", zipped),
        "gzip twice": ("gzip, gzip", gzip.compress(zipped)),
        "deflate": ("deflate", deflated),
        "br": ("br", deflated),
        "zstd": ("zstd", deflated),
        "identity, as it says": ("identity", zipped),
        "x-gzip": ("x-gzip", zipped),
    }


def bomb(form: int) -> bytes:
    """A job with a very long command."""
    packer = zlib.compressobj(9, zlib.DEFLATED, form)
    pieces = (b'{"job":{"run":"', *[b"x" * MIB] * BOMB_MIB, b'"}}')
    return b"".join(packer.compress(piece) for piece in pieces) + packer.flush()


def peak_mib(up: Platform, *, anew: bool = False) -> int:
    """The most memory that the process has had so far; `anew`: from here on."""
    if anew:
        Path(f"/proc/{up.process.pid}/clear_refs").write_text("5")
    lines = Path(f"/proc/{up.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10


def answers(up: Platform) -> bool:
    with urllib.request.urlopen(up.url + "/readyz", timeout=SECONDS) as answer:
        return bool(answer.status == 200)


def test_no_body_is_a_fault_of_ours_or_takes_much_memory(up: Platform, figure: Figure):
    packed = bombs()
    before, seen = peak_mib(up, anew=True), Counter[int]()
    for route in ROUTES:
        for name, body in BODIES.items():
            seen[status := whole(up, route, body, JSON)] += 1
            assert 0 < status < 500, (route, name, status)
        for name, kind in TYPES.items():
            seen[status := whole(up, route, MULTIPART if name == "multipart" else b"job=1&run=2", kind)] += 1
            assert 400 <= status < 500, (route, name, status)
        for name, (encoding, body) in packed.items():
            seen[status := whole(up, route, body, JSON, f"Content-Encoding: {encoding}")] += 1
            assert 400 <= status < 500, (route, name, status)
    grown = peak_mib(up) - before
    assert grown < GROWTH_MIB_MAX, f"{grown} MiB more"
    assert answers(up)
    figure("hostile bodies, sent to a server of its own: 0 answers of 5xx", seen.total())
    figure("of them refused with 413, for their size", seen[413])
    figure("MiB that the server has grown at most", grown)


def test_a_body_that_lies_or_does_not_end_holds_up_nobody(up: Platform, figure: Figure):
    chunked = (JSON, "Transfer-Encoding: chunked")
    route = ROUTES[0]
    lies = {
        "chunks without end": status_of(up, (route, *chunked), *[chunk(b"[" * 65_536)] * 40),
        "chunks of one byte": status_of(up, (route, *chunked), chunk(b" ") * 200_000, b"0\r\n\r\n"),
        "a chunk of all memory": status_of(up, (route, *chunked), b"ffffffffffffffff\r\n", b"[" * 2 * MIB),
        "a chunk of no number": status_of(up, (route, *chunked), b"xyz\r\n[\r\n0\r\n\r\n"),
        "a long extension": status_of(up, (route, *chunked), b"1;" + b"x" * 2 * MIB + b"\r\n[\r\n0\r\n\r\n"),
        "long trailers": status_of(up, (route, *chunked), b"0\r\n" + b"X: y\r\n" * 300_000 + b"\r\n"),
        "two lengths": status_of(up, (route, JSON, "Content-Length: 2", "Content-Length: 3"), b"{}"),
        "a length and chunks": status_of(up, (route, *chunked, "Content-Length: 2"), chunk(b"{}") + b"0\r\n\r\n"),
        "a negative length": status_of(up, (route, JSON, "Content-Length: -1"), b"{}"),
        "a length of all memory": status_of(up, (route, JSON, f"Content-Length: {2**63}"), b"{}"),
        "a length of many digits": status_of(up, (route, JSON, f"Content-Length: {'9' * 500}"), b"{}"),
        "a huge header": status_of(up, (route, JSON, "X: " + "x" * 2 * MIB)),
        "many headers": status_of(up, (route, JSON, *(f"X{n}: y" for n in range(20_000)))),
    }
    assert {name: status for name, status in lies.items() if status >= 500} == {}
    assert not [name for name, status in lies.items() if status in {200, 201}]
    waiting = [Raw(up) for _ in range(100)]
    for raw in waiting:
        raw.say(raw.head(route, JSON, "Content-Length: 1000000"), b"{")
    assert answers(up)
    assert whole(up, route, b"{}", JSON) == 422
    for raw in waiting:
        raw.socket.close()
    assert answers(up)
    figure("bodies that lie about their length or do not end: 0 answers of 5xx", len(lies))
    figure("bodies that stop within, while others were answered", len(waiting))
