"""The directories of one run, as the cluster reads and writes them. Their other side is the shim, which explains the files.

runs/POD/    a run that may live, or has ended and is not forgotten; appears whole, by a rename out of `making/`
files/POD/   what the run itself sees: `work`, where it starts, `output`, and `secrets`. It may do with them what it likes
names/POD    says that runs/POD must be there: written before the run starts, removed once it is forgotten
ended/POD/   what is left of a forgotten one: its log and its end. The directory itself is the tombstone (law 3)

A run that removes the directory around it thus removes nothing of ours. One that goes further and takes its records away
is known by its name: it is killed and ended as lost, and never taken for one that was not created yet.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mainstay.clusters.local import processes
from mainstay.clusters.local.addresses import HOST
from mainstay.clusters.local.files import read_json, remove_tree, sync_directory, write_json
from mainstay.clusters.local.locks import is_held, try_lock
from mainstay.domain.addresses import Tunnel
from mainstay.domain.allocation import End, PodState, Seen
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND

POD_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}\Z")
SHIM = Path(__file__).with_name("shim.py")
LAUNCH_SECONDS = 5.0
"""A shim that has not taken its lock by then never will: another is started."""
SIGNAL_BASE = 128
"""A shell reports a process killed by signal N as having exited with 128 + N."""


@dataclass(slots=True, kw_only=True)
class Run:
    """What is known of one run. The files that never change are read once."""

    directory: Path
    spec: Mapping[str, Any] | None = None
    started: Mapping[str, Any] | None = None
    end: Mapping[str, Any] | None = None
    launched: float = -LAUNCH_SECONDS
    """When this process last started a shim for it, by the monotonic clock."""

    @property
    def pod(self) -> str:
        """Its name."""
        return self.directory.name

    @property
    def files(self) -> Path:
        """What the run itself sees."""
        return self.directory.parent.parent / "files" / self.pod

    @property
    def ended(self) -> bool:
        """As last read."""
        return self.end is not None

    def read(self) -> bool:
        """Read what has appeared since the last time: whether it has ended."""
        self.spec = self.spec or read_json(self.directory / "spec.json")
        self.started = self.started or read_json(self.directory / "started.json")
        self.end = self.end or read_json(self.directory / "exit.json")
        return self.ended

    def look(self) -> None:
        """Read, and make sure of the end of a run whose shim is gone; start a shim where none ever came up."""
        # Read twice: its shim may have ended well between the first reading and the look at the lock.
        if self.read() or is_held(self.directory / "lock") or self.read():
            return
        if self.started is not None:
            self._bury()
        elif (self.spec or {}).get("boot_id", processes.boot_id()) != processes.boot_id():
            # Prepared before the machine went down, and perhaps only half of it had reached the disk.
            self._end_unstarted(End.MACHINE_RESTARTED, "the machine went down before it started")
        elif time.monotonic() - self.launched >= LAUNCH_SECONDS:
            self.launch()

    def launch(self) -> None:
        """Start a shim. A second one for the same run gives up by itself."""
        self.launched = time.monotonic()
        subprocess.run(
            [sys.executable, "-I", "-S", str(SHIM), str(self.directory)],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict([cookie(self.files).split("=", 1)]),
        )

    def stop(self, grace_seconds: int) -> None:
        """Ask for its end. A later request may only shorten the grace."""
        known = read_json(self.directory / "stop.json")
        if known is not None and float(known["grace_seconds"]) <= grace_seconds:
            return
        write_json(self.directory / "stop.json", {"grace_seconds": grace_seconds})
        with contextlib.suppress(OSError):  # nobody reads yet: the shim looks for the file when it starts
            descriptor = os.open(self.directory / "wake", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(descriptor, b"!")
            finally:
                os.close(descriptor)

    def state(self, *, ready: bool, tunnel: str = "") -> PodState:
        """What is reported of it. `ready` matters only to a run that is asked whether it is.

        `tunnel`: the name of its cluster, where that alone reaches its port.
        """
        spec, started, end = self.spec or {}, self.started or {}, self.end
        node, started_at = str(spec.get("node", "")), int(started.get("started_at", 0))
        if end is not None:
            return PodState(
                name=self.pod,
                node=node,
                seen=Seen.ENDED,
                started_at=started_at,
                ended_at=int(end["finished_at"]),
                end=End(end["reason"]),
                exit_code=exit_code(end),
                detail=str(end.get("message", "")),
            )
        port = int(spec.get("port", 0)) if started else 0
        reached = str(Tunnel(cluster=tunnel, pod=self.pod, port=port)) if tunnel else f"{HOST}:{port}"
        return PodState(
            name=self.pod,
            node=node,
            seen=Seen.RUNNING if started else Seen.STARTING,
            started_at=started_at,
            address=reached if port else "",
            ready=bool(started) and (ready or not spec.get("ready_path")),
        )

    def own_time(self, clock: float) -> int | None:
        """UTC microseconds on the time line that began with its start: a clock that is set does not move it.

        `clock`: the moment that is meant, in seconds of CLOCK_BOOTTIME.
        """
        if self.started is None or self.started["boot_id"] != processes.boot_id():
            return None
        elapsed = clock - float(self.started["clock"])
        return int(self.started["started_at"]) + round(elapsed * MICROSECONDS_PER_SECOND)

    def _bury(self) -> None:
        """Its shim was killed, or the machine went down: kill what is left, then record the end (R5: proof, then word)."""
        assert self.started is not None
        with try_lock(self.directory / "lock") as taken:
            if not taken:
                return
            leader = processes.Process(
                pid=int(self.started["pid"]),
                start_time=int(self.started["start_time"]),
                boot_id=str(self.started["boot_id"]),
            )
            same_boot = leader.boot_id == processes.boot_id()
            groups = [str(group["path"]) for group in (self.spec or {}).get("groups", ())]
            if same_boot:
                processes.kill_leftovers(leader, cookie=cookie(self.files), groups=groups)
            for group in groups:
                with contextlib.suppress(OSError):
                    os.rmdir(group)  # noqa: PTH106 beside the other calls on groups
            write_json(self.directory / "exit.json", self._unwitnessed_end(same_boot=same_boot))
        self.read()

    def _end_unstarted(self, reason: End, message: str) -> None:
        """On record, unless a shim has come up meanwhile."""
        with try_lock(self.directory / "lock") as taken:
            if taken and not self.read() and self.started is None:
                write_json(self.directory / "exit.json", end_record(reason, message))
        self.read()

    def _unwitnessed_end(self, *, same_boot: bool) -> Mapping[str, Any]:
        assert self.started is not None
        if same_boot:
            reason, message = End.LOST, "its keeper was killed"
            finished_at = self.own_time(time.clock_gettime(time.CLOCK_BOOTTIME)) or 0
        else:
            reason, message = End.MACHINE_RESTARTED, "the machine went down"
            # The shim moves the time of its lock every half minute: the last moment at which the run is known to live.
            finished_at = int((self.directory / "lock").stat().st_mtime * MICROSECONDS_PER_SECOND)
        return {"reason": reason, "message": message, "finished_at": max(finished_at, int(self.started["started_at"]))}


def end_record(reason: End, message: str) -> dict[str, Any]:
    """The content of exit.json of a run of which nobody saw the end, as of now."""
    return {"reason": reason, "message": message, "finished_at": time.time_ns() // 1_000, "log_bytes": 0}


def exit_code(end: Mapping[str, Any]) -> int | None:
    """As a shell reports it; None if there was no process, or nobody saw how it ended."""
    if end.get("signal"):
        return SIGNAL_BASE + int(end["signal"])
    code = end.get("exit_code")
    return None if code is None else int(code)


def cookie(files: Path) -> str:
    """The variable that marks every process of a run."""
    return f"MAINSTAY_RUN_DIRECTORY={files}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directories:
    """Where the runs of a cluster lie."""

    root: Path

    @property
    def runs(self) -> Path:
        """Runs that are not forgotten."""
        return self.root / "runs"

    @property
    def files(self) -> Path:
        """What the runs themselves see."""
        return self.root / "files"

    @property
    def named(self) -> Path:
        """The names of the runs that must be there."""
        return self.root / "names"

    @property
    def ended(self) -> Path:
        """Tombstones with their logs."""
        return self.root / "ended"

    @property
    def making(self) -> Path:
        """Runs that are being prepared: nothing in here has ever run."""
        return self.root / "making"

    @property
    def volumes(self) -> Path:
        """Claims by tenant, project and name: they outlive every run."""
        return self.root / "volumes"

    @property
    def gangs(self) -> Path:
        """One file per gang with the port at which its ranks meet."""
        return self.root / "gangs"

    def prepare(self) -> None:
        """Make them; drop what a crash left half prepared."""
        if self.making.exists():
            remove_tree(self.making)
        for path in (self.runs, self.files, self.named, self.ended, self.making, self.gangs, self.volumes):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def names(self) -> Iterator[str]:
        """The pods that are not forgotten."""
        return (entry.name for entry in os.scandir(self.runs))

    def missing(self) -> list[str]:
        """Runs that have a name and no records any more. Whoever was forgotten by half only loses the name."""
        present = set(self.names())
        named = [entry.name for entry in os.scandir(self.named) if entry.name not in present]
        for pod in named:
            if (self.ended / pod).exists():
                (self.named / pod).unlink(missing_ok=True)
        return [pod for pod in named if not (self.ended / pod).exists() and not (self.runs / pod).exists()]

    def of(self, pod: str) -> Path | None:
        """Where a pod's files are; None if there are none."""
        if not POD_NAME.match(pod):
            return None
        return next((path for path in (self.runs / pod, self.ended / pod) if path.is_dir()), None)

    def publish(self, made: Path, pod: str) -> Path:
        """Move a prepared directory to its place: from here on the run is on record, and may start."""
        sync_directory(made)
        files = self.files / pod
        if files.exists():
            remove_tree(files)
        (made / "files").rename(files)
        target = self.runs / pod
        made.rename(target)
        sync_directory(self.runs)
        self.name(pod)
        return target

    def name(self, pod: str) -> None:
        """Write down that the records of a run must be there."""
        (self.named / pod).touch(0o600)
        sync_directory(self.named)

    def bury(self, run: Run) -> None:
        """Keep only the log and the end of a run, and its name for ever."""
        if run.files.exists():
            remove_tree(run.files)
        (run.directory / "masks.json").unlink(missing_ok=True)
        run.directory.rename(self.ended / run.pod)
        sync_directory(self.ended)
        sync_directory(self.runs)
        (self.named / run.pod).unlink(missing_ok=True)
