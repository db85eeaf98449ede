"""SRTF and SRSF on traces of a cluster as Muri was measured on them (SIGCOMM 2022): our player must give their figures.

8 nodes of 8 GPUs. At every event every job is interrupted and placed again. The data is looked for in $MAINSTAY_DATA,
../shared/data if unset.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.report import figure, percentile, progress, report
from mainstay.decide.ordering import ORDERS
from mainstay.decide.placement.consolidated import consolidated
from mainstay.simulation.player import Jobs, Played, play

DATA = Path(os.environ.get("MAINSTAY_DATA", "../shared/data")) / "traces" / "muri"
TRACES = ("trace1", "trace1_pr", "trace3", "trace3_pr")
POLICIES = ("SRTF", "SRSF")
NODES, GPUS_PER_NODE = 8, 8
SLOWDOWN = 1.015
"""Of the work, against what the trace says: so the published runs have it."""
STARTUP_SECONDS = 10.0
"""Of models that the table of start-up times does not name."""
CORRECTED = {(2, "shufflenet_v2_x1_0"): 4.0}
"""Start-up seconds where the table beside the traces, with 5, differs from the simulator of the authors."""
TOLERANCES = {"JCT": 0.1, "Makespan": 0.5, "99JCT": 0.5}
"""Percent."""


def jobs_of(trace: str, folder: Path = DATA) -> Jobs:
    """A trace, its jobs by the time at which they were submitted."""
    with gzip.open(folder / f"{trace}.csv.gz", "rt") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["submit_time"]))
    startup = _startup_seconds(folder)
    return Jobs(
        arrives_at=_floats(int(row["submit_time"]) / 1_000 for row in rows),
        work_seconds=_floats(int(row["iterations"]) * float(row["iteration_time"]) / 1_000 * SLOWDOWN for row in rows),
        gpus=np.array([int(row["num_gpu"]) for row in rows], dtype=np.int64),
        startup_seconds=_floats(startup.get((int(row["num_gpu"]), row["model_name"]), STARTUP_SECONDS) for row in rows),
    )


def played(trace: str, policy: str, folder: Path = DATA) -> dict[str, float]:
    """The figures of one policy on one trace, by their published names, in seconds."""
    jobs = jobs_of(trace, folder)
    nodes = np.full(NODES, GPUS_PER_NODE, dtype=np.int64)
    return figures(jobs, play(jobs, nodes, order=ORDERS[policy.lower()], place=consolidated, preempts=True))


def figures(jobs: Jobs, outcome: Played) -> dict[str, float]:
    """As published: of 99 % of the jobs the completion time is less than "99JCT", that of the next one."""
    completion = outcome.ended_at - jobs.arrives_at
    return {
        "JCT": float(completion.mean()),
        "Makespan": float(outcome.ended_at.max()),
        "99JCT": percentile(completion.tolist(), 0.99),
    }


def published(trace: str, policy: str, folder: Path = DATA) -> dict[str, float]:
    """What the authors got, by the name of the figure, in seconds."""
    with (folder / "published_results.csv").open() as file:
        return {row["metric_seconds"]: float(row[trace]) for row in csv.DictReader(file) if row["policy"] == policy}


def _startup_seconds(folder: Path) -> dict[tuple[int, str], float]:
    with (folder / "startup_seconds.csv").open() as file:
        return {
            (int(row["num_gpus"]), model): float(seconds)
            for row in csv.DictReader(file)
            for model, seconds in row.items()
            if model != "num_gpus"
        } | CORRECTED


def _floats(values: Iterable[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.fromiter(values, dtype=np.float64)


def main() -> int:
    """Exit status 1 if a figure is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", nargs="+", choices=TRACES, default=TRACES)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES)
    options = parser.parse_args()
    if not DATA.is_dir():
        parser.error(f"no traces: {DATA}. hint: set MAINSTAY_DATA to the folder that holds traces/muri")
    rows = []
    print(f"  {'trace':<10} {'policy':<6} {'figure':<9} {'ours, s':>16} {'published, s':>16} {'difference':>11}")
    for trace in options.traces:
        for policy in options.policies:
            progress(f"{trace} {policy}")
            ours, theirs = played(trace, policy), published(trace, policy)
            for name, tolerance in TOLERANCES.items():
                percent = 100 * (ours[name] / theirs[name] - 1)
                print(
                    f"  {trace:<10} {policy:<6} {name:<9} {ours[name]:>16,.1f} {theirs[name]:>16,.1f} {percent:>+10.3f}%"
                )
                rows.append(
                    figure(f"{trace} {policy} {name}", "% off", [abs(percent)], goal=tolerance, higher_is_better=False)
                )
    report("muri", rows)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
