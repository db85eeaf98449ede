"""What must hold after faults, whatever they were: what the machines have witnessed, against what is on record and promised."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Any

from mainstay.clusters.kubernetes import names
from mainstay.domain.workload import Phase, Workload
from mainstay.ports import Store, WorkloadFilter
from testbed.puppets import Process, Puppets

RETURNED_SECONDS = 15.0
RECORD_EXCESS_SECONDS = 2.0
"""Times in objects have a resolution of a second, at both ends."""
FAR_FUTURE = 1 << 60


class Promise(StrEnum):
    """What can be broken."""

    SETTLED = "everything comes to its end"
    KEPT = "nothing that was submitted is lost"
    ONCE = "no pod runs twice"
    APART = "no attempt runs beside another"
    PLACED = "what is bound to a cluster runs there"
    EARNED = "nothing succeeds without having run"
    TIDY = "nothing is left behind"
    CHARGED = "what ran is charged, and nothing else"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One promise that was broken, and how."""

    promise: Promise
    how: str

    def __repr__(self) -> str:
        return f"{self.promise}: {self.how}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The records of a platform, and the witnesses that none of its databases can touch."""

    store: Store
    tenant: str
    puppets: Mapping[str, Puppets]
    """Of each cluster, by its name."""
    submitted: Sequence[str]
    """Ids of workloads that were acknowledged."""

    def workloads(self) -> dict[str, Workload]:
        """All, by id."""
        found: dict[str, Workload] = {}
        before = 0
        while page := self.store.workloads(WorkloadFilter(), before=before, limit=1_000):
            found |= {workload.id: workload for workload in page}
            before = page[-1].key
        return found

    def history(self) -> list[Process]:
        """All that ever ran, wherever."""
        return [process for puppets in self.puppets.values() for process in puppets.history]

    def running(self) -> list[Process]:
        """What runs now."""
        return [process for process in self.history() if process.runs]

    def settled(self) -> bool:
        """Whether every workload is final and every allocation closed."""
        snapshot = self.store.snapshot(now=0, seed=0)
        return not snapshot.workloads.key.size and not snapshot.allocations.key.size


def violations(found: Evidence, *, settled: bool) -> Iterator[Violation]:
    """What the machines have witnessed, against the promises and against what is on record."""
    workloads = found.workloads()
    if not settled:
        unfinished = {name: one.phase.word for name, one in workloads.items() if not one.phase.final}
        yield Violation(
            promise=Promise.SETTLED, how=f"not settled: {dict(list(unfinished.items())[:5]) or 'allocations stay open'}"
        )
        for row in [row for cluster in found.store.clusters() for row in found.store.wanted(cluster.name)][:5]:
            held = row.allocation
            pods = found.puppets[held.cluster].pods()
            there = [pod["status"] for pod in pods if pod["metadata"]["name"] == held.pod]
            ran = [(process.started, process.ended) for process in found.history() if process.pod == held.pod]
            how = f"{held.pod} on {held.node}: {held.seen.name}, stop {held.stop}, end {held.end}; {ran=}; {there=}"
            yield Violation(promise=Promise.SETTLED, how=how)
    lost = [name for name in found.submitted if name not in workloads]
    if lost:
        yield Violation(promise=Promise.KEPT, how=f"lost: {lost[:3]}")
    runs: dict[str, list[Process]] = defaultdict(list)
    for process in found.history():
        runs[workload_of(process.pod)].append(process)
    for name, processes in runs.items():
        yield from _of_workload(name, sorted(processes, key=lambda one: one.started))
    yield from _of_places(found, workloads)
    for name, workload in workloads.items():
        ended_well = any(one.ended and one.exit_code == 0 for one in runs[name])
        if workload.phase is Phase.SUCCEEDED and not ended_well:
            yield Violation(promise=Promise.EARNED, how=f"{name} succeeded without having run to its end")
    if settled:
        for one in found.running():
            yield Violation(promise=Promise.TIDY, how=f"{one.pod} runs on")
    yield from _of_ledger(found, workloads, runs)


def _of_workload(name: str, processes: list[Process]) -> Iterator[Violation]:
    pods = [one.pod for one in processes]
    for pod in {pod for pod in pods if pods.count(pod) > 1}:
        yield Violation(promise=Promise.ONCE, how=f"pod {pod} ran {pods.count(pod)} times")
    for one, other in combinations(processes, 2):
        beside = not one.ended or other.started < one.ended
        if beside and _attempt_of(one.pod) != _attempt_of(other.pod):
            until = (one.ended or time.monotonic()) - other.started
            yield Violation(promise=Promise.APART, how=f"{other.pod} started {until:.2f} s before {one.pod} had ended")


def _of_places(found: Evidence, workloads: dict[str, Workload]) -> Iterator[Violation]:
    for cluster, puppets in found.puppets.items():
        for process in puppets.history:
            whose = workloads.get(workload_of(process.pod))
            if whose is not None and whose.spec.cluster not in {"", cluster}:
                yield Violation(promise=Promise.PLACED, how=f"{process.pod} ran on {cluster}")


def _of_ledger(found: Evidence, workloads: dict[str, Workload], runs: dict[str, list[Process]]) -> Iterator[Violation]:
    """Nothing is charged that was not witnessed, and what ended by itself is charged in full."""
    seconds: dict[int, float] = defaultdict(float)
    for usage, _ in found.store.usage(tenant=found.tenant, since=0, until=FAR_FUTURE):
        seconds[usage.allocation_key] += (usage.end - usage.start) / 1e6
    for name, workload in workloads.items():
        for allocation in found.store.allocations(workload.key):
            witnessed = sum(one.ended - one.started for one in runs[name] if one.pod == allocation.pod and one.ended)
            recorded = seconds.pop(allocation.key, 0.0)
            if recorded > witnessed + RECORD_EXCESS_SECONDS:
                yield Violation(
                    promise=Promise.CHARGED,
                    how=f"{allocation.pod} is charged for {recorded:.1f} s and ran {witnessed:.1f} s",
                )
            exited = allocation.end is not None and allocation.end.value == "exited"
            if exited and recorded < witnessed - RECORD_EXCESS_SECONDS:
                yield Violation(
                    promise=Promise.CHARGED,
                    how=f"{allocation.pod} is charged for {recorded:.1f} s only and ran {witnessed:.1f} s",
                )
    if seconds:
        yield Violation(promise=Promise.CHARGED, how=f"usage of unknown allocations: {sorted(seconds)[:3]}")


async def orphans(pods: Callable[[], Awaitable[list[dict[str, Any]]]]) -> list[Violation]:
    """Pods of ours in the cluster that are not their own tombstones, once everything has settled. `pods` asks for all of ours.

    What came back with a cluster that was set back is let go of as soon as it is seen.
    """
    deadline = time.monotonic() + RETURNED_SECONDS
    while left := [pod["metadata"]["name"] for pod in await pods() if not _is_tombstone(pod)]:
        if time.monotonic() >= deadline:
            break
        await asyncio.sleep(0.2)
    return [Violation(promise=Promise.TIDY, how=f"pod {name} stays in the cluster") for name in left]


def _is_tombstone(pod: dict[str, Any]) -> bool:
    return names.FORGOTTEN in pod["metadata"]["labels"] or names.TOMBSTONE in pod["metadata"]["labels"]


def workload_of(pod: str) -> str:
    """`WORKLOAD-ATTEMPT-RANK` without the last two."""
    return pod.rsplit("-", 2)[0]


def _attempt_of(pod: str) -> str:
    """Without the rank: the ranks of one attempt run beside each other."""
    return pod.rsplit("-", 1)[0]
