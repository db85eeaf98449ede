"""Files by content: ask what is missing, send it, read it back."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from mainstay.api.auth import All, Reader, Uploader
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.errors import NotFound, NotYet
from mainstay.wire.requests import TreeUpload
from mainstay.wire.views import MissingView, TreeEntry, TreeView

router = APIRouter(prefix="/v1", tags=["files"])


@router.post("/trees")
async def put_tree(body: TreeUpload, principal: Uploader, services: All) -> MissingView:
    """Store a tree if all its files are here; otherwise say which are missing."""
    entries = (
        Entry(path=entry.path, size=entry.size, digest=entry.digest, executable=entry.executable)
        for entry in sorted(body.entries, key=lambda entry: entry.path)
    )
    tree = Tree(entries=tuple(entries))
    try:
        return MissingView(tree=await services.artifacts.put_tree(tree), missing=[])
    except NotYet as error:
        return MissingView(tree=tree.digest, missing=str(error.numbers["missing"]).split())


@router.get("/trees/{digest}")
async def get_tree(digest: str, principal: Reader, services: All) -> TreeView:
    """The files of a tree."""
    return _view(digest, await services.artifacts.tree(digest))


@router.get("/workloads/{reference}/outputs")
async def get_outputs(reference: str, principal: Reader, services: All) -> TreeView:
    """The output files of a workload that succeeded."""
    workload = await services.offload(services.store.workload, reference, tenant=principal.tenant)
    if not workload.output:
        msg = f"{workload.id} has no output: it is {workload.phase.word}"
        raise NotFound(msg, object_=workload.id, hint="a job writes its output to $MAINSTAY_OUTPUT_DIR")
    return _view(workload.output, await services.artifacts.tree(workload.output))


@router.put("/blobs/{digest}", status_code=204)
async def put_blob(digest: str, request: Request, principal: Uploader, services: All) -> None:
    """Send the content of one file. Refused if it has another digest."""
    await services.artifacts.put(digest, request.stream())


@router.get("/blobs/{digest}", response_class=StreamingResponse)
async def get_blob(digest: str, principal: Reader, services: All) -> StreamingResponse:
    """The content of one file, as an attachment: nothing that a job wrote is ever shown as a page of ours."""
    chunks = services.artifacts.get(digest)
    first = await anext(chunks, b"")
    headers = {"Content-Disposition": f'attachment; filename="{digest}"'}
    return StreamingResponse(_after(first, chunks), media_type="application/octet-stream", headers=headers)


async def _after(first: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in chunks:
        yield chunk


def _view(digest: str, tree: Tree) -> TreeView:
    return TreeView(
        digest=digest,
        entries=[
            TreeEntry(path=entry.path, size=entry.size, digest=entry.digest, executable=entry.executable)
            for entry in tree.entries
        ],
    )
