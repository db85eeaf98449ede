"""One user with a million queued jobs beside 1,000 jobs of 999 others, by the decision alone: no database, no server, one core.

A fleet of 15,000 nodes is full of jobs of that user, 100 of which end before every cycle. The million wait in one queue since
before all others; half of the others wait in the same queue, half in nine more. Each cycle starts what it can and the fleet is
played on, until all of the others have started: 1,000 jobs need ten such cycles at least. Measured:

(a) the cycle up to its plan, with which all of that is told;
(b) cycles until all of the others have started, and those of the same queue by themselves;
(c) the same cycle where the queue is first come, first served (`fifo`), and how many of the same queue have started then;
(d) `explain` of one of the others, the last of all.

    python -m benchmarks.flood --jobs 1000000
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass

import numpy as np

from benchmarks.report import Figure, figure, progress, report
from mainstay.decide.explain import explain
from mainstay.decide.schedule import schedule
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.plan import Allocate
from mainstay.domain.queue import QueueSpec, QueueTree
from mainstay.domain.snapshot import AllocationTable, NodeTable, Snapshot, WorkloadTable
from mainstay.domain.workload import Phase

NODES, CORES, CORES_OF_JOB = 15_000, 16_000, 4_000
"""Thousandths of a core."""
OTHERS, USERS = 1_000, 999
QUEUES = 10
ENDS = 100
"""Before each cycle."""
CYCLES_MIN = OTHERS // ENDS
CYCLES_MAX = 3 * CYCLES_MIN
FLOOD = 1
"""The number of who has submitted the million."""


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    options = parser.parse_args()
    schedule(Play.of(1_000, order="fair").snapshot())  # compiled, or read from disk
    fair, first_come = Play.of(options.jobs, order="fair"), Play.of(options.jobs, order="fifo")
    last = fair.snapshot()
    began = time.process_time()
    told = explain(last, int(last.workloads.key[-1]))
    explained = time.process_time() - began
    progress(f"explained: place {told.position}")
    figures = [
        *played(fair, "(a) a cycle", goal=CYCLES_MIN + 3),
        *played(first_come, "(c) the same, first come first served", cycles_max=CYCLES_MIN),
        figure("(d) explain, up to its answer", "s", [explained], higher_is_better=False),
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report("flood", [*figures, figure("peak memory of all of this", "MiB", [peak], higher_is_better=False)])


def played(play: Play, what: str, *, cycles_max: int = CYCLES_MAX, goal: int | None = None) -> list[Figure]:
    """Until all of the others have started, or so many cycles are over."""
    seconds, same_queue, everybody = list[float](), 0, 0
    while len(seconds) < cycles_max and not play.others_started().all():
        seconds.append(play.cycle())
        started = play.others_started()
        same_queue += not started[: OTHERS // 2].all()
        everybody += not started.all()
        progress(f"{what}: {seconds[-1]:.2f} s, {np.count_nonzero(started)} of the others have started")
    started = play.others_started()
    found = [figure(what, "s", seconds, higher_is_better=False)]
    if goal is None:
        parts = [float(np.count_nonzero(started[: OTHERS // 2]))]
        return [*found, figure(f"    after {len(seconds)} started, of {OTHERS // 2} of that queue", "jobs", parts)]
    assert started.all(), "they starve"
    return [
        *found,
        figure("(b) until all others have started", "cycles", [everybody + 1], goal=goal, higher_is_better=False),
        figure("(b) until those of the same queue have", "cycles", [same_queue + 1], higher_is_better=False),
    ]


@dataclass(slots=True, kw_only=True)
class Play:
    """Workloads by row: what runs at first, then the million, then the others, first those of the same queue."""

    order: str
    queue: Ints
    submitter: Ints
    node: Ints
    """Row of its node; -1 where it waits."""
    over: Bools
    rng: np.random.Generator

    @classmethod
    def of(cls, jobs: int, *, order: str) -> Play:
        """A full fleet, and so many jobs of one user that wait."""
        running = NODES * CORES // CORES_OF_JOB
        number = np.arange(OTHERS)
        elsewhere = np.where(number < OTHERS // 2, 0, 1 + number % (QUEUES - 1))
        ours = np.zeros(running + jobs, dtype=np.int64)
        return cls(
            order=order,
            queue=np.append(ours, elsewhere),
            submitter=np.append(ours + FLOOD, FLOOD + 1 + number % USERS),
            node=np.append(np.arange(running) % NODES, np.full(jobs + OTHERS, -1)),
            over=np.zeros(running + jobs + OTHERS, dtype=np.bool_),
            rng=np.random.default_rng(7),
        )

    def others_started(self) -> Bools:
        """Of each of them."""
        started: Bools = self.node[-OTHERS:] >= 0
        return started

    def cycle(self) -> float:
        """Some end, and one cycle decides; the seconds of a core that it took."""
        ends = self.rng.choice(
            np.flatnonzero((self.node >= 0) & ~self.over & (self.submitter == FLOOD)), ENDS, replace=False
        )
        self.over[ends] = True
        snapshot = self.snapshot()
        began = time.process_time()
        plan = schedule(snapshot)
        seconds = time.process_time() - began
        for action in plan:
            if isinstance(action, Allocate):
                self.node[action.workload_key - 1] = action.slots[0].node_key - 1
        return seconds

    def snapshot(self) -> Snapshot:
        """As the store would show it: what is over is not there."""
        rows, holds = np.flatnonzero(~self.over), np.flatnonzero((self.node >= 0) & ~self.over)
        used = np.bincount(self.node[holds], minlength=NODES) * CORES_OF_JOB
        return Snapshot(
            now=0,
            seed=0,
            version=1,
            gpu_models=("",),
            nodes=_nodes(used),
            workloads=self._workloads(rows),
            allocations=self._allocations(holds),
            endpoints=(),
            prices=(),
            owners={},
            addresses={},
            submitters=("", *map(str, range(USERS + 1))),
            queues=QueueTree.of(
                QueueSpec(name="default" if not number else f"queue-{number}", order="fair" if number else self.order)
                for number in range(QUEUES)
            ),
        )

    def _workloads(self, rows: Ints) -> WorkloadTable:
        zeros, no = np.zeros(rows.size, dtype=np.int64), np.zeros(rows.size, dtype=np.bool_)
        columns: dict[str, Ints | Bools] = dict.fromkeys(WorkloadTable.__dataclass_fields__, zeros)
        columns |= {
            "key": rows + 1,
            "phase": np.where(self.node[rows] >= 0, int(Phase.RUNNING), int(Phase.QUEUED)),
            "queue": self.queue[rows],
            "submitter": self.submitter[rows],
            "attempt": zeros + 1,
            "submitted_at": rows,
            **dict.fromkeys(("nodes", "nodes_min", "nodes_max"), zeros + 1),
            "cpu_milli": zeros + CORES_OF_JOB,
            "memory_bytes": zeros + (1 << 30),
            **dict.fromkeys(("stop_requested", "held", "preemptible", "retry_always"), no),
        }
        return WorkloadTable(**{**columns, "choices": {}, "sets": {}, "others": {}})

    def _allocations(self, rows: Ints) -> AllocationTable:
        zeros = np.zeros(rows.size, dtype=np.int64)
        columns = dict.fromkeys(AllocationTable.__dataclass_fields__, zeros)
        columns |= {
            "key": rows + 1,
            "workload_key": rows + 1,
            "attempt": zeros + 1,
            "node_key": self.node[rows] + 1,
            "seen": zeros + int(Seen.RUNNING),
            "cpu_milli": zeros + CORES_OF_JOB,
            "memory_bytes": zeros + (1 << 30),
            **dict.fromkeys(("stop", "moves", "surplus", "ready"), zeros > 0),
            **dict.fromkeys(("end", "exit_code"), zeros - 1),
        }
        return AllocationTable(**columns)


def _nodes(used: Ints) -> NodeTable:
    zeros, no = np.zeros(NODES, dtype=np.int64), np.zeros(NODES, dtype=np.bool_)
    columns = dict.fromkeys(
        ("version", "gpus", "gpu_model", "used_gpus", "whole_gpus", "closed_at", "closed_until"), zeros
    )
    return NodeTable(
        **columns,
        key=np.arange(1, NODES + 1),
        ready=~no,
        cpu_milli=zeros + CORES,
        memory_bytes=zeros + (64 << 30),
        used_cpu_milli=used,
        used_memory_bytes=zeros,
        whole_cpu_milli=zeros + CORES,
        whole_memory_bytes=zeros + (64 << 30),
        names=tuple(f"node-{number}" for number in range(NODES)),
        clusters=("one",) * NODES,
        drains=no,
        wait_seconds=zeros,
    )


if __name__ == "__main__":
    main()
