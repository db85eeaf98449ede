"""Code into a pod before it starts, output out of it after it ended: as tar streams through the API server.

Nothing in a pod needs a path to us, a credential or software of ours; any image with a shell, head and tar will do as its helper
(docs/decisions/0007). What comes out of a pod is hostile: it is read as a stream, and nothing of it is ever unpacked here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import IO, Any, cast

from mainstay.clusters.kubernetes.api import KubeApi
from mainstay.clusters.kubernetes.names import FILES, OUTPUTS
from mainstay.clusters.kubernetes.pods import OUTPUT, ROOT, SECRETS, SIGN, WORK
from mainstay.domain.artifact import PATH_RULE, TREE_FILES_MAX, Entry, safe_path
from mainstay.domain.errors import Invalid, NotFound, Unavailable
from mainstay.domain.masking import masked_words
from mainstay.domain.secret import Handed, files_of
from mainstay.ports import Artifacts, Channel, Process

CHUNK_BYTES = 256 << 10
TRANSFER = ("python", "-m", "mainstay.transfer")
_NO_PROGRAM = "No module named"
END = b"\0" * (2 * tarfile.BLOCKSIZE)
COMPLETE = "complete"
"""The last file of a delivery: what breaks off before is never taken for all, wherever it does."""
SHELL = ("/bin/sh", "-c")
PACK = (*SHELL, f"cd {OUTPUT} && tar -cf - .")
SECONDS_MAX = 3_600.0
SAID_BYTES_MAX = 2_000
SPOOL_BYTES = 4 << 20
HEADER_BYTES_MAX = 1 << 20
"""Of one member, with its extended headers: they are read as a whole, however large they say that they are."""

OutputFile = tuple[str, int, bool, AsyncIterator[bytes]]


async def hand_in(api: KubeApi, handed: Sequence[Handed], *, namespace: str, pod: str) -> None:
    """Write the secrets of a pod that waits for them into its memory, for its user to read. Twice is once, with newer values.

    They go the way of the code: nothing of them is kept in the cluster, and no right to see secrets of the cluster is needed.
    Raises Invalid if one cannot be what it is asked to be, Unavailable if the pod did not take them.
    """
    if not files_of(handed):
        return
    archive = bytearray()
    for name, content in files_of(handed).items():
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o400
        archive += info.tobuf(format=tarfile.GNU_FORMAT) + content + b"\0" * _padding(len(content))
    archive += END
    async with (
        asyncio.timeout(SECONDS_MAX),
        api.exec(
            namespace, pod, FILES, (*SHELL, f"umask 077 && {_unpack(len(archive), SECRETS)}"), stdin=True
        ) as process,
        asyncio.TaskGroup() as group,
    ):
        said = group.create_task(_said(process))
        await _send_whole(process, bytes(archive))
        text = masked_words(await said, (one.value for one in handed))
    if process.exit_status != 0:
        msg = f"pod {pod} did not take its secrets: {text or process.failure or 'no reason given'}"
        raise Unavailable(msg, object_=pod)


async def transfer(
    api: KubeApi, direction: str, objects: str, handed: Sequence[Handed], *, namespace: str, pod: str
) -> None:
    """Have a pod copy files `in` from object stores or `out` to them (`mainstay.transfer`): they take no way through us.

    The credentials go in as the command's input and are kept nowhere. Raises Invalid with the words of the store; Unavailable if
    what is to go out has to wait for a store that does not answer: it is nowhere else.
    """
    access = {one.use.name: one.value.decode(errors="replace") for one in handed}
    which = {"in": 1, "out": 2}[direction]
    copies = [
        {"url": one[which], "path": one[0], "access": access.get(one[3], "")}
        for one in json.loads(objects or "[]")
        if one[which]
    ]
    if not copies:
        return
    container = FILES if direction == "in" else OUTPUTS
    async with (
        asyncio.timeout(SECONDS_MAX),
        api.exec(namespace, pod, container, (*TRANSFER, direction), stdin=True) as process,
        asyncio.TaskGroup() as group,
    ):
        said = group.create_task(_said(process))
        await _send_whole(process, json.dumps({"copies": copies}).encode() + b"\n")
        text = await said
    if process.exit_status != 0:
        why = masked_words(text, (one.value for one in handed)) or process.failure or "no reason given"
        hint = (
            "its cluster's image has no mainstay in it: add the cluster again with --image"
            if _NO_PROGRAM in why
            else ""
        )
        msg = f"files of an object store could not be copied: {why}"
        if direction == "out" and process.exit_status == os.EX_TEMPFAIL:
            raise Unavailable(msg, object_=pod)
        raise Invalid(msg, object_=pod, hint=hint)


async def deliver(api: KubeApi, artifacts: Artifacts, *, namespace: str, pod: str, mounts: str) -> None:
    """Hand in the files of a pod that waits for them. Twice is once: the same files are written again.

    Raises Invalid if they are not stored or damaged, Unavailable if the pod did not take them.
    """
    files = await _listed(artifacts, mounts)
    size = sum(len(header) + entry.size + _padding(entry.size) for header, entry in files) + len(_SIGNED)
    async with (
        asyncio.timeout(SECONDS_MAX),
        api.exec(namespace, pod, FILES, (*SHELL, _unpack(size, ROOT)), stdin=True) as process,
        asyncio.TaskGroup() as group,
    ):
        said = group.create_task(_said(process))
        for header, entry in files:
            await process.send(header)
            await _send_content(process, artifacts, entry)
        await process.send(_SIGNED)
        text = await said
    if process.exit_status != 0:
        msg = f"pod {pod} did not take its files: {text or process.failure or 'no reason given'}"
        raise Unavailable(msg, object_=pod)


async def outputs(api: KubeApi, *, namespace: str, pod: str) -> AsyncIterator[OutputFile]:
    """Regular files that a pod left, as they come out of it. Raises Invalid for what a tree cannot hold."""
    async with asyncio.timeout(SECONDS_MAX), api.exec(namespace, pod, OUTPUTS, PACK) as process:
        source = _Incoming(process)
        try:
            async for file in _files(source):
                yield file
            said = await source.rest()
        except tarfile.TarError as error:
            msg = f"the output of pod {pod} broke off: {error}"
            raise Unavailable(msg, object_=pod) from error
        finally:
            await source.close()
    if process.exit_status != 0:
        msg = f"the output of pod {pod} could not be read: {said or process.failure or 'no reason given'}"
        raise Unavailable(msg, object_=pod)


class _Incoming:
    """Standard output of a process as a file, for the thread that reads the archive.

    That thread waits for our loop, and the loop never for it: `close` lets it go at once.
    """

    def __init__(self, process: Process) -> None:
        self._process, self._loop = process, asyncio.get_running_loop()
        self._held = b""
        self._most = HEADER_BYTES_MAX
        self._said = bytearray()
        self._closed = False
        self._receiving: asyncio.Task[bytes] | None = None

    def read(self, size: int) -> bytes:
        """Up to so many bytes, in the thread; none at the end. Raises ReadError for a header that does not end, and
        CancelledError, of `concurrent.futures`, once closed.
        """
        if self._most <= 0:
            msg = f"a header has more than {HEADER_BYTES_MAX} bytes"
            raise tarfile.ReadError(msg)
        if not self._held:
            self._held = asyncio.run_coroutine_threadsafe(self._received(), self._loop).result()
        data, self._held = self._held[:size], self._held[size:]
        self._most -= len(data)
        return data

    def expect(self, size: int) -> None:
        """So many bytes of content are read next, and then the header of another member."""
        self._most = size + HEADER_BYTES_MAX

    async def rest(self) -> str:
        """What was said beside the output. What follows the archive, such as padding, is let pass."""
        while await self._received():
            pass
        return self._said.decode(errors="replace").strip()

    async def close(self) -> None:
        """End the read that is under way, and every later one."""
        self._closed = True
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.wait([self._receiving])

    async def _received(self) -> bytes:
        """The next piece of output. Of its own task while a thread waits for it."""
        if self._closed:
            raise asyncio.CancelledError
        self._receiving = asyncio.current_task()
        try:
            while (message := await self._process.receive()) is not None:
                channel, data = message
                if channel is not Channel.STDOUT:
                    self._said += data[: SAID_BYTES_MAX - len(self._said)]
                elif data:
                    return data
            return b""
        finally:
            self._receiving = None


async def _files(source: _Incoming) -> AsyncIterator[OutputFile]:
    readable = cast("IO[bytes]", source)  # of a stream, nothing but `read` is asked for
    archive = await asyncio.to_thread(tarfile.open, fileobj=readable, mode="r|")
    number = 0
    while (member := await asyncio.to_thread(_next, archive)) is not None:
        source.expect(member.size if member.isfile() else 0)
        if not member.isfile():
            continue
        number += 1
        path = _path(member.name, number)
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            await asyncio.to_thread(_spool, archive, member, spool)
            yield path, member.size, bool(member.mode & 0o100), _chunks(spool)


def _next(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next member; those before are forgotten. Raises Invalid for one with holes: a block of it may stand for a full disk."""
    member = archive.next()
    archive.members.clear()  # type: ignore[attr-defined]  # it is there since Python 2.3; typeshed leaves it out
    if member is not None and (member.issparse() or member.size < 0):
        msg = f"the output holds a file that is not packed as a whole: {ascii(member.name)[:200]}"
        raise Invalid(msg, hint="pack it without the option --sparse")
    return member


def _unpack(size: int, folder: str) -> str:
    """For a shell: an archive of so many bytes.

    Both GNU's tar and busybox's read on behind the end of an archive, until that of their input. Only newer API servers
    can be told of that (`sockets.Process.end_input`), so it is `head` that ends it.
    """
    return f"head -c {size} | tar -xf - -C {folder}"


async def _listed(artifacts: Artifacts, mounts: str) -> list[tuple[bytes, Entry]]:
    """The files of all mounts, each with its header. Raises Invalid."""
    with _stored():
        trees = [(path, await artifacts.tree(digest)) for path, digest in json.loads(mounts or "[]")]
    return [
        (
            _header(os.path.normpath(f"{_below(WORK)}/{path}/{entry.path}"), entry.size, executable=entry.executable),
            entry,
        )
        for path, tree in trees
        for entry in tree.entries
    ]


@contextlib.contextmanager
def _stored() -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        msg = f"they are not stored: {error.message}"
        raise Invalid(msg, hint="do all replicas keep files in the same place (--artifacts)?") from error


def _below(folder: str) -> str:
    return os.path.relpath(folder, ROOT)


async def _send_content(process: Process, artifacts: Artifacts, entry: Entry) -> None:
    digest, size = hashlib.sha256(), 0
    with _stored():
        async for chunk in artifacts.get(entry.digest):
            digest.update(chunk)
            size += len(chunk)
            await _send_whole(process, chunk)
    if size != entry.size or digest.hexdigest() != entry.digest:
        msg = f"a stored file is damaged: {entry.digest}"
        raise Invalid(msg, hint="restore the artifacts from a backup, or upload the files again")
    await process.send(b"\0" * _padding(size))


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE


def _header(path: str, size: int, *, executable: bool = False) -> bytes:
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, 0o755 if executable else 0o644
    return info.tobuf(format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape")


_SIGNED = _header(f"{_below(SIGN)}/{COMPLETE}", 0) + END


async def _send_whole(process: Process, data: bytes) -> None:
    """In frames of a size that every API server and proxy takes."""
    for start in range(0, len(data), CHUNK_BYTES):
        await process.send(data[start : start + CHUNK_BYTES])


async def _said(process: Process) -> str:
    said = bytearray()
    while (message := await process.receive()) is not None:
        said += message[1][: SAID_BYTES_MAX - len(said)]
    return said.decode(errors="replace").strip()


def _path(name: str, number: int) -> str:
    path = name.removeprefix("./")
    if not safe_path(path):
        msg = f"the output holds a file whose name cannot be kept: {ascii(path)[:200]}"
        raise Invalid(msg, hint=PATH_RULE)
    if number > TREE_FILES_MAX:
        msg = f"the output has more than {TREE_FILES_MAX} files"
        raise Invalid(msg, hint="pack them into one archive")
    return path


def _spool(archive: tarfile.TarFile, member: tarfile.TarInfo, into: IO[bytes]) -> None:
    source: Any = archive.extractfile(member)
    while chunk := source.read(CHUNK_BYTES):
        into.write(chunk)
    into.seek(0)


async def _chunks(spool: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(spool.read, CHUNK_BYTES):
        yield chunk
