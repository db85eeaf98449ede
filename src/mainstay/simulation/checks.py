"""The invariants of reliability.md 3.3, checked from witnesses outside of the database and from the database itself."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np

from mainstay.clusters.simulated import Lodgers, Machines, Witnessed
from mainstay.decide.billing import charges
from mainstay.decide.preemption.rules import displacers
from mainstay.domain.allocation import Allocation, End, Seen
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.billing import GroupBy, Price, UsageRecord
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Kind, Phase, Workload, WorkloadSpec
from mainstay.operations import costs
from mainstay.ports import Store, WorkloadFilter
from mainstay.simulation.history import History
from mainstay.simulation.owners import GPU_NODE
from mainstay.simulation.users import TENANTS, USERS, Answers

FOR_EVER = 1 << 60
PAGE = 1_000
GROUPINGS: tuple[GroupBy, ...] = ("workload", "project", "day")


class Checks:
    """Follows one simulated world; `violations` are sentences that begin with the number of the invariant."""

    def __init__(self, machines: Machines, lodgers: Lodgers) -> None:
        self.violations: list[str] = []
        self._machines = machines
        self._lodgers = lodgers
        self._read = 0
        self._closed: dict[int, tuple[int, int]] = {}
        """Key of a node that is kept out -> since when, and the newest allocation when that was seen."""
        self._running: dict[str, Witnessed] = {}
        self._started: Counter[str] = Counter()
        self._intervals: dict[str, list[int]] = defaultdict(list)

    def after_event(self) -> None:
        """I3 and I5 from what the machines have witnessed since the last call."""
        for line in self._machines.witness[self._read :]:
            self._intervals[line.pod].append(line.at)
            if line.running:
                self._start(line)
            else:
                self._running.pop(line.pod, None)
        self._read = len(self._machines.witness)

    def after_commits(self, store: Store) -> None:
        """I5 from the rows: what nodes say is used is the sum of the allocations that have not ended, and fits."""
        snapshot = store.snapshot(now=0, seed=0)
        nodes, held = snapshot.nodes, snapshot.allocations
        alive = held.seen != Seen.ENDED
        if nodes.key.size == 0:
            return
        row = np.searchsorted(nodes.key, held.node_key[alive])
        for name, of_pods, used, capacity in (
            ("cpu_milli", held.cpu_milli, nodes.used_cpu_milli, nodes.cpu_milli),
            ("memory_bytes", held.memory_bytes, nodes.used_memory_bytes, nodes.memory_bytes),
            ("gpus", held.gpus, nodes.used_gpus, nodes.gpus),
        ):
            sums = np.zeros(nodes.key.size, dtype=np.int64)
            np.add.at(sums, row, of_pods[alive])
            if not np.array_equal(sums, used):
                self.violations.append(f"I5: {name} used {used.tolist()}, held by live allocations {sums.tolist()}")
            if np.any(used > capacity):
                self.violations.append(f"I5: {name} used {used.tolist()} of {capacity.tolist()}")
        self._kept_out(snapshot)
        self._kept_places(snapshot)

    def _kept_places(self, snapshot: Snapshot) -> None:
        """I16: what is kept for one was given to nobody else, and who displaced whom does not go in a circle."""
        nodes, held = snapshot.nodes, snapshot.allocations
        stays = (held.seen != Seen.ENDED) & ~held.stop
        for key, nomination in snapshot.nominations.items():
            if np.any(held.workload_key[held.seen != Seen.ENDED] == key):
                self.violations.append(f"I16: workload {key} has a place, and another one is kept for it")
            for slot in nomination.slots:
                row = int(np.searchsorted(nodes.key, slot.node_key))
                here = stays & (held.node_key == slot.node_key)
                kept = sum(
                    other.resources.cpu_milli
                    for one in snapshot.nominations.values()
                    for other in one.slots
                    if other.node_key == slot.node_key
                )
                if int(held.cpu_milli[here].sum()) + kept > int(nodes.cpu_milli[row]):
                    self.violations.append(f"I16: what is kept for workload {key} on {nodes.names[row]} was given away")
        for key in snapshot.displaced_by:
            if key in displacers(snapshot.displaced_by, key):
                self.violations.append(f"I16: workload {key} was displaced by one that it had displaced in turn")

    def _kept_out(self, snapshot: Snapshot) -> None:
        """I15: since a node is kept out, nothing new was placed there. Keys ascend in the order of commits."""
        nodes, held = snapshot.nodes, snapshot.allocations
        newest = int(held.key.max()) if held.key.size else 0
        for row in range(nodes.key.size):
            key, closed_at = int(nodes.key[row]), int(nodes.closed_at[row])
            if not closed_at:
                self._closed.pop(key, None)
                continue
            since, last = self._closed.setdefault(key, (closed_at, newest))
            if since != closed_at:
                self._closed[key] = (closed_at, newest)
            elif np.any(held.key[held.node_key == key] > last):
                self.violations.append(f"I15: something was placed on {nodes.names[row]} while it was kept out")

    def in_between(self, store: Store) -> None:
        """What the log contradicts already: after some bugs nothing would ever settle."""
        self.violations.extend(History(store).violations)

    def at_the_end(self, store: Store, answers: Answers) -> None:
        """All the rest, once faults have stopped and time has passed."""
        self.after_event()
        self.after_commits(store)
        workloads = _all_workloads(store)
        self._submissions(workloads, answers)
        self._open_work(store, workloads)
        self._pods(store, workloads)
        self._guests(store, workloads)
        self._sets(store, workloads)
        self._bills(store)
        history = History(store)
        history.against_rows(store, workloads)
        history.against_answers(store, answers)
        self.violations.extend(history.violations)
        left = [process.name for process in self._machines.live()]
        if left:
            self.violations.append(f"I9: processes live on after everything has settled: {left[:3]}")
        marked = sorted(node.name for node in self._machines.nodes.values() if node.marked)
        if marked:
            self.violations.append(f"I15: {marked} are still marked, although nobody keeps them out")
        unclosed = store.snapshot(now=0, seed=0).allocations.key.size
        if unclosed:
            self.violations.append(f"I9: {unclosed} allocations are not closed after everything has settled")

    def _start(self, line: Witnessed) -> None:
        self._started[line.pod] += 1
        if self._started[line.pod] > 1:
            self.violations.append(f"I3: pod {line.pod} ran {self._started[line.pod]} times")
        workload = line.gang.rpartition("-")[0]
        others = [one.pod for one in self._running.values() if one.gang != line.gang and _workload(one) == workload]
        if others:
            self.violations.append(f"I3: {line.pod} started while {others[0]} of another attempt ran")
        self._running[line.pod] = line
        here = [one.resources for one in self._running.values() if one.node == line.node]
        capacity = self._machines.nodes[line.node].capacity
        if (
            sum(one.cpu_milli for one in here) > capacity.cpu_milli
            or sum(one.memory_bytes for one in here) > capacity.memory_bytes
            or sum(one.gpus for one in here) > capacity.gpus
        ):
            self.violations.append(f"I5: more runs on {line.node} than it has")

    def _submissions(self, workloads: dict[str, Workload], answers: Answers) -> None:
        """I1 and I2."""
        acknowledged = {**answers.submitted, **answers.deployed}
        lost = sorted(name for name, tenant in acknowledged.items() if not _is_of(workloads.get(name), tenant))
        if lost:
            self.violations.append(f"I1: acknowledged and lost: {lost[:3]}")
        jobs = sum(workload.spec.kind is Kind.JOB for workload in workloads.values())
        if jobs != len(answers.submitted):
            self.violations.append(f"I2: {jobs} jobs exist, {len(answers.submitted)} were acknowledged")
        for workload in workloads.values():
            if not workload.phase.final:
                self.violations.append(f"I1: {workload.id} is {workload.phase.word} after everything has settled")

    def _pods(self, store: Store, workloads: dict[str, Workload]) -> None:
        """I4 and I7, that nothing succeeded without having run, and that an elastic run kept its min count (I17)."""
        prices = store.prices()
        ledger: dict[int, list[tuple[UsageRecord, int]]] = defaultdict(list)
        for tenant in TENANTS:
            for usage, lines in store.usage(tenant=tenant, since=0, until=FOR_EVER):
                ledger[usage.allocation_key].append((usage, sum(line.cost.micros for line in lines)))
        for name, workload in workloads.items():
            ranks: dict[int, list[int]] = defaultdict(list)
            members: dict[int, list[str]] = defaultdict(list)
            for pod in store.allocations(workload.key):
                ranks[pod.attempt].append(pod.rank)
                members[pod.attempt] += [] if pod.surplus else [pod.pod]
                given_up = pod.end is End.LOST and "without being renewed" in pod.detail
                self._recorded(pod.pod, ledger.pop(pod.key, []), prices, given_up=given_up)
            for attempt, given in ranks.items():
                least = workload.spec.nodes_min
                whole = len(given) >= least and (workload.spec.elastic or len(given) == least)
                if not whole or sorted(given) != list(range(len(given))):
                    self.violations.append(f"I7: attempt {attempt} of {name} has the ranks {sorted(given)}")
                if not least <= len(members[attempt]) <= workload.spec.nodes_max:
                    self.violations.append(f"I17: attempt {attempt} of {name} was left with {members[attempt]}")
            if workload.phase is Phase.SUCCEEDED:
                self._ran(workload, members[workload.attempt])
            self._left(workload)
        if ledger:
            self.violations.append(f"I4: usage of unknown allocations: {sorted(ledger)[:3]}")

    def _sets(self, store: Store, workloads: dict[str, Workload]) -> None:
        """I7: each rank holds what its pod set asks for."""
        for workload in workloads.values():
            for pod in store.allocations(workload.key) if workload.spec.sets else ():
                if not _is_of_its_set(workload.spec, pod):
                    self.violations.append(f"I7: {pod.pod} holds {pod.resources}, which its pod set does not ask for")

    def _guests(self, store: Store, workloads: dict[str, Workload]) -> None:
        """I14: a guest has one place at most, on a node that it may use, and is a workload's of its own tenant."""
        placed: dict[str, list[str]] = defaultdict(list)
        for workload in workloads.values():
            for pod in store.allocations(workload.key) if workload.spec.guests else ():
                uid = workload.spec.guests[pod.rank].uid
                if pod.started_at:
                    placed[uid].append(pod.pod)
                if self._lodgers.by_uid[uid].guest.tenant != workload.tenant:
                    self.violations.append(f"I14: {workload.id} of {workload.tenant} is another tenant's pod")
        for uid, lodger in self._lodgers.by_uid.items():
            process = lodger.process
            ran = process is not None and process.started_at > 0
            if placed[uid] != ([process.name] if process is not None and ran else []):
                self.violations.append(f"I14: {uid} is on record as {placed[uid]}, it ran as {process}")
            node = self._machines.nodes.get(process.node) if process is not None else None
            if node is not None and lodger.guest.restriction == GPU_NODE and not node.capacity.gpus:
                self.violations.append(f"I14: {uid} was placed on {node.name}, which does not admit it")

    def _recorded(
        self, pod: str, records: list[tuple[UsageRecord, int]], prices: tuple[Price, ...], *, given_up: bool
    ) -> None:
        """I4 of one pod: what is on record is what it ran, without a gap, and costs what the whole of it costs.

        Of one that was given up, nobody has witnessed all of that: no more is on record than it ran.
        """
        witnessed = self._intervals.get(pod, [])
        records = sorted(records, key=lambda record: record[0].start)
        spans = [(usage.start, usage.end) for usage, _ in records]
        joined = [spans[0][0], spans[-1][1]] if spans else []
        gaps = any(one[1] != other[0] for one, other in pairwise(spans))
        if (given_up or self._went_with_its_node(pod)) and witnessed:
            whole = not joined or (
                joined[0] == witnessed[0] and joined[1] <= witnessed[1]
            )  # up to when it was heard of
        else:
            whole = joined == witnessed or witnessed[0:1] == witnessed[1:2]
        if not whole or gaps:
            self.violations.append(f"I4: {pod} was recorded {spans}, witnessed {witnessed}")
        elif records:
            bill = charges(replace(records[0][0], end=joined[1]), since_start=joined[0], prices=prices)
            if sum(cost for _, cost in records) != sum(line.cost.micros for line in bill):
                self.violations.append(f"I4: the charges of {pod} do not add up to the cost of its time")

    def _went_with_its_node(self, pod: str) -> bool:
        """Nobody knows when it ended, so that it is charged up to its last record."""
        process = self._machines.processes.get(pod)
        return process is not None and process.end is End.LOST and process.ended_at == process.started_at

    def _ran(self, workload: Workload, pods: list[str]) -> None:
        """`pods`: those of its attempt that it was not left without."""
        if workload.spec.guests:
            # One that alone got no place was let go of, and is somebody else's by now.
            pods = [pod for pod in pods if pod in self._machines.processes] or pods
        for pod in pods:
            if len(self._intervals.get(pod, [])) != 2:
                self.violations.append(f"I1: {workload.id} succeeded, but {pod} was not seen to run to its end")

    def _left(self, workload: Workload) -> None:
        """R6: the output is what rank 0 of the attempt that succeeded has written, and nothing else."""
        pod = f"{workload.id}-{workload.attempt}-0"
        keeps = workload.phase is Phase.SUCCEEDED and not workload.spec.guests
        written = self._machines.processes[pod].behaviour.files if keeps else {}
        if workload.output != (digest_of(written) if written else ""):
            self.violations.append(f"R6: the output of {workload.id} is not what {pod} wrote: {workload.output!r}")

    def _open_work(self, store: Store, workloads: Mapping[str, Workload]) -> None:
        """I18: of each tenant as many workloads are open as its count says."""
        found = Counter(one.tenant for one in workloads.values() if not one.phase.final)
        for tenant in {one.tenant for one in workloads.values()}:
            if found[tenant] != (counted := store.open_workloads(tenant)):
                self.violations.append(
                    f"I18: tenant {tenant} has {found[tenant]} open workloads, {counted} are counted"
                )

    def _bills(self, store: Store) -> None:
        """I4: however a bill is grouped, it adds up to what was charged."""
        for user in USERS:
            usage = store.usage(tenant=user.tenant, since=0, until=FOR_EVER)
            charged = sum(line.cost.micros for _, lines in usage for line in lines)
            for group_by in GROUPINGS:
                bill = costs.bill(store, user, group_by=group_by, since=0, until=FOR_EVER, now=0)
                if bill.total_micros != charged:
                    self.violations.append(f"I4: the bill by {group_by} says {bill.total_micros}, not {charged}")


def digest_of(files: Mapping[str, bytes]) -> str:
    """Of the tree of these files."""
    entries = (
        Entry(path=path, size=len(content), digest=hashlib.sha256(content).hexdigest())
        for path, content in sorted(files.items())
    )
    return Tree(entries=tuple(entries)).digest


def _is_of(workload: Workload | None, tenant: str) -> bool:
    return workload is not None and workload.tenant == tenant


def _workload(line: Witnessed) -> str:
    return line.gang.rpartition("-")[0]


def _all_workloads(store: Store) -> dict[str, Workload]:
    found: dict[str, Workload] = {}
    before = 0
    while page := store.workloads(WorkloadFilter(), before=before, limit=PAGE):
        found.update((workload.id, workload) for workload in page)
        before = page[-1].key
    return found


def _is_of_its_set(spec: WorkloadSpec, pod: Allocation) -> bool:
    found = spec.place_in_set(pod.rank)
    if found is None:
        return True
    asked, held = found[0].resources, pod.resources
    alike = (asked.cpu_milli, asked.memory_bytes, asked.gpus) == (held.cpu_milli, held.memory_bytes, held.gpus)
    return alike and asked.gpu_model in {"", held.gpu_model}
