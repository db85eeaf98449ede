"""Programs that run until they are told to end, each with its log in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from testbed.folders import MARK

STOP_SECONDS_MAX = 30.0
TAIL_CHARACTERS = 2_000


class Running:
    """One program. It is started by `start`, and may be stopped, killed and started again."""

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, stop_seconds_max: float = STOP_SECONDS_MAX
    ) -> None:
        """`stop_seconds_max`: so long it has to end once it is asked to."""
        self.name = name
        self._stop_seconds_max = stop_seconds_max
        self.log = log
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; its log goes on."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, MARK: str(self.log.parent)},
            )

    def stop(self) -> None:
        """Ask for its end and wait; it is killed if it does not."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Without warning."""
        self._end(signal.SIGKILL)

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Raises RuntimeError with the end of its log if it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.require_alive()
            if time.monotonic() >= deadline:
                msg = f"{self.name} is not ready; its log ends with:\n{self.tail()}"
                raise RuntimeError(msg)
            time.sleep(0.05)

    def require_alive(self) -> None:
        """Raises RuntimeError with the end of its log if it has ended."""
        if not self.alive:
            msg = f"{self.name} has ended; its log ends with:\n{self.tail()}"
            raise RuntimeError(msg)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-TAIL_CHARACTERS:] if self.log.exists() else ""

    def _end(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._signal(number)
        try:
            self._process.wait(self._stop_seconds_max)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
