"""What one change costs on a large fleet: from the row that changed in the store to the plan.

15,000 full nodes with 150,000 running pods of 1,000 queues, and 10,000 workloads of 2,000 shapes that wait, in SQLite. Again and
again one thing changes, the columns are brought up to date, and each decision that a commit wakes has its turn:

(a) a pod ends, so that its node has room for some of those who wait;
(b) one more workload is submitted.

And (c): a copy of what is left on the fleet, to try something out.

    python -m benchmarks.one_change --repetitions 15
"""

from __future__ import annotations

import argparse
import gc
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from benchmarks.decide import fleet
from benchmarks.report import Figure, figure, progress, report
from mainstay.control.decisions import DECISIONS
from mainstay.decide.placement.fit import free_of
from mainstay.domain.allocation import Seen
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from mainstay.store import SqlStore, open_sqlite, tables

PODS_PER_NODE = 10
QUEUES = 1_000
WAITING = 10_000
NOW = 10**15
HOUR = 3_600_000_000

Values = Mapping[str, Any]


class Scene:
    """A store that is filled by rows, since plans of that size would take minutes."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self._rng = np.random.default_rng(5)
        self._version, self._key, self._ended = 1, 0, 0
        self._world = fleet(WAITING, queues=QUEUES, gpus_in=12)

    def fill(self) -> None:
        """Nodes, those that run, and those that wait, for as much as no node has left."""
        nodes, waits = self._world.nodes, self._world.workloads
        queue = self._rng.integers(0, QUEUES, nodes.key.size * PODS_PER_NODE)
        self._nodes = self._keys(nodes.key.size)
        self._insert(tables.queues, ({"name": f"queue-{at:04}", "weight": 1.0, **_QUEUE} for at in range(QUEUES)))
        self._insert(tables.nodes, (self._node(row, key) for row, key in enumerate(self._nodes)))
        running = self._keys(queue.size)
        self._pods = self._keys(queue.size)
        shares = [self._share(number // PODS_PER_NODE) for number in range(queue.size)]
        self._insert(
            tables.workloads,
            (self._workload(key, int(queue[at]), phase=Phase.RUNNING, **shares[at]) for at, key in enumerate(running)),
        )
        self._insert(
            tables.allocations,
            (
                self._pod(key, running[at], node=self._nodes[at // PODS_PER_NODE], **shares[at])
                for at, key in enumerate(self._pods)
            ),
        )
        columns = zip(
            waits.queue.tolist(),
            waits.cpu_milli.tolist(),
            waits.memory_bytes.tolist(),
            waits.gpus.tolist(),
            waits.gpu_model.tolist(),
            strict=True,
        )
        self._insert(
            tables.workloads,
            (
                self._workload(key, queue_, cpu_milli=cpu, memory_bytes=memory, gpus=gpus, gpu_model=self._model(model))
                for key, (queue_, cpu, memory, gpus, model) in zip(self._keys(WAITING), columns, strict=True)
            ),
        )
        self._changed("nodes_at", "workloads_at", "allocations_at", "queues_at")

    def end_a_pod(self) -> None:
        """And the place on its node is free."""
        at = int(self._rng.integers(0, len(self._pods)))
        node, share = self._nodes[at // PODS_PER_NODE], self._share(at // PODS_PER_NODE)
        table, host = tables.allocations, tables.nodes
        ended = {"seen": int(Seen.ENDED), "ended_at": NOW, "ending": 0, "exit_code": 0, "version": self._version + 1}
        self._execute(table.update().where(table.c.key == self._pods[at]).values(**ended))
        less = {f"used_{name}": host.c[f"used_{name}"] - share[name] for name in ("cpu_milli", "memory_bytes", "gpus")}
        self._execute(host.update().where(host.c.key == node).values(**less, version=self._version + 1))
        self._changed("nodes_at", "allocations_at")

    def submit(self) -> None:
        """One more that waits."""
        (key,) = self._keys(1)
        row = self._workload(key, 0, cpu_milli=2_000, memory_bytes=4 << 30, phase=Phase.PENDING)
        self._insert(tables.workloads, [{**row, "version": self._version + 1}])
        self._changed("workloads_at")

    def _node(self, row: int, key: int) -> Values:
        nodes = self._world.nodes
        whole = {name: int(getattr(nodes, name)[row]) for name in ("cpu_milli", "memory_bytes", "gpus")}
        share = self._share(row)
        used = {f"used_{name}": PODS_PER_NODE * share[name] for name in whole}
        # What is left over of a division by ten is nobody's: the node is full.
        whole = {name: PODS_PER_NODE * share[name] for name in whole}
        return {
            "key": key,
            "cluster": "one",
            "name": nodes.names[row],
            "ready": 1,
            **whole,
            **{f"whole_{name}": amount for name, amount in whole.items()},
            **used,
            "gpu_model": self._model(int(nodes.gpu_model[row])),
            "pods_max": 110,
            "used_pods": PODS_PER_NODE,
            "version": 1,
        }

    def _share(self, row: int) -> dict[str, Any]:
        """What each pod of this node holds."""
        nodes = self._world.nodes
        return {
            "cpu_milli": int(nodes.cpu_milli[row]) // PODS_PER_NODE,
            "memory_bytes": int(nodes.memory_bytes[row]) // PODS_PER_NODE,
            "gpus": int(nodes.gpus[row]) // PODS_PER_NODE,
        }

    def _model(self, number: int) -> str:
        return self._world.gpu_models[number]

    def _workload(self, key: int, queue: int, *, phase: Phase = Phase.QUEUED, **resources: Any) -> Values:
        ones = dict.fromkeys(("attempt", "nodes", "nodes_min", "preemptible", "choices_count"), 1)
        about = {"id": f"w{key}", "tenant": "t", "project": "p", "queue": f"queue-{queue:04}", "name": f"w{key}"}
        return {"key": key, **about, **ones, "phase": int(phase), "submitted_at": key, "version": 1, **resources}

    def _pod(self, key: int, workload: int, *, node: int, **resources: Any) -> Values:
        about = {"workload": f"w{workload}", "tenant": "t", "project": "p", "cluster": "one", "seen": int(Seen.RUNNING)}
        times = dict.fromkeys(("created_at", "started_at", "metered_until"), NOW - HOUR)
        ends = {"attempt": 1, "ranks": 1, "ending": -1, "exit_code": -1, "version": 1}
        return {"key": key, "workload_key": workload, "node_key": node, **about, **times, **ends, **resources}

    def _keys(self, count: int) -> list[int]:
        self._key += count
        return list(range(self._key - count + 1, self._key + 1))

    def _insert(self, table: sa.Table, rows: Iterable[Values]) -> None:
        nothing: dict[str, Any] = {
            column.name: "" if isinstance(column.type, sa.Text) else 0 for column in table.columns
        }
        all_rows = [nothing | dict(row) for row in rows]
        self.store._database.write(lambda connection: connection.execute(table.insert(), all_rows))

    def _execute(self, statement: sa.Update) -> None:
        self.store._database.write(lambda connection: connection.execute(statement))

    def _changed(self, *columns: str) -> None:
        self._version += 1
        at = dict.fromkeys(("version", *columns), self._version)
        self._execute(tables.head.update().values(**at, next_key=self._key + 1))


_QUEUE = {"quotas": "[]", "preemption": "", "reserved_after_seconds": 600, "ordering": "fair"}


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mainstay-bench-") as folder:
        scene = Scene(open_sqlite(Path(folder) / "mainstay.db", durable=False))
        scene.fill()
        began = time.process_time()
        world = scene.store.snapshot(now=NOW, seed=0)
        progress(f"first look at {world.allocations.key.size:,} pods: {time.process_time() - began:.1f} s")
        figures = [
            *after("(a) a pod ends", scene.end_a_pod, scene.store, options.repetitions),
            *after("(b) a submission", scene.submit, scene.store, options.repetitions),
            *copies(world, options.repetitions),
        ]
        scene.store.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report("one_change", [*figures, figure("peak memory of all of this", "MiB", [peak], higher_is_better=False)])


def after(name: str, change: Callable[[], None], store: SqlStore, repetitions: int) -> list[Figure]:
    """What the columns and each decision take then, in thousandths of a second of the core."""
    taken: dict[str, list[float]] = {}
    for number in range(repetitions + 1):
        change()
        gc.collect()
        began = time.process_time()
        world = store.snapshot(now=NOW, seed=0)
        times = {"columns": time.process_time() - began}
        for decision in DECISIONS:
            if decision.woken_by:
                began = time.process_time()
                decision.decide(world)
                times[decision.name] = time.process_time() - began
        if number:
            for what, seconds in times.items():
                taken.setdefault(what, []).append(1_000 * seconds)
    return [figure(f"{name}: {what}", "ms", each, higher_is_better=False) for what, each in taken.items()]


def copies(world: Snapshot, repetitions: int) -> list[Figure]:
    """Figures (c)."""
    free, taken = free_of(world), []
    for _ in range(max(20, repetitions)):
        began = time.process_time()
        free.copy()
        taken.append(1e6 * (time.process_time() - began))
    return [figure("(c) a copy of what is left", "us", taken, higher_is_better=False)]


if __name__ == "__main__":
    main()
