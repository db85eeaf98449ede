"""Time from the start of the process to its first decision, with 100,000 jobs in the queue."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import queued
from benchmarks.platform import Platform
from benchmarks.report import figure, progress, report

RESTARTS = 5


def main() -> None:
    """Fill once, then kill and start again; each start finds the node free and must place the next job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mainstay-bench-") as folder:
        platform = Platform(Path(folder) / "state")
        platform.start()
        release = Path(folder) / "release"
        queued.fill(platform, options.jobs, release=release)
        answers, decisions = [], []
        for number in range(RESTARTS):
            progress(f"restart {number + 1} of {RESTARTS}")
            with platform.client() as client:
                last = client.events(limit=1, newest=True)[-1].seq
            platform.kill()
            release.touch()
            began = time.time()
            answers.append(platform.start())
            decisions.append(_first_placement(platform, after=last) - began)
        platform.kill()
    report(
        "restart",
        [
            figure(f"start to first decision, {options.jobs:,} queued", "s", decisions, goal=5, higher_is_better=False),
            figure(f"start to first answer, {options.jobs:,} queued", "s", answers),
        ],
        notes=["each start follows a kill -9; the decision is the first placement in the event log"],
    )


def _first_placement(platform: Platform, *, after: int) -> float:
    """Admission may still write down what waits; the first placement may be many events later."""
    with platform.client() as client:
        return next(
            event.at.timestamp() for event in client.follow_events(after=after) if event.reason.code == "Placed"
        )


if __name__ == "__main__":
    main()
