"""Programs of the platform that start warm: forked from a process that has imported them.

A start of the command line costs 0.7 s of CPU and one of a platform 4 s, nearly all of it imports; hundreds of starts made the
tests wait for little else. Here the program is the same, from its arguments to its exit, and what it has imported was
imported once. `command(...)` is a command line for `subprocess`: `launch.py`, which asks for the fork and ends as it ends.
What a start itself does is tested cold (test_starting.py, test_main.py).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, AnyStr, NoReturn

from tests.e2e import launch

LONGEST = 1 << 20
"""Bytes of one request: arguments and environment."""


class Program(subprocess.Popen[AnyStr]):
    """`mainstay` with these arguments, started warm. Whoever kills it sees it end when the fork has."""

    def __init__(self, *arguments: str, **options: Any) -> None:
        super().__init__(command(*arguments), **options)

    def send_signal(self, sig: int) -> None:
        """SIGKILL, which no process can hand on, is sent as launch.KILL."""
        super().send_signal(launch.KILL if sig == signal.SIGKILL else sig)


def command(*arguments: str) -> list[str]:
    """The command line of `mainstay` with these arguments, started warm."""
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")), _place(), *arguments]


@functools.cache
def _place() -> str:
    """Where the process listens that forks. It ends with this one, when its standard input does."""
    place = str(Path(tempfile.mkdtemp(prefix="warm-")) / "socket")
    theirs, ours = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", "from tests.e2e import warm; warm.main()", place],
        stdin=theirs,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    os.close(theirs)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"warm\n"
    atexit.register(lambda: (os.close(ours), process.wait()))
    return place


def main() -> NoReturn:
    """Import all there is, and fork; each fork then is `mainstay`."""
    import mainstay.app
    import mainstay.app_agent
    import mainstay.cli
    from mainstay.__main__ import main as program

    for module in pkgutil.iter_modules(mainstay.cli.__path__, "mainstay.cli."):
        importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen(64)
        sys.stdout.write("warm\n")
        sys.stdout.flush()
        _Forks(listener).until_asked()
    _end(program)


def _end(program: Callable[[], object]) -> NoReturn:
    """Run it, and end as the interpreter does, but for clearing up memory that ends with the process."""
    code: object = 0
    try:
        program()
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 as the interpreter does
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    os._exit(int(code or 0))


class _Forks:
    """Forks on request, hands signals on, and tells of ends."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._lines: dict[int, socket.socket] = {}  # process -> who waits for its end
        self._ended, self._wakes = os.pipe()  # a byte whenever a process has ended
        for end in (self._ended, self._wakes):
            os.set_blocking(end, False)
        self._selector = selectors.DefaultSelector()
        for source in (sys.stdin, listener, self._ended):
            self._selector.register(source, selectors.EVENT_READ)

    def until_asked(self) -> None:
        """Serve until standard input ends. Comes back in forks only."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin:
                    sys.exit()
                elif key.fileobj is self._listener:
                    if self._forked():
                        return
                elif key.fileobj == self._ended:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._ended, 1024)
                elif key.data in self._lines:
                    self._pass_on(key.data)
            self._tell_of_ends()

    def _forked(self) -> bool:
        """Whether this is the fork, which then has all that was asked for."""
        line = self._listener.accept()[0]
        said, streams, _, _ = socket.recv_fds(line, LONGEST, 3)
        while not said.endswith(b"\n"):
            said += line.recv(LONGEST)
        if process := os.fork():
            for stream in streams:
                os.close(stream)
            self._lines[process] = line
            self._selector.register(line, selectors.EVENT_READ, process)
            return False
        for other in (line, *self._lines.values()):
            other.close()
        self._selector.close()
        signal.set_wakeup_fd(-1)
        os.close(self._ended)
        os.close(self._wakes)
        _become(json.loads(said), streams)
        return True

    def _pass_on(self, process: int) -> None:
        """A signal; or whoever asked was killed, and so is what it asked for."""
        line = self._lines[process]
        try:
            said = line.recv(1)
        except OSError:
            said = b""
        os.kill(process, said[0] if said else signal.SIGKILL)
        if not said:
            self._selector.unregister(line)

    def _tell_of_ends(self) -> None:
        found = [os.waitpid(process, os.WNOHANG) for process in self._lines]
        for process, status in found:
            if process:
                with self._lines.pop(process) as line, contextlib.suppress(OSError, KeyError):
                    self._selector.unregister(line)
                    line.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(asked: dict[str, object], streams: list[int]) -> None:
    """Take over what a process is given at its start."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 as long as the process
    sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    os.chdir(str(asked["directory"]))
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["mainstay", *asked["arguments"]]
