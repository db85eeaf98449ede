"""Two replicas on one PostgreSQL and an agent, as processes: whichever is asked, it serves what runs beside the agent."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mainstay.store import SqlStore, open_postgresql
from tests.e2e import warm
from tests.e2e.platform import PATIENCE_SECONDS, Platform, environment_of, until
from tests.e2e.test_agent import NAME, Carrier

pytestmark = pytest.mark.xdist_group("local-cluster")


@contextmanager
def replica(state: Path, database: str, artifacts: Path, *, port: int = 0) -> Iterator[Platform]:
    """`mainstay server`, without a cluster of its own."""
    environment = {**environment_of(state), "MAINSTAY_DATABASE": database}
    command = ("server", "--port", str(port), "--state", str(state), "--artifacts", str(artifacts))
    with (state.parent / f"{state.name}.log").open("ab") as log:
        process = warm.Program(*command, env=environment, stdout=subprocess.DEVNULL, stderr=log)
    try:
        until(lambda: (state / "server.json").exists() or process.poll() is not None)
        yield Platform(state=state, process=process, environment=environment)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)


def like(first: Path, state: Path) -> Path:
    """A state directory with the files that replicas share."""
    state.mkdir(mode=0o700)
    for name in ("token", "secrets-key"):
        shutil.copy(first / name, state / name)
    return state


def ask(plane: Platform, path: str) -> bytes:
    token = (plane.state / "token").read_text()
    request = urllib.request.Request(plane.url + path, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return bytes(answer.read())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


SERVES = """
import http.server, os
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "6"); self.end_headers(); self.wfile.write(b"served")
    def log_message(self, *_): pass
print("serves", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT_"])), Health).serve_forever()
"""


def test_whichever_replica_is_asked_it_serves_what_runs_beside_an_agent(tmp_path: Path, postgres_url: str) -> None:
    artifacts = tmp_path / "artifacts"
    with ExitStack() as stack:
        one = stack.enter_context(replica(tmp_path / "one", postgres_url, artifacts))
        two = stack.enter_context(replica(like(one.state, tmp_path / "two"), postgres_url, artifacts))
        token = tmp_path / "agent-token"
        token.touch(mode=0o600)
        token.write_text(one.mainstay("cluster", "add", NAME, "--agent").stdout)
        way = ("--local", "--state", str(tmp_path / "agent"))
        carrier = Carrier(plane=one, token=token, way=way, log=tmp_path / "agent.log")
        carrier.start()
        stack.callback(carrier.end)
        until(lambda: carrier.state == "ready")
        store = stack.enter_context(_closing(postgres_url))
        until(lambda: store.lines(NAME))
        port = free_port()
        (tmp_path / "code").mkdir()
        (tmp_path / "code" / "serves.py").write_text(SERVES)
        job = {
            "name": "serves", "run": f"{sys.executable} serves.py", "workdir": str(tmp_path / "code"), "infra": NAME,
            "env": {"PORT_": str(port)},
        }  # fmt: skip
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        assert one.mainstay("apply", "-y", "-d", "-f", str(tmp_path / "job.yaml")).returncode == 0
        until(lambda: "serves" in one.mainstay("logs", "serves").stdout)

        def served(plane: Platform) -> None:
            assert "serves" in plane.mainstay("logs", "serves").stdout
            done = plane.mainstay("exec", "-i", "serves", "--", "/bin/sh", "-c", "cat; echo said", input="typed\n")
            assert (done.returncode, done.stdout) == (0, "typed\nsaid\n"), done.stderr
            local = free_port()
            forwarding = plane.start("port-forward", "serves", f"{local}:{port}")
            try:
                until(lambda: _fetched(local) == b"served")
            finally:
                forwarding.send_signal(signal.SIGINT)
                forwarding.communicate(timeout=PATIENCE_SECONDS)

        for plane in (two, one):
            served(plane)
        # The replica with the line is killed: nobody takes its record back. The agent comes to the other one (as behind a load
        # balancer: here, it is started anew), and a third replica finds it there.
        one.process.kill()
        one.process.wait()
        (one.state / "server.json").unlink()
        carrier.end(signal.SIGKILL)
        until(lambda: "cannot be asked" in two.mainstay("logs", "serves").stderr)
        carrier.plane = two
        carrier.start()
        until(lambda: two.mainstay("logs", "serves").stdout)
        three = stack.enter_context(replica(like(two.state, tmp_path / "three"), postgres_url, artifacts))
        assert len(store.lines(NAME)) == 2
        for plane in (three, two):
            served(plane)
        two.mainstay("stop", "serves")
        until(lambda: not two.json("ps"))


@contextmanager
def _closing(url: str) -> Iterator[SqlStore]:
    store = open_postgresql(url)
    yield store
    store.close()


def _fetched(port: int) -> bytes:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return b""
