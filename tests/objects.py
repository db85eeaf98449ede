"""An object store for tests: the S3 server of moto, with a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import obstore
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

BUCKET = "bucket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """What is in the bucket, and the secret that opens it."""

    store: S3Store
    port: int

    def access(self, host: str = "127.0.0.1", *, secret: str = "canary-of-the-store") -> bytes:
        """As its users write it."""
        lines = ("AWS_ACCESS_KEY_ID=test", f"AWS_SECRET_ACCESS_KEY='{secret}'", "AWS_REGION=us-east-1")
        return "\n".join([*lines, f"AWS_ENDPOINT_URL=http://{host}:{self.port}", ""]).encode()

    def put(self, key: str, content: bytes) -> None:
        obstore.put(self.store, key, content)

    def content(self, prefix: str) -> dict[str, bytes]:
        """What is under a prefix, by key."""
        keys = [one["path"] for page in obstore.list(self.store, prefix=prefix) for one in page]
        return {key: bytes(obstore.get(self.store, key).bytes()) for key in keys}


@contextmanager
def objects() -> Iterator[Objects]:
    """Reached on every address of this machine."""
    server = ThreadedMotoServer("0.0.0.0", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    import httpx2

    httpx2.put(f"http://127.0.0.1:{port}/{BUCKET}", trust_env=False)
    store = S3Store(
        BUCKET,
        endpoint=f"http://127.0.0.1:{port}",
        access_key_id="test",
        secret_access_key="test",
        region="us-east-1",
        client_options={"allow_http": True},
    )
    yield Objects(store=store, port=port)
    server.stop()
