"""The control groups of a node: a group of its own under each hierarchy of the machine, version 1 or 2."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
WANTED = frozenset({"cpuset", "cpu", "memory", "pids", "io", "hugetlb"})
REMOVE_SECONDS_MAX = 10.0


def is_unified() -> bool:
    """Whether the machine has version 2 only."""
    return (ROOT / "cgroup.controllers").exists()


def make(name: str) -> None:
    """A group of this name, with slashes between levels, everywhere. Raises OSError where that is not allowed."""
    for hierarchy in hierarchies():
        group = hierarchy
        for part in name.split("/"):
            _hand_down(group)
            group, above = group / part, group
            group.mkdir(exist_ok=True)
            _settle(group, above)


def remove(name: str) -> None:
    """The groups of this name with all that is in them: processes are killed."""
    deadline = time.monotonic() + REMOVE_SECONDS_MAX
    while (left := [group for hierarchy in hierarchies() for group in _tree(hierarchy / name)]) and (
        time.monotonic() < deadline
    ):
        for group in left:
            _kill(group)
            with contextlib.suppress(OSError):  # busy until its processes are gone: the next round
                group.rmdir()


def hierarchies() -> list[Path]:
    """Where they are mounted."""
    lines = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [Path(words[1]) for words in lines if words[2] in {"cgroup", "cgroup2"}]


def _hand_down(group: Path) -> None:
    """Version 2: let the children of a group use the controllers that it has."""
    if not (group / "cgroup.subtree_control").exists():
        return
    offered = set((group / "cgroup.controllers").read_text().split())
    given = set((group / "cgroup.subtree_control").read_text().split())
    for controller in sorted((offered & WANTED) - given):
        (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _settle(group: Path, above: Path) -> None:
    """Version 1 makes groups that may run nowhere: let them run where the one above may."""
    for setting in ("cpuset.cpus", "cpuset.mems"):
        if (group / setting).exists() and (above / setting).read_text().strip() and not is_unified():
            (group / setting).write_text((above / setting).read_text())


def _tree(group: Path) -> Iterator[Path]:
    """The group and all below it, the deepest first."""
    for path, _folders, _files in os.walk(group, topdown=False):
        yield Path(path)


def _kill(group: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
