"""Work of queues that want more than they have, played on the decision core in virtual time.

What decides is `schedule` and `preempt`, as the platform calls them: on a snapshot, at most 500 changes at a time. Between two
instants at which work arrives or ends nothing happens; deciding, starting and stopping take no time, and what is displaced loses
all that it did. What deciding costs is noted as CPU time.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, field, fields

import numpy as np

from benchmarks.report import progress
from mainstay.decide.preemption import preempt
from mainstay.decide.schedule import schedule
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Ints
from mainstay.domain.plan import Action, Advance, Allocate, DropNomination, Preempt
from mainstay.domain.preemption import Nomination, PreemptionPolicy, Reclaim, WithinQueue
from mainstay.domain.queue import OTHER_FLAVOR, QueueSpec, QueueTree, Quota, Resource
from mainstay.domain.snapshot import AllocationTable, NodeTable, Snapshot, WorkloadTable
from mainstay.domain.topology import Level, TopologyNeed, levels_of
from mainstay.domain.workload import Phase

BEGIN = 10**15
"""UTC microseconds at which work begins to arrive."""
MS, SECOND = 1_000, 1_000_000
NODES, NODE_CPU_MILLI = 640, 96_000
"""Kueue's `tas` has so many; the others have none. More than all quotas together: it is quota that is short, never a node."""
RACK_NODES = 64
TOPOLOGIES = (None, TopologyNeed(level="rack", required=True), TopologyNeed(level="rack", required=False))
NOMINAL, BORROWING = 20_000, 100_000
"""Thousandths of a core, of each queue."""
CHANGES_MAX = 500
"""In one commit, as the platform has it."""
YIELDING = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY, reclaim=Reclaim.ANY)
NOT_YET = -1
REPORTED_US = 5 * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Class:
    """One kind of work that every queue is sent."""

    name: str
    sets: tuple[int, ...]
    """So many workloads each; sets arrive beside each other, the workloads of one after each other."""
    every_ms: int
    run_ms: int
    priority: int
    cpu_milli: int
    """Of one pod."""
    pods: int = 1
    topology: tuple[int, ...] = ()
    """Of each set, by its place in TOPOLOGIES; empty: none asks for any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Queues, and what they are sent."""

    cohorts: int
    queues: int
    """In each cohort."""
    classes: tuple[Class, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """All workloads of a configuration, by the time at which they arrive. Columns are [workloads]."""

    arrives_at: Ints
    """UTC microseconds."""
    run_us: Ints
    priority: Ints
    queue: Ints
    """Row of the tree."""
    cohort: Ints
    """From 0."""
    pods: Ints
    cpu_milli: Ints
    """Of one pod."""
    of_class: Ints
    topology: Ints
    """By its place in TOPOLOGIES."""

    @property
    def core_us(self) -> Ints:
        """What each takes in all: thousandths of a core times microseconds."""
        return self.pods * self.cpu_milli * self.run_us


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of the work. Columns are [workloads]."""

    admitted_at: Ints
    """The last time: what was displaced is admitted again, and that counts, as in what is published."""
    ended_at: Ints
    evictions: Ints
    used: int = 0
    """Thousandths of a core times microseconds, those of work that was displaced and lost included."""
    peak: list[int] = field(default_factory=list)
    """The most that each cohort held, in thousandths of a core."""
    admissions: int = 0
    cycles: list[float] = field(default_factory=list)
    """CPU seconds of each call of `schedule`."""
    turns: list[float] = field(default_factory=list)
    """The same of `preempt`."""


def tree_of(setup: Setup) -> QueueTree:
    """The queues of all cohorts."""
    quota = {(OTHER_FLAVOR, Resource.CPU): Quota(nominal=NOMINAL, borrowing_limit=BORROWING)}
    return QueueTree.of(
        QueueSpec(name=f"queue-{cohort:02}-{queue:03}", parent=f"cohort-{cohort:02}", quotas=quota, preemption=YIELDING)
        for cohort in range(setup.cohorts)
        for queue in range(setup.queues)
    )


def work_of(setup: Setup, tree: QueueTree, *, part: float = 1.0) -> Work:
    """The workloads, or the first `part` of each set."""
    queues = np.flatnonzero(~tree.cohort)
    rows = [
        (BEGIN + MS * one.every_ms * (number + 1), number_of_class, near)
        for number_of_class, one in enumerate(setup.classes)
        for count, near in zip(one.sets, one.topology or (0,) * len(one.sets), strict=True)
        for number in range(max(1, round(part * count)))
    ]
    arrives_at, of_class, near = (np.repeat(column, queues.size) for column in np.array(rows, dtype=np.int64).T)
    queue = np.tile(queues, len(rows))
    by_time = np.lexsort((queue, of_class, arrives_at))
    of_class, queue = of_class[by_time], queue[by_time]
    columns = [(one.run_ms * MS, one.priority, one.pods, one.cpu_milli) for one in setup.classes]
    run_us, priority, pods, cpu_milli = np.array(columns, dtype=np.int64)[of_class].T
    return Work(
        arrives_at=arrives_at[by_time],
        run_us=run_us,
        priority=priority,
        queue=queue,
        cohort=tree.parent[queue],
        pods=pods,
        cpu_milli=cpu_milli,
        of_class=of_class,
        topology=near[by_time],
    )


def bound(setup: Setup, work: Work) -> int:
    """Microseconds before which nothing can be over, whatever is decided.

    Of each cohort, what arrives from some instant on cannot end before its quotas together could have run it; and nothing ends
    before it has run.
    """
    least = int((work.arrives_at + work.run_us).max()) - BEGIN
    for cohort in range(setup.cohorts):
        mine = work.cohort == cohort
        later = np.cumsum(work.core_us[mine][::-1])[::-1]
        capacity = setup.queues * NOMINAL
        least = max(least, int((work.arrives_at[mine] - BEGIN + later // capacity).max()))
    return least


def play(setup: Setup, *, part: float = 1.0) -> tuple[Work, Outcome]:
    """All of it, from the first arrival to the last end."""
    tree = tree_of(setup)
    game, before = _Game(work_of(setup, tree, part=part), tree, cohorts=setup.cohorts), BEGIN
    while (now := game.next_event()) is not None:
        game.move_to(now)
        game.decide()
        if now // REPORTED_US > before // REPORTED_US:
            progress(f"{(now - BEGIN) // SECOND} s: {game.outcome.admissions:,} admitted")
        before = now
    return game.work, game.outcome


class _Game:
    """The state between two instants. Row of a workload + 1 = its key."""

    def __init__(self, work: Work, tree: QueueTree, *, cohorts: int) -> None:
        count = work.queue.size
        self.work, self.tree, self.now = work, tree, BEGIN
        self.phase = np.full(count, int(Phase.PENDING))
        self.attempt = np.ones(count, dtype=np.int64)
        self.ends_at = np.full(count, np.iinfo(np.int64).max)
        self.over = np.zeros(count, dtype=np.bool_)
        self.node = np.zeros((count, int(work.pods.max())), dtype=np.int64)
        """[workloads, ranks] Key of the node of each rank of what runs."""
        self.nominations: dict[int, Nomination] = {}
        self.displaced_by: dict[int, tuple[int, ...]] = {}
        self.held = np.zeros(cohorts, dtype=np.int64)
        self.outcome = Outcome(
            admitted_at=np.full(count, NOT_YET),
            ended_at=np.full(count, NOT_YET),
            evictions=np.zeros(count, dtype=np.int64),
            peak=[0] * cohorts,
        )

    def next_event(self) -> int | None:
        """When something arrives or ends next; None: never."""
        arrived = np.searchsorted(self.work.arrives_at, self.now, side="right")
        comes = self.work.arrives_at[arrived : arrived + 1].tolist()
        running = np.flatnonzero(self.phase == Phase.RUNNING)
        events = comes + self.ends_at[running].tolist()
        return min(events) if events else None

    def move_to(self, now: int) -> None:
        """What ends until then has ended."""
        self.now = now
        ended = np.flatnonzero((self.phase == Phase.RUNNING) & (self.ends_at <= now))
        self._leave(ended)
        self.phase[ended], self.over[ended], self.outcome.ended_at[ended] = Phase.SUCCEEDED, True, now
        for row in ended.tolist():
            self.displaced_by.pop(row + 1, None)

    def decide(self) -> None:
        """Until nothing is left to be decided at this instant."""
        while True:
            actions = self._timed(schedule, self.outcome.cycles)
            if len(actions) < CHANGES_MAX:
                actions = self._timed(preempt, self.outcome.turns)
                if not actions:
                    return

    def _timed(self, decision: Callable[..., tuple[Action, ...]], seconds: list[float]) -> tuple[Action, ...]:
        """What the decision wants, done; the CPU time that deciding took is noted."""
        snapshot = self.snapshot()
        began = time.process_time()
        actions = decision(snapshot, changes_max=CHANGES_MAX)
        seconds.append(time.process_time() - began)
        self._carry_out(actions)
        return actions

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Allocate():
                    self._start(action)
                case Advance():
                    self.phase[action.workload_key - 1] = action.phase
                case Preempt():
                    self.nominations[action.workload_key] = Nomination(slots=action.slots, until=action.until)
                    for victim in action.victims:
                        self._displace(victim.workload_key, by=action.workload_key)
                case DropNomination():
                    self.nominations.pop(action.workload_key, None)
                case _:
                    msg = f"no rule for {action}"
                    raise TypeError(msg)

    def _start(self, action: Allocate) -> None:
        row, work = action.workload_key - 1, self.work
        self.nominations.pop(action.workload_key, None)
        self.phase[row], self.ends_at[row] = Phase.RUNNING, self.now + work.run_us[row]
        self.node[row, : len(action.slots)] = [slot.node_key for slot in action.slots]
        self.outcome.admitted_at[row] = self.now
        self.outcome.admissions += 1
        cohort = int(work.cohort[row])
        self.held[cohort] += work.pods[row] * work.cpu_milli[row]
        self.outcome.peak[cohort] = max(self.outcome.peak[cohort], int(self.held[cohort]))

    def _displace(self, key: int, *, by: int) -> None:
        """It ends at once, all that it did is lost, and it waits again."""
        row = key - 1
        self._leave(np.array([row]))
        self.phase[row], self.attempt[row] = Phase.QUEUED, self.attempt[row] + 1
        self.displaced_by[key] = (*self.displaced_by.get(key, ()), by)
        self.outcome.evictions[row] += 1

    def _leave(self, rows: Ints) -> None:
        amount = self.work.pods[rows] * self.work.cpu_milli[rows]
        self.outcome.used += int((amount * (self.now - self.outcome.admitted_at[rows])).sum())
        np.subtract.at(self.held, self.work.cohort[rows], amount)

    def snapshot(self) -> Snapshot:
        """The world as the platform would read it now: what has arrived and is not over, and what it holds."""
        rows = np.flatnonzero((self.work.arrives_at <= self.now) & ~self.over)
        running = rows[self.phase[rows] == Phase.RUNNING]
        allocations = self._allocations(running)
        return Snapshot(
            now=self.now,
            seed=0,
            version=1,
            gpu_models=("",),
            nodes=_nodes(allocations),
            workloads=self._workloads(rows),
            allocations=allocations,
            endpoints=(),
            prices=(),
            owners={},
            addresses={},
            queues=self.tree,
            topologies=TOPOLOGIES,
            nominations=self.nominations,
            displaced_by=self.displaced_by,
        )

    def _workloads(self, rows: Ints) -> WorkloadTable:
        work, zeros, no = self.work, np.zeros(rows.size, dtype=np.int64), np.zeros(rows.size, dtype=np.bool_)
        columns: dict[str, Ints | np.ndarray] = dict.fromkeys(WorkloadTable.__dataclass_fields__, zeros)
        columns |= {
            "key": rows + 1,
            "phase": self.phase[rows],
            "priority": work.priority[rows],
            "queue": work.queue[rows],
            "attempt": self.attempt[rows],
            "submitted_at": work.arrives_at[rows],
            **dict.fromkeys(("nodes", "nodes_min", "nodes_max"), work.pods[rows]),
            "cpu_milli": work.cpu_milli[rows],
            "topology": work.topology[rows],
            "preemptible": ~no,
            **dict.fromkeys(("stop_requested", "held", "retry_always"), no),
        }
        return WorkloadTable(**{**columns, "choices": {}, "sets": {}, "equals": {}, "typical_on": {}, "others": {}})

    def _allocations(self, running: Ints) -> AllocationTable:
        """A row for each rank of what runs."""
        work, ranks_max = self.work, self.node.shape[1]
        there = np.arange(ranks_max) < work.pods[running, np.newaxis]
        at, rank = np.nonzero(there)
        row = running[at]
        zeros, no = np.zeros(row.size, dtype=np.int64), np.zeros(row.size, dtype=np.bool_)
        columns: dict[str, Ints | np.ndarray] = dict.fromkeys(AllocationTable.__dataclass_fields__, zeros)
        columns |= {
            "key": row * ranks_max + rank + 1,
            "workload_key": row + 1,
            "attempt": self.attempt[row],
            "rank": rank,
            "node_key": self.node[row, rank],
            "cpu_milli": work.cpu_milli[row],
            "seen": zeros + int(Seen.RUNNING),
            "created_at": self.outcome.admitted_at[row],
            "started_at": self.outcome.admitted_at[row],
            "end": zeros - 1,
            "exit_code": zeros - 1,
            **dict.fromkeys(("stop", "moves", "ready", "surplus"), no),
        }
        return AllocationTable(**columns)


def _nodes(held: AllocationTable) -> NodeTable:
    zeros, no = np.zeros(NODES, dtype=np.int64), np.zeros(NODES, dtype=np.bool_)
    used = np.bincount(held.node_key - 1, weights=held.cpu_milli, minlength=NODES).astype(np.int64)
    needed = (one.name for one in fields(NodeTable) if one.default is one.default_factory is MISSING)
    columns: dict[str, Ints | np.ndarray] = dict.fromkeys(needed, zeros)
    columns |= {
        "key": np.arange(1, NODES + 1),
        "ready": ~no,
        "drains": no,
        "cpu_milli": zeros + NODE_CPU_MILLI,
        "memory_bytes": zeros + (256 << 30),
        "used_cpu_milli": used,
    }
    names = tuple(f"node-{number}" for number in range(NODES))
    return NodeTable(**{**columns, "names": names, "clusters": ("one",) * NODES, "levels": _levels()})


@functools.cache
def _levels() -> dict[str, Level]:
    """One block of ten racks."""
    return levels_of(("one",) * NODES, [{"block": "b", "rack": f"r{number // RACK_NODES}"} for number in range(NODES)])
