"""`python registry.py PORT IMAGES SECONDS`: a registry of images on loopback that takes its time for each layer.

IMAGES is a folder of folders, each with an image in the OCI layout. As much of the OCI distribution specification (1.1, "Pull")
as a container runtime asks for.
"""

from __future__ import annotations

import http.server
import sys
import time
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Asked(http.server.BaseHTTPRequestHandler):
    """`/v2/NAME/manifests/TAG` and `/v2/NAME/blobs/DIGEST`."""

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def _answer(self, *, with_content: bool) -> None:
        server = self.server
        assert isinstance(server, Registry)
        _, _, name, kind, reference = self.path.split("/", 4)
        image = server.images / name
        digest = reference if ":" in reference else (image / "tag").read_text()
        content = (image / "blobs" / digest.replace(":", "/")).read_bytes()
        if kind == "blobs" and with_content:
            time.sleep(server.seconds)
        self.send_response(200)
        self.send_header("Content-Type", MANIFEST if kind == "manifests" else "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if with_content:
            self.wfile.write(content)


class Registry(http.server.ThreadingHTTPServer):
    """Of the images in a folder."""

    def __init__(self, port: int, images: Path, seconds: float) -> None:
        super().__init__(("127.0.0.1", port), Asked)
        self.images, self.seconds = images, seconds


if __name__ == "__main__":
    Registry(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])).serve_forever()
