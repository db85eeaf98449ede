"""What it costs to say when something is expected to start. No database, no API server, one core.

Full fleets of 1,000 and of 15,000 nodes on which everything that one cycle places runs, half of it with a history, and all of
it with a limit. Asked about: the next in line, the fifth, and the last. Time is that of the core: `explain` as a whole, and
without the expected start.

    python -m benchmarks.expected --repetitions 5
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.decide import fleet
from benchmarks.report import Figure, figure, progress, report
from mainstay.decide import admission
from mainstay.decide.cycle import Cycle
from mainstay.decide.expected import expected_start
from mainstay.decide.explain import explain
from mainstay.decide.placement import POLICIES
from mainstay.decide.rows import with_allocations
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Ints
from mainstay.domain.quantity import MICROSECONDS_PER_HOUR
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase

NOW = 472_044 * MICROSECONDS_PER_HOUR
POLICY = POLICIES["best-fit"]


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    figures: list[Figure] = []
    for every, pods in ((15, 40_000), (1, 500_000)):
        world = full(pods, every=every)
        line = admission.order(world)
        progress(f"{world.nodes.key.size:,} nodes, {world.allocations.key.size:,} run, {line.size:,} wait")
        for place in (0, 4, line.size - 1):
            figures += asked(world, int(line[place]), place=place + 1, repetitions=options.repetitions)
    report("expected", figures)


def asked(world: Snapshot, row: int, *, place: int, repetitions: int) -> list[Figure]:
    """About the workload in this row."""
    what = f"{world.nodes.key.size:,} nodes, place {place:,} of those that wait"
    progress(f"{what}: {expected_start(world, row, POLICY).sentence}")
    key = int(world.workloads.key[row])
    return [
        figure(f"{what}: all of explain", "s", timed(lambda: explain(world, key), repetitions), higher_is_better=False),
        figure(
            f"{what}: its expected start",
            "s",
            timed(lambda: expected_start(world, row, POLICY), repetitions),
            goal=2,
            higher_is_better=False,
        ),
    ]


def timed(act: Callable[[], object], repetitions: int) -> list[float]:
    """Seconds of the core, each."""
    found = []
    for _ in range(repetitions):
        began = time.process_time()
        act()
        found.append(time.process_time() - began)
    return found


def full(pods: int, *, every: int) -> Snapshot:
    """One of `every` nodes of the fleet of the decision's benchmark, and what one cycle starts on them runs since an hour."""
    random, world = np.random.default_rng(7), fleet(pods, queues=20, gpus_in=2)
    table, nodes = world.workloads, world.nodes
    rows = np.arange(0, nodes.key.size, every)
    columns = {name: value[rows] for name in nodes.__slots__ if isinstance(value := getattr(nodes, name), np.ndarray)}
    nodes = replace(
        nodes,
        **columns,
        names=tuple(nodes.names[row] for row in rows),
        clusters=tuple(nodes.clusters[row] for row in rows),
        others={name: column[rows] for name, column in nodes.others.items()},
        used_others={name: column[rows] for name, column in nodes.used_others.items()},
    )
    table = replace(
        table,
        max_duration_seconds=3_600 * random.integers(2, 25, pods),
        stop_grace_seconds=np.full(pods, 30),
        typical_seconds=np.where(random.random(pods) < 0.5, random.integers(600, 36_000, pods), 0),
        spread_permille=np.full(pods, 500),
        submitted_at=NOW - 2 * MICROSECONDS_PER_HOUR + np.arange(pods),
    )
    return started(replace(world, now=NOW, nodes=nodes, workloads=table))


def started(world: Snapshot) -> Snapshot:
    """What a cycle places has run for an hour."""
    table, nodes = world.workloads, world.nodes
    placed = list(Cycle(world, POLICY).placements())
    row = np.concatenate([one.rows for one in placed])
    node = np.concatenate([one.nodes[:, 0] for one in placed])
    since = np.full(row.size, NOW - MICROSECONDS_PER_HOUR)
    columns = {
        **{name: getattr(table, name)[row] for name in ("cpu_milli", "memory_bytes", "gpus", "gpu_model")},
        "workload_key": table.key[row],
        "node_key": nodes.key[node],
        "seen": np.full(row.size, int(Seen.RUNNING)),
        "started_at": since,
    }

    def used(amount: Ints) -> Ints:
        return np.bincount(node, weights=amount, minlength=nodes.key.size).astype(np.int64)

    phase = table.phase.copy()
    phase[row] = Phase.RUNNING
    return replace(
        world,
        workloads=replace(table, phase=phase),
        allocations=with_allocations(world.allocations, columns, count=row.size),
        nodes=replace(
            nodes,
            used_cpu_milli=used(columns["cpu_milli"]),
            used_memory_bytes=used(columns["memory_bytes"]),
            used_gpus=used(columns["gpus"]),
            used_others={
                name: used(np.ones_like(row) if name == "pods" else table.others[name][row]) for name in nodes.others
            },
        ),
    )


if __name__ == "__main__":
    main()
