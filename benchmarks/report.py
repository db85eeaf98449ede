"""How a benchmark reports: a table for people, then one line of JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured quantity: its median and spread over repetitions, and the goal where there is one."""

    name: str
    unit: str
    median: float
    low: float
    high: float
    repetitions: int
    goal: float | None = None
    higher_is_better: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; None without one."""
        if self.goal is None:
            return None
        return self.median >= self.goal if self.higher_is_better else self.median <= self.goal


def figure(
    name: str, unit: str, values: Sequence[float], *, goal: float | None = None, higher_is_better: bool = True
) -> Figure:
    """A figure from its repetitions."""
    return Figure(
        name=name,
        unit=unit,
        median=statistics.median(values),
        low=min(values),
        high=max(values),
        repetitions=len(values),
        goal=goal,
        higher_is_better=higher_is_better,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; `share` from 0 to 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def report(benchmark: str, figures: Sequence[Figure], *, notes: Sequence[str] = ()) -> None:
    """Print the table, the notes and the line of JSON."""
    print(f"\n{benchmark}  ({os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()})\n")
    print(f"  {'figure':<44} {'median':>12} {'low':>12} {'high':>12}  {'unit':<12} {'goal':>12}")
    for row in figures:
        goal = "" if row.goal is None else f"{'≥' if row.higher_is_better else '≤'} {row.goal:,.6g}"
        mark = {None: "", True: "met", False: "MISSED"}[row.met]
        print(
            f"  {row.name:<44} {row.median:>12,.4g} {row.low:>12,.4g} {row.high:>12,.4g}"
            f"  {row.unit:<12} {goal:>12} {mark}"
        )
    for note in notes:
        print(f"\n  {note}")
    print()
    document = {
        "benchmark": benchmark,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "figures": [{**asdict(row), "met": row.met} for row in figures],
        "notes": list(notes),
    }
    print(json.dumps(document), flush=True)


def progress(text: str) -> None:
    """A line on stderr that the next one overwrites on a terminal."""
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"  {text:<76}", end=end, file=sys.stderr, flush=True)
