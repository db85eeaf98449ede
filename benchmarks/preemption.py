"""Who yields for whom, by itself: columns in, victims out. No database, no API server, one core.

A full fleet of 15,000 nodes with 150,000 running pods of 1,000 queues, of ten priorities, each of which has lost some work if it
yields. What is measured:

(a) the victims of one more workload, once the turn has looked at the fleet;
(b) the whole turn for one workload, with that look;
(c) the victims of a gang of 64 nodes.

    python -m benchmarks.preemption --repetitions 7
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections.abc import Callable

import numpy as np

from benchmarks.decide import fleet
from benchmarks.report import Figure, figure, progress, report
from mainstay.decide.preemption import preempt
from mainstay.decide.preemption.rules import wish_of
from mainstay.decide.preemption.search import Search
from mainstay.decide.shapes import shape_of
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Ints
from mainstay.domain.preemption import FairShare, PreemptionPolicy, Reclaim, WithinQueue
from mainstay.domain.queue import QueueSpec, QueueTree
from mainstay.domain.snapshot import AllocationTable, Snapshot, WorkloadTable
from mainstay.domain.workload import Phase

PODS_PER_NODE = 10
QUEUES = 1_000
GANG = 64
NOW = 10**15
HOUR = 3_600_000_000
POLICY = PreemptionPolicy(
    within_queue=WithinQueue.LOWER_PRIORITY, reclaim=Reclaim.ANY, fair_share=FairShare.FINAL_SHARE
)


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    one, gang = world(ranks=1), world(ranks=GANG)
    figures = [
        timed("(a) victims of one workload", lambda: victims(one), options.repetitions, goal=35),
        timed("(b) whole turn for one workload", lambda: turn(one), options.repetitions),
        timed(f"(c) victims of a gang of {GANG} nodes", lambda: victims(gang), options.repetitions),
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report("preemption", [*figures, figure("peak memory of all of this", "MiB", [peak], higher_is_better=False)])


def timed(name: str, run: Callable[[], float], repetitions: int, *, goal: float | None = None) -> Figure:
    """In thousandths of a second."""
    run()
    seconds = [run() for _ in range(repetitions)]
    return figure(name, "ms", [1_000 * one for one in seconds], goal=goal, higher_is_better=False)


def victims(snapshot: Snapshot) -> float:
    """Seconds, without the look at the fleet."""
    search, row = Search(snapshot), snapshot.workloads.key.size - 1
    gc.collect()
    began = time.perf_counter()
    found = search.displace(wish_of(snapshot, row), shape_of(snapshot, row))
    seconds = time.perf_counter() - began
    assert found is not None
    progress(f"{len(found.units)} yield after {1_000 * seconds:.1f} ms")
    return seconds


def turn(snapshot: Snapshot) -> float:
    """Seconds of all that a turn of the decision does."""
    gc.collect()
    began = time.perf_counter()
    assert preempt(snapshot)
    return time.perf_counter() - began


def world(*, ranks: int) -> Snapshot:
    """Every node full of ten pods; one workload waits that needs half a node for each of its ranks."""
    rng = np.random.default_rng(11)
    empty = fleet(1, queues=QUEUES, gpus_in=2)
    nodes = empty.nodes
    pods = nodes.key.size * PODS_PER_NODE
    node = rng.permutation(np.repeat(np.arange(nodes.key.size), PODS_PER_NODE))
    held = {
        "cpu_milli": nodes.cpu_milli[node] // PODS_PER_NODE,
        "memory_bytes": nodes.memory_bytes[node] // PODS_PER_NODE,
    }
    full = {f"used_{name}": np.bincount(node, weights=column).astype(np.int64) for name, column in held.items()}
    return Snapshot(
        now=NOW,
        seed=0,
        version=1,
        gpu_models=empty.gpu_models,
        nodes=type(nodes)(**{name: full.get(name, getattr(nodes, name)) for name in type(nodes).__dataclass_fields__}),
        workloads=_workloads(rng, held, pods=pods, ranks=ranks),
        allocations=_allocations(rng, held, node=nodes.key[node]),
        endpoints=(),
        prices=(),
        owners={},
        addresses={},
        queues=QueueTree.of(
            # By its weight the first queue is due far more than it has: of all others somebody may yield.
            QueueSpec(name=f"queue-{number:04}", preemption=POLICY, weight=1 if number else 1_000)
            for number in range(QUEUES)
        ),
    )


def _workloads(rng: np.random.Generator, held: dict[str, Ints], *, pods: int, ranks: int) -> WorkloadTable:
    zeros, no = np.zeros(pods + 1, dtype=np.int64), np.zeros(pods + 1, dtype=np.bool_)
    waits = np.append(np.zeros(pods, dtype=np.bool_), True)
    columns: dict[str, Ints | np.ndarray] = dict.fromkeys(WorkloadTable.__dataclass_fields__, zeros)
    columns |= {
        "key": np.arange(1, pods + 2),
        "phase": np.where(waits, int(Phase.QUEUED), int(Phase.RUNNING)),
        "priority": np.where(waits, 90, rng.integers(0, 10, pods + 1)),
        "queue": np.where(waits, 0, rng.integers(0, QUEUES, pods + 1)),
        "attempt": zeros + 1,
        "submitted_at": np.arange(pods + 1),
        **dict.fromkeys(("nodes", "nodes_min", "nodes_max"), np.where(waits, ranks, 1)),
        "checkpoint_seconds": np.where(rng.random(pods + 1) < 0.5, 600, 0),
        "cpu_milli": np.append(held["cpu_milli"], 32_000),
        "memory_bytes": np.append(held["memory_bytes"], 64 << 30),
        "preemptible": ~no,
        **dict.fromkeys(("stop_requested", "held", "retry_always"), no),
    }
    return WorkloadTable(**{**columns, "choices": {}, "sets": {}, "equals": {}, "typical_on": {}, "others": {}})


def _allocations(rng: np.random.Generator, held: dict[str, Ints], *, node: Ints) -> AllocationTable:
    pods = node.size
    zeros, no = np.zeros(pods, dtype=np.int64), np.zeros(pods, dtype=np.bool_)
    started = NOW - rng.integers(0, 24 * HOUR, pods)
    columns: dict[str, Ints | np.ndarray] = dict.fromkeys(AllocationTable.__dataclass_fields__, zeros)
    columns |= {
        "key": np.arange(1, pods + 1),
        "workload_key": np.arange(1, pods + 1),
        "attempt": zeros + 1,
        "node_key": node,
        "seen": zeros + int(Seen.RUNNING),
        "created_at": started,
        "started_at": started,
        "end": zeros - 1,
        "exit_code": zeros - 1,
        **held,
        **dict.fromkeys(("stop", "moves", "ready", "surplus"), no),
    }
    return AllocationTable(**columns)


if __name__ == "__main__":
    main()
