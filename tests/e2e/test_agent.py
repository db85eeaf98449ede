"""A control plane and an agent as processes: a job bound to the cluster of the agent runs, is followed, kept and billed."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from testbed import images
from tests.clusters import RealCluster
from tests.e2e import warm
from tests.e2e.platform import PATIENCE_SECONDS, Platform, platform, until

pytestmark = pytest.mark.xdist_group("local-cluster")
NAME = "edge"


@dataclass(slots=True)
class Carrier:
    """`mainstay agent`, which may be killed and started again."""

    plane: Platform
    token: Path
    way: tuple[str, ...]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        command = ("agent", "--server", self.plane.url, "--cluster", NAME)
        with self.log.open("ab") as log:
            self.process = warm.Program(
                *(*command, "--token-file", str(self.token), *self.way),
                env=self.plane.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    @property
    def state(self) -> str:
        return str(json.loads(self.plane.mainstay("cluster", "show", NAME, "--json").stdout)["state"])


@contextmanager
def carrier(plane: Platform, folder: Path, *way: str, image: str = "") -> Iterator[Carrier]:
    """The cluster is added, and its agent runs."""
    settings = ("--image", image, "--helper-image", image) if image else ()
    added = plane.mainstay("cluster", "add", NAME, "--agent", *settings)
    assert added.returncode == 0, added.stderr
    token = folder / "agent-token"
    token.touch(mode=0o600)
    token.write_text(added.stdout)
    made = Carrier(plane=plane, token=token, way=way, log=folder / "agent.log")
    made.start()
    try:
        yield made
        for run in plane.json("ps"):
            plane.mainstay("stop", run["id"])
        until(lambda: not plane.json("ps"))
    finally:
        made.end()


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Platform]:
    with platform(tmp_path / "control-plane") as running:
        yield running


@pytest.fixture
def edge(plane: Platform, tmp_path: Path) -> Iterator[Carrier]:
    with carrier(plane, tmp_path, "--local", "--state", str(tmp_path / "agent")) as made:
        until(lambda: made.state == "ready")
        yield made


def run_of(plane: Platform, name: str) -> dict[str, Any]:
    (found,) = [row for row in plane.json("ps", "-a") if row["name"] == name]
    return dict(found)


def test_a_job_runs_beside_an_agent_and_is_followed_kept_and_billed(
    plane: Platform, edge: Carrier, tmp_path: Path
) -> None:
    script = 'echo hello; echo weights > "$MAINSTAY_OUTPUT_DIR/model.txt"'
    done = plane.mainstay("run", "-y", "-n", "digits", "--infra", NAME, "--", "/bin/sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
    assert plane.mainstay("download", "digits", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out" / "model.txt").read_text() == "weights\n"
    found = plane.json("show", "digits")
    assert {pod["cluster"] for pod in found["pods"]} == {NAME}
    until(lambda: "digits" in plane.mainstay("cost").stdout)
    # The files and secrets of a job go to it, and its log is read again after its end.
    assert plane.mainstay("secret", "set", "token", input="canary").returncode == 0
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.sh").write_text('cat data.txt; wc -c < "$MAINSTAY_SECRETS_DIR/token"\n')
    (tmp_path / "code" / "data.txt").write_text("forty-two\n")
    job = tmp_path / "job.yaml"
    job.write_text(f"name: mounted\nrun: sh train.sh\nworkdir: {tmp_path / 'code'}\ninfra: {NAME}\nsecrets: [token]\n")
    done = plane.mainstay("apply", "-y", "-f", str(job))
    assert "forty-two\n6\n" in done.stdout, done.stderr
    assert "forty-two" in plane.mainstay("logs", "mounted").stdout


def test_an_agent_that_is_killed_in_the_middle_of_a_run_finds_it_again(
    plane: Platform, edge: Carrier, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    script = f"echo begins >> {marks}; echo first; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; echo second"
    following = plane.start("run", "-y", "-n", "long", "--infra", NAME, "--", "/bin/sh", "-c", script)
    until(marks.exists)
    assert edge.end(signal.SIGKILL) == -signal.SIGKILL
    # Whoever reads now is told so; what runs runs on.
    until(lambda: f"the agent of cluster {NAME} is not connected" in plane.mainstay("logs", "long").stderr)
    edge.start()
    (tmp_path / "go").touch()
    following.communicate(timeout=PATIENCE_SECONDS)
    until(lambda: run_of(plane, "long")["phase"] == "succeeded")
    assert marks.read_text() == "begins\n"
    until(lambda: "second" in plane.mainstay("logs", "long").stdout)
    assert run_of(plane, "long")["attempt"] == 1


def test_a_control_plane_that_is_killed_finds_its_agents_again(tmp_path: Path) -> None:
    marks, port = tmp_path / "marks", "0"
    with platform(tmp_path / "control-plane") as first:
        port = first.url.rpartition(":")[2]
        added = first.mainstay("cluster", "add", NAME, "--agent")
        token = tmp_path / "agent-token"
        token.write_text(added.stdout)
        way = ("--local", "--state", str(tmp_path / "agent"))
        made = Carrier(plane=first, token=token, way=way, log=tmp_path / "agent.log")
        made.start()
        try:
            until(lambda: made.state == "ready")
            script = f"echo begins >> {marks}; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; echo over"
            first.mainstay("run", "-y", "-d", "-n", "long", "--infra", NAME, "--", "/bin/sh", "-c", script)
            until(marks.exists)
            first.process.kill()
            first.process.wait()
            (tmp_path / "go").touch()
            (first.state / "server.json").unlink()
            with platform(first.state, "--port", port) as second:
                until(lambda: run_of(second, "long")["phase"] == "succeeded")
                until(lambda: "over" in second.mainstay("logs", "long").stdout)
                assert marks.read_text() == "begins\n"
        finally:
            made.end()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"token": "msa_" + "x" * 43}, "this token of an agent is not valid"),
        ({"token": "mst_nonsense"}, "there is no token of an agent"),
        ({"name": "west"}, "the token is that of the agent of edge, not of west"),
        ({"way": ()}, "one way into the cluster must be given"),
        ({"way": ("--local", "--in-cluster")}, "only one way"),
        ({"server": "http://example.com"}, "refusing to send a token over plain http"),
    ],
    ids=str,
)
def test_an_agent_that_cannot_start_says_why_in_one_sentence(
    plane: Platform, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    added = plane.mainstay("cluster", "add", NAME, "--agent")
    token = tmp_path / "agent-token"
    token.write_text(changes.get("token", added.stdout))
    way = changes.get("way", ("--local", "--state", str(tmp_path / "agent")))
    server = changes.get("server", plane.url)
    done = plane.mainstay(
        "agent", "--server", server, "--cluster", changes.get("name", NAME), "--token-file", str(token), *way
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "hint:" in done.stderr


def test_the_runs_of_a_directory_belong_to_one_cluster(plane: Platform, edge: Carrier, tmp_path: Path) -> None:
    added = plane.mainstay("cluster", "add", "west", "--agent")
    token = tmp_path / "west-token"
    token.write_text(added.stdout)
    edge.end()
    arguments = ("--server", plane.url, "--cluster", "west", "--token-file", str(token))
    done = plane.mainstay("agent", *arguments, "--local", "--state", str(tmp_path / "agent"))
    assert "belong to another platform or cluster" in done.stderr
    edge.start()


@pytest.mark.xdist_group("kubernetes")
def test_a_job_runs_on_a_real_kubelet_behind_an_agent_that_is_killed_in_between(
    plane: Platform, real_cluster: RealCluster, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(kubeconfig_of(real_cluster)))
    with carrier(plane, tmp_path, "--kubeconfig", str(kubeconfig), image=images.BUSYBOX) as made:
        until(lambda: made.state == "ready")
        script = 'echo first; sleep 8; echo second; echo weights > "$MAINSTAY_OUTPUT_DIR/model.txt"'
        command = ("run", "-y", "-d", "-n", "real", "--infra", NAME, "--", "/bin/sh", "-c", script)
        assert plane.mainstay(*command).returncode == 0
        until(lambda: "first" in plane.mainstay("logs", "real").stdout)
        made.end(signal.SIGKILL)
        made.start()
        until(lambda: run_of(plane, "real")["phase"] == "succeeded", seconds=90)
        assert run_of(plane, "real")["attempt"] == 1
        until(lambda: "second" in plane.mainstay("logs", "real").stdout)
        assert plane.mainstay("download", "real", str(tmp_path / "out")).returncode == 0
        assert (tmp_path / "out" / "model.txt").read_text() == "weights\n"
        until(lambda: "real" in plane.mainstay("cost").stdout)


def kubeconfig_of(real: RealCluster) -> dict[str, Any]:
    """Of its administrator."""
    keys = real.control_plane.keys
    ca = str(keys.authority.certificate)
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "real",
        "clusters": [{"name": "real", "cluster": {"server": real.control_plane.url, "certificate-authority": ca}}],
        "users": [{"name": "admin", "user": {"token": keys.token}}],
        "contexts": [{"name": "real", "context": {"cluster": "real", "user": "admin"}}],
    }
