"""Resident memory of `mainstay up`: idle, and with 100,000 queued jobs, and how long the command line takes to start."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import queued
from benchmarks.platform import Platform
from benchmarks.report import figure, report

IDLE_SECONDS = 5
HELP_RUNS = 15
MIB = 1 << 20


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mainstay-bench-") as folder:
        platform = Platform(Path(folder) / "state")
        platform.start()
        time.sleep(IDLE_SECONDS)
        idle = platform.rss_bytes() / MIB
        release = Path(folder) / "release"
        queued.fill(platform, options.jobs, release=release)
        time.sleep(IDLE_SECONDS)
        after_filling = platform.rss_bytes() / MIB
        platform.kill()
        platform.start()
        time.sleep(IDLE_SECONDS)
        after_restart = platform.rss_bytes() / MIB
        release.touch()
        platform.kill()
    report(
        "footprint",
        [
            figure("idle", "MiB", [idle], goal=120, higher_is_better=False),
            figure(
                f"{options.jobs:,} queued, after taking them", "MiB", [after_filling], goal=400, higher_is_better=False
            ),
            figure(
                f"{options.jobs:,} queued, after a restart", "MiB", [after_restart], goal=400, higher_is_better=False
            ),
            figure("mainstay --help", "s", [_help() for _ in range(HELP_RUNS)], goal=0.15, higher_is_better=False),
            figure("python -c pass", "s", [_seconds("-c", "pass") for _ in range(HELP_RUNS)]),
        ],
        notes=["resident memory of the one process; jobs and their shims are processes of their own"],
    )


def _help() -> float:
    return _seconds("-m", "mainstay", "--help")


def _seconds(*arguments: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
