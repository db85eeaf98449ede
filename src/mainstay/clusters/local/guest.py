"""The keeper of one command that somebody runs inside a run: beside the run's own program, and not a moment longer.

Run as a file, `python -I -S guest.py RUN_DIRECTORY LINE COMMAND...`, standard library only. Its standard streams are those of
the command: a terminal, or three pipes. Whatever comes first of the end of the command, the end of the run (its shim dies) and
the end of LINE, a socket of which the control plane holds the other end, all that the command has started is killed; so nothing
of it is left when the run has ended, when nobody looks any more, or when the control plane was killed. What became of the
command is written to LINE as one JSON object: {"exit_status": 0} or {"failure": "cannot run x: no such file"}.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import sys
import termios
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from mainstay.clusters.local import shim
else:
    # Run as a file: what belongs to the keeper of the run lies beside it, and nothing else is on the path.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import shim

SIGNAL_BASE = 128
REPORT_BYTES_MAX = 4096
TERMINAL = "xterm-256color"


def main(run_directory: str, line: int, argv: list[str]) -> None:
    """Keep one command to its end and say what became of it."""
    os.chdir(run_directory)
    os.umask(0o077)
    os.set_inheritable(line, False)
    outcome = keep(line, argv)
    with contextlib.suppress(OSError):  # nobody wants to know any more
        os.write(line, json.dumps(outcome).encode())


def keep(line: int, argv: list[str]) -> dict[str, Any]:
    """Start the command, and wait for the first of all ends."""
    shim.prctl(shim.PR_SET_CHILD_SUBREAPER, 1)
    signals = shim.catch_signals()
    run = run_of(json.loads(shim.read_file("started.json")))
    if run is None:
        return {"failure": "the run has ended"}
    pid, failure = start(json.loads(shim.read_file("spec.json")), argv)
    try:
        if failure:
            return {"failure": failure}
        let_go_of_streams()
        status = wait(pid, line=line, run=run, signals=signals)
    finally:
        # No group is named: that of the run holds the run itself.
        shim.end_descendants([])
    if status is None:
        return {"failure": "the run has ended"}
    return {"exit_status": exit_status(status)}


def run_of(started: dict[str, Any]) -> int | None:
    """A descriptor that becomes readable when the keeper of the run dies; None if it is dead already."""
    try:
        descriptor = os.pidfd_open(started["shim_pid"])
        alive = shim.start_time(started["shim_pid"]) == started["shim_start_time"]
    except OSError:
        return None
    return descriptor if alive and not os.path.exists("exit.json") else None


def start(spec: dict[str, Any], argv: list[str]) -> tuple[int, str]:
    """The process of the command, and why it could not be started or ""."""
    our_report, report = os.pipe()
    pid = os.fork()
    if not pid:
        become(spec, argv, report)
    os.close(report)
    failure = os.read(our_report, REPORT_BYTES_MAX).decode("utf-8", "replace")
    os.close(our_report)
    return pid, failure


def become(spec: dict[str, Any], argv: list[str], report: int) -> NoReturn:
    """In the new process: turn into the command, under all that holds for the run. Never returns."""
    try:
        keeper = os.getppid()
        shim.prctl(shim.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(1)
        os.setsid()
        environment = dict(spec["environment"])
        if os.isatty(0):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            environment.setdefault("TERM", TERMINAL)
        for group in spec["groups"]:
            # A machine that did not let the shim make them has none; one that is there must not be left out.
            if os.path.exists(group["path"]):
                shim.write_file(group["path"] + "/cgroup.procs", "0")
        with contextlib.suppress(OSError):
            shim.write_file("/proc/self/oom_score_adj", shim.OOM_SCORE)
        shim.set_limits()
        shim.reset_signals()
        os.chdir(spec["directory"])
        os.execvpe(argv[0], argv, environment)
    except BaseException as error:  # noqa: BLE001 this process has no other way to speak
        reason = error.strerror if isinstance(error, OSError) else str(error)
        os.write(report, f"cannot run {argv[0]}: {reason}".encode("utf-8", "replace")[:REPORT_BYTES_MAX])
    os._exit(127)


def let_go_of_streams() -> None:
    """From here on only the command holds its streams: their other ends see when it has ended."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)


def wait(pid: int, *, line: int, run: int, signals: int) -> int | None:
    """The wait status of the command; None if the run, or whoever wanted to know, has ended before."""
    poll = select.poll()
    for descriptor in (line, run, signals):
        poll.register(descriptor, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        shim.discard(signals)
        while (ended := reaped()) is not None:
            if ended[0] == pid:
                return ended[1]
        if ready & {line, run}:
            return None


def reaped() -> tuple[int, int] | None:
    """One child that has ended, an adopted orphan perhaps, with its wait status; None if there is none."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except OSError as error:
        if error.errno == errno.ECHILD:
            return None
        raise
    return (pid, status) if pid else None


def exit_status(status: int) -> int:
    """As a shell reports it."""
    code, number = shim.exit_status(status)
    return SIGNAL_BASE + number if code is None else code


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
