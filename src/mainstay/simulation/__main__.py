"""`python -m mainstay.simulation`: many seeds with a table of faults, or one seed again, exactly as it was."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import structlog

from mainstay.simulation.run import Outcome, simulate

KINDS = ("guests", "partitions", "preemption", "elastic", "sets")
"""What else there may be in a world."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if anything was violated."""
    parser = argparse.ArgumentParser(prog="python -m mainstay.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--seeds", type=int, default=50, help="so many seeds, from --first on")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--events", type=int, default=2_000, help="events under faults, for each seed")
    parser.add_argument("--guests", action="store_true", help="others make pods in the cluster too")
    parser.add_argument("--partitions", action="store_true", help="nodes are cut off, and hear of the world again")
    parser.add_argument("--preemption", action="store_true", help="urgent and older work displaces other")
    parser.add_argument("--elastic", action="store_true", help="programs go on with more ranks or fewer")
    parser.add_argument("--sets", action="store_true", help="ranks of a job are not all alike")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args(arguments)
    quieten()
    first, count = (options.seed, 1) if options.seed is not None else (options.first, options.seeds)
    kinds = "".join(f" --{kind}" for kind in KINDS if getattr(options, kind))
    command = f"python -m mainstay.simulation{kinds} --events {options.events}"
    began = time.monotonic()
    outcomes = []
    for outcome in run_all(
        range(first, first + count),
        events=options.events,
        processes=options.processes,
        **{kind: getattr(options, kind) for kind in KINDS},
    ):
        outcomes.append(outcome)
        _show(outcome, command=command, number=len(outcomes), count=count)
    seconds = time.monotonic() - began
    events = sum(outcome.events for outcome in outcomes)
    violations = sum(bool(outcome.violations) for outcome in outcomes)
    faults: Counter[str] = sum((outcome.faults for outcome in outcomes), Counter())
    print(f"\n{len(outcomes)} seeds, {events:,} events in {seconds:.0f} s ({events / seconds:,.0f}/s)")
    print(
        f"{sum(outcome.workloads for outcome in outcomes):,} workloads, {sum(outcome.pods for outcome in outcomes):,} pods"
    )
    for fault, times in sorted(faults.items()):
        print(f"  {fault:<24} {times:>9,}")
    print(f"violated: {violations} of {len(outcomes)} seeds")
    return 1 if violations else 0


def quieten() -> None:
    """Faults are what is wanted here: the warnings about them are not."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def run_all(
    seeds: range,
    *,
    events: int,
    processes: int,
    **kinds: bool,
) -> Iterator[Outcome]:
    """The outcomes in the order of the seeds. `kinds`: what else there is, as `simulate` has it."""
    one = partial(simulate, events=events, profile=None, **kinds)
    if processes <= 1:
        yield from map(one, seeds)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(one, seeds, chunksize=4)


def _show(outcome: Outcome, *, command: str, number: int, count: int) -> None:
    if outcome.violations:
        print(f"VIOLATION, seed {outcome.seed}: {outcome.violations[0]}")
        print(f"  replay: {command} --seed {outcome.seed}", flush=True)
    elif number % 25 == 0 or number == count:
        print(f"  {number} of {count} seeds", flush=True)


if __name__ == "__main__":
    sys.exit(main())
