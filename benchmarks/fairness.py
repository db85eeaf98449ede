"""Queues that want more than they have: Kueue's own performance configurations, played on our decision core in virtual time.

Cohorts of queues of 20 CPUs each, which may borrow 100 more; every queue is sent small, medium and large work, the large more
urgent, at fixed intervals. Kueue's generator configurations (`test/performance/scheduler/configs`):

baseline     15,000 workloads of one pod, 30 queues;
large-scale  50,000 workloads of one pod, 1,000 queues;
gangs        its `tas` without what it asks of the topology: as baseline, but of 2, 4 and 8 pods;
tas          the same with it, on ten racks of 64 nodes: a third requires one rack, the rest prefers one. Half of the rest is
             balanced over racks in Kueue's, which there is no word for here.

Deciding, starting and stopping take no time, nothing is stored, and there is no API server (queue_play.py): so the figures say
what the decisions make of the queues. What deciding costs is its CPU time.

    python -m benchmarks.fairness --part 0.1
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.decide import cycle, fleet
from benchmarks.queue_play import BEGIN, NOMINAL, SECOND, Class, Outcome, Setup, Work, bound, play, tree_of, work_of
from benchmarks.report import Figure, figure, percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Means over runs on the project's own test machines."""

    source: str
    seconds: float
    """From the start of the scheduler's process to its end."""
    use_percent: float | None
    """Of the quotas."""
    admitted_seconds: Mapping[str, float]
    """By class: from creation to the last admission."""


def _classes(
    sets: Sequence[tuple[int, ...]],
    every_ms: Sequence[int],
    run_ms: Sequence[int],
    *,
    pods: tuple[int, int, int] = (1, 1, 1),
    topology: tuple[int, ...] = (),
) -> tuple[Class, ...]:
    """Kueue's priorities are 50, 100 and 200; ours end at 100, and their order is all that counts."""
    rows = zip(("small", "medium", "large"), sets, every_ms, run_ms, (25, 50, 100), (1, 5, 20), pods, strict=True)
    return tuple(
        Class(
            name=name,
            sets=each,
            every_ms=every,
            run_ms=run,
            priority=priority,
            cpu_milli=1_000 * cpus // ranks,
            pods=ranks,
            topology=topology,
        )
        for name, each, every, run, priority, cpus, ranks in rows
    )


def _gangs(*, topology: tuple[int, ...] = ()) -> tuple[Class, ...]:
    sets = [(120, 120, 110), (34, 33, 33), (17, 17, 16)]
    return _classes(sets, (100, 500, 1_200), (200, 500, 1_000), pods=(2, 4, 8), topology=topology)


SETUPS = {
    "baseline": Setup(
        cohorts=5, queues=6, classes=_classes([(350,), (100,), (50,)], (100, 500, 1_200), (200, 500, 1_000))
    ),
    "large-scale": Setup(
        cohorts=10, queues=100, classes=_classes([(35,), (11,), (4,)], (60, 300, 700), (150, 350, 700))
    ),
    "gangs": Setup(cohorts=5, queues=6, classes=_gangs()),
    "tas": Setup(cohorts=5, queues=6, classes=_gangs(topology=(1, 2, 2))),
}
PUBLISHED = {
    "baseline": Published(
        source="kueue, configs/baseline/rangespec.yaml, mean of 5 runs",
        seconds=351.1,
        use_percent=58.7,
        admitted_seconds={"small": 215.5, "medium": 76.8, "large": 6.7},
    ),
    "large-scale": Published(
        source="kueue#11422, mean of 19 runs",
        seconds=1_179.4,
        use_percent=38.6,
        admitted_seconds={"small": 700.4, "medium": 256.4, "large": 98.8},
    ),
    "gangs": Published(
        source="kueue, configs/tas, with topology; by class 38 to 247 s until admitted",
        seconds=401.5,
        use_percent=None,
        admitted_seconds={},
    ),
    "tas": Published(
        source="kueue, configs/tas; by class 38 to 247 s until admitted",
        seconds=401.5,
        use_percent=None,
        admitted_seconds={},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure beside what is published."""

    here: Figure
    published: float | None = None


def rows_of(setup: Setup, published: Published, played: Sequence[tuple[Work, Outcome]]) -> list[Row]:
    """The figures of one configuration. Only those of CPU time differ between repetitions."""
    work, outcome = played[0]
    whole = work_of(setup, tree_of(setup))
    core = [sum(one.cycles) + sum(one.turns) for _, one in played]
    rates = [one.admissions / seconds for (_, one), seconds in zip(played, core, strict=True)]
    cycles = [1_000 * seconds for _, one in played for seconds in one.cycles]
    turns = [1_000 * seconds for _, one in played for seconds in one.turns]
    waited = (outcome.admitted_at - work.arrives_at) / SECOND
    makespan = int(outcome.ended_at.max()) - BEGIN
    use = 100 * outcome.used / (makespan * NOMINAL * setup.cohorts * setup.queues)
    stretch = makespan / bound(setup, work), published.seconds * SECOND / bound(setup, whole)
    return [
        Row(
            here=figure("admissions a second of the core", "1/s", rates),
            published=whole.queue.size / published.seconds,
        ),
        Row(here=figure("the core, all of it", "CPU s", core, higher_is_better=False)),
        *(
            Row(here=figure(f"{what}, {word}", "ms", [percentile(calls, share)], higher_is_better=False))
            for what, calls in (("one cycle", cycles), ("one look for who yields", turns))
            for word, share in (("median", 0.5), ("p99", 0.99))
        ),
        *(
            Row(
                here=figure(
                    f"mean time to admit, {one.name}",
                    "s",
                    [float(waited[work.of_class == number].mean())],
                    higher_is_better=False,
                ),
                published=published.admitted_seconds.get(one.name),
            )
            for number, one in enumerate(setup.classes)
        ),
        Row(here=figure("use of the quotas", "%", [use]), published=published.use_percent),
        Row(
            here=figure("makespan", "s", [makespan / SECOND], higher_is_better=False),
            published=published.seconds,
        ),
        Row(
            here=figure("makespan over its lower bound", "times", [stretch[0]], higher_is_better=False),
            published=stretch[1],
        ),
        Row(here=figure("displaced", "times", [int(outcome.evictions.sum())], higher_is_better=False)),
    ]


def show(name: str, rows: Iterable[Row], *, workloads: int) -> None:
    """A table for people."""
    setup = SETUPS[name]
    print(f"\n{name}: {workloads:,} workloads, {setup.cohorts * setup.queues:,} queues in {setup.cohorts} cohorts")
    print(f"published: {PUBLISHED[name].source}\n")
    print(f"  {'figure':<36} {'here':>10} {'low':>10} {'high':>10} {'published':>10}")
    for row in rows:
        one, beside = row.here, "" if row.published is None else f"{row.published:,.4g}"
        print(f"  {one.name:<36} {one.median:>10,.4g} {one.low:>10,.4g} {one.high:>10,.4g} {beside:>10}  {one.unit}")


def run(names: Sequence[str], *, part: float = 1.0, repetitions: int = 1) -> None:
    """Play these configurations; print the tables, what each side includes, and one line of JSON."""
    found: list[dict[str, object]] = []
    for name in names:
        setup = SETUPS[name]
        played = [play(setup, part=part) for _ in range(repetitions)]
        rows = rows_of(setup, PUBLISHED[name], played)
        show(name, rows, workloads=played[0][0].queue.size)
        found += [{"setup": name, **asdict(row.here), "published": row.published} for row in rows]
    notes = [*NOTES, f"here: {100 * part:g} % of the workloads; published: all of them"]
    for note in notes:
        print(f"\n  {note}")
    print()
    document = {
        "benchmark": "fairness",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "compiled": importlib.util.find_spec("numba") is not None,
        "part": part,
        "figures": found,
        "notes": notes,
    }
    print(json.dumps(document), flush=True)


NOTES = (
    (
        "here: admissions by the CPU time of `schedule` and `preempt` on one core; all other figures are in virtual time, in"
        " which deciding, storing, starting and stopping take none."
    ),
    (
        "published: the wall-clock time of a scheduler on a real API server, to which each admission, eviction and end is"
        " written by a client that is held to 50 requests a second: those are admissions of the API, not of the decisions."
    ),
    "gangs: what is published is with topology, which is asked for here in tas only, and there not to be balanced.",
)


def main() -> None:
    """Play what is asked for and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setups", nargs="+", choices=SETUPS, default=list(SETUPS))
    parser.add_argument("--part", type=float, default=1.0, help="of the workloads; what is published is of all")
    parser.add_argument("--repetitions", type=int, default=1)
    options = parser.parse_args()
    if not 0 < options.part <= 1 or options.repetitions < 1:
        parser.error("--part is above 0 and at most 1, --repetitions 1 or more")
    cycle(fleet(1_000, queues=2, gpus_in=2), what="compiled, or read from disk")
    run(options.setups, part=options.part, repetitions=options.repetitions)


if __name__ == "__main__":
    main()
