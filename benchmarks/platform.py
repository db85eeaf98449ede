"""Starts, kills and measures a real `mainstay up` as its user's machine would run it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mainstay.sdk import Client

START_SECONDS_MAX = 60


class Platform:
    """One `mainstay up` process on a state directory; may be killed and started again."""

    def __init__(
        self, state: Path, *, module: Sequence[str] = ("-m", "mainstay"), env: dict[str, str] | None = None
    ) -> None:
        self.state = state
        self._module = tuple(module)
        self._env = {**os.environ, "MAINSTAY_STATE": str(state), **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it wrote, over all its lives."""
        return self.state.parent / f"{self.state.name}.log"

    def start(self) -> float:
        """Start it and wait until it answers; the seconds that took."""
        began = time.monotonic()
        self.launch()
        self.wait_until_answering()
        return time.monotonic() - began

    def launch(self, *, env: dict[str, str] | None = None) -> None:
        """Start it without waiting."""
        (self.state / "server.json").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._module, "up", "--state", str(self.state), "--port", "0"],
                stdout=log,
                stderr=log,
                env={**self._env, **(env or {})},
                start_new_session=True,
            )

    def wait_until_answering(self) -> None:
        """Until server.json is there, which is written once requests are answered; raises if the process ended."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.server_file.exists():
            if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                msg = f"the platform did not start; its log ends:\n{self.log.read_text()[-2000:]}"
                raise RuntimeError(msg)
            time.sleep(0.005)

    @property
    def server_file(self) -> Path:
        """Where it says how it is reached."""
        return self.state / "server.json"

    def client(self, **options: object) -> Client:
        """A client of the running platform."""
        where = json.loads(self.server_file.read_text())
        return Client(server=where["url"], token=where["token"], **options)

    def kill(self) -> None:
        """SIGKILL, as a power cut of the process; jobs are left alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM and wait; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def rss_bytes(self) -> int:
        """Resident memory now. Source: /proc/PID/statm, field 2."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def running(state: Path) -> Iterator[Platform]:
    """A started platform that is stopped at the end, whatever happens."""
    platform = Platform(state)
    platform.start()
    try:
        yield platform
    finally:
        if platform.process is not None and platform.process.poll() is None:
            platform.kill()
