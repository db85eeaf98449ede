"""Paths that lead elsewhere, wherever a path or a name is taken: a canary beside the state stays unread and unharmed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mainstay.api.app import TOPICS
from mainstay.api.streams import MEDIA_TYPE
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.local import trees
from mainstay.clusters.local.trees import files_beneath, materialise
from mainstay.domain.allocation import Owner
from mainstay.domain.artifact import Entry, Tree, safe_path
from mainstay.domain.errors import Invalid, MainstayError
from mainstay.sdk.errors import SdkError
from mainstay.sdk.files import FileSink, destination
from mainstay.wire.views import TreeEntry
from tests.figures import Figure
from tests.unit.api.conftest import PEOPLE, made_a_model, site_of
from tests.unit.web.site import app_of, services_of

CANARY = b"the canary is at home"
CONTENT = b"what a stranger sends"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
UP = (
    "..",
    "%2e%2e",
    "%252e%252e",
    "..%00",
    "..;",
    ".%2e",
    "%c0%ae%c0%ae",
    "%e0%80%ae%e0%80%ae",
    "%uff0e%uff0e",
    "\uff0e\uff0e",
    "\u2025",
    "..\u200b",
    "....",
    "..\\",
    "..\x00",
)
SLASHES = ("/", "%2f", "%252f", "\\", "%5c", "%255c", "\u2215", "\uff0f", "%c0%af", "//", "/./")
ENDS = ("outside/canary", "etc/passwd")


def corpus(outside: Path) -> list[str]:
    """200 and more, each once."""
    paths = [
        slash.join([up] * depth) + slash + end
        for up in UP
        for slash in SLASHES
        for depth, end in zip((1, 6), ENDS, strict=True)
    ]
    paths += [f"a/{up}/{up}/{ENDS[0]}" for up in UP]
    paths += [
        str(outside / "canary"),
        f"file://{outside}/canary",
        f"/{outside}/canary",
        quote(str(outside / "canary"), safe=""),
        quote(quote(str(outside / "canary"), safe=""), safe=""),
        "~/canary",
        "~root/.ssh/id_rsa",
        "$HOME/canary",
        "/proc/self/environ",
        "/proc/self/root" + str(outside / "canary"),
        "/dev/stdin",
        "C:\\Windows\\win.ini",
        "\\\\server\\share",
        "CON",
        "a\x00/../../outside/canary",
        "outside/canary\x00.txt",
        "\n../outside/canary",
        "-rf",
        "--help",
        "*",
        ".",
        "./",
        "",
        " ",
        "a" * 5_000,
        "a/" * 2_000,
        "\u202e..",
        "\ufeff../outside/canary",
        "mainstay.db",
        "../mainstay.db",
        "../token",
    ]
    return list(dict.fromkeys(paths))


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the state, which is as it was when all is over."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "canary").write_bytes(CANARY)
    yield folder
    assert [path.name for path in folder.iterdir()] == ["canary"]
    assert (folder / "canary").read_bytes() == CANARY
    assert {path.name for path in tmp_path.iterdir()} <= {"outside", "state", "work", "there"}


async def asked(app: Any, method: str, path: str, *, query: str = "", body: bytes = b"") -> tuple[int, bytes]:
    """As a server hands a request on: no client in between sets its path right."""
    answer, said = {"status": 0}, bytearray()
    sent = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(sent, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        answer["status"] = message.get("status", answer["status"])
        said.extend(message.get("body", b""))

    headers = [
        (b"authorization", b"Bearer user-token"),
        (b"content-type", b"application/json"),
        (b"host", b"platform.test"),
    ]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "root_path": "",
        "query_string": query.encode("utf-8", "surrogatepass"),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("platform.test", 80),
    }
    await app(scope, receive, send)
    return answer["status"], bytes(said)


def places() -> list[tuple[str, str]]:
    """Every route with a name in its path, pages and files of pages included."""
    routes = [
        (route.method, route.path)
        for topic in TOPICS
        for route in topic.declared
        if "{" in route.path and route.media_type != MEDIA_TYPE and "/agent/" not in route.path
    ]
    return [*routes, ("GET", "/static/{digest}/{name}"), ("GET", "/runs/{ref}")]


def filled(route: str, path: str) -> str:
    """The path in the place of each name."""
    return re.sub(r"\{[^}]*\}", lambda _: path, route)


def bodies(path: str) -> list[tuple[str, str, Any]]:
    """Every field of a body that is a path or becomes a part of one."""
    job = {"name": "a", "run": "true"}
    return [
        ("POST", "/v1/trees", {"entries": [{"path": path, "size": len(CONTENT), "digest": DIGEST}]}),
        ("POST", "/v1/trees", {"entries": [{"path": "a", "size": 1, "digest": path}]}),
        ("POST", "/v1/workloads", {"job": {**job, "name": path}}),
        ("POST", "/v1/workloads", {"job": job, "mounts": [{"path": path, "tree": DIGEST}]}),
        ("POST", "/v1/workloads", {"job": {**job, "volumes": {path: "data"}}}),
        ("POST", "/v1/workloads", {"job": {**job, "volumes": {"data": path}}}),
        ("POST", "/v1/workloads", {"job": {**job, "files": {path: "s3://bucket/x"}}}),
        ("POST", "/v1/workloads", {"job": {**job, "project": path}}),
        ("POST", "/v1/workloads", {"job": {**job, "secrets": [path]}}),
        ("POST", "/v1/endpoints", {"workload": path, "model": path, "endpoint": path}),
        ("PUT", "/v1/secrets/a", {"value": "x", "project": path}),
    ]


async def test_no_path_and_no_name_that_is_sent_leads_out_of_the_state(tmp_path: Path, outside: Path, figure: Figure):
    state = tmp_path / "state"
    state.mkdir()
    seen, asks = dict[int, int](), 0
    with services_of(state, url="http://platform.test") as given:
        services = replace(given, authenticate=PEOPLE.get)
        app = app_of(services)
        made_a_model(site_of(services, app))
        for number, path in enumerate(corpus(outside)):
            requests = [(method, filled(route, path), "", b"") for method, route in places()]
            requests += [
                ("GET", "/v1/models", f"model={quote(path, errors='replace')}", b""),
                ("GET", "/v1/volumes", f"cursor={quote(path, errors='replace')}", b""),
            ]
            requests += [(method, where, "", json.dumps(body).encode()) for method, where, body in bodies(path)]
            # Each path in a third of the places, each place with a third of the paths.
            for method, where, query, body in requests[number % 3 :: 3]:
                async with asyncio.timeout(20):
                    status, said = await asked(app, method, where, query=query, body=body)
                assert status
                assert status < 500 or status == 503, (method, where, said)
                assert CANARY not in said, (method, where)
                assert b"root:x:" not in said, (method, where)
                seen[status] = seen.get(status, 0) + 1
                asks += 1
    count = len(corpus(outside))
    assert count >= 200
    assert asks == sum(seen.values())
    figure("paths that lead elsewhere, in every place of the API that takes one: 0 escapes", count)
    figure("requests with such paths: 0 of them a fault of ours", asks)


async def test_no_tree_is_written_out_of_its_folder(tmp_path: Path, outside: Path, figure: Figure):
    there = tmp_path / "there"
    artifacts = open_artifacts(str(tmp_path / "state")).of(Owner(tenant="physics", project="default"))
    there.mkdir()
    await artifacts.put(DIGEST, once(CONTENT))
    written = refused = 0
    for path in corpus(outside):
        try:
            tree = Tree(entries=(Entry(path=path, size=len(CONTENT), digest=DIGEST),))
            await materialise(artifacts, tree, there)
            written += 1
        except MainstayError:
            refused += 1
    assert all(path.resolve().is_relative_to(there) for path in there.rglob("*"))
    figure("such paths of files of jobs: 0 escapes", written + refused)


def test_no_download_is_written_out_of_its_folder(tmp_path: Path, outside: Path, figure: Figure):
    there = tmp_path / "there"
    there.mkdir()
    (there / "link").symlink_to(outside)
    written = refused = 0
    for path in [*corpus(outside), "link/canary", "link/new", "link/a/b"]:
        entry = TreeEntry.model_construct(path=path, size=len(CONTENT), digest=DIGEST, executable=False)
        try:
            target = destination(there, entry)
            assert target.parent.resolve().is_relative_to(there)
            sink = FileSink(target, entry)
            sink.write(CONTENT)
            sink.keep()
            written += 1
        except (SdkError, OSError, ValueError):
            refused += 1
    (there / "link").unlink()
    assert all(path.resolve().is_relative_to(there) for path in there.rglob("*"))
    figure("such paths of downloads: 0 escapes", written + refused)


async def test_a_folder_that_becomes_a_link_while_it_is_read_leads_nowhere(
    tmp_path: Path, outside: Path, figure: Figure
):
    work = tmp_path / "work"
    (work / "real").mkdir(parents=True)
    (work / "real" / "canary").write_bytes(b"of the job")
    (work / "linked").symlink_to(outside)
    (work / "one").symlink_to(outside / "canary")
    ends = threading.Event()

    def swap() -> None:
        while not ends.is_set():
            (work / "real").rename(work / "away")
            (work / "real").symlink_to(outside)
            (work / "real").unlink()
            (work / "away").rename(work / "real")

    thread = threading.Thread(target=swap)
    thread.start()
    rounds = 0
    try:
        for _ in range(300):
            rounds += 1
            try:
                async for _path, _, _, chunks in files_beneath(work):
                    content = b"".join([chunk async for chunk in chunks])
                    assert content == b"of the job"
            except (OSError, Invalid):
                continue  # it was gone just then
    finally:
        ends.set()
        thread.join()
    figure("readings of a folder that is now and then a link: 0 escapes", rounds)


@pytest.mark.parametrize("name", ["linked/canary", "one"])
async def test_what_became_a_link_after_it_was_found_is_not_read(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    work = tmp_path / "work"
    work.mkdir()
    (work / "linked").symlink_to(outside)
    (work / "one").symlink_to(outside / "canary")
    monkeypatch.setattr(trees, "_paths", lambda _: [name])
    assert [path async for path, *_ in files_beneath(work)] == []


def test_whatever_is_a_safe_path_stays_below(tmp_path: Path, outside: Path):
    for path in filter(safe_path, corpus(outside)):
        assert os.path.realpath(tmp_path / "work" / path).startswith(str(tmp_path / "work") + "/"), path


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content
