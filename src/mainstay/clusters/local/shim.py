"""The keeper of one run: starts its process, holds its lock, writes its log, enforces its limits, records its end.

Run as a file, `python -I -S shim.py RUN_DIRECTORY`, standard library only: it must start in a blink, stay small, and
outlive the control plane, which may be killed at any moment. However long, it is one file: run so, it finds no neighbour
to import. It leaves its parent's session, and all that the two say to each other are files in the run directory:

    spec.json     what to run; written before the shim starts, never changed
    lock          flock held for the whole life of the shim: held = the run is alive. A second shim gives up (R11)
    started.json  which processes these are; on disk before the first instruction of the run's own program
    stop.json     a request to stop; `wake` is a FIFO that announces it, so that nobody ever signals a process by number
    logs/         standard output and error; the name of a file is the offset of its first byte in the whole log
    masks.json    what of its output is secret; removed once the run has started
    exit.json     how it ended; on disk before the lock is let go. A run with one is never started again (law 3)

Whatever the run leaves behind ends with it: the shim adopts every orphan (PR_SET_CHILD_SUBREAPER) and kills it, and the
kernel kills the run's first process if the shim itself is killed (PR_SET_PDEATHSIG).

Plain classes instead of dataclasses: that import alone would double the start-up time.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any, NoReturn

LOCK_TRIES = 50
LOCK_PAUSE_SECONDS = 0.004
"""Whoever looks whether a run is alive holds its lock for microseconds; a live shim holds it for good."""
RESERVE_BYTES = 4096
"""Disk set aside at the start for exit.json: the end of a run can be recorded on a full disk."""
MESSAGE_CHARACTERS_MAX = 500
"""Escaped at six bytes each, they still fit into the reserve."""
RECORD_TRIES = 600
READ_BYTES = 1 << 16
LOG_RETRY_SECONDS = 1.0
BEAT_SECONDS = 30.0
"""How often the time of `lock` is moved: bounds what is not known of a run whose shim vanished with the machine."""
WATCH_SECONDS = 0.5
REAP_PAUSE_SECONDS, REAP_PAUSE_SECONDS_MAX = 0.001, 0.25
OPEN_FILES_MAX = 65_536
OOM_SCORE = "500"
"""When memory runs out, the kernel takes a run before the control plane."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GONE_ERRNOS = (errno.ENOENT, errno.ESRCH, errno.ENODEV)


def main(run_directory: str) -> None:
    """Keep the run in `run_directory` to its end; return at once if it is kept, was started, or has ended already."""
    os.chdir(run_directory)
    os.umask(0o077)
    detach()
    lock = take_lock()
    if lock is None or os.path.exists("exit.json") or os.path.exists("started.json"):
        return
    try:
        keep(json.loads(read_file("spec.json")), lock)
    except BaseException as error:  # noqa: BLE001 nobody else can record it
        # Nobody reads our stderr: what went wrong must be on record, and nothing of the run may survive it.
        end_descendants([])
        if not os.path.exists("exit.json"):
            reason = "lost" if os.path.exists("started.json") else "never_started"
            record_end({"reason": reason, "message": f"{type(error).__name__}: {error}", "finished_at": now()})


def detach() -> None:
    """Leave the session of whoever started us, so that none of its signals reach us."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)


def take_lock() -> int | None:
    """The descriptor that holds the lock, or None if another shim has it."""
    descriptor = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_SECONDS)
        else:
            return descriptor
    return None


def keep(spec: dict[str, Any], lock: int) -> None:
    """Start the run, watch it to its end and record that."""
    reserve()
    # The FIFO is opened before stop.json is looked for: a request is either seen there or announced here.
    wake = os.open("wake", os.O_RDWR | os.O_NONBLOCK)
    if os.path.exists("stop.json"):
        record_end({"reason": "stopped", "message": "stopped before it started", "finished_at": now()})
        return
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signals = catch_signals()
    groups, limited = make_groups(spec["groups"])
    try:
        try:
            masking = masks()
            output, record, failure = start(spec, groups)
            # Not before it is on record that the run has started: another keeper would start it without.
            with contextlib.suppress(FileNotFoundError):
                os.unlink("masks.json")
            log = Log(output, spec["log_file_bytes"], spec["log_files_max"], masks=masking)
            watch = Watch(spec, record, lock, limited=limited)
            if failure:
                os.waitpid(watch.pid, 0)
                watch.end, watch.message = "start_failed", failure
            else:
                loop(watch, log, wake, signals)
        finally:
            end_descendants(groups)
        log.drain()
        record_end(watch.outcome(groups, log_bytes=log.offset))
    finally:
        remove_groups(groups)


def masks() -> Any:
    """What masks the secrets of the run in its output; None if it has none.

    `Any`: the module is loaded from its file, and only where it is needed.
    """
    try:
        patterns = json.loads(read_file("masks.json"))
    except FileNotFoundError:
        return None
    # Imported late on purpose: most runs have no secret, and start without it.
    from importlib.machinery import SourceFileLoader  # noqa: PLC0415

    path = os.path.join(os.path.dirname(__file__), "..", "..", "domain", "masking.py")
    module = SourceFileLoader("masking", path).load_module()
    return module.Stream(module.Masks(bytes.fromhex(pattern) for pattern in patterns))


def loop(watch: Watch, log: Log, wake: int, signals: int) -> None:
    """Sleep until something happens; return when the first process of the run has ended."""
    poll = select.poll()
    for descriptor in (log.source, wake, signals):
        poll.register(descriptor, select.POLLIN)
    while watch.status is None:
        for descriptor, event in poll.poll(watch.patience() * 1000):
            if descriptor == log.source:
                if not log.copy() and event & ~select.POLLIN:
                    poll.unregister(log.source)
            elif descriptor == wake:
                discard(wake)
                watch.read_stop_request()
            elif b"\x0f" in discard(signals):  # SIGTERM: the machine is going down
                watch.stop(watch.grace, "lost", "its keeper was told to end (SIGTERM)")
        watch.reap()
        watch.enforce()


class Watch:
    """The first process of a run, what must happen to it when, and how it ended. Times on CLOCK_BOOTTIME."""

    def __init__(self, spec: dict[str, Any], record: dict[str, Any], lock: int, *, limited: bool) -> None:
        self.pid = record["pid"]
        self.lock = lock
        self.started_at = record["started_at"]
        self.started_clock = record["clock"]
        self.grace = float(spec["grace_seconds"])
        self.deadline = clock() + spec["deadline_seconds"] if spec["deadline_seconds"] else None
        self.deadline_seconds = spec["deadline_seconds"]
        self.memory_limit = 0 if limited else spec["memory_limit_bytes"]
        self.limit_shown = spec["memory_limit_bytes"]
        self.kill_at: float | None = None
        self.next_beat = clock() + BEAT_SECONDS
        self.next_look = clock()
        self.status: int | None = None
        self.end = ""
        self.message = ""

    def patience(self) -> float:
        """Seconds until something is due. At most a beat, as poll's own clock stands still while the machine sleeps."""
        due = [self.next_beat]
        if self.kill_at is not None:
            due.append(self.kill_at)
        elif self.deadline is not None:
            due.append(self.deadline)
        if self.memory_limit:
            due.append(self.next_look)
        return max(0.0, min(due) - clock()) + 0.001

    def enforce(self) -> None:
        """Do what is due: the beat, the deadline, the end of a grace, the memory limit where no control group has it."""
        if self.status is not None:
            return
        moment = clock()
        if moment >= self.next_beat:
            os.utime(self.lock)
            self.next_beat = moment + BEAT_SECONDS
        if self.kill_at is not None and moment >= self.kill_at:
            self.kill_at = None
            self.signal_group(signal.SIGKILL)
        elif self.deadline is not None and moment >= self.deadline:
            self.deadline = None
            self.stop(self.grace, "deadline", f"reached its limit of {self.deadline_seconds} s")
        if self.memory_limit and moment >= self.next_look:
            self.next_look = moment + WATCH_SECONDS
            self.look_at_memory()

    def look_at_memory(self) -> None:
        """Kill the run if its processes together hold more than the limit."""
        processes = descendants()
        # Resident pages are cheap to read but count shared ones once per process; the exact figure is asked only
        # when the cheap one is too high.
        if sum(map(resident_bytes, processes)) > self.memory_limit < sum(map(proportional_bytes, processes)):
            self.end = self.end or "oom"
            self.message = self.message or f"out of memory: used more than {self.memory_limit} bytes"
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def read_stop_request(self) -> None:
        """Obey stop.json. A second request may only shorten the grace."""
        try:
            grace = float(json.loads(read_file("stop.json"))["grace_seconds"])
        except (OSError, ValueError, KeyError):
            grace = self.grace
        self.stop(grace, "stopped", "stopped on request")

    def stop(self, grace: float, end: str, message: str) -> None:
        """Ask the run to end; kill it after the grace. The first cause stands."""
        if self.status is not None:
            return
        kill_at = clock() + grace
        if not self.end:
            self.end, self.message = end, message
            self.signal_group(signal.SIGTERM)
            self.kill_at = kill_at
        elif self.kill_at is not None:
            self.kill_at = min(self.kill_at, kill_at)

    def signal_group(self, number: int) -> None:
        """Safe by number: the first process of the group has not been waited for, so its number is still its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def reap(self) -> None:
        """Wait for whatever has ended, adopted orphans included."""
        while self.status is None:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.status = status

    def outcome(self, groups: list[dict[str, Any]], *, log_bytes: int) -> dict[str, Any]:
        """The content of exit.json."""
        exit_code, number = exit_status(self.status)
        if not self.end and (number or exit_code) and oom_kills(groups):
            self.end, self.message = "oom", f"out of memory: the limit is {self.limit_shown} bytes"
        if not self.end and number:
            self.message = f"killed by signal {number} ({signal_name(number)})"
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak = max([usage.ru_maxrss * 1024, *(read_number(group["peak"]) for group in groups if group.get("peak"))])
        return {
            "reason": self.end or "exited",
            "message": self.message,
            "exit_code": exit_code,
            "signal": number or None,
            "started_at": self.started_at,
            # What has passed since the start, whatever was done to the wall clock meanwhile.
            "finished_at": self.started_at + round((clock() - self.started_clock) * 1e6),
            "peak_memory_bytes": peak,
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
            "log_bytes": log_bytes,
        }


class Log:
    """Standard output and error of a run, in files of bounded size and number. A full disk costs lines, never the run."""

    def __init__(self, source: int, file_bytes: int, files_max: int, *, masks: Any = None) -> None:
        """`masks`: a `domain.masking.Stream`, where there are secrets to mask."""
        self.source = source
        self.masks = masks
        self.file_bytes = file_bytes
        self.files_max = files_max
        self.offset = 0
        """Bytes that the run has written so far, kept or not."""
        self.file: int | None = None
        self.left = 0
        self.retry_at = 0.0
        self.names: list[str] = []

    def copy(self) -> bool:
        """Move what is there into the log. False if there was nothing."""
        try:
            content = os.read(self.source, READ_BYTES)
        except BlockingIOError:
            return False
        self.write(self.masks.passed(content) if self.masks else content)
        return bool(content)

    def drain(self) -> None:
        """Move the rest; whoever wrote is dead."""
        while self.copy():
            pass
        if self.masks:
            self.write(self.masks.rest())
        self.close()

    def write(self, content: bytes) -> None:
        """Append. What cannot be written is dropped: its offsets stay unused, so a reader sees how much is missing."""
        view = memoryview(content)
        while view:
            file = self.open_next() if self.file is None else self.file
            if file is None:
                self.offset += len(view)
                return
            try:
                written = os.write(file, view[: self.left])
            except OSError:
                self.give_up()
                continue
            self.offset += written
            self.left -= written
            view = view[written:]
            if not self.left:
                self.close()

    def open_next(self) -> int | None:
        """Begin a file at the current offset and let the oldest go. None while the disk does not allow it."""
        if clock() < self.retry_at:
            return None
        name = f"logs/{self.offset:012d}.log"
        try:
            self.file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        except OSError:
            self.retry_at = clock() + LOG_RETRY_SECONDS
            return None
        self.left = self.file_bytes
        self.names.append(name)
        while len(self.names) > self.files_max:
            with contextlib.suppress(OSError):
                os.unlink(self.names.pop(0))
        return self.file

    def give_up(self) -> None:
        """Leave the current file after an error. One that stayed empty goes, so that retries never push out real ones."""
        self.close()
        self.retry_at = clock() + LOG_RETRY_SECONDS
        if self.left == self.file_bytes:
            with contextlib.suppress(OSError):
                os.unlink(self.names.pop())

    def close(self) -> None:
        """Finish the current file."""
        if self.file is not None:
            os.close(self.file)
            self.file = None


def start(spec: dict[str, Any], groups: list[dict[str, Any]]) -> tuple[int, dict[str, Any], str]:
    """Start the run's program: (its output, what started.json says of it, why it could not be started or "").

    The new process waits until started.json is on disk: nothing ever runs that is not on record.
    """
    output, its_output = os.pipe()
    gate, our_gate = os.pipe()
    our_report, report = os.pipe()
    pid = os.fork()
    if not pid:
        become(spec, groups, its_output, gate, report)
    for descriptor in (its_output, gate, report):
        os.close(descriptor)
    os.set_blocking(output, False)
    record = started(pid)
    write_whole("started.json", record)
    with contextlib.suppress(BrokenPipeError):  # it has failed already; its report says why
        os.write(our_gate, b"1")
    os.close(our_gate)
    failure = os.read(our_report, RESERVE_BYTES).decode("utf-8", "replace")
    os.close(our_report)
    return output, record, failure


def started(pid: int) -> dict[str, Any]:
    """The content of started.json: numbers alone name no process for long, so the start time and the boot go with them."""
    return {
        "shim_pid": os.getpid(),
        "shim_start_time": start_time(os.getpid()),
        "pid": pid,
        "start_time": start_time(pid),
        "boot_id": read_file("/proc/sys/kernel/random/boot_id").strip(),
        "started_at": now(),
        "clock": clock(),
    }


def become(spec: dict[str, Any], groups: list[dict[str, Any]], output: int, gate: int, report: int) -> NoReturn:
    """In the new process: turn into the run's program. Never returns."""
    try:
        keeper = os.getppid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:  # the shim died before the kernel knew what to do then
            os._exit(1)
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for group in groups:
            write_file(group["path"] + "/cgroup.procs", "0")
        with contextlib.suppress(OSError):
            write_file("/proc/self/oom_score_adj", OOM_SCORE)
        set_limits()
        reset_signals()
        os.chdir(spec["directory"])
        if os.read(gate, 1) != b"1":
            os._exit(1)
        os.execvpe(spec["argv"][0], spec["argv"], spec["environment"])
    except BaseException as error:  # noqa: BLE001 this process has no other way to speak
        name = spec["argv"][0] if isinstance(error, OSError) else ""
        reason = error.strerror if isinstance(error, OSError) else str(error)
        os.write(report, f"cannot run {name}: {reason}".encode("utf-8", "replace"))
    os._exit(127)


def set_limits() -> None:
    """No core dumps; as many open files as data loaders need.

    No RLIMIT_AS: CUDA, NumPy and Go reserve far more addresses than they use. Memory is limited by a control group, and
    where there is none by looking at what is resident.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def catch_signals() -> int:
    """Turn SIGCHLD and SIGTERM into bytes to poll for; ignore what a terminal might send."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    os.set_blocking(theirs, False)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    return ours


def reset_signals() -> None:
    """Give the run the signals as a login gives them; Python itself ignores SIGPIPE and SIGXFSZ."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def end_descendants(groups: list[dict[str, Any]]) -> None:
    """Kill all that the run left behind and wait for it. Returns only when nothing is left.

    Only our own unwaited children are killed by number; their children become ours as they die. A process that the
    kernel cannot kill yet still holds what it holds, so its run has not ended either.
    """
    pause = REAP_PAUSE_SECONDS
    while True:
        for group in groups:
            with contextlib.suppress(OSError):
                write_file(group["path"] + "/cgroup.kill", "1")
        for child in children():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            pause = REAP_PAUSE_SECONDS
        else:
            time.sleep(pause)
            pause = min(2 * pause, REAP_PAUSE_SECONDS_MAX)


def children() -> list[int]:
    """The numbers of our children, waited for or not."""
    own = os.getpid()
    try:
        return [int(word) for word in read_file(f"/proc/self/task/{own}/children").split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [process for process, parent in parents().items() if parent == own]


def descendants() -> list[int]:
    """All processes of the run: everything below us, as every orphan of the run becomes our child."""
    below: dict[int, list[int]] = {}
    for process, parent in parents().items():
        below.setdefault(parent, []).append(process)
    found, rest = [], [os.getpid()]
    while rest:
        more = below.get(rest.pop(), [])
        found += more
        rest += more
    return found


def parents() -> dict[int, int]:
    """The parent of every process on the machine."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                found[int(name)] = int(stat_fields(int(name))[1])
    return found


def resident_bytes(pid: int) -> int:
    """Memory that a process has touched; 0 if it is gone."""
    try:
        return int(read_file(f"/proc/{pid}/statm").split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def proportional_bytes(pid: int) -> int:
    """Its share of the memory: pages shared by n processes count 1/n each. 0 if it is gone."""
    try:
        for line in read_file(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def make_groups(wanted: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    """Make the control groups that the spec describes: (those, whether they limit memory). All of them or none."""
    made: list[dict[str, Any]] = []
    try:
        for group in wanted:
            with contextlib.suppress(FileExistsError):
                os.mkdir(group["path"])
            made.append(group)
            for name, value in group["settings"]:
                write_file(f"{group['path']}/{name}", value)
    except OSError:
        remove_groups(made)
        return [], False
    return made, any(group.get("events") for group in made)


def remove_groups(groups: list[dict[str, Any]]) -> None:
    """Remove emptied control groups; the kernel may need a moment to see that they are empty."""
    for group in groups:
        for _ in range(LOCK_TRIES):
            try:
                os.rmdir(group["path"])
            except OSError as error:
                if error.errno in GONE_ERRNOS:
                    break
                time.sleep(LOCK_PAUSE_SECONDS)
            else:
                break


def oom_kills(groups: list[dict[str, Any]]) -> int:
    """How often the kernel killed a process of the run for its memory limit."""
    for group in groups:
        if group.get("events"):
            with contextlib.suppress(OSError, ValueError):
                lines = [line.split() for line in read_file(group["events"]).splitlines()]
                return sum(int(words[1]) for words in lines if words[0] == "oom_kill")
    return 0


def exit_status(status: int | None) -> tuple[int | None, int]:
    """(exit code or None, signal or 0) of a wait status."""
    if status is None:
        return None, 0
    return (None, os.WTERMSIG(status)) if os.WIFSIGNALED(status) else (os.WEXITSTATUS(status), 0)


def signal_name(number: int) -> str:
    """SIGKILL for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def reserve() -> None:
    """Set disk aside for exit.json. Where a file system cannot, the record is retried instead."""
    with contextlib.suppress(OSError):
        descriptor = os.open("exit.json.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        finally:
            os.close(descriptor)


def record_end(outcome: dict[str, Any]) -> None:
    """Write exit.json. Tried for ten minutes if the disk refuses: while the lock is held, the run is not lost."""
    outcome["message"] = outcome["message"][:MESSAGE_CHARACTERS_MAX]
    for _ in range(RECORD_TRIES):
        try:
            write_whole("exit.json", outcome)
        except OSError:
            time.sleep(LOG_RETRY_SECONDS)
        else:
            return


def write_whole(name: str, content: dict[str, Any]) -> None:
    """Write a file that appears whole or not at all, and survives a power cut from then on.

    The temporary file is overwritten in place, not truncated first: its disk may have been reserved.
    """
    encoded = json.dumps(content).encode()
    descriptor = os.open(f"{name}.new", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if os.write(descriptor, encoded) != len(encoded):
            raise OSError(errno.ENOSPC, "short write")
        os.ftruncate(descriptor, len(encoded))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(f"{name}.new", name)
    directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat: clock ticks since boot. With the boot id it tells a process from a later namesake."""
    return int(stat_fields(pid)[19])


def stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on: the second is a name that may contain blanks and parentheses."""
    return read_file(f"/proc/{pid}/stat").rpartition(")")[2].split()


def read_number(path: str) -> int:
    """The number in a file; 0 if there is none."""
    try:
        return int(read_file(path))
    except (OSError, ValueError):
        return 0


def read_file(path: str) -> str:
    """The text of a small file."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def write_file(path: str, text: str) -> None:
    """Write into a file of the kernel."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def discard(descriptor: int) -> bytes:
    """Empty a pipe that only wakes; what was in it."""
    found = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(descriptor, READ_BYTES):
            found += part
    return found


def prctl(option: int, value: int) -> None:
    """The system call of that name; the standard library has no other door to it."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def clock() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def now() -> int:
    """UTC microseconds."""
    return time.time_ns() // 1000


if __name__ == "__main__":
    main(sys.argv[1])
