"""When there will be room for a gang, by itself: columns in, an instant and places out. No database, no API server, one core.

A full fleet of 15,000 nodes with 150,000 running pods, each with a time limit; a gang of 512 has waited long, and needs half a
node for each of its ranks. What is measured:

(a) its start, as the first of a cycle, which puts in order what ends;
(b) the start of another one after it;
(c) the same in one rack of 1,000 nodes.

    python -m benchmarks.reservation --repetitions 7
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace

import numpy as np

from benchmarks.preemption import NOW, timed, world
from benchmarks.report import figure, report
from mainstay.decide.placement import POLICIES
from mainstay.decide.placement.fit import free_of
from mainstay.decide.reservation import Releases
from mainstay.decide.shapes import Shape, shape_of
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.topology import Level, TopologyNeed

GANG = 512
RACK = 1_000
HOUR = 3_600
HOURS_MAX = 48
POLICY = POLICIES["best-fit"]


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    snapshot = limited(world(ranks=GANG))
    anywhere = shape_of(snapshot, snapshot.workloads.key.size - 1)
    near = TopologyNeed(level="rack", required=True)
    rack = replace(anywhere, requests=tuple(replace(one, topology=near) for one in anywhere.requests))
    figures = [
        timed(f"(a) first start of a gang of {GANG}", lambda: starts(snapshot, anywhere)[0], options.repetitions),
        timed("(b) of another one", lambda: starts(snapshot, anywhere)[1], options.repetitions, goal=30),
        timed("(c) of another one in one rack", lambda: starts(snapshot, rack)[1], options.repetitions),
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report("reservation", [*figures, figure("peak memory of all of this", "MiB", [peak], higher_is_better=False)])


def limited(snapshot: Snapshot) -> Snapshot:
    """Each has run for a part of its limit; nodes stand in racks."""
    rng = np.random.default_rng(7)
    table, held, nodes = snapshot.workloads, snapshot.allocations, snapshot.nodes
    hours = rng.integers(1, HOURS_MAX + 1, table.key.size)
    limit = hours * HOUR
    ran = (rng.random(held.key.size) * limit[: held.key.size]).astype(np.int64)
    racks = Level(
        number=np.arange(nodes.key.size) // RACK, names=tuple(f"r{at}" for at in range(-(-nodes.key.size // RACK)))
    )
    return replace(
        snapshot,
        nodes=replace(nodes, levels={"rack": racks}),
        workloads=replace(table, max_duration_seconds=limit),
        allocations=replace(held, started_at=NOW - ran * 1_000_000),
    )


def starts(snapshot: Snapshot, shape: Shape) -> list[float]:
    """Seconds for each of two."""
    releases, free, taken = Releases(snapshot), free_of(snapshot), []
    for _ in range(2):
        began = time.process_time()
        found = releases.reserve(free, shape.ways, policy=POLICY)
        taken.append(time.process_time() - began)
        assert found is not None
    return taken


if __name__ == "__main__":
    main()
