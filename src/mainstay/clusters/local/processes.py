"""Processes by more than their number: a number is reused, a start time within one boot is not (R11)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LISTENS = "0A"
"""TCP_LISTEN in /proc/net/tcp."""
SESSION, START_TIME = 3, 19
"""Positions in /proc/PID/stat counted from the third field on (proc(5))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that once ran: its number, its start in clock ticks since boot, and which boot that was."""

    pid: int
    start_time: int
    boot_id: str


DEATH_MILLISECONDS = 1_000
ROUNDS_MAX = 20


def boot_id() -> str:
    """Names the current boot of this machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def kill_leftovers(leader: Process, *, cookie: str, groups: Iterable[str]) -> int:
    """Kill what is left of a run whose shim is dead: how many. A process that may be somebody else's is left alone.

    A process is the run's own if it is in a control group of the run, if it carries the run's environment (`cookie`,
    as NAME=VALUE), or if it is in the session of `leader` while that very leader still lives.
    """
    if leader.boot_id != boot_id():
        return 0
    grouped = {pid for group in groups for pid in _members(group)}
    alive = _start_time(leader.pid) == leader.start_time
    killed = 0
    for pid in _all():
        if pid == os.getpid():
            continue
        if _kill_if(pid, grouped=pid in grouped, cookie=cookie.encode(), session=leader.pid if alive else None):
            killed += 1
    return killed


def kill_carriers(cookie: str) -> int:
    """Kill every process that carries this environment (NAME=VALUE): how many. Until none is left, as they may fork."""
    killed = 0
    for _ in range(ROUNDS_MAX):
        found = sum(
            _kill_if(pid, grouped=False, cookie=cookie.encode(), session=None) for pid in _all() if pid != os.getpid()
        )
        killed += found
        if not found:
            break
    return killed


def carriers_listen(cookie: str, port: int) -> bool:
    """Whether a process that carries this environment (NAME=VALUE) listens on a TCP port."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    return bool(sockets) and any(
        _carries(pid, cookie.encode()) and not sockets.isdisjoint(_descriptors(pid)) for pid in _all()
    )


def _listening(port: int) -> Iterator[str]:
    """Inodes of the sockets that listen on a port (proc_net(5): local address, state and inode are fields 2, 4 and 10)."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _descriptors(pid: int) -> Iterator[str]:
    """What the descriptors of a process stand for."""
    with contextlib.suppress(OSError):
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(descriptor.readlink())


def _await_death(descriptor: int) -> None:
    """A kill is a request: whoever says that a run is over has seen it die. One that the kernel holds is not waited for long."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(DEATH_MILLISECONDS)


def _kill_if(pid: int, *, grouped: bool, cookie: bytes, session: int | None) -> bool:
    """Open first, then look: the descriptor goes on naming the process that was looked at."""
    try:
        descriptor = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return False
    try:
        ours = grouped or _carries(pid, cookie) or (session is not None and _session(pid) == session)
        if ours:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            _await_death(descriptor)
        return ours
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(descriptor)


def _all() -> list[int]:
    return [int(entry.name) for entry in os.scandir(PROC) if entry.name.isdecimal()]


def _members(group: str) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(line) for line in (Path(group) / "cgroup.procs").read_text().split()]
    return []


def _carries(pid: int, cookie: bytes) -> bool:
    try:
        return cookie in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _session(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[SESSION]) if fields else None


def _start_time(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[START_TIME]) if fields else None


def _stat(pid: int) -> list[str]:
    """Fields from the third on: the second, a name, may contain blanks and parentheses."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
