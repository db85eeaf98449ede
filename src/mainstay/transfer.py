"""Copies files between folders and object stores, beside the job itself: `python -m mainstay.transfer in` before it starts, and
`out` after it has ended well.

It runs where the job runs, so that data takes the shortest way and nothing of the control plane asks addresses that users name.
What to copy comes as one line of JSON on standard input, credentials included: they are in no file, no variable and no
specification of a pod. The last line that it writes says how much was copied, or why not.

    {"copies": [{"url": "s3://bucket/prefix", "path": "/mainstay/work/data", "access": ""}]}

`access` is the secret that opens the store: lines of NAME=VALUE as its provider's own tools read them from the environment
(AWS_ACCESS_KEY_ID, AZURE_STORAGE_ACCOUNT_NAME, ...), or the JSON key of a service account of Google. Empty: as anybody.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, GenericError
from obstore.store import ObjectStore, from_url

AT_ONCE = 8
"""Files on their way at the same time: more than one stream fills a network, and each takes a few megabytes."""
PART_BYTES = 5 << 20
PARTS_AT_ONCE = 4
"""Of one file: with all files 160 MiB in memory at most."""
RETRY_SECONDS = 120
"""So long a store that does not answer is asked again."""
SAID_CHARACTERS_MAX = 400
NO_CONNECTION = "builder error"
"""What the client says where it cannot even try."""
_FOR_GOOD = re.compile(rf"{NO_CONNECTION}|status code: 4(?!08|29)\d\d")
"""Words of errors without a kind of their own after which no other try will do better."""


class Refused(Exception):
    """In words for the user, without a credential."""


class Unanswered(Refused):
    """The store could not be reached or failed by itself: another try may do it."""


def main(direction: str) -> int:
    """Copy what standard input says; the exit code, EX_TEMPFAIL where a store did not answer. What went wrong is the last line of
    standard error.
    """
    try:
        copies = json.loads(sys.stdin.readline())["copies"]
        for one in copies:
            copy = fetch if direction == "in" else store
            files, size = asyncio.run(copy(one["url"], Path(one["path"]), one["access"]))
            sys.stdout.write(f"{one['url']}: {files} files, {size} bytes\n")
    except Refused as refusal:
        sys.stderr.write(f"{refusal}\n")
        return os.EX_TEMPFAIL if isinstance(refusal, Unanswered) else 1
    except OSError as error:
        sys.stderr.write(f"{error.filename or 'the disk'}: {error.strerror or error}\n")
        return 1
    return 0


async def fetch(url: str, folder: Path, access: str) -> tuple[int, int]:
    """Everything under an address into a folder; (files, bytes). A single object of that name is one file in it.

    Raises Refused. Again is the same again: files are written over.
    """
    prefix = _prefix(url)
    opened = _opened(url, access)
    folder.mkdir(parents=True, exist_ok=True)
    copied = Copied()

    async def copy(key: str) -> None:
        target = folder / _inside(key.removeprefix(prefix).lstrip("/") or key.rpartition("/")[2], url)
        target.parent.mkdir(parents=True, exist_ok=True)
        found = await obstore.get_async(opened, key)
        with target.open("wb") as file:
            async for chunk in found.stream(min_chunk_size=PART_BYTES):
                await asyncio.to_thread(file.write, chunk)
                copied.bytes += len(chunk)
        copied.files += 1

    try:
        await _each(_keys(opened, prefix), copy)
    except (BaseError, FileNotFoundError) as error:
        raise _refused(url, error) from None
    if not copied.files:
        msg = f"{url}: there is nothing"
        raise Refused(msg)
    return copied.files, copied.bytes


async def store(url: str, folder: Path, access: str) -> tuple[int, int]:
    """Every regular file of a folder to an address; (files, bytes). Links are not followed. Raises Refused."""
    prefix = _prefix(url)
    opened = _opened(url, access)
    copied = Copied()

    async def copy(path: str) -> None:
        descriptor = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            key = f"{prefix}/{path}" if prefix else path
            await obstore.put_async(opened, key, file, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
            copied.bytes += os.fstat(descriptor).st_size
        copied.files += 1

    try:
        await _each(_regular_files(folder), copy)
    except (BaseError, FileNotFoundError) as error:
        raise _refused(url, error) from None
    return copied.files, copied.bytes


class Copied:
    """How much so far."""

    def __init__(self) -> None:
        self.files = self.bytes = 0


def settings_of(url: str, access: str) -> dict[str, Any]:
    """What a store is opened with. Raises Refused, without a word of what was given."""
    if not access.strip():
        return {"skip_signature": True}
    if access.lstrip().startswith("{"):
        if not url.startswith("gs://"):
            msg = f"{url}: its secret is a JSON key, which only gs:// takes; give lines of NAME=VALUE"
            raise Refused(msg)
        return {"service_account_key": access}
    lines = [line.strip().removeprefix("export ") for line in access.splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    if not all(given for _, given, _ in pairs):
        msg = f"{url}: its secret has a line that is not NAME=VALUE"
        raise Refused(msg)
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def _opened(url: str, access: str) -> ObjectStore:
    settings = settings_of(url, access)
    plain = any(str(value).startswith("http://") for value in settings.values())
    parts = urlsplit(url)
    open_: Callable[..., ObjectStore] = (
        from_url  # its overloads name the settings of each provider; ours come from a user
    )
    try:
        return open_(
            f"{parts.scheme}://{parts.netloc}",
            config=settings,
            client_options={"allow_http": plain},
            retry_config={"max_retries": 10, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
        )
    except (BaseError, ValueError) as error:
        raise Refused(_words(url, error)) from None


def _prefix(url: str) -> str:
    return urlsplit(url).path.strip("/")


async def _keys(opened: ObjectStore, prefix: str) -> AsyncIterator[str]:
    """What lies under a prefix, as under a folder; else the one object of that name."""
    found = False
    async for page in obstore.list(opened, prefix=prefix or None):
        for one in page:
            if not one["path"].endswith("/"):
                found = True
                yield one["path"]
    if not found and prefix:
        await obstore.head_async(opened, prefix)
        yield prefix


async def _regular_files(folder: Path) -> AsyncIterator[str]:
    for path in await asyncio.to_thread(lambda: sorted(_walk(folder))):
        yield path


def _walk(folder: Path) -> Iterator[str]:
    for where, _, names in os.walk(folder, followlinks=False):
        for name in names:
            path = Path(where, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path.relative_to(folder).as_posix()


async def _each(items: AsyncIterator[str], work: Callable[[str], Coroutine[None, None, None]]) -> None:
    """Some at once; the first failure ends all and is raised as it is."""
    running: set[asyncio.Task[None]] = set()
    try:
        async for item in items:
            if len(running) >= AT_ONCE:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            running.add(asyncio.create_task(work(item)))
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _inside(name: str, url: str) -> str:
    """A name that cannot leave its folder (CWE-22). Raises Refused."""
    if {"", ".", ".."} & set(name.split("/")) or "\\" in name or "\0" in name:
        msg = f"{url}: an object cannot be a file: {ascii(name)[:100]}"
        raise Refused(msg)
    return name


def _refused(url: str, error: Exception) -> Refused:
    passing = isinstance(error, GenericError) and not _FOR_GOOD.search(str(error))
    return (Unanswered if passing else Refused)(_words(url, error))


def _words(url: str, error: BaseException) -> str:
    """The first line, without the query of an address: a signature may stand there."""
    said = _QUERY.sub("", str(error).partition("\n")[0])
    if NO_CONNECTION in said:
        said = "no connection can be made here; has this image the certificates of authorities (ca-certificates)?"
    return f"{url}: {said}"[:SAID_CHARACTERS_MAX]


_QUERY = re.compile(r"[?][^\s\"')]*")


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    # The threads of obstore outlive the interpreter by a moment, and have been seen to abort the process (SIGABRT) as it ends.
    os._exit(code)
