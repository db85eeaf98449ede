"""Starting a platform: what cannot work is told in a sentence, with what to do, and nothing is lost by it."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e import warm
from tests.e2e.platform import PATIENCE_SECONDS, Platform, environment_of, mainstay, platform, until

pytestmark = pytest.mark.xdist_group("starting")


def refused(*arguments: str, state: Path, code: int = 1) -> str:
    """What starting says when it ends at once."""
    done = mainstay("up", "--state", str(state), *arguments, environment=environment_of(state))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_in_use_is_named_with_the_way_out(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused("--port", str(port), state=tmp_path / "state")
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said
    assert "hint: choose another with --port" in said


def test_an_address_that_others_reach_is_refused_without_tls(tmp_path):
    said = refused("--host", "0.0.0.0", "--port", "0", state=tmp_path / "state")
    assert "refusing to listen on 0.0.0.0 without TLS" in said
    assert "--tls-cert" in said


@pytest.mark.parametrize("url", ["mainstay.example.com", "ftp://a", "https://a/b", "https://u:p@a", "https://"])
def test_a_public_address_that_is_none_is_refused(tmp_path, url):
    assert "not the public address" in refused("--public-url", url, "--port", "0", state=tmp_path / "state")


def test_behind_a_proxy_links_name_the_address_of_its_users(tmp_path):
    with platform(tmp_path / "state", "--public-url", "https://ml.example.com/") as running:
        assert running.json("login", "--page")["url"].startswith("https://ml.example.com/sign-in#")
        assert running.url.startswith("http://127.0.0.1:")


def test_a_state_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    said = refused("--port", "0", state=tmp_path / "file" / "state")
    assert f"cannot write to the state directory {tmp_path}/file/state" in said
    assert "--state" in said


def test_a_second_platform_on_one_state_is_refused_and_the_first_goes_on(tmp_path):
    with platform(tmp_path / "state") as first:
        said = refused("--port", "0", state=tmp_path / "state")
        assert "hint:" in said
        assert first.mainstay("run", "-y", "--", "echo", "still here").stdout == "still here\n"


def test_a_state_of_a_newer_version_is_left_alone(tmp_path):
    state = tmp_path / "state"
    with platform(state) as first:
        first.mainstay("run", "-y", "--", "true")
    database = sqlite3.connect(state / "mainstay.db", isolation_level=None)
    database.execute("UPDATE alembic_version SET version_num = '9999'")
    before = list(database.iterdump())
    said = refused("--port", "0", state=state)
    assert "9999" in said
    assert "newer" in said
    assert list(database.iterdump()) == before
    database.close()


def test_a_database_that_is_none_is_told_and_kept(tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "mainstay.db").write_bytes(b"all my holiday pictures" * 1_000)
    said = refused("--port", "0", state=tmp_path / "state")
    assert "mainstay.db" in said
    assert (tmp_path / "state" / "mainstay.db").read_bytes() == b"all my holiday pictures" * 1_000


def test_secrets_of_the_state_are_its_owner_s_alone(tmp_path):
    with platform(tmp_path / "state") as up:
        assert up.state.stat().st_mode & 0o777 == 0o700
        for name in ("token", "server.json"):
            assert (up.state / name).stat().st_mode & 0o777 == 0o600


def test_a_platform_that_was_killed_starts_again_and_its_file_of_where_it_is_misleads_nobody(tmp_path):
    with platform(tmp_path / "state") as first:
        ref = first.json("run", "--", "/bin/sh", "-c", "sleep 1; echo survived")["id"]
        until(lambda: first.json("show", ref)["phase"] == "running")
        first.process.kill()
        first.process.wait()
        done = first.mainstay("ps")
        assert done.returncode == 6
        assert "does not answer" in done.stderr or "no platform" in done.stderr
    (tmp_path / "state" / "server.json").unlink()
    with platform(tmp_path / "state") as second:
        assert second.mainstay("logs", "-f", ref).stdout == "survived\n"
        assert second.json("show", ref)["attempt"] == 1


def test_whoever_takes_the_port_of_a_killed_platform_is_not_sent_its_token(tmp_path):
    with platform(tmp_path / "state") as first:
        port = int(first.url.rpartition(":")[2])
        first.process.kill()
        first.process.wait()
        with socket.create_server(("127.0.0.1", port)) as stranger:
            done = first.mainstay("ps")
            stranger.setblocking(False)
            with pytest.raises(BlockingIOError):
                stranger.accept()
        assert "no platform" in done.stderr
    (tmp_path / "state" / "server.json").unlink()


def test_a_directory_that_others_may_read_is_closed_to_them(tmp_path):
    (tmp_path / "state").mkdir(mode=0o755)
    with platform(tmp_path / "state") as up:
        assert up.state.stat().st_mode & 0o777 == 0o700


def test_a_directory_of_other_things_is_left_as_it_is(tmp_path):
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state" / "thesis.tex").touch()
    assert "holds other things than a state" in refused("--port", "0", state=tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("what", ["certificate", "key"])
def test_tls_files_that_are_none_are_told(tmp_path, what):
    (tmp_path / "cert.pem").write_text("nonsense")
    (tmp_path / "key.pem").write_text("nonsense")
    files = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    said = refused("--port", "0", *files, state=tmp_path / "state")
    assert f"{what} {tmp_path}" in said
    assert "hint: give a certificate and its own key" in said


def test_the_runs_of_a_lost_database_are_not_taken_for_strangers(tmp_path):
    with platform(tmp_path / "state") as first:
        first.mainstay("run", "-y", "--", "true")
    for file in (tmp_path / "state").glob("mainstay.db*"):
        file.unlink()
    said = refused("--port", "0", state=tmp_path / "state")
    assert "belong to another database" in said


@contextmanager
def replica(state: Path, database: str, *arguments: str) -> Iterator[Platform]:
    """`mainstay server`."""
    environment = environment_of(state) | {"MAINSTAY_DATABASE": database}
    command = ("server", "--port", "0", "--state", str(state), *arguments)
    process = warm.Program(*command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: (state / "server.json").exists() or process.poll() is not None)
        yield Platform(state=state, process=process, environment=environment)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)


def test_replicas_on_postgresql_serve_the_same_runs_and_outlive_each_other(tmp_path, postgres_url):
    artifacts = ("--artifacts", str(tmp_path / "artifacts"))
    with ExitStack() as stack:
        first = stack.enter_context(replica(tmp_path / "first", postgres_url, "--local-cluster", *artifacts))
        (tmp_path / "second").mkdir(mode=0o700)
        (tmp_path / "second" / "token").write_text((tmp_path / "first" / "token").read_text())
        (tmp_path / "second" / "token").chmod(0o600)
        second = stack.enter_context(replica(tmp_path / "second", postgres_url, *artifacts))
        ref = second.json("run", "--name", "shared", "--", "/bin/sh", "-c", "sleep 0.5; echo from postgresql")["id"]
        assert first.mainstay("logs", "-f", ref).stdout == "from postgresql\n"
        until(lambda: second.json("show", ref)["phase"] == "succeeded")
        second.process.kill()
        second.process.wait()
        assert first.mainstay("run", "-y", "--", "echo", "alone").stdout == "alone\n"
        assert len(first.json("cost")["lines"]) == 2


def test_two_machines_on_one_database_are_two_clusters_and_a_job_runs_on_one(tmp_path, postgres_url):
    artifacts = ("--local-cluster", "--artifacts", str(tmp_path / "artifacts"))
    with ExitStack() as stack:
        first = stack.enter_context(replica(tmp_path / "first", postgres_url, *artifacts))
        (tmp_path / "second").mkdir(mode=0o700)
        for name in ("token", "secrets-key"):
            shutil.copy(tmp_path / "first" / name, tmp_path / "second" / name)
        second = stack.enter_context(replica(tmp_path / "second", postgres_url, *artifacts))
        until(lambda: len(second.json("nodes")) == 2)
        names = {node["cluster"] for node in first.json("nodes")}
        assert len(names) == 2
        assert all(name.startswith("local-") for name in names)
        ran = tmp_path / "ran"
        refs = [second.json("run", "--", "/bin/sh", "-c", f"echo once >> {ran}")["id"] for _ in range(6)]
        until(lambda: all(first.json("show", ref)["phase"] == "succeeded" for ref in refs))
        assert ran.read_text().count("once") == 6
        # Each serves what runs on the machine of the other, until that replica is gone.
        home = min(names)
        serves = f"echo on {home}; while [ ! -e {tmp_path}/enough ]; do sleep 0.1; done"
        stack.callback((tmp_path / "enough").touch)
        ref = first.json("run", "--infra", home, "--", "/bin/sh", "-c", serves)["id"]
        for asked in (first, second):
            until(lambda: asked.mainstay("logs", ref).stdout == f"on {home}\n")  # noqa: B023 called at once
            done = asked.mainstay("exec", ref, "--", "/bin/sh", "-c", "echo inside")
            assert (done.returncode, done.stdout) == (0, "inside\n"), done.stderr
        mine = json.loads((tmp_path / "first" / "clusters" / "local" / "cluster.json").read_text())["name"]
        gone, left = (first, second) if mine == home else (second, first)
        gone.process.kill()
        gone.process.wait()
        (gone.state / "server.json").unlink()
        until(lambda: "the replica that reaches cluster" in left.mainstay("logs", ref).stderr)


@pytest.mark.parametrize("url", ["mysql://user:s3cret@host/mainstay", "s3cret", "postgresql://u:s3cret@host:port/x"])
def test_an_address_that_is_no_database_is_told_without_its_password(tmp_path, url):
    done = mainstay("server", "--port", "0", "--database", url, environment=environment_of(tmp_path / "state"))
    assert (done.returncode, "s3cret" in done.stderr, "Traceback" in done.stderr) == (1, False, False)
    assert "hint: give one such as postgresql://" in done.stderr


def test_a_database_that_comes_late_is_waited_for_in_words_without_its_password_and_a_signal_ends_the_wait(
    tmp_path, postgres_server, postgres_url
):
    place, state = tmp_path / "place", tmp_path / "state"
    url = postgres_url.replace(str(postgres_server.socket), str(place)).replace("postgres@", "postgres:s3cret@")
    command = [sys.executable, "-m", "mainstay", "server", "--port", "0", "--database", url, "--state", str(state)]
    said = tmp_path / "said"

    def start() -> subprocess.Popen[bytes]:
        with said.open("wb") as log:
            process = subprocess.Popen(command, env=environment_of(state), stdout=subprocess.DEVNULL, stderr=log)
        until(lambda: "waiting_for_database" in said.read_text())
        assert process.poll() is None
        return process

    waiting = start()
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(PATIENCE_SECONDS) == 130
    assert "Traceback" not in said.read_text()
    waiting = start()
    try:
        place.symlink_to(postgres_server.socket)
        until((state / "server.json").exists)
        assert Platform(state=state, process=waiting, environment=environment_of(state)).json("ps") == []
    finally:
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(PATIENCE_SECONDS) == 0
    assert "s3cret" not in said.read_text()


def test_a_database_that_is_none_of_the_server_ends_the_start_in_words(tmp_path, postgres_url):
    url = postgres_url.replace("?host", "_other?host")
    done = mainstay("server", "--port", "0", "--database", url, environment=environment_of(tmp_path / "state"))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "the server has no such database" in done.stderr
    assert "hint: create it" in done.stderr


def test_a_replica_outlives_a_pause_of_its_database_and_the_job_that_ran_meanwhile_counts_once(
    tmp_path, postgres_server, postgres_url
):
    ran, artifacts = tmp_path / "ran", ("--local-cluster", "--artifacts", str(tmp_path / "artifacts"))
    with replica(tmp_path / "state", postgres_url, *artifacts) as up:
        command = f"echo once >> {ran}; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
        ref = up.json("run", "--", "/bin/sh", "-c", command)["id"]
        until(ran.exists)
        with postgres_server.closed(postgres_url):
            until(lambda: _status(up, "/readyz") == 503)
            assert _status(up, "/healthz") == 200
            (tmp_path / "go").touch()
            refused_meanwhile = up.mainstay("run", "-d", "--", "true")
            assert "the database cannot be reached" in refused_meanwhile.stderr
        until(lambda: _status(up, "/readyz") == 200)
        until(lambda: up.json("show", ref)["phase"] == "succeeded")
        assert up.mainstay("run", "-y", "--", "echo", "after").stdout == "after\n"
        assert ran.read_text() == "once\n"
        assert up.process.poll() is None


def _status(plane: Platform, path: str) -> int:
    try:
        with urllib.request.urlopen(plane.url + path, timeout=PATIENCE_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_what_server_json_says_is_where_the_platform_is(tmp_path):
    with platform(tmp_path / "state") as up:
        where = json.loads((up.state / "server.json").read_text())
        assert where["url"] == up.url
        assert up.mainstay("login").stdout.startswith(f"{up.url}: admin of default, platform-admin")
