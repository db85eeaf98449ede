"""A real platform in a process of its own, and the command line as its user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.e2e import warm

PATIENCE_SECONDS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Where it keeps its state, and the process it runs in."""

    state: Path
    process: subprocess.Popen[bytes]
    environment: dict[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        return str(json.loads((self.state / "server.json").read_text())["url"])

    def mainstay(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; it is an error if it takes half a minute, unless told otherwise."""
        return mainstay(*arguments, environment=self.environment, **options)

    def json(self, command: str, *arguments: str) -> Any:
        """What a command prints with `--json`."""
        done = self.mainstay(command, "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and let it run."""
        return warm.Program(
            *arguments,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def environment_of(state: Path) -> dict[str, str]:
    """An environment that knows this platform and no other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAINSTAY_")}
    return {**kept, "MAINSTAY_STATE": str(state), "XDG_CONFIG_HOME": str(state.parent / "config"), "COLUMNS": "200"}


def mainstay(*arguments: str, environment: dict[str, str], **options: Any) -> subprocess.CompletedProcess[str]:
    """The command line, without a terminal."""
    options.setdefault("stdin", subprocess.DEVNULL) if "input" not in options else None
    return subprocess.run(
        warm.command(*arguments),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **{"timeout": PATIENCE_SECONDS, **options},
    )


@contextmanager
def platform(state: Path, *arguments: str, output: IO[bytes] | int = subprocess.DEVNULL) -> Iterator[Platform]:
    """`mainstay up` on a state directory, ended in order; no pod of it is left behind. `output`: where its log goes."""
    environment = environment_of(state)
    up = ("up", "--port", "0", "--state", str(state), *arguments)
    process: subprocess.Popen[bytes] = warm.Program(*up, env=environment, stdout=output, stderr=output)
    running = Platform(state=state, process=process, environment=environment)
    try:
        until(lambda: (state / "server.json").exists() or process.poll() is not None)
        yield running
        if process.poll() is None:
            for run in running.json("ps"):
                running.mainstay("stop", run["id"])
            until(lambda: not running.json("ps"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)


def until(true: Any, *, seconds: float = PATIENCE_SECONDS) -> None:
    """Poll; fails after so long that a busy machine is no reason."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.02)
