"""`ArtifactStore` over obstore: blobs and trees named by their SHA-256, slots fenced by attempt.

    blobs/ab/abcd…            content, immutable
    trees/ab/abcd…            manifest of a tree, immutable
    slots/NAME/00000003       digest of the tree that attempt 3 committed; the highest attempt is the content

These lie at the root for the default project of the default tenant, below `tenants/TENANT/PROJECT/` for every other, and below
`logs/` for logs of pods (docs/decisions/0031). Nothing is shared between two of them, so that no answer to one owner, nor how
long it takes, tells what another has.

An older attempt never overwrites a newer one, because each writes under its own number and readers take the highest:
the fence needs no lock and no clock (reliability.md R6).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path, PurePosixPath

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from mainstay.domain.access import DEFAULT_PROJECT, DEFAULT_TENANT, NAME
from mainstay.domain.allocation import Owner
from mainstay.domain.artifact import DIGEST, Tree
from mainstay.domain.errors import Fenced, Invalid, NotFound, NotYet, StateUnusable

PART_BYTES = 5 << 20
"""The smallest part that S3 takes in a multipart upload."""
LOOKUPS_MAX = 32
SLOT = re.compile(r"[a-z0-9][a-z0-9-]{0,120}(/[a-z0-9][a-z0-9._-]{0,60})?\Z")


class ObjectArtifactStore:
    """Implements `ports.ArtifactStore`."""

    def __init__(self, store: ObjectStore, *, directory: Path | None = None) -> None:
        """`directory` is where `store` keeps its files if it is local: they are then flushed to disk."""
        self._store = store
        self._directory = directory

    def of(self, owner: Owner) -> ObjectArtifacts:
        """The default project keeps the place in which all files were before there were others."""
        return self._below("" if owner == DEFAULT_OWNER else f"tenants/{checked_owner(owner)}/")

    @property
    def logs(self) -> ObjectArtifacts:
        """Of pods of all tenants."""
        return self._below("logs/")

    def _below(self, prefix: str) -> ObjectArtifacts:
        return ObjectArtifacts(self._store, prefix=prefix, directory=self._directory)


DEFAULT_OWNER = Owner(tenant=DEFAULT_TENANT, project=DEFAULT_PROJECT)


def checked_owner(owner: Owner) -> str:
    """Tenant and project as a path. Raises Invalid for what is no name of one."""
    if not NAME.match(owner.tenant) or not NAME.match(owner.project):
        msg = f"not a project of a tenant: {owner.tenant!r}, {owner.project!r}"
        raise Invalid(msg, object_="project")
    return f"{owner.tenant}/{owner.project}"


class ObjectArtifacts:
    """Implements `ports.Artifacts`, below one prefix of an object store."""

    def __init__(self, store: ObjectStore, *, prefix: str, directory: Path | None) -> None:
        self._store = store
        self._prefix = prefix
        self._directory = directory

    async def missing(self, digests: Iterable[str]) -> tuple[str, ...]:
        """In the order given, each once."""
        return tuple(name for name, size in (await self._sizes(digests)).items() if size is None)

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> int:
        """Nothing is left behind if the content turns out to be another: the upload is only completed once it is checked."""
        path = self._path("blobs", _checked(digest))
        check = _Check(digest, chunks)
        try:
            await obstore.put_async(self._store, path, check.content(), chunk_size=PART_BYTES)
        except Exception as error:
            if check.refusal:
                raise check.refusal from error
            raise
        await self._flush(path)
        return check.size

    async def get(self, digest: str) -> AsyncIterator[bytes]:
        """Chunks of at least 5 MiB but the last."""
        path = self._path("blobs", _checked(digest))
        try:
            result = await obstore.get_async(self._store, path)
        except (NotFoundError, FileNotFoundError) as error:
            msg = f"no such blob: {digest}"
            raise NotFound(msg, object_=digest) from error
        async for chunk in result.stream(min_chunk_size=PART_BYTES):
            yield bytes(chunk)

    async def put_tree(self, tree: Tree) -> str:
        """Raises NotYet with the digests that are missing in its `numbers`, Invalid if a file has another size than announced."""
        sizes = await self._sizes(entry.digest for entry in tree.entries)
        missing = [digest for digest, size in sizes.items() if size is None]
        if missing:
            msg = f"{len(missing)} files of the tree are not stored"
            raise NotYet(msg, object_=tree.digest, hint="send the blobs first", numbers={"missing": " ".join(missing)})
        for entry in tree.entries:
            if sizes[entry.digest] != entry.size:
                msg = f"{entry.path} has {sizes[entry.digest]} bytes, not {entry.size}"
                raise Invalid(msg, object_=tree.digest, hint="the file changed while it was sent; send it again")
        path = self._path("trees", tree.digest)
        await obstore.put_async(self._store, path, tree.manifest)
        await self._flush(path)
        return tree.digest

    async def tree(self, digest: str) -> Tree:
        """Parsed and checked again: what is stored is not trusted more than what is sent."""
        try:
            return Tree.of_manifest(await self._read(self._path("trees", _checked(digest))))
        except (NotFoundError, FileNotFoundError) as error:
            msg = f"no such tree: {digest}"
            raise NotFound(msg, object_=digest) from error

    async def commit(self, slot: str, *, attempt: int, tree: str) -> None:
        """The same attempt may commit again (a later checkpoint)."""
        newest = max(await self._attempts(slot), default=0)
        if newest > attempt:
            msg = f"attempt {newest} of {slot} has committed; attempt {attempt} is too late"
            raise Fenced(msg, object_=slot, numbers={"newest": newest, "attempt": attempt})
        path = f"{self._prefix}slots/{slot}/{attempt:08d}"
        await obstore.put_async(self._store, path, _checked(tree).encode())
        await self._flush(path)

    async def head(self, slot: str) -> tuple[int, str]:
        """What the highest attempt committed."""
        attempts = await self._attempts(slot)
        if not attempts:
            msg = f"nothing was committed to {slot}"
            raise NotFound(msg, object_=slot)
        newest = max(attempts)
        return newest, (await self._read(f"{self._prefix}slots/{slot}/{newest:08d}")).decode()

    async def _attempts(self, slot: str) -> list[int]:
        if not SLOT.match(slot):
            msg = f"not a slot: {slot!r}"
            raise Invalid(msg, object_=slot)
        found = await obstore.list_with_delimiter_async(self._store, f"{self._prefix}slots/{slot}")
        names = (row["path"].rsplit("/", 1)[-1] for row in found["objects"])
        return [int(name) for name in names if name.isdecimal()]

    async def _sizes(self, digests: Iterable[str]) -> dict[str, int | None]:
        """Bytes of each blob, None for one that is not stored; in the order given."""
        names = tuple(dict.fromkeys(map(_checked, digests)))
        looking = asyncio.Semaphore(LOOKUPS_MAX)

        async def size(name: str) -> int | None:
            async with looking:
                try:
                    return int((await obstore.head_async(self._store, self._path("blobs", name)))["size"])
                except (NotFoundError, FileNotFoundError):
                    return None

        return dict(zip(names, await asyncio.gather(*map(size, names)), strict=True))

    def _path(self, folder: str, digest: str) -> str:
        return f"{self._prefix}{folder}/{digest[:2]}/{digest}"

    async def _read(self, path: str) -> bytes:
        return bytes(await (await obstore.get_async(self._store, path)).bytes_async())

    async def _flush(self, path: str) -> None:
        if self._directory is not None:
            await asyncio.to_thread(flush, self._directory, path)


def open_artifacts(url: str) -> ObjectArtifactStore:
    """`url` is a directory, or `s3://bucket/prefix`, `gs://…`, `az://…` with credentials from the environment.

    Raises StateUnusable.
    """
    store, directory = opened_place(url)
    return ObjectArtifactStore(store, directory=directory)


def opened_place(url: str) -> tuple[ObjectStore, Path | None]:
    """Where objects are kept; with the directory, if it is one. Raises StateUnusable."""
    if "://" in url:
        try:
            return from_url(url), None
        except (BaseError, ValueError) as error:
            said = str(error).partition("\n")[0]
            msg = f"cannot keep files in {url}: {said}"
            raise StateUnusable(
                msg, hint="check the address, and the variables of its provider, e.g. AWS_REGION"
            ) from error
    directory = Path(url)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return LocalStore(prefix=directory), directory


class _Check:
    """Hashes a stream as it passes and refuses its end if the digest is another."""

    def __init__(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        self._expected = digest
        self._chunks = chunks
        self.size = 0
        self.refusal: Invalid | None = None

    async def content(self) -> AsyncIterator[bytes]:
        digest = hashlib.sha256()
        async for chunk in self._chunks:
            digest.update(chunk)
            self.size += len(chunk)
            yield chunk
        if digest.hexdigest() != self._expected:
            msg = f"the content has another digest: {digest.hexdigest()}, not {self._expected}"
            self.refusal = Invalid(
                msg, object_=self._expected, hint="the file changed while it was sent; send it again"
            )
            raise self.refusal


def _checked(digest: str) -> str:
    if not DIGEST.match(digest):
        msg = f"not a SHA-256 digest: {digest!r}"
        raise Invalid(msg)
    return digest


def flush(root: Path, path: str) -> None:
    """The content, then its name, then those of the folders that may be new: what is on record survives a power cut."""
    for target in (root / path, *(root / folder for folder in PurePosixPath(path).parents)):
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
