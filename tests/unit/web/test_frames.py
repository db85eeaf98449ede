"""Frames and static files, by HTTP: what is sent before any script runs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

import mainstay.web
from mainstay.operations import sessions
from mainstay.operations.principal import Principal
from mainstay.web.pages import PAGES
from mainstay.web.static import load_assets
from tests.stores import put_on_record
from tests.unit.web.site import app_of, services_of

FOLDER = Path(mainstay.web.__file__).parent
TEMPLATES = sorted((FOLDER / "templates").glob("*.html"))
SCRIPTS = sorted((FOLDER / "static").glob("*.js"))
PATHS = [page.path.replace("{reference}", "bert-abcdefgh") for page in PAGES]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """Signed in."""
    with services_of(tmp_path, url="http://platform.test") as services:
        now = services.clock.now()
        ada = put_on_record(services.store, Principal(name="<ada>", tenant="physics", role="maintainer"), now=now)
        code = sessions.link(services.store, ada, now=now)
        transport = httpx2.ASGITransport(app_of(services))
        async with httpx2.AsyncClient(transport=transport, base_url=services.url) as opened:
            await opened.post("/sign-in", content=code, headers={"Sec-Fetch-Site": "same-origin"})
            yield opened


@pytest.mark.parametrize("path", PATHS)
async def test_every_page_is_a_whole_frame_with_its_own_script(client, path):
    answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.text.count("<h1") == 1
    assert 'aria-current="page"' in answer.text
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text):
        assert (await client.get(address)).status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_session_a_page_leads_to_the_sign_in(client, path):
    client.cookies.clear()
    answer = await client.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in"
    assert (await client.get("/sign-in")).status_code == 200


async def test_who_comes_from_another_site_is_asked_again_from_ours(client):
    client.cookies.clear()
    answer = await client.get("/runs/%22%3E%3Cscript%3E", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert 'content="0; url=/runs/&#34;&gt;&lt;script&gt;"' in answer.text


async def test_the_root_leads_to_the_runs_and_an_endpoint_to_its_place(client):
    assert (await client.get("/")).headers["location"] == "/runs"
    assert (await client.get("/endpoints/digits")).headers["location"] == "/endpoints#digits"


async def test_names_in_a_frame_are_text(client):
    text = (await client.get('/runs/"><img src=x onerror=alert(1)>')).text
    assert "<img src=x" not in text
    assert "&lt;ada&gt;" in text


async def test_a_head_is_answered_like_a_get(client):
    answer = await client.head("/runs")
    assert answer.status_code == 200
    assert answer.content == b""


async def test_pages_are_no_part_of_the_described_api(client):
    paths = (await client.get("/v1/openapi.json")).json()["paths"]
    assert all(path.startswith(("/v1/", "/metrics", "/healthz", "/readyz")) for path in paths)


async def test_static_files_may_be_kept_for_ever(client):
    assets = load_assets()
    for name in assets.contents:
        answer = await client.get(assets.url(name))
        assert answer.status_code == 200
        assert answer.content == assets.contents[name]
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_an_address_of_other_content_is_not_answered(client):
    assets = load_assets()
    for path in (
        "/static/0000000000000000/main.css",
        f"/static/{assets.digest}/none.css",
        f"/static/{assets.digest}/..%2fpages.py",
        f"/static/{assets.digest}/../pages.py",
    ):
        answer = await client.get(path)
        assert answer.status_code == 404
        assert answer.headers["cache-control"] == "no-store"


def test_an_asset_that_is_none_cannot_be_named():
    with pytest.raises(KeyError):
        load_assets().url("missing.js")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_templates_have_no_inline_script_or_style(template):
    text = template.read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert "| safe" not in text
    assert "|safe" not in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_no_markup_of_text(script):
    text = script.read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|parseFromString", text
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_import_only_what_is_there(script):
    for name in re.findall(r'from "\./([^"]+)"', script.read_text()):
        assert (FOLDER / "static" / name).is_file(), name


def test_every_script_is_used():
    used = {f"{page.name}.js" for page in PAGES} | {"sign_in.js"}
    for script in SCRIPTS:
        used |= set(re.findall(r'from "\./([^"]+)"', script.read_text()))
    assert used == {script.name for script in SCRIPTS}
