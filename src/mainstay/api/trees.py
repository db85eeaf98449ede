"""Files by content: ask what is missing, send it, read it back. Those of each project are kept for themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from mainstay.api import convert
from mainstay.api.limits import TooLarge
from mainstay.api.routes import Call, Caller, Routes, json_response
from mainstay.domain.access import DEFAULT_PROJECT, Permission
from mainstay.domain.allocation import Owner
from mainstay.domain.errors import NotFound, NotYet
from mainstay.operations.projects import require_project
from mainstay.ports import Artifacts
from mainstay.wire.requests import TreeUpload
from mainstay.wire.views import MissingView, TreeView

routes = Routes("files")
Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 in hex.")]
Project = Annotated[str, Query(max_length=40, description="Of which the files are.")]
BYTES = "application/octet-stream"


@routes.add("POST", "/v1/trees", needs=Permission.UPLOAD, answers=MissingView, of_projects=True)
async def put_tree(call: Caller, body: TreeUpload, project: Project = DEFAULT_PROJECT) -> Response:
    """Store a tree if all its files are here; otherwise say which are missing."""
    files = await _to_write(call, project)
    content = convert.tree(body.entries)
    try:
        view = MissingView(tree=await files.put_tree(content), missing=[])
    except NotYet as error:
        view = MissingView(tree=content.digest, missing=str(error.numbers["missing"]).split())
    return json_response(view.model_dump_json())


@routes.add("GET", "/v1/trees/{digest}", needs=Permission.READ, answers=TreeView, of_projects=True)
async def get_tree(call: Caller, digest: Digest, project: Project = DEFAULT_PROJECT) -> Response:
    """The files of a tree."""
    return json_response(convert.tree_view(await _to_read(call, project, digest).tree(digest)).model_dump_json())


@routes.add(
    "PUT",
    "/v1/blobs/{digest}",
    needs=Permission.UPLOAD,
    status=204,
    body={"required": True, "content": {BYTES: {"schema": {"type": "string", "format": "binary"}}}},
    of_projects=True,
)
async def put_blob(call: Caller, request: Request, digest: Digest, project: Project = DEFAULT_PROJECT) -> Response:
    """Send the content of one file, up to 1 GiB. Refused if it has another digest."""
    await Sent(request).into(await _to_write(call, project), digest)
    return Response(status_code=204)


@routes.add("GET", "/v1/blobs/{digest}", needs=Permission.READ, media_type=BYTES, of_projects=True)
async def get_blob(call: Caller, digest: Digest, project: Project = DEFAULT_PROJECT) -> Response:
    """The content of one file, always as an attachment: nothing that a job wrote is shown as a page of ours."""
    chunks = _to_read(call, project, digest).get(digest)
    first = await anext(chunks, b"")
    headers = {
        "Content-Disposition": f'attachment; filename="{digest}"',
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    return StreamingResponse(after(first, chunks), media_type=BYTES, headers=headers)


def _to_read(call: Call, project: str, digest: str) -> Artifacts:
    """Raises NotFound for a project into which the caller may not look, as for what is not there."""
    if not call.principal.may(Permission.READ, project):
        msg = f"no such file in project {project}: {digest}"
        raise NotFound(msg, object_=digest)
    return call.services.artifacts.of(Owner(tenant=call.principal.tenant, project=project))


async def _to_write(call: Call, project: str) -> Artifacts:
    """Raises Forbidden, and Invalid for a project that is not there."""
    call.principal.require(Permission.UPLOAD, project)
    await call.services.offload(require_project, call.services.store, call.principal.tenant, project)
    return call.services.artifacts.of(Owner(tenant=call.principal.tenant, project=project))


class Sent:
    """The body of a request, remembering whether it grew too large."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.refusal: TooLarge | None = None

    async def into(self, artifacts: Artifacts, digest: str) -> None:
        """Store it as a blob. Raises Invalid if it has another digest, TooLarge."""
        try:
            await artifacts.put(digest, self._chunks())
        except Exception as error:
            # The storage library wraps what our stream raises; the cause says what really happened.
            if self.refusal:
                raise self.refusal from error
            raise

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._request.stream():
                if chunk:
                    yield chunk
        except TooLarge as error:
            self.refusal = error
            raise


async def after(first: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A stream whose beginning was read already."""
    yield first
    async for chunk in chunks:
        yield chunk
