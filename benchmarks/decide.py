"""The decision core by itself: columns in, places out. No database, no API server, one core.

A fleet of 15,000 nodes of six types and 100,000 pods in 2,000 shapes, few of which are common (Zipf), as in published
clusters. What is measured:

(a) all of them fit: placements a second of one cycle;
(b) 380,000 pods of 1,000 queues that ask for two to four times the fleet: placements a second. The cycle goes turn by turn,
    so its shares are those of the strictly sequential order; they are compared with those of the loop without Numba;
(c) a gang of 512 nodes on a fleet that is half full.

    python -m benchmarks.decide --repetitions 5
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.report import Figure, figure, progress, report
from mainstay.decide.cycle import Cycle
from mainstay.decide.placement import POLICIES
from mainstay.domain.arrays import Floats, Ints
from mainstay.domain.queue import QueueSpec, QueueTree
from mainstay.domain.snapshot import AllocationTable, NodeTable, Snapshot, WorkloadTable

NODES = 15_000
TYPES = (  # part of the fleet, thousandths of a core, GiB, GPUs, their model
    (0.35, 64_000, 256, 0, 0),
    (0.25, 96_000, 384, 0, 0),
    (0.10, 128_000, 1_024, 0, 0),
    (0.12, 96_000, 768, 8, 1),
    (0.10, 64_000, 512, 4, 2),
    (0.08, 192_000, 2_048, 8, 3),
)
SHAPES = 2_000
WINDOW = 4_096
"""So many turns at once are not undone in (b)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One cycle: how long it took, how many it placed, and what each queue holds after it as a part of the fleet."""

    seconds: float
    placed: int
    shares: Floats


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--pods", type=int, default=100_000)
    parser.add_argument("--contended", type=int, default=380_000)
    options = parser.parse_args()
    figures = [*uncontended(options.pods, options.repetitions), *contended(options.contended, options.repetitions)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report("decide", [*figures, figure("peak memory of all of this", "MiB", [peak], higher_is_better=False)])


def uncontended(pods: int, repetitions: int) -> list[Figure]:
    """Figures (a)."""
    world = fleet(pods, queues=1, gpus_in=12)
    runs = [cycle(world, what="all fit") for _ in range(repetitions)]
    return [
        figure(f"(a) placements of {pods:,} pods", "1/s", [run.placed / run.seconds for run in runs], goal=250_000),
        figure("(a) of them placed", "%", [100 * run.placed / pods for run in runs]),
        figure("(a) whole cycle", "s", [run.seconds for run in runs], higher_is_better=False),
    ]


def contended(pods: int, repetitions: int) -> list[Figure]:
    """Figures (b) and (c)."""
    world = fleet(pods, queues=1_000, gpus_in=2)
    table, nodes = world.workloads, world.nodes
    asked = [table.cpu_milli.sum() / nodes.cpu_milli.sum(), table.gpus.sum() / nodes.gpus.sum()]
    progress(f"asked for: {asked[0]:.1f} times the cores, {asked[1]:.1f} times the GPUs")
    exact = cycle(world, what="turn by turn")
    runs = [cycle(world, exact=WINDOW, what="by windows") for _ in range(repetitions)]
    errors = [100 * float(np.abs(run.shares - exact.shares).sum() / exact.shares.sum()) for run in runs]
    return [
        figure(f"(b) placements of {pods:,} pods", "1/s", [run.placed / run.seconds for run in runs], goal=60_000),
        figure("(b) mean error of the shares", "%", errors, goal=3, higher_is_better=False),
        figure("(b) placed, beside (c)", "%", [100 * run.placed / exact.placed for run in runs]),
        figure("(c) placements turn by turn", "1/s", [exact.placed / exact.seconds]),
    ]


def cycle(world: Snapshot, *, what: str, exact: int = 1) -> Run:
    """One whole cycle over the snapshot."""
    gc.collect()
    began = time.perf_counter()
    placed = [batch.rows for batch in Cycle(world, POLICIES["best-fit"], exact=exact).placements()]
    seconds = time.perf_counter() - began
    rows = np.concatenate(placed)
    progress(f"{what}: {rows.size:,} placed in {seconds:.2f} s")
    return Run(seconds=seconds, placed=rows.size, shares=shares(world, rows))


def shares(world: Snapshot, rows: Ints) -> Floats:
    """The dominant share of each queue, if it holds what these workloads ask for."""
    table, nodes = world.workloads, world.nodes
    pairs = ((table.cpu_milli, nodes.cpu_milli), (table.memory_bytes, nodes.memory_bytes), (table.gpus, nodes.gpus))
    parts = [
        np.bincount(table.queue[rows], weights=asked[rows], minlength=len(world.queues.names)) / whole.sum()
        for asked, whole in pairs
    ]
    return np.max(parts, axis=0)


def fleet(pods: int, *, queues: int, gpus_in: int) -> Snapshot:
    """A world with so many pods waiting. Of `gpus_in` shapes one asks for GPUs."""
    rng = np.random.default_rng(7)
    nothing = np.zeros(0, dtype=np.int64)
    return Snapshot(
        now=0,
        seed=0,
        version=1,
        gpu_models=("", "A100", "L4", "H100"),
        nodes=_nodes(),
        workloads=_workloads(rng, pods, queues=queues, gpus_in=gpus_in),
        allocations=AllocationTable(**dict.fromkeys(AllocationTable.__dataclass_fields__, nothing)),
        endpoints=(),
        prices=(),
        owners={},
        addresses={},
        queues=QueueTree.of(QueueSpec(name=f"queue-{number:04}") for number in range(queues)),
    )


def _nodes() -> NodeTable:
    kind = np.repeat(np.arange(len(TYPES)), [round(part * NODES) for part, *_ in TYPES])
    cpu_milli, gib, gpus, model = np.array([row[1:] for row in TYPES], dtype=np.int64)[kind].T
    zeros, no = np.zeros(NODES, dtype=np.int64), np.zeros(NODES, dtype=np.bool_)
    return NodeTable(
        key=np.arange(1, NODES + 1),
        version=zeros,
        ready=~no,
        cpu_milli=cpu_milli.copy(),
        memory_bytes=gib << 30,
        gpus=gpus.copy(),
        gpu_model=model.copy(),
        used_cpu_milli=zeros,
        used_memory_bytes=zeros,
        used_gpus=zeros,
        names=tuple(f"node-{number}" for number in range(NODES)),
        clusters=("one",) * NODES,
        closed_at=zeros,
        closed_until=zeros,
        drains=no,
        wait_seconds=zeros,
    )


def _workloads(rng: np.random.Generator, pods: int, *, queues: int, gpus_in: int) -> WorkloadTable:
    shape = rng.choice(SHAPES, size=pods, p=_zipf(SHAPES, 1.0))
    cpu_milli, memory_bytes, gpus, model = _shapes(rng, gpus_in).T[:, shape]
    zeros, no = np.zeros(pods, dtype=np.int64), np.zeros(pods, dtype=np.bool_)
    columns: dict[str, Ints | np.ndarray] = dict.fromkeys(WorkloadTable.__dataclass_fields__, zeros)
    columns |= {
        "key": np.arange(1, pods + 1),
        "priority": rng.integers(0, 3, pods),
        "queue": rng.choice(queues, size=pods, p=_zipf(queues, 0.5)),
        "attempt": zeros + 1,
        "submitted_at": np.arange(pods),
        "nodes": zeros + 1,
        "cpu_milli": cpu_milli.copy(),
        "memory_bytes": memory_bytes.copy(),
        "gpus": gpus.copy(),
        "gpu_model": model.copy(),
        "stop_requested": no,
        "retry_always": no,
    }
    return WorkloadTable(**{**columns, "choices": {}})


def _shapes(rng: np.random.Generator, gpus_in: int) -> Ints:
    """[shapes, (thousandths of a core, bytes, GPUs, model)]; hardly two are alike."""
    rows: list[Sequence[int]] = []
    for number in range(SHAPES):
        gpus = int(rng.choice((1, 1, 2, 4, 8))) if number % gpus_in == gpus_in - 1 else 0
        cpu_milli = int(rng.choice((2_000, 4_000, 8_000))) * gpus or int(rng.choice((500, 1_000, 2_000, 4_000, 8_000)))
        cpu_milli += 50 * int(rng.integers(0, 10))
        memory = (cpu_milli * int(rng.choice((2, 4, 8))) * 1024 // 1000) << 20
        rows.append((cpu_milli, memory, gpus, int(rng.choice((0, 0, 1, 2, 3))) if 0 < gpus <= 4 else 0))
    return np.array(rows, dtype=np.int64)


def _zipf(count: int, power: float) -> Floats:
    weight: Floats = 1 / np.arange(1, count + 1) ** power
    return weight / weight.sum()


if __name__ == "__main__":
    main()
