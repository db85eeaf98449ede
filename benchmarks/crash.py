"""Kill -9 of the control plane, at random moments and at every commit and effect, against witnesses outside of it.

Each run starts a real platform on a fresh state directory, submits jobs that write a line to a witness file when they
start and when they end, kills the platform without warning, starts it again, waits until all is final, and compares
what the jobs themselves witnessed with what the platform promised:

- every acknowledged submission exists and succeeded, and a request that was repeated under its key made no second job;
- no job ran twice, not even one after the other: a kill of the control plane is no failure of the job;
- jobs ran on while the control plane was down;
- the ledger holds one usage interval per witnessed run and it contains what was witnessed; its charges add up.

    python -m benchmarks.crash                  300 random kills of a 200-job workload, then every crash point
    python -m benchmarks.crash --runs 20 --points 0
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.platform import Platform
from benchmarks.report import figure, percentile, progress, report
from mainstay.decide.billing import charges as charges_of
from mainstay.sdk import Client, Job, Resources
from mainstay.store import open_sqlite

BATCH = 20
JOB_SECONDS = 0.05
KILL_SECONDS_MAX = 6.0
DOWN_SECONDS_MAX = 0.5
SETTLE_SECONDS_MAX = 120
LEDGER_EXCESS_SECONDS_MAX = 2.0
"""The ledger counts from the start of the process to its end, the witness what the script inside saw of it."""
FAR_FUTURE = 1 << 60


@dataclass(slots=True)
class Outcome:
    """What one run found. `violations` are sentences; all else is counted."""

    violations: list[str] = field(default_factory=list)
    acknowledged: int = 0
    repeated: int = 0
    ran: int = 0
    ended_while_down: int = 0
    recovery_seconds: float = 0.0
    killed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A job's own account of one run, in seconds since boot."""

    workload: str
    attempt: int
    start: float
    end: float | None


def witness_job(witness: Path) -> Job:
    """A job that says when it starts and when it ends; one write per line, so that lines never mix."""
    line = 'echo "{} $MAINSTAY_RUN $MAINSTAY_ATTEMPT $(cut -d" " -f1 /proc/uptime)" >> "$WITNESS"'
    script = f"{line.format('start')}; sleep {JOB_SECONDS}; {line.format('end')}"
    return Job(name="witness", run=script, env={"WITNESS": str(witness)}, resources=Resources(cpu="0.1", memory="16MB"))


def random_kill(*, seed: int, jobs: int) -> Outcome:
    """One run: submit from a thread, kill at a random moment, stay down for a moment, start again, settle, check."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="mainstay-crash-") as folder:
        platform = Platform(Path(folder) / "state")
        witness = Path(folder) / "witness"
        witness.touch()
        platform.start()
        submitter = Submitter(platform, witness, jobs=jobs, seed=seed)
        submitter.start()
        time.sleep(rng.uniform(0.0, KILL_SECONDS_MAX))
        return _crash_and_check(platform, submitter, witness, down=rng.uniform(0.0, DOWN_SECONDS_MAX))


def crash_point(*, point: str, jobs: int) -> Outcome | None:
    """One run that kills itself exactly at `point`, e.g. `commit:after:7`; None if it was never reached."""
    with tempfile.TemporaryDirectory(prefix="mainstay-crash-") as folder:
        platform = Platform(Path(folder) / "state", module=("-m", "benchmarks.crash_at"))
        witness = Path(folder) / "witness"
        witness.touch()
        platform.launch(env={"CRASH_AT": point})
        submitter = Submitter(platform, witness, jobs=jobs, seed=0)
        submitter.start()
        deadline = time.monotonic() + 20
        assert platform.process is not None
        while platform.process.poll() is None and time.monotonic() < deadline:
            if submitter.finished and _all_closed(platform):
                platform.kill()
                submitter.join()
                return None
            time.sleep(0.02)
        return _crash_and_check(platform, submitter, witness, down=0.0)


def _all_closed(platform: Platform) -> bool:
    try:
        with platform.client(retries=0) as client:
            return all(run.final for run in client.list(all=True))
    except Exception:  # it is being killed at this moment
        return False


def _crash_and_check(platform: Platform, submitter: Submitter, witness: Path, *, down: float) -> Outcome:
    outcome = Outcome()
    outcome.killed = not (submitter.finished and _all_closed(platform))
    platform.kill()
    killed_at = _uptime()
    time.sleep(down)
    back_at = _uptime()
    began = time.monotonic()
    platform.start()
    outcome.recovery_seconds = time.monotonic() - began
    submitter.join()
    with platform.client() as client:
        settled = _settle(client)
    runs = _runs(witness)
    outcome.acknowledged, outcome.repeated = len(submitter.acknowledged), submitter.repeated
    outcome.ran = len(runs)
    outcome.ended_while_down = sum(1 for run in runs if run.end and killed_at < run.end < back_at)
    if not settled:
        outcome.violations.append(f"not final {SETTLE_SECONDS_MAX} s after the restart")
    with platform.client() as client:
        found = {run.id: run.phase for run in client.list(all=True)}
    _check_promises(outcome, submitter, found, runs)
    platform.stop()
    _check_ledger(outcome, platform, runs)
    if outcome.violations:
        kept = Path(tempfile.mkdtemp(prefix="mainstay-violation-"))
        shutil.copytree(platform.state.parent, kept, dirs_exist_ok=True)
        outcome.violations.append(f"state kept in {kept}")
    return outcome


class Submitter(threading.Thread):
    """Submits batches under fixed keys and repeats each until it is answered, across crashes."""

    def __init__(self, platform: Platform, witness: Path, *, jobs: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._platform = platform
        self._job = witness_job(witness)
        self._sizes = [min(BATCH, jobs - start) for start in range(0, jobs, BATCH)]
        self._seed = seed
        self.acknowledged: list[str] = []
        self.repeated = 0
        self.finished = False
        self.replies_differ: list[str] = []

    def run(self) -> None:
        """Until every batch is acknowledged."""
        for number, size in enumerate(self._sizes):
            self.acknowledged += self._until_answered(f"batch-{self._seed}-{number}", size)
        self.finished = True

    def _until_answered(self, key: str, size: int) -> list[str]:
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                with self._platform.client(retries=0) as client:
                    ids = [run.id for run in client.submit_many([self._job] * size, key=key)]
                    again = [run.id for run in client.submit_many([self._job] * size, key=key)]
                if ids != again:
                    self.replies_differ.append(key)
                return ids
            except Exception:  # whatever broke, the request is repeated under its key
                self.repeated += 1
                time.sleep(0.02)
        return []


def _settle(client: Client) -> bool:
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while time.monotonic() < deadline:
        if not client.list():
            return True
        time.sleep(0.05)
    return False


def _runs(witness: Path) -> list[Run]:
    starts: list[tuple[str, int, float]] = []
    ends: dict[tuple[str, int], float] = {}
    for line in witness.read_text().splitlines():
        what, workload, attempt, at = line.split()
        if what == "start":
            starts.append((workload, int(attempt), float(at)))
        else:
            ends[workload, int(attempt)] = float(at)
    return [
        Run(workload=workload, attempt=attempt, start=at, end=ends.get((workload, attempt)))
        for workload, attempt, at in starts
    ]


def _check_promises(outcome: Outcome, submitter: Submitter, found: dict[str, str], runs: Sequence[Run]) -> None:
    expected = sum(submitter._sizes)
    lost = [name for name in submitter.acknowledged if name not in found]
    failed = {name: phase for name, phase in found.items() if phase != "succeeded"}
    times = Counter(run.workload for run in runs)
    twice = {name: count for name, count in times.items() if count > 1}
    for found_wrong, sentence in (
        (lost, f"{len(lost)} acknowledged submissions lost: {lost[:3]}"),
        (submitter.replies_differ, f"another reply under the same key: {submitter.replies_differ[:3]}"),
        (len(submitter.acknowledged) != expected, f"{len(submitter.acknowledged)} acknowledged of {expected}"),
        (len(found) != expected, f"{len(found)} workloads exist, {expected} were submitted"),
        (failed, f"not succeeded: {dict(list(failed.items())[:3])}"),
        (twice, f"ran more than once: {dict(list(twice.items())[:3])}"),
        (set(found) - set(times), f"succeeded without a witnessed run: {sorted(set(found) - set(times))[:3]}"),
        ([run for run in runs if run.end is None], "a run that started was cut off"),
    ):
        if found_wrong:
            outcome.violations.append(sentence)


def _check_ledger(outcome: Outcome, platform: Platform, runs: Sequence[Run]) -> None:
    """One usage record per witnessed run, long enough and not much longer; charges as the price book says."""
    store = open_sqlite(platform.state / "mainstay.db")
    try:
        ledger = store.usage(tenant="default", since=0, until=FAR_FUTURE)
        prices = store.prices()
    finally:
        store.close()
    seconds: dict[str, float] = defaultdict(float)
    for usage, charges in ledger:
        seconds[usage.workload] += (usage.end - usage.start) / 1e6
        if charges != charges_of(usage, since_start=usage.start, prices=prices):
            outcome.violations.append(f"charges of {usage.workload} are not what the price book says")
    for run in runs:
        witnessed = (run.end or run.start) - run.start
        recorded = seconds.pop(run.workload, None)
        # /proc/uptime counts in hundredths of a second, at both ends.
        if recorded is None or not witnessed - 0.03 <= recorded <= witnessed + LEDGER_EXCESS_SECONDS_MAX:
            outcome.violations.append(f"ledger of {run.workload}: {recorded} s, witnessed {witnessed:.2f} s")
    if seconds:
        outcome.violations.append(f"charged without a witnessed run: {sorted(seconds)[:3]}")


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def main() -> int:
    """Run the campaign; the exit status is 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--points", type=int, default=1_000, help="at most so many crash points of each kind")
    parser.add_argument("--point-jobs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    outcomes = []
    for number in range(options.runs):
        outcome = random_kill(seed=options.seed + number, jobs=options.jobs)
        outcomes.append(outcome)
        _say(f"kill {number + 1}/{options.runs} (seed {options.seed + number})", outcome)
    points = 0
    for kind in ("commit:before", "commit:after", "act:before", "act:after"):
        for number in range(1, options.points + 1):
            reached = crash_point(point=f"{kind}:{number}", jobs=options.point_jobs)
            if reached is None:
                break
            points += 1
            outcomes.append(reached)
            _say(f"crash point {kind}:{number}", reached)
    violations = [sentence for outcome in outcomes for sentence in outcome.violations]
    recoveries = [outcome.recovery_seconds for outcome in outcomes]
    report(
        "crash",
        [
            figure("random kills", "runs", [options.runs]),
            figure("kills before the workload was done", "runs", [sum(outcome.killed for outcome in outcomes)]),
            figure("exact crash points", "runs", [points]),
            figure("acknowledged submissions", "jobs", [sum(outcome.acknowledged for outcome in outcomes)]),
            figure("requests repeated under their key", "requests", [sum(outcome.repeated for outcome in outcomes)]),
            figure(
                "jobs that ended while it was down", "jobs", [sum(outcome.ended_while_down for outcome in outcomes)]
            ),
            figure("restart to first answer", "s", recoveries, goal=5, higher_is_better=False),
            figure("restart to first answer, p95", "s", [percentile(recoveries, 0.95)], goal=5, higher_is_better=False),
            figure("violations", "", [len(violations)], goal=0, higher_is_better=False),
        ],
        notes=violations[:20],
    )
    return 1 if violations else 0


def _say(what: str, outcome: Outcome) -> None:
    progress(
        f"{what}: {outcome.ran} ran, {outcome.ended_while_down} ended while down, {len(outcome.violations)} violations"
    )
    for sentence in outcome.violations:
        print(f"  VIOLATION {what}: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
