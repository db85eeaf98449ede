"""Static files under an address that changes with their content, so that browsers may keep them for ever.

All files share one digest: modules import each other by relative names, which then lead to the same state of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

MEDIA_TYPES: Final[Mapping[str, str]] = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
DIGEST_LENGTH: Final = 16
FOR_EVER: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """All static files, in memory: some tens of kilobytes."""

    contents: Mapping[str, bytes]
    digest: str

    def url(self, name: str) -> str:
        """Where a file is. Raises KeyError for a name that is none: a template with it must not be served."""
        self.contents[name]
        return f"/static/{self.digest}/{name}"

    async def serve(self, request: Request) -> Response:
        """The file, if the page that asks is of our version."""
        name, digest = request.path_params["name"], request.path_params["digest"]
        if name not in self.contents or digest != self.digest:
            return PlainTextResponse("there is no such file; reload the page\n", status_code=404)
        media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        return Response(self.contents[name], media_type=media_type, headers={"Cache-Control": FOR_EVER})


def load_assets() -> Assets:
    """Read all static files of this package."""
    folder = files("mainstay.web") / "static"
    found = sorted(
        (file for file in folder.iterdir() if file.name.rpartition(".")[2] in MEDIA_TYPES), key=lambda file: file.name
    )
    contents = {file.name: file.read_bytes() for file in found}
    whole = hashlib.sha256()
    for name, content in contents.items():
        whole.update(f"{name} {len(content)}\n".encode() + content)
    return Assets(contents=contents, digest=whole.hexdigest()[:DIGEST_LENGTH])
