"""The decision core by itself: columns in, places out. No database, no API server, one core.

A fleet of 15,000 nodes of six types with six resources, and 100,000 pods in 2,000 shapes, few of which are common (Zipf), as
in published clusters. Time is that of the core which the decision had, so other work on the machine counts little. Measured:

(a) all of them fit: placements a second of one cycle, by best fit and by least waste;
(b) 380,000 pods of 1,000 queues that ask for twice the cores and 20 times the GPUs of the fleet: placements a second, and how
    far the shares of the queues are from those of an order that is worked out one by one, with a heap of queues and a look
    at all nodes;
(c) a gang of 512 nodes with 8 GPUs each finds its places, on a fleet that is half full;
(d) a copy of what is left on the fleet, to try something out;
(e) the turn of a service of 3 or 64 replicas that are to lie apart: at most one per host, or per rack of 50 nodes;
(f) a gang of 513 ranks in three pod sets (a head, 256 with 8 GPUs, 256 without) finds its places on the fleet of (c);
(g) 200 needs of labels that nobody has asked for before, on nodes of 300 sorts: all of them worked out; and the turn of a single
    pod that prefers some nodes.

    python -m benchmarks.decide --repetitions 5
"""

from __future__ import annotations

import argparse
import gc
import heapq
import itertools
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.report import Figure, figure, progress, report
from mainstay.decide.admission import order
from mainstay.decide.cycle import Cycle
from mainstay.decide.kernel import share
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES
from mainstay.decide.placement.fit import Request, free_of
from mainstay.decide.placement.gang import place
from mainstay.decide.shapes import make_shape, shape_numbers, shape_of
from mainstay.decide.turns import asked_by, ledger_of
from mainstay.domain.affinity import NodeNeed, NodeTraits, Preference, Requirement, traits
from mainstay.domain.arrays import Floats, Ints
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import QueueSpec, QueueTree
from mainstay.domain.snapshot import AllocationTable, NodeTable, Snapshot, WorkloadTable
from mainstay.domain.topology import Level, Spread, TopologyNeed
from mainstay.domain.workload import PodSet

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
    for policy in POLICIES:
        cycle(fleet(1_000, queues=2, gpus_in=2), what="compiled, or read from disk", policy=policy)
    figures = [
        *uncontended(options.pods, options.repetitions),
        *contended(options.contended, options.repetitions),
        *gang(options.repetitions),
        *apart(options.repetitions),
        *affinity(options.repetitions),
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report("decide", [*figures, figure("peak memory of all of this", "MiB", [peak], higher_is_better=False)])


def uncontended(pods: int, repetitions: int) -> list[Figure]:
    """Figures (a)."""
    world = fleet(pods, queues=1, gpus_in=12)
    runs = [cycle(world, what="all fit") for _ in range(repetitions)]
    heeding = [cycle(world, what="all fit, by least waste", policy="least-waste") for _ in range(repetitions)]
    return [
        figure(f"(a) placements of {pods:,} pods", "1/s", [run.placed / run.seconds for run in runs], goal=250_000),
        figure("(a) of them placed", "%", [100 * run.placed / pods for run in runs]),
        figure("(a) whole cycle", "s", [run.seconds for run in runs], higher_is_better=False),
        figure("(a) placements by least waste", "1/s", [run.placed / run.seconds for run in heeding]),
    ]


def contended(pods: int, repetitions: int) -> list[Figure]:
    """Figures (b)."""
    world = fleet(pods, queues=1_000, gpus_in=2)
    table, nodes = world.workloads, world.nodes
    asked = [table.cpu_milli.sum() / nodes.cpu_milli.sum(), table.gpus.sum() / nodes.gpus.sum()]
    progress(f"asked for: {asked[0]:.1f} times the cores, {asked[1]:.1f} times the GPUs")
    runs = [cycle(world, what="turn by turn") for _ in range(repetitions)]
    heeding = [cycle(world, what="turn by turn, by least waste", policy="least-waste") for _ in range(repetitions)]
    exact = one_by_one(world)
    errors = [100 * float(np.abs(run.shares - exact.shares).sum() / exact.shares.sum()) for run in runs]
    return [
        figure(f"(b) placements of {pods:,} pods", "1/s", [run.placed / run.seconds for run in runs], goal=60_000),
        figure("(b) mean error of the shares", "%", errors, goal=3, higher_is_better=False),
        figure("(b) whole cycle", "s", [run.seconds for run in runs], higher_is_better=False),
        figure("(b) placements by least waste", "1/s", [run.placed / run.seconds for run in heeding]),
        figure("(b) the same one by one", "1/s", [exact.placed / exact.seconds]),
    ]


def gang(repetitions: int) -> list[Figure]:
    """Figures (c), (d) and (f)."""
    world = fleet(100_000, queues=1, gpus_in=12)
    started = Cycle(world, POLICIES["best-fit"])
    for _ in started.placements(limit=50_000):
        pass
    wanted = Resources(cpu_milli=64_000, memory_bytes=256 << 30, gpus=8)
    shape = make_shape(world, nodes=512, choices=(wanted,))
    sets = (
        PodSet(name="head", nodes=1, resources=Resources(cpu_milli=4_000, memory_bytes=16 << 30)),
        PodSet(name="learner", nodes=256, resources=wanted),
        PodSet(name="actor", nodes=256, resources=Resources(cpu_milli=8_000, memory_bytes=16 << 30)),
    )
    several = make_shape(world, nodes=513, choices=(sets[0].resources,), sets=sets)
    places, copies, mixed = [], [], []
    for _ in range(max(20, repetitions)):
        began = time.process_time()
        found = started.place(shape)
        places.append(1_000 * (time.process_time() - began))
        assert found is not None
        began = time.process_time()
        started.free.copy()
        copies.append(1e6 * (time.process_time() - began))
        began = time.process_time()
        assert started.place(several) is not None
        mixed.append(1_000 * (time.process_time() - began))
    return [
        figure("(c) a gang of 512 nodes", "ms", places, goal=30, higher_is_better=False),
        figure("(d) a copy of what is left", "us", copies, higher_is_better=False),
        figure("(f) a gang of three pod sets", "ms", mixed, higher_is_better=False),
    ]


def apart(repetitions: int) -> list[Figure]:
    """Figures (e)."""
    world = fleet(100_000, queues=1, gpus_in=12)
    number = np.arange(NODES) // 50
    racks = Level(number=number, names=tuple(f"r{at}" for at in range(int(number[-1]) + 1)))
    world = replace(world, nodes=replace(world.nodes, levels={"rack": racks}))
    started = Cycle(world, POLICIES[DEFAULT_POLICY])
    for _ in started.placements(limit=50_000):
        pass
    figures = []
    for level, replicas in itertools.product(("host", "rack"), (3, 64)):
        need = TopologyNeed(spread=Spread(level=level, at_most=1))
        small = (Resources(cpu_milli=2_000, memory_bytes=4 << 30),)
        shape = make_shape(world, nodes=replicas, choices=small, topology=need)
        taken = []
        for _ in range(max(20, repetitions)):
            began = time.process_time()
            found = started.place(shape)
            taken.append(1_000 * (time.process_time() - began))
            assert found is not None
        figures.append(figure(f"(e) {replicas} replicas, one per {level}", "ms", taken, higher_is_better=False))
    return figures


def affinity(repetitions: int) -> list[Figure]:
    """Figures (g)."""
    world = fleet(1, queues=1, gpus_in=12)
    hardware = {f"example.com/feature-{number}": "yes" for number in range(30)}
    sorts = [{"disk": f"d{sort % 5}", "zone": f"z{sort % 20}", "sort": str(sort), **hardware} for sort in range(300)]
    known = NodeTraits(
        number=np.arange(NODES) % len(sorts),
        each=tuple(traits(labels, ()) for labels in sorts),
        barred=np.zeros(NODES, dtype=np.bool_),
    )
    world = replace(world, nodes=replace(world.nodes, traits=known))

    def one_of(key: str, *values: str) -> Requirement:
        return Requirement(key=key, operator="In", values=values)

    needs = [
        NodeNeed(requirements=(one_of("zone", f"z{at % 20}"), one_of("sort", str(at), str(at + 20))))
        for at in range(200)
    ]
    prefers = NodeNeed(preferences=(Preference(requirements=(one_of("disk", "d3"),)),))
    shape = make_shape(world, nodes=1, choices=(Resources(cpu_milli=1_000, memory_bytes=1 << 30),), restriction=prefers)
    masks, turns = [], []
    for _ in range(max(20, repetitions)):
        began = time.process_time()
        for one in needs:
            known.admitted(one)
        masks.append(1_000 * (time.process_time() - began))
        started = Cycle(world, POLICIES[DEFAULT_POLICY])
        began = time.process_time()
        found = started.place(shape)
        turns.append(1_000 * (time.process_time() - began))
        assert found is not None
        assert known.of(found[0][0]).labels[0] == ("disk", "d3")
    return [
        figure("(g) 200 needs worked out", "ms", masks, higher_is_better=False),
        figure("(g) a pod that prefers some nodes", "ms", turns, higher_is_better=False),
    ]


def cycle(world: Snapshot, *, what: str, policy: str = "best-fit") -> Run:
    """One whole cycle over the snapshot."""
    gc.collect()
    began = time.process_time()
    placed = [batch.rows for batch in Cycle(world, POLICIES[policy]).placements()]
    seconds = time.process_time() - began
    rows = np.concatenate(placed)
    progress(f"{what}: {rows.size:,} placed in {seconds:.2f} s")
    return Run(seconds=seconds, placed=rows.size, shares=shares(world, rows))


def one_by_one(world: Snapshot) -> Run:
    """The meaning of a cycle without quotas and cohorts, in the plainest way: a heap of queues, and NumPy over all nodes."""
    began = time.process_time()
    free, ledger, policy = free_of(world), ledger_of(world), POLICIES["best-fit"]
    line = order(world)
    numbers, asked = shape_numbers(world, line), asked_by(world, line)
    waits: dict[int, list[int]] = {}
    for at in range(line.size - 1, -1, -1):
        waits.setdefault(int(world.workloads.queue[line[at]]), []).append(at)
    failed: set[int] = set()
    requests: dict[int, Request] = {}
    found: list[int] = []

    def turn(queue: int) -> tuple[float, int, int] | None:
        """(share with its next, place in the order of all, queue)."""
        mine = waits[queue]
        while mine and int(numbers[mine[-1]]) in failed:
            mine.pop()
        return (share(ledger, queue, asked[mine[-1]], queue), mine[-1], queue) if mine else None

    heap = [one for queue in waits if (one := turn(queue))]
    heapq.heapify(heap)
    while heap:
        _, at, queue = heap[0]
        number = int(numbers[at])
        if number not in requests:
            requests[number] = shape_of(world, int(line[at])).requests[0]
        nodes = place(free, requests[number], count=1, policy=policy)
        if nodes is None:
            failed.add(number)
            heap = [one for queue in waits if (one := turn(queue))]
            heapq.heapify(heap)
            continue
        free.take(nodes, 1, requests[number])
        ledger.held[queue] += asked[at]
        found.append(int(line[at]))
        waits[queue].pop()
        one = turn(queue)
        heapq.heapreplace(heap, one) if one else heapq.heappop(heap)
    seconds = time.process_time() - began
    progress(f"one by one: {len(found):,} placed in {seconds:.2f} s")
    return Run(seconds=seconds, placed=len(found), shares=shares(world, np.array(found)))


def shares(world: Snapshot, rows: Ints) -> Floats:
    """The dominant share of each queue, if it holds what these workloads ask for."""
    table, nodes = world.workloads, world.nodes
    pairs = ((table.cpu_milli, nodes.cpu_milli), (table.memory_bytes, nodes.memory_bytes), (table.gpus, nodes.gpus))
    parts = [
        np.bincount(table.queue[rows], weights=asked[rows], minlength=len(world.queues.names)) / whole.sum()
        for asked, whole in pairs
    ]
    most: Floats = np.max(parts, axis=0)
    return most


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
        whole_cpu_milli=cpu_milli.copy(),
        whole_memory_bytes=gib << 30,
        whole_gpus=gpus.copy(),
        names=tuple(f"node-{number}" for number in range(NODES)),
        clusters=("one",) * NODES,
        closed_at=zeros,
        closed_until=zeros,
        drains=no,
        wait_seconds=zeros,
        others={"disk": gib << 31, "nics": 2 + gpus, "pods": np.where(gpus > 0, 110, 250)},
        used_others={"disk": zeros, "nics": zeros, "pods": zeros},
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
        **dict.fromkeys(("nodes", "nodes_min", "nodes_max"), zeros + 1),
        "cpu_milli": cpu_milli.copy(),
        "memory_bytes": memory_bytes.copy(),
        "gpus": gpus.copy(),
        "gpu_model": model.copy(),
        "stop_requested": no,
        "retry_always": no,
    }
    others = {"disk": cpu_milli << 20, "nics": np.where(gpus == 8, 8, 0)}
    return WorkloadTable(**{**columns, "choices": {}, "sets": {}, "equals": {}, "typical_on": {}, "others": others})


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
    weight = 1 / np.arange(1, count + 1) ** power
    shares: Floats = weight / weight.sum()
    return shares


if __name__ == "__main__":
    main()
