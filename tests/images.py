"""A registry of images in memory, on loopback: images that bring what a test says, and signatures as cosign makes them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tag_of_signatures(digest: str) -> str:
    return f"{digest.replace(':', '-')}.sig"


def pem_of(private: Any) -> bytes:
    """The public half."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return private.public_key().public_bytes(serialization.Encoding.PEM, form)


class Signer:
    """Holds a key of the kind that `cosign generate-key-pair` makes."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.public = pem_of(self.private)

    def sign(self, payload: bytes) -> bytes:
        return self.private.sign(payload, ec.ECDSA(SHA256()))


def payload(digest: str, repository: str, **critical: Any) -> bytes:
    """What cosign signs."""
    said = {"identity": {"docker-reference": repository}, "image": {"docker-manifest-digest": digest}}
    return json.dumps(
        {"critical": {**said, "type": "cosign container image signature", **critical}, "optional": None}
    ).encode()


class ImageRegistry(http.server.ThreadingHTTPServer):
    """Repositories with tags and blobs. `paths` is what was asked for, `headers` what came along."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.host = f"localhost:{self.server_port}"
        self.tags: dict[str, tuple[str, bytes]] = {}
        """By `REPOSITORY:TAG` and `REPOSITORY@DIGEST`: media type and content."""
        self.blobs: dict[str, bytes] = {}
        self.answers: Any = None
        """Given to whoever asks, in place of everything."""
        self.challenge = ""
        """Whom it wants to see first."""
        self.passwords: set[str] = set()
        """What it takes as `Authorization`, for a token or at once; none: it hands everybody a token."""
        self.fails = ""
        """What it has no answer for just now: how a path ends."""
        self.moved = ""
        """Where blobs are, if elsewhere."""
        self.paths: list[str] = []
        self.scopes: list[str] = []
        self.heard: list[tuple[str, str]] = []
        """Path and `Authorization` of each request."""

    def blob(self, content: bytes) -> str:
        self.blobs[digest_of(content)] = content
        return digest_of(content)

    def put(self, repository: str, tag: str, said: Any, kind: str = MANIFEST) -> str:
        """A manifest, by its tag and its digest."""
        content = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.tags[f"{repository}:{tag}"] = self.tags[f"{repository}@{digest_of(content)}"] = (kind, content)
        return digest_of(content)

    def push(self, repository: str, tag: str, env: Any = ("PATH=/bin",), *, config: Any = None) -> str:
        """An image with such variables, or with such a configuration."""
        said = {"architecture": "amd64", "os": "linux", "config": {"Env": list(env)}} if config is None else config
        digest = self.blob(said if isinstance(said, bytes) else json.dumps(said).encode())
        return self.put(
            repository, tag, {"schemaVersion": 2, "config": {"mediaType": CONFIG, "digest": digest}, "layers": []}
        )

    def push_index(self, repository: str, tag: str, entries: list[Any], **more: Any) -> str:
        return self.put(repository, tag, {"schemaVersion": 2, "manifests": entries, **more}, INDEX)

    def attach(self, repository: str, digest: str, *layers: Any) -> None:
        """Signatures of an image."""
        self.put(repository, tag_of_signatures(digest), {"schemaVersion": 2, "config": {}, "layers": list(layers)})

    def layer(
        self, signer: Signer, said: bytes, *, signature: bytes | str | None = None, blob: bytes | None = None
    ) -> Any:
        """One signature; `blob`: what is handed out in place of what was signed."""
        made = signer.sign(said) if signature is None else signature
        text = made if isinstance(made, str) else base64.b64encode(made).decode()
        self.blobs[digest_of(said)] = said if blob is None else blob
        annotations = {"dev.cosignproject.cosign/signature": text}
        return {"mediaType": SIMPLE_SIGNING, "digest": digest_of(said), "size": len(said), "annotations": annotations}

    def signed(self, repository: str, digest: str, signer: Signer) -> None:
        """As cosign does it."""
        self.attach(repository, digest, self.layer(signer, payload(digest, f"{self.host}/{repository}")))


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server, asked = self.server, urlsplit(self.path)
        assert isinstance(server, ImageRegistry)
        given = self.headers.get("Authorization", "")
        server.paths.append(self.path)
        server.heard.append((asked.path, given))
        if asked.path == "/token":
            server.scopes += parse_qs(asked.query)["scope"]
            let_in = not server.passwords or given in server.passwords
            return self._say(200 if let_in else 401, json.dumps({"token": "handed-out"}).encode(), "application/json")
        if asked.path.startswith("/moved/"):
            return self._blob(asked.path.rpartition("/")[2])
        if server.answers:
            return self._say(*server.answers)
        if server.fails and asked.path.endswith(server.fails):
            return self._say(503, b"", "text/plain")
        if server.challenge and given != "Bearer handed-out" and given not in server.passwords:
            return self._say(401, b"", "text/plain", server.challenge)
        return self._content(asked.path.removeprefix("/v2/"))

    def _content(self, path: str) -> None:
        server: Any = self.server
        folder, _, name = path.rpartition("/")
        repository, _, kind = folder.rpartition("/")
        if kind == "blobs" and server.moved:
            return self._say(307, b"", "text/plain", location=f"{server.moved}/moved/{name}")
        if kind == "blobs":
            return self._blob(name)
        found = server.tags.get(f"{repository}@{name}" if ":" in name else f"{repository}:{name}")
        return self._say(200, found[1], found[0]) if found else self._say(404, b"", "application/json")

    def _blob(self, digest: str) -> None:
        server: Any = self.server
        content = server.blobs.get(digest)
        self._say(404 if content is None else 200, content or b"", "application/octet-stream")

    def _say(self, status: int, content: bytes, kind: str, challenge: str = "", location: str = "") -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("WWW-Authenticate", challenge), ("Location", location)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who has read enough hangs up
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing: it would end up in the output of the tests."""


@contextlib.contextmanager
def image_registry() -> Iterator[ImageRegistry]:
    """Serves until the end."""
    server = ImageRegistry()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
