"""A million events under faults over 500 seeds: how many promises broke, and how fast the simulation goes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from benchmarks.report import figure, progress, report
from mainstay.simulation.__main__ import quieten, run_all


def main() -> int:
    """Exit status 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--events", type=int, default=2_000, help="under faults, for each seed")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    quieten()
    began, outcomes = time.monotonic(), []
    for outcome in run_all(range(1, options.seeds + 1), events=options.events, processes=options.processes):
        outcomes.append(outcome)
        progress(f"{len(outcomes)} of {options.seeds} seeds")
    seconds = time.monotonic() - began
    events = sum(outcome.events for outcome in outcomes)
    violations = [f"seed {outcome.seed}: {outcome.violations[0]}" for outcome in outcomes if outcome.violations]
    faults: Counter[str] = sum((outcome.faults for outcome in outcomes), Counter())
    report(
        "simulation",
        [
            figure("seeds", "worlds", [len(outcomes)], goal=500),
            figure("events", "events", [events], goal=1_000_000),
            figure("workloads", "workloads", [sum(outcome.workloads for outcome in outcomes)]),
            figure("pods", "pods", [sum(outcome.pods for outcome in outcomes)]),
            *(figure(f"fault: {name.replace('_', ' ')}", "times", [times]) for name, times in sorted(faults.items())),
            figure("events per second", "1/s", [events / seconds]),
            figure("violated", "seeds", [len(violations)], goal=0, higher_is_better=False),
        ],
        notes=violations[:20],
    )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
