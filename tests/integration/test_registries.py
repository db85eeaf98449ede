"""A tag is asked for at a registry over HTTP, and becomes the digest of what the registry hands out."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mainstay.domain.errors import Invalid, Unavailable
from mainstay.registries import MANIFEST_BYTES_MAX, Registries
from tests.e2e.registry import MANIFEST, Asked, Registry

CONTENT = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST}).encode()
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Guarded(Asked):
    """One that hands everybody a token, and wants to see it."""

    def do_GET(self) -> None:  # noqa: N802 - as http.server calls it
        server: Any = self.server
        asked = urlsplit(self.path)
        server.paths.append(self.path)
        if asked.path == "/token":
            server.scopes += parse_qs(asked.query)["scope"]
            self._say(200, json.dumps({"token": "for-everybody"}).encode(), "application/json")
        elif server.answers:
            self._say(*server.answers)
        elif server.guarded and self.headers["Authorization"] != "Bearer for-everybody":
            realm = f'Bearer realm="http://127.0.0.1:{server.server_port}/token",service="here",scope="ignored"'
            self._say(401, b"", "text/plain", realm)
        else:
            try:
                super().do_GET()
            except FileNotFoundError:
                self._say(404, b"", "application/json")

    def _say(self, status: int, content: bytes, kind: str, challenge: str = "", location: str = "") -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("WWW-Authenticate", challenge), ("Location", location)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing: it would end up in the output of the tests."""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Any]:
    image = tmp_path / "train"
    (image / "blobs" / "sha256").mkdir(parents=True)
    (image / "blobs" / DIGEST.replace(":", "/")).write_bytes(CONTENT)
    (image / "tag").write_text(DIGEST)
    server: Any = Registry(0, tmp_path, 0)
    server.RequestHandlerClass = Guarded
    server.guarded, server.answers, server.scopes, server.paths = False, None, [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def pinned(registry: Any, name: str = "train:1") -> str:
    return await Registries().pinned(f"localhost:{registry.server_port}/{name}")


@pytest.mark.parametrize("guarded", [False, True])
async def test_a_tag_becomes_the_digest_of_what_is_handed_out(registry, guarded):
    registry.guarded = guarded
    assert await pinned(registry) == f"localhost:{registry.server_port}/train:1@{DIGEST}"
    assert registry.scopes == (["repository:train:pull"] if guarded else [])


async def test_an_image_without_a_tag_is_the_latest(registry):
    assert (await pinned(registry, "train")).endswith(f"/train@{DIGEST}")
    assert registry.paths == ["/v2/train/manifests/latest"]


async def test_an_image_with_a_digest_is_asked_for_nowhere(registry):
    assert (await pinned(registry, f"train:1@{DIGEST}")).endswith(f"/train:1@{DIGEST}")
    assert registry.paths == []


async def test_an_image_that_is_not_there_is_told(registry):
    with pytest.raises(Invalid, match="other:1' is not found at localhost"):
        await pinned(registry, "other:1")


HUGE = b" " * (MANIFEST_BYTES_MAX + 1)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((200, b"<html>sign in</html>", "text/html"), Invalid),
        ((302, b"", "text/plain", "", "http://127.0.0.1:9/elsewhere"), Invalid),
        ((401, b"", "text/plain", 'Bearer realm="http://metadata.example/token"'), Invalid),
        ((401, b"", "text/plain", "Basic"), Invalid),
        ((403, b"", "text/plain"), Invalid),
        ((429, b"", "text/plain"), Unavailable),
        ((500, b"", "text/plain"), Unavailable),
        ((200, HUGE, MANIFEST), Unavailable),
    ],
)
async def test_no_other_answer_becomes_a_digest_and_none_leads_elsewhere(registry, answer, error):
    registry.answers = answer
    with pytest.raises(error):
        await pinned(registry)
    assert set(registry.paths) == {"/v2/train/manifests/1"}


async def test_a_registry_that_is_away_is_told(registry):
    registry.server_close()
    with pytest.raises(Unavailable, match="does not answer"):
        await Registries().pinned("localhost:9/train:1")
