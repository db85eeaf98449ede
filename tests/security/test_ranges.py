"""A header that asks for pieces makes no answer larger, on any route: pieces are asked for by `offset` and `limit`.

Libraries that serve ranges have been made to take minutes and gigabytes by headers that name thousands (CVE-2025-62727).
"""

from __future__ import annotations

import ast
import tracemalloc
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.routing import Route

from mainstay.domain.allocation import Owner
from mainstay.domain.artifact import Entry, Tree
from tests.figures import Figure
from tests.security.test_archives import PACKAGE
from tests.unit.api.conftest import PEOPLE
from tests.unit.web.site import app_of, services_of

URL = "http://platform.test"
CONTENT = bytes(range(256)) * 4_096
DIGEST = sha256(CONTENT).hexdigest()
HEADER_BYTES = 32_000
"""About as much as servers take in one header."""
RANGES = {
    "many": ",".join(["0-"] * (HEADER_BYTES // 3)),
    "many of one byte": ",".join(f"{n}-{n}" for n in range(3_000)),
    "overlapping": ",".join(f"0-{n}" for n in range(3_000)),
    "reversed": ",".join(f"{n}-0" for n in range(3_000, 0, -1)),
    "backwards": ",".join(f"{n}-{n + 9}" for n in range(30_000, 0, -10))[:HEADER_BYTES],
    "from the end": ",".join(f"-{n}" for n in range(1, 3_000)),
    "huge": f"{'9' * 15_000}-{'9' * 15_000}",
    "beyond 64 bits": "18446744073709551615-18446744073709551616",
    "negative": "--1--5,-0",
    "spaces": " ," * (HEADER_BYTES // 2),
    "commas": "," * HEADER_BYTES,
    "digits": "0" * HEADER_BYTES,
    "no number": "a-b",
    "the first": "0-0",
}
UNITS = ("bytes=", "BYTES=", "bytes = ", "items=", "")


@pytest.fixture
async def site(tmp_path: Path) -> Any:
    with services_of(tmp_path, url=URL) as given:
        files = given.artifacts.of(Owner(tenant="physics", project="default"))
        await files.put(DIGEST, _once(CONTENT))
        await files.put_tree(Tree(entries=(Entry(path="a", size=len(CONTENT), digest=DIGEST),)))
        app = app_of(replace(given, authenticate=PEOPLE.get))
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as http:
            yield app, http


async def _once(content: bytes) -> Any:
    yield content


def paths(app: Any) -> list[str]:
    """Of all routes that are read, with what is there in the place of their parameters."""
    found = []
    for route in app.router.routes:
        if isinstance(route, Route) and "GET" in (route.methods or ()) and not route.path.endswith("/stream"):
            path = route.path
            for name in route.param_convertors:
                path = path.replace("{" + name + "}", DIGEST).replace("{" + name + ":path}", "a")
            found.append(path)
    return sorted(found)


async def test_no_range_makes_an_answer_larger_slower_or_another_one(site: Any, figure: Figure):
    app, http = site
    headers = {"Authorization": "Bearer user-token"}
    asked = 0
    whole = {path: await http.get(path, headers=headers) for path in paths(app)}
    assert whole[f"/v1/blobs/{DIGEST}"].content == CONTENT
    for path, plain in whole.items():
        for position, (name, value) in enumerate(RANGES.items()):
            ranged = {**headers, "Range": UNITS[position % len(UNITS)] + value, "If-Range": '"x"'}
            answer = await http.get(path, headers=ranged)
            assert answer.status_code == plain.status_code, (path, name)
            assert "content-range" not in answer.headers
            assert len(answer.content) <= len(plain.content) + 1_000, (path, name)
            asked += 1
    figure("requests with hostile Range headers, on every route that is read: no answer larger", asked)


async def test_a_flood_of_ranges_takes_no_more_memory_than_the_file(site: Any, figure: Figure):
    _, http = site
    headers = {"Authorization": "Bearer user-token"}
    peaks = []
    for value in ("", *RANGES.values()):
        ranged = {**headers, "Range": f"bytes={value}"} if value else headers
        tracemalloc.start()
        try:
            answer = await http.get(f"/v1/blobs/{DIGEST}", headers=ranged)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert answer.content == CONTENT
    plain, *hostile = peaks
    assert max(hostile) < plain + (1 << 20)
    figure("KiB more at most for a file with a hostile Range than without one", max(0, max(hostile) - plain) >> 10)


def test_nothing_of_ours_uses_what_serves_ranges():
    used = {
        (str(source.relative_to(PACKAGE)), alias.name)
        for source in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
        if alias.name in {"FileResponse", "StaticFiles"}
    }
    assert used == set()
