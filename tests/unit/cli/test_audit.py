"""`mainstay audit ...` against a platform behind a real socket: verify, export, go on, follow, redact."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from mainstay.api.app import create_api
from mainstay.artifacts.anchors import open_anchors
from mainstay.chain.anchors import signed
from mainstay.cli.exits import Exit
from mainstay.domain.plan import RecordDenial
from mainstay.domain.reason import Code, Reason
from mainstay.store import tables
from tests.e2e import warm
from tests.unit.api.conftest import PEOPLE, site_of
from tests.unit.cli.test_commands import mainstay
from tests.unit.web.site import Server, Site, services_of

pytestmark = pytest.mark.xdist_group("command-line")
AUDIT = tables.audit


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with services_of(tmp_path, url="http://127.0.0.1") as given:
        anchors = open_anchors(str(tmp_path / "outside"), system=given.system)
        services = replace(given, authenticate=PEOPLE.get, anchors=anchors)
        app = create_api(services)
        server = Server(port=free_port())
        server.start(app)
        monkeypatch.setenv("MAINSTAY_SERVER", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("MAINSTAY_TOKEN", "admin-token")
        made = site_of(services, app)
        deny(made, *range(6))
        yield made
        server.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def deny(site: Site, *numbers: int) -> None:
    for number in numbers:
        reason = Reason(code=Code.FORBIDDEN, object=f"thing-{number}", numbers={"detail": "no"})
        site.scene.applied(RecordDenial(object=f"thing-{number}", reason=reason))


def anchor(site: Site) -> None:
    services = site.services
    assert services.anchors
    head = services.store.audit_head()
    made = signed(services.system, head, at=1, keys=services.sealing.signing_keys())
    asyncio.run(services.anchors.keep(made))


def tamper(site: Site, *statements: sa.Executable) -> None:
    def work(connection: sa.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    site.services.store._database.write(work)


def truncate(site: Site, left: int) -> None:
    last = site.services.store.audit(after=left - 1, limit=1)[0].hash
    tamper(
        site,
        sa.delete(AUDIT).where(AUDIT.c.seq > left),
        sa.update(tables.head).values(audit_seq=left, audit_hash=last),
    )


def test_rows_that_hold_are_verified_and_a_changed_one_is_named(site: Site) -> None:
    done = mainstay("audit", "verify")
    assert (done.returncode, "6 rows hold" in done.stderr) == (Exit.OK, True), done.stderr
    assert "no anchor was checked" in done.stderr
    tamper(site, sa.update(AUDIT).where(AUDIT.c.seq == 3).values(actor="mallory"))
    done = mainstay("audit", "verify")
    assert done.returncode == Exit.FAILED
    assert "row 3 does not follow from the row before it" in done.stderr


def test_a_truncation_is_seen_by_the_anchor_alone(site: Site) -> None:
    anchor(site)
    done = mainstay("audit", "verify")
    assert "checked against 1 anchor, the newest of row 6" in done.stderr
    truncate(site, 4)
    done = mainstay("audit", "verify")
    assert (done.returncode, "row 5 was there when it was anchored" in done.stderr) == (Exit.FAILED, True)


def test_anchors_that_others_have_signed_count_nothing(site: Site, tmp_path: Path) -> None:
    anchor(site)
    (tmp_path / "keys").write_text("00" * 32 + "\n")
    done = mainstay("audit", "verify", "--public-key", str(tmp_path / "keys"))
    assert "1 anchor of another platform, or signed by a key that is not known here" in done.stderr
    assert "no anchor was checked" in done.stderr


def test_an_export_is_verified_offline_with_the_public_key(site: Site, tmp_path: Path) -> None:
    anchor(site)
    (tmp_path / "keys").write_text(mainstay("audit", "keys").stdout)
    file, keys = tmp_path / "audit.jsonl", ("--public-key", str(tmp_path / "keys"))
    assert mainstay("audit", "export", "-o", str(file)).returncode == Exit.OK
    done = mainstay("audit", "verify", str(file), *keys)
    assert (done.returncode, "checked against 1 anchor" in done.stderr) == (Exit.OK, True), done.stderr
    assert "no anchor was checked" in mainstay("audit", "verify", str(file)).stderr
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:5], lines[-1]]))
    done = mainstay("audit", "verify", str(file), *keys)
    assert (done.returncode, "row 5 was there when it was anchored" in done.stderr) == (Exit.FAILED, True)
    file.write_text("".join([*lines[:2], lines[3], lines[2], *lines[4:]]))
    assert "row 2 is missing" in mainstay("audit", "verify", str(file), *keys).stderr


def test_an_export_goes_on_where_it_ends_also_behind_a_line_that_was_cut_off(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    assert "6 rows added" in mainstay("audit", "export", "-o", str(file)).stderr
    anchor(site)
    file.write_text(file.read_text()[:-40])
    deny(site, 6, 7)
    assert "3 rows added" in mainstay("audit", "export", "-o", str(file)).stderr
    assert [json.loads(line)["row"]["seq"] for line in file.read_text().splitlines()[1:-1]] == list(range(1, 9))
    assert "8 rows hold" in mainstay("audit", "verify", str(file)).stderr


def test_a_part_is_exported_and_verified_by_itself(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "part.jsonl"
    file.write_text(mainstay("audit", "export", "--after", "4").stdout)
    assert [json.loads(line)["row"]["seq"] for line in file.read_text().splitlines()[1:]] == [5, 6]
    assert mainstay("audit", "verify", str(file)).returncode == Exit.OK


@pytest.mark.parametrize("content", ["", "{}\n", "not json\n", '{"row": {}}\n'])
def test_what_is_no_export_is_refused_at_its_line(site: Site, tmp_path: Path, content: str) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_text(content)
    done = mainstay("audit", "verify", str(file))
    assert done.returncode != Exit.OK
    assert f"{file}:1: not a" in done.stderr


def test_a_detail_is_redacted_by_who_says_why(site: Site) -> None:
    assert mainstay("audit", "redact", "2", "--why", "a name").returncode == Exit.OK
    rows = site.services.store.audit(after=0, limit=9)
    assert (rows[1].detail, rows[-1].actor) == ("", "root")
    assert rows[-1].detail == "the detail of row 2 was taken out: a name"
    assert "7 rows hold" in mainstay("audit", "verify").stderr
    assert "no row 99" in mainstay("audit", "redact", "99", "--why", "a name").stderr


def test_the_audit_is_followed_as_it_is_written(site: Site) -> None:
    process = subprocess.Popen(
        warm.command("audit", "tail", "-n", "1", "--json"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        assert json.loads(process.stdout.readline())["seq"] == 6
        deny(site, 7)
        assert json.loads(process.stdout.readline())["object"] == "thing-7"
    finally:
        process.kill()
        process.communicate()
