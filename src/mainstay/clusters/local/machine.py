"""What this machine offers: cores, memory, and control groups to limit a run with, found by looking."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU_PERIOD_US = 100_000
"""The kernel's own default period for quotas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """A place where this process may make control groups."""

    version: int
    directory: str
    memory: bool
    cpu: bool


def cpu_milli() -> int:
    """Thousandths of a core that this process may use."""
    return 1_000 * len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or less if a control group says so."""
    limits = [_meminfo_total()]
    for controller, name in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        directory = _own_group(controller)
        with contextlib.suppress(OSError, ValueError):
            if directory is not None:
                limits.append(int((directory / name).read_text()))
    return min(limits)


def find_hierarchies() -> tuple[Hierarchy, ...]:
    """Where memory and cores can be limited: at most one place for each. Empty without the right to."""
    unified = _own_group("")
    if unified is not None and (found := _usable_v2(unified)):
        return (found,)
    return tuple(
        Hierarchy(version=1, directory=str(directory), memory=controller == "memory", cpu=controller == "cpu")
        for controller in ("memory", "cpu")
        if (directory := _own_group(controller)) is not None and _can_make(directory)
    )


def groups_for(
    hierarchies: tuple[Hierarchy, ...], *, name: str, memory_limit_bytes: int, cpu_limit_milli: int
) -> list[Mapping[str, Any]]:
    """The control groups of a run as its shim makes them; none where nothing is limited.

    Only then: joining a group costs a run up to 15 ms at its start (measured, version 2).
    """
    groups = []
    for place in hierarchies:
        memory = memory_limit_bytes if place.memory else 0
        cpu = cpu_limit_milli if place.cpu else 0
        if memory or cpu:
            path = f"{place.directory}/{name}"
            make = _group_v2 if place.version == 2 else _group_v1
            groups.append(make(path, memory, cpu))
    return groups


def group_name(state: Path, pod: str) -> str:
    """The same pod of another state directory has another group."""
    return f"mainstay-{hashlib.sha256(os.fsencode(state)).hexdigest()[:8]}-{pod}"


def _group_v2(path: str, memory: int, cpu: int) -> Mapping[str, Any]:
    settings = []
    if memory:
        # Swap does not count as memory to users, and a run of which one process was killed is of no use.
        settings += [("memory.max", str(memory)), ("memory.swap.max", "0"), ("memory.oom.group", "1")]
    if cpu:
        settings.append(("cpu.max", f"{_quota(cpu)} {CPU_PERIOD_US}"))
    seen = {"peak": f"{path}/memory.peak", "events": f"{path}/memory.events"} if memory else {}
    return {"path": path, "settings": settings, **seen}


def _group_v1(path: str, memory: int, cpu: int) -> Mapping[str, Any]:
    if memory:
        return {
            "path": path,
            "settings": [("memory.limit_in_bytes", str(memory))],
            "peak": f"{path}/memory.max_usage_in_bytes",
            "events": f"{path}/memory.oom_control",
        }
    settings = [("cpu.cfs_period_us", str(CPU_PERIOD_US)), ("cpu.cfs_quota_us", str(_quota(cpu)))]
    return {"path": path, "settings": settings}


def _quota(cpu: int) -> int:
    return max(1_000, CPU_PERIOD_US * cpu // 1_000)  # the kernel refuses less than a millisecond


def _usable_v2(directory: Path) -> Hierarchy | None:
    """Version 2 lets a group have processes or limited children, not both, unless it is the root."""
    with contextlib.suppress(OSError):
        enabled = (directory / "cgroup.subtree_control").read_text().split()
        if "memory" in enabled and _can_make(directory):
            return Hierarchy(version=2, directory=str(directory), memory=True, cpu="cpu" in enabled)
    return None


def _can_make(directory: Path) -> bool:
    probe = directory / f"mainstay-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _own_group(controller: str) -> Path | None:
    """Our group in the hierarchy of a controller; the empty one stands for version 2."""
    mounted = _mounts().get(controller)
    if mounted is None:
        return None
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") and (controller or not controllers):
                return _beneath(mounted, path)
    return None


def _beneath(mounted: Path, path: str) -> Path | None:
    """In a container the group's path may name what only the host can see; its own root is then the mount itself."""
    directory = mounted / path.lstrip("/")
    if ".." in Path(path).parts or not directory.is_dir():
        directory = mounted
    return directory if directory.is_dir() else None


def _mounts() -> dict[str, Path]:
    """Where each controller's hierarchy is mounted; "" for version 2."""
    found: dict[str, Path] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, where, kind, options = line.split()[:4]
            if kind == "cgroup2":
                found.setdefault("", Path(where))
            elif kind == "cgroup":
                for controller in {"memory", "cpu"} & set(options.split(",")):
                    found.setdefault(controller, Path(where))
    return found


def _meminfo_total() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
