"""Secrets and volumes, typed as a user types them, on a platform of this machine."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainstay.cli.secrets import BYTES_MAX
from mainstay.domain.secret import SECRET_BYTES_MAX
from tests.e2e import warm
from tests.e2e.leaks import SEARCHED, assert_nowhere, said_of_a_leak
from tests.e2e.platform import Platform, platform, until
from tests.figures import Figure

pytestmark = pytest.mark.xdist_group("command-line")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "03-secrets-and-volumes" / "job.yaml"
CANARY = "canary-5c0ffee5"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    with (
        (folder / "platform.log").open("wb") as log,
        platform(folder / "state", "--log-level", "debug", output=log) as running,
    ):
        yield running


def put(up: Platform, name: str, value: str) -> None:
    done = up.mainstay("secret", "set", name, input=value)
    assert done.returncode == 0, done.stderr
    assert value.strip() not in done.stdout + done.stderr


def typed(process: subprocess.Popen[str], terminal: int, text: str) -> tuple[str, str]:
    """What a command says to whom types that. What is typed before it asks is thrown away, so it is typed until it is taken."""
    for _ in range(60):
        os.write(terminal, text.encode())
        try:
            return process.communicate(timeout=0.5)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    return process.communicate()


def test_the_example_goes_on_where_it_stopped_and_its_secret_is_nowhere(up: Platform):
    put(up, "tracking-token", f"{CANARY}\n")
    for said in ("starting anew", "resuming at step 200"):
        done = up.mainstay("apply", "-y", "-f", str(EXAMPLE))
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in done.stdout
    assert "step 400: loss 0.0001" in done.stdout
    assert f"tracking token: {len(CANARY)} characters" in done.stdout
    words = ("show", "--json", "resumable"), ("events",), ("secret", "list"), ("secret", "list", "--json")
    shown = done.stdout + done.stderr + "".join(up.mainstay(*one).stdout for one in words)
    assert "tracking-token" in shown
    assert CANARY not in shown
    until(lambda: not list((up.state / "clusters" / "local" / "files").iterdir()))
    left = [path for path in up.state.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert left == []


def test_a_job_without_its_secret_is_refused_with_the_nearest_name(up: Platform, tmp_path: Path):
    put(up, "hf-token", CANARY)
    job = {"run": "true", "secrets": ["hf-tokn"]}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    done = up.mainstay("apply", "-y", "-f", str(tmp_path / "job.yaml"))
    assert done.returncode == 3
    assert "job.yaml:1:17: secrets: there is no secret 'hf-tokn'" in done.stderr
    assert "did you mean hf-token?" in done.stderr


def test_a_secret_that_is_removed_while_its_job_waits_fails_it_in_words(up: Platform, tmp_path: Path):
    put(up, "short-lived", CANARY)
    held = up.json("run", "--cpus", str(os.cpu_count()), "-n", "held", "--", "sleep", "60")["id"]
    until(lambda: up.json("show", held)["phase"] == "running")
    job = {"name": "later", "run": "true", "secrets": ["short-lived"], "resources": {"cpu": 1}}
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    assert up.mainstay("apply", "-y", "-d", "-f", str(tmp_path / "job.yaml")).returncode == 0
    assert up.mainstay("secret", "remove", "short-lived").returncode == 0
    up.mainstay("stop", held)
    until(lambda: up.json("show", "later")["finished_at"])
    view = up.json("show", "later")
    assert view["phase"] == "failed"
    assert "there is no secret short-lived any more" in view["reason"]["sentence"]


def test_a_secret_comes_from_a_file_or_a_terminal_and_never_from_the_command_line(up: Platform, tmp_path: Path):
    (tmp_path / "value").write_bytes(bytes(range(256)))
    done = up.mainstay("secret", "set", "binary", "--file", str(tmp_path / "value"))
    assert (done.returncode, "256 bytes" in done.stderr) == (0, True)
    assert up.mainstay("secret", "set", "binary", "a-value").returncode == 2
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        warm.command("secret", "set", "typed"),
        env=up.environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    out, said = typed(process, ours, "typed-value\n")
    assert (process.returncode, "11 bytes" in said) == (0, True), said
    assert "typed-value" not in out + said
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("name", ["..", ".", "", "../clusters/local", "a/b"])
def test_a_name_that_would_lead_elsewhere_is_not_sent(up: Platform, name: str):
    for words in (("set", name), ("remove", name)):
        done = up.mainstay("secret", *words, input="x")
        assert done.returncode == 2
        assert f"not a name: {name!r}" in done.stderr
        assert "hint: names are of letters" in done.stderr


def test_a_value_without_end_is_not_read_to_the_end(up: Platform):
    done = up.mainstay("secret", "set", "endless", "--file", "/dev/zero")
    assert done.returncode == 2
    assert "more than 65,536 bytes; larger files go into `workdir`" in done.stderr


def test_an_empty_value_is_refused_with_what_to_do(up: Platform):
    done = up.mainstay("secret", "set", "nothing", input="")
    assert done.returncode == 3
    assert "value: it is empty" in done.stderr
    assert "mainstay secret remove nothing" in done.stderr


def test_the_command_line_takes_values_as_large_as_the_platform_does():
    assert BYTES_MAX == SECRET_BYTES_MAX


def test_removing_what_is_not_there_says_so(up: Platform):
    done = up.mainstay("secret", "remove", "nowhere")
    assert done.returncode == 4
    assert "no such secret: nowhere" in done.stderr


def test_a_mount_point_that_this_machine_cannot_have_is_refused_in_words(up: Platform, tmp_path: Path):
    volume = {"path": "/data", "name": "data", "size": "1GB"}
    (tmp_path / "job.yaml").write_text(json.dumps({"name": "abs", "run": "true", "volumes": [volume]}))
    done = up.mainstay("apply", "-y", "-f", str(tmp_path / "job.yaml"))
    assert done.returncode == 1
    assert "nothing can be mounted at /data" in up.mainstay("show", "abs").stdout


def test_volumes_are_listed_shown_and_removed_once_nothing_uses_them(up: Platform, tmp_path: Path):
    job = {
        "name": "keeps", "run": "echo one > kept/a; while [ ! -e $PWD/kept/go ]; do sleep 0.1; done",
        "volumes": [{"path": "kept", "name": "kept-here", "size": "1GB"}],
    }  # fmt: skip
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    assert up.mainstay("apply", "-y", "-d", "-f", str(tmp_path / "job.yaml")).returncode == 0

    def found() -> list[dict[str, object]]:
        done = up.mainstay("volume", "list", "--json")
        assert done.returncode == 0, done.stderr
        return [row for row in json.loads(done.stdout) if row["name"] == "kept-here"]

    until(found)
    (row,) = found()
    assert (row["project"], row["cluster"], row["state"]) == ("default", "local", "ready")
    (run,) = up.json("ps")
    assert row["used_by"] == [run["id"]]
    assert run["id"] in up.mainstay("volume", "list").stdout
    refused = up.mainstay("volume", "remove", "kept-here")
    assert refused.returncode != 0
    assert f"volume kept-here is used by {run['id']}" in refused.stderr
    assert "in cluster local" in up.mainstay("volume", "show", "kept-here").stdout
    folder = up.state / "clusters" / "local" / "volumes" / "default" / "default" / "kept-here"
    (folder / "go").touch()
    until(lambda: not found()[0]["used_by"])
    assert up.mainstay("volume", "remove", "kept-here").returncode == 0
    until(lambda: not found())
    assert not folder.exists()
    said = up.mainstay("events", "--about", "kept-here", "--json")
    codes = [event["reason"]["code"] for event in json.loads(said.stdout)]
    assert codes == ["VolumeFound", "VolumeRemoved", "VolumeGone"]


def test_the_administrator_of_the_platform_sees_events_of_nodes_and_clusters(up: Platform):
    events = json.loads(up.mainstay("events", "--kind", "node", "--kind", "cluster", "--json").stdout)
    assert {event["kind"] for event in events} == {"node", "cluster"}
    assert "node" in up.mainstay("events", "-n", "1000").stdout


def test_a_job_that_prints_exports_and_dies_of_its_secret_leaves_it_nowhere(
    up: Platform, tmp_path: Path, figure: Figure
):
    shown = said_of_a_leak(up, tmp_path)
    until(lambda: not list((up.state / "clusters" / "local" / "files").iterdir()))
    figure(SEARCHED, assert_nowhere(up, shown))
