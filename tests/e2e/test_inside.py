"""Looking into a run from the command line, on this machine: typed as its user types it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e import warm
from tests.e2e.platform import PATIENCE_SECONDS, Platform, platform, until

pytestmark = pytest.mark.xdist_group("command-line")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("platform") / "state") as running:
        yield running


@pytest.fixture(scope="module")
def run(up: Platform) -> str:
    """A run that serves its own folder at a port of its choice."""
    script = (
        "import http.server, sys; s = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)"
    )
    script += "; print('port', s.server_address[1], flush=True); s.serve_forever()"
    ref = str(up.json("run", "--name", "open", "--", sys.executable, "-c", script)["id"])
    until(lambda: "port" in up.mainstay("logs", ref).stdout)
    return ref


@dataclass
class Terminal:
    """A command at a terminal of ours."""

    process: subprocess.Popen[bytes]
    ours: int
    theirs: int
    before: list[object]
    said: str = ""
    read: int = field(default=0)

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def shows(self, text: str) -> None:
        """Wait until it shows a text after what it showed before."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self.said[self.read :]:
            assert time.monotonic() < deadline, self.said
            if select.select([self.ours], [], [], 0.1)[0]:
                self.said += os.read(self.ours, 65536).decode(errors="replace")
        self.read = self.said.index(text, self.read) + len(text)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def ended(self) -> int:
        """Its exit code, once the terminal is as it was before."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.said
            if select.select([self.ours], [], [], 0.05)[0]:
                self.said += os.read(self.ours, 65536).decode(errors="replace")
        assert termios.tcgetattr(self.theirs) == self.before
        return self.process.returncode


@pytest.fixture
def at_terminal(up: Platform) -> Iterator[object]:
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        ours, theirs = pty.openpty()
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        before = termios.tcgetattr(theirs)
        process = subprocess.Popen(
            warm.command(*arguments),
            env=up.environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        opened.append(Terminal(process, ours, theirs, before))
        return opened[-1]

    yield start
    for one in opened:
        one.process.kill()
        one.process.wait()
        os.close(one.ours)
        os.close(one.theirs)


def runs(*argv: str) -> bool:
    """Whether a process with these words is there."""
    wanted = b"\0".join(word.encode() for word in argv) + b"\0"
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes() == wanted:
                return True
    return False


def test_a_command_runs_in_the_run_and_its_exit_code_is_ours(up, run):
    done = up.mainstay("exec", run, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert Path(up.mainstay("exec", run, "--", "pwd").stdout.strip()).name == "work"


def test_input_is_passed_on_if_asked_for_and_only_then(up, run):
    assert up.mainstay("exec", "-i", run, "--", "cat", input="hello\n" * 50_000).stdout == "hello\n" * 50_000
    assert up.mainstay("exec", run, "--", "cat", input="hello\n").stdout == ""


def test_input_from_a_file_and_output_into_one(up, run, tmp_path):
    (tmp_path / "in").write_bytes(os.urandom(3_000_000))
    with (tmp_path / "in").open("rb") as given, (tmp_path / "out").open("wb") as taken:
        command = warm.command("exec", "-i", run, "--", "cat")
        subprocess.run(command, env=up.environment, stdin=given, stdout=taken, check=True, timeout=PATIENCE_SECONDS)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_what_cannot_be_run_ends_with_127_and_says_why(up, run):
    done = up.mainstay("exec", run, "--", "/no/such")
    assert done.returncode == 127
    assert "cannot run /no/such" in done.stderr


def test_what_is_not_there_or_over_is_told_by_the_exit_code(up):
    assert up.mainstay("exec", "nothing", "--", "true").returncode == 4
    up.mainstay("run", "-y", "--name", "over", "--", "true")
    done = up.mainstay("exec", "over", "--", "true")
    assert (done.returncode, "has ended" in done.stderr) == (3, True)
    assert up.mainstay("exec", "-t", "over", "--", "true").returncode == 2


def test_who_looked_in_is_among_the_events(up, run):
    up.mainstay("exec", run, "--", "echo", "a b")
    assert "admin runs a command in it: echo 'a b'" in up.mainstay("events", run).stdout


def test_ctrl_c_ends_the_command_and_not_the_run(up, run):
    with up.start("exec", run, "--", "sh", "-c", "echo up; sleep 60.25") as started:
        assert started.stdout.readline() == "up\n"
        started.send_signal(signal.SIGINT)
        assert started.wait(PATIENCE_SECONDS) == 130
        until(lambda: not runs("sleep", "60.25"))
        assert up.json("show", run)["phase"] == "running"


@pytest.mark.parametrize("name", ["shell", "ssh"])
def test_a_shell_is_a_terminal_of_its_own_to_its_end(run, at_terminal, name):
    shell = at_terminal(name, run)
    shell.type("stty size; echo $((6*7))-$MAINSTAY_OUTPUT_DIR\r")
    shell.shows("24 80")
    shell.shows("42-/")
    shell.shows("# ")
    shell.resize(111, 33)
    until_size = "until [ \"$(stty size)\" = '33 111' ]; do sleep 0.1; done; echo resi''zed\r"
    shell.type(until_size)
    shell.shows("resized")
    # The shell itself takes no Ctrl-C between its own words and the start of the next program.
    shell.type("sh -c 'echo wai\"\"ting; while :; do sleep 0.1; done'\r")
    shell.shows("waiting")
    shell.type("\x03")
    shell.shows("# ")
    shell.type("exit 5\r")
    assert shell.ended() == 5


def test_a_shell_is_left_by_tilde_dot(run, at_terminal):
    shell = at_terminal("shell", run)
    shell.type("echo he''re\r")
    shell.shows("here")
    shell.type("\r~.")
    assert shell.ended() == 130
    assert "connection closed" in shell.said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_shell_that_is_ended_gives_the_terminal_back(run, at_terminal, number):
    shell = at_terminal("shell", run)
    shell.type("echo he''re\r")
    shell.shows("here")
    shell.process.send_signal(number)
    assert shell.ended() != 0


def test_a_shell_ends_with_its_run(up, at_terminal):
    ref = str(up.json("run", "--name", "short", "--", "sleep", "100")["id"])
    until(lambda: up.json("show", ref)["phase"] == "running")
    shell = at_terminal("shell", ref)
    shell.type("echo he''re\r")
    shell.shows("here")
    up.mainstay("stop", ref)
    assert shell.ended() in {127, 129, 137}


def test_a_port_of_a_run_is_reached_here_until_ctrl_c(up, run):
    port = re.search(r"port (\d+)", up.mainstay("logs", run).stdout).group(1)
    up.mainstay("exec", run, "--", "sh", "-c", "echo content > file.txt")
    with up.start("port-forward", run, f"0:{port}") as forward:
        local = re.search(r"127\.0\.0\.1:(\d+) ->", forward.stderr.readline()).group(1)
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{local}/file.txt", timeout=PATIENCE_SECONDS) as answer:
                assert answer.read() == b"content\n"
        forward.send_signal(signal.SIGINT)
        assert forward.wait(PATIENCE_SECONDS) == 130


def test_a_forwarded_port_ends_with_the_run(up):
    ref = str(up.json("run", "--name", "brief", "--", "sleep", "100")["id"])
    until(lambda: up.json("show", ref)["phase"] == "running")
    with up.start("port-forward", ref, "0:9999") as forward:
        local = re.search(r"127\.0\.0\.1:(\d+) ->", forward.stderr.readline()).group(1)
        up.mainstay("stop", ref)
        until(lambda: up.json("show", ref)["finished_at"])
        with pytest.raises(OSError):  # noqa: PT011 however the connection is broken
            urllib.request.urlopen(f"http://127.0.0.1:{local}/", timeout=PATIENCE_SECONDS).close()
        assert forward.wait(PATIENCE_SECONDS) == 1
        assert "has ended" in forward.stderr.read()


def test_attach_follows_a_log_to_its_end(up):
    ref = str(up.json("run", "--name", "talks", "--", "sh", "-c", "echo one; sleep 0.5; echo two")["id"])
    done = up.mainstay("attach", ref)
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n")


def test_a_command_ends_with_a_platform_that_is_killed_and_the_run_goes_on(tmp_path):
    with platform(tmp_path / "state") as doomed:
        ref = str(doomed.json("run", "--name", "lives", "--", "sleep", "100.5")["id"])
        until(lambda: doomed.json("show", ref)["phase"] == "running")
        with doomed.start("exec", ref, "--", "sh", "-c", "setsid sleep 60.75 & echo up; wait") as started:
            assert started.stdout.readline() == "up\n"
            doomed.process.kill()
            assert started.wait(PATIENCE_SECONDS) == 6
        until(lambda: not runs("sleep", "60.75"))
        assert runs("sleep", "100.5")
    (tmp_path / "state" / "server.json").unlink()  # left by the one that was killed
    with platform(tmp_path / "state") as again:
        assert again.json("show", ref)["phase"] == "running"
