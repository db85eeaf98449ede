"""Kueue's published cases as tables of numbers: what queues may use in trees with limits, and who yields for whom.

Sources: TestAvailable (pkg/cache), TestPreemption and TestHierarchicalPreemptions (pkg/scheduler/preemption), 2025, retyped as
numbers. Priorities are shifted by 50, as ours begin at 0. No answer differs; those of its cases that ask for several flavors at
once or for admission by halves are not among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from mainstay.decide.preemption import preempt
from mainstay.decide.quota import available, quotas_of, usage
from mainstay.domain.preemption import Borrow, PreemptionPolicy, Reclaim, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB
from mainstay.domain.queue import QueueSpec, QueueTree, Quota
from mainstay.domain.workload import Phase
from tests.unit.decide.test_quota import cohort, queue
from tests.worlds import NOON, SECOND, allocation, node, workload, world

HOUR = 3_600 * SECOND


def lends(nominal: int, limit: int) -> Quota:
    return Quota(nominal=nominal, lending_limit=limit)


def borrows(nominal: int, limit: int) -> Quota:
    return Quota(nominal=nominal, borrowing_limit=limit)


Left = Mapping[str, float]
AVAILABLE: dict[str, tuple[Sequence[QueueSpec], Left, Left, Left]] = {
    # rows; what is used; what may be used at all; what may be used beside that. In cores of one flavor.
    "no cohort": (
        (queue("cq1", cpu=0), queue("cq2", cpu=5)),
        {"cq1": 1, "cq2": 2.5},
        {"cq1": 0, "cq2": 5},
        {"cq1": 0, "cq2": 2.5},
    ),
    "a cohort with its own": (
        (queue("cq1", "c", cpu=10), queue("cq2", "c", cpu=lends(10, 9)), cohort("c", cpu=10)),
        {"cq1": 1, "cq2": 0.5},
        {"cq1": 29, "cq2": 30},
        {"cq1": 28, "cq2": 28.5},
    ),
    "borrows from its cohort": ((queue("cq1", "c", cpu=10), cohort("c", cpu=10)), {"cq1": 11}, {"cq1": 20}, {"cq1": 9}),
    "too much used spills into the cohort": (
        (
            queue("cq1", "c", cpu=10),
            queue("cq2", "c", cpu=Quota(nominal=10, borrowing_limit=0, lending_limit=0)),
            cohort("c", cpu=10),
        ),
        {"cq1": 31},
        {"cq1": 20, "cq2": 10},
        {"cq1": 0, "cq2": 0},
    ),
    "limits of both kinds": (
        (
            queue("cq1", "c", cpu=10),
            queue("cq2", "c", cpu=borrows(10, 2)),
            queue("cq3", "c", cpu=lends(10, 5)),
            cohort("c", cpu=10),
        ),
        {"cq1": 20, "cq2": 10, "cq3": 6},
        {"cq1": 35, "cq2": 12, "cq3": 40},
        {"cq1": 4, "cq2": 2, "cq3": 4},
    ),
    "a tree": (
        (
            *(cohort("root"), cohort("left", "root", cpu=10), cohort("right", "root", cpu=10)),
            *(queue("cq1", "left", cpu=10), queue("cq2", "right", cpu=lends(10, 0))),
        ),
        {"cq1": 10, "cq2": 5},
        {"cq1": 30, "cq2": 40},
        {"cq1": 20, "cq2": 25},
    ),
    "limits to borrow in a tree": (
        (
            *(cohort("root"), cohort("left", "root", cpu=borrows(10, 5)), cohort("right", "root", cpu=10)),
            *(queue("cq1", "left", cpu=10), queue("cq2", "left", cpu=borrows(10, 5)), queue("cq3", "right", cpu=10)),
        ),
        {},
        {"cq1": 35, "cq2": 15, "cq3": 50},
        {"cq1": 35, "cq2": 15, "cq3": 50},
    ),
    "limits to lend in a tree, more than a cohort has itself": (
        (
            *(cohort("root"), cohort("left", "root", cpu=lends(0, 5)), cohort("right", "root", cpu=0)),
            *(queue("cq1", "left", cpu=lends(10, 5)), queue("cq2", "left", cpu=10)),
            *(queue("cq3", "right", cpu=0), queue("cq4", "root", cpu=0)),
        ),
        {},
        {"cq1": 20, "cq2": 15, "cq3": 5, "cq4": 5},
        {"cq1": 20, "cq2": 15, "cq3": 5, "cq4": 5},
    ),
}


@pytest.mark.parametrize("name", AVAILABLE)
def test_what_may_be_used_is_kueues(name: str) -> None:
    """There a shortfall is told as 0, here as a negative number."""
    rows, used, at_all, left = AVAILABLE[name]
    tree = QueueTree.of(rows)
    quotas = quotas_of(tree)
    own = np.zeros(tree.nominal.shape)
    for queue_, cores in used.items():
        own[tree.names.index(queue_), 0] = 2 * cores  # halves of a core, so that all are whole
    doubled = QueueTree.of([_doubled(row) for row in rows])
    found = available(quotas_of(doubled), usage(quotas_of(doubled), own.astype(np.int64)))
    nothing = available(quotas, np.zeros(tree.nominal.shape, dtype=np.int64))
    for queue_ in at_all:
        row = tree.names.index(queue_)
        assert (int(quotas.potential[row, 0]), int(nothing[row, 0])) == (at_all[queue_], at_all[queue_])
        assert max(0, int(found[row, 0])) / 2 == left[queue_]


def _doubled(row: QueueSpec) -> QueueSpec:
    def twice(amount: int | None) -> int | None:
        return None if amount is None else 2 * amount

    quotas = {
        cell: Quota(
            nominal=2 * one.nominal, borrowing_limit=twice(one.borrowing_limit), lending_limit=twice(one.lending_limit)
        )
        for cell, one in row.quotas.items()
    }
    return QueueSpec(name=row.name, parent=row.parent, cohort=row.cohort, quotas=quotas)


def spec(
    name: str, parent: str, policy: PreemptionPolicy, *, cpu: int, gib: int | None = None, **limits: int
) -> QueueSpec:
    """A queue with so many cores; limits are of cores and, to borrow, of GiB as many as it has."""
    cores = Quota(nominal=1_000 * cpu, **{f"{kind}_limit": 1_000 * one for kind, one in limits.items()})
    quotas = {("default", "cpu"): cores}
    if gib is not None:
        more = gib * BYTES_PER_GIB if limits else None
        quotas["default", "memory"] = Quota(nominal=gib * BYTES_PER_GIB, borrowing_limit=more)
    return QueueSpec(name=name, parent=parent, quotas=quotas, preemption=policy)


LOWER, NEVER = WithinQueue.LOWER_PRIORITY, WithinQueue.NEVER
ALONE = PreemptionPolicy(within_queue=LOWER)
LOWER_LOWER = PreemptionPolicy(within_queue=LOWER, reclaim=Reclaim.LOWER_PRIORITY)
NEVER_ANY = PreemptionPolicy(within_queue=NEVER, reclaim=Reclaim.ANY)
LOWER_ANY = PreemptionPolicy(within_queue=LOWER, reclaim=Reclaim.ANY)
BORROWS = PreemptionPolicy(reclaim=Reclaim.LOWER_PRIORITY, borrow=Borrow.LOWER_PRIORITY, borrow_priority_max=50)
ANY_BORROWS = PreemptionPolicy(
    within_queue=LOWER, reclaim=Reclaim.ANY, borrow=Borrow.LOWER_PRIORITY, borrow_priority_max=50
)
QUEUES = (
    spec("standalone", "", ALONE, cpu=6),
    spec("c1", "cohort", LOWER_LOWER, cpu=6, gib=3, borrowing=6),
    spec("c2", "cohort", NEVER_ANY, cpu=6, gib=3, borrowing=6),
    spec("d1", "no-limits", LOWER_LOWER, cpu=6, gib=3),
    spec("d2", "no-limits", NEVER_ANY, cpu=6, gib=3),
    spec("l1", "legion", LOWER_LOWER, cpu=6, gib=3, borrowing=12),
    spec("newer", "", PreemptionPolicy(within_queue=WithinQueue.LOWER_OR_NEWER_EQUAL_PRIORITY), cpu=6),
    spec("a-standard", "shared-by-all", BORROWS, cpu=1, borrowing=12),
    spec("b-standard", "shared-by-all", ANY_BORROWS, cpu=1, borrowing=12),
    spec("a-best-effort", "shared-by-all", BORROWS, cpu=1, borrowing=12),
    spec("b-best-effort", "shared-by-all", BORROWS, cpu=0, borrowing=13),
    spec("shared", "shared-by-all", PreemptionPolicy(), cpu=10),
    spec("lend1", "lending", LOWER_LOWER, cpu=6, lending=4),
    spec("lend2", "lending", LOWER_LOWER, cpu=6, lending=2),
    QueueSpec(name="r", cohort=True),
    QueueSpec(name="c", cohort=True, parent="r", quotas={("default", "cpu"): Quota(nominal=2_000)}),
    spec("q", "c", LOWER_ANY, cpu=0),
    spec("q-borrowing", "r", LOWER_ANY, cpu=0),
)
NOMINAL = spec("q-nominal", "r", LOWER_ANY, cpu=2)


@dataclass(frozen=True, slots=True)
class Case:
    """Who runs: name -> (queue, priority, cores); who waits: (queue, priority, cores, GiB); the names of those who yield."""

    runs: Mapping[str, tuple[str, int, int]]
    waits: tuple[str, int, int, int]
    yields: tuple[str, ...] = ()
    more: tuple[QueueSpec, ...] = ()


def of(name: str, **runs: tuple[int, int]) -> dict[str, tuple[str, int, int]]:
    """Work of one queue: name -> (priority, cores)."""
    return {work: (name, *what) for work, what in runs.items()}


WHO_YIELDS: dict[str, Case] = {
    "the lowest priority": Case(
        of("standalone", low=(-1, 2), mid=(0, 2), high=(1, 2)), ("standalone", 1, 2, 0), ("low",)
    ),
    "several": Case(of("standalone", low=(-1, 2), mid=(0, 2), high=(1, 2)), ("standalone", 1, 3, 0), ("low", "mid")),
    "not for a low priority": Case(of("standalone", low=(-1, 3), mid=(0, 3)), ("standalone", -1, 1, 0)),
    "too few of a low priority": Case(of("standalone", low=(-1, 3), mid=(0, 3)), ("standalone", 0, 4, 0)),
    "some is free": Case(of("standalone", low=(-1, 1), mid=(0, 1), high=(1, 3)), ("standalone", 1, 2, 0), ("low",)),
    "the fewest, without the lowest": Case(
        of("standalone", low=(-1, 1), mid=(0, 2), high=(1, 3)), ("standalone", 1, 2, 0), ("mid",)
    ),
    "reclaimed from who borrows": Case(
        of("c1", low=(-1, 3)) | of("c2", c2mid=(0, 3), c2high=(1, 6)), ("c1", 1, 3, 0), ("c2mid",)
    ),
    "nobody borrows": Case(of("c1", high=(1, 4)) | of("c2", c2low=(-1, 4)), ("c1", 1, 4, 0)),
    "too little is borrowed": Case(of("c1", high=(1, 4)) | of("c2", one=(-1, 4), two=(-1, 4)), ("c1", 1, 4, 0)),
    "its own work, and another resource borrowed": Case(
        of("c1", low=(-1, 4)) | of("c2", c2low=(-1, 4), c2high=(1, 4)), ("c1", 1, 4, 5), ("low",)
    ),
    "its own work, and the same resource borrowed": Case(
        of("c1", med=(0, 4), low=(-1, 4)) | of("c2", c2low=(-1, 4)), ("c1", 1, 4, 0), ("low",)
    ),
    "the same without limits": Case(
        of("d1", med=(0, 4), low=(-1, 4)) | of("d2", d2low=(-1, 4)), ("d1", 1, 4, 0), ("low",)
    ),
    "its own work where others borrow, too": Case(
        of("c1", med=(0, 4)) | of("c2", one=(-1, 5), two=(-1, 1), three=(-1, 1)), ("c1", 1, 2, 5), ("med",)
    ),
    "alone in its cohort": Case(of("l1", med=(0, 4), low=(-1, 2)), ("l1", 1, 4, 0), ("med",)),
    "not of the same priority": Case(of("c1", own=(0, 2)) | of("c2", one=(0, 4), two=(0, 4)), ("c1", 0, 4, 0)),
    "of the same priority, of any": Case(
        of("c1", one=(0, 4), two=(1, 4)) | of("c2", own=(0, 2)), ("c2", 0, 4, 0), ("one",)
    ),
    "of all queues of the cohort": Case(
        of("c1", low=(-1, 3), mid=(0, 2)) | of("c2", c2low=(-1, 3), c2mid=(0, 4)), ("c1", 0, 4, 0), ("c2low", "low")
    ),
    "never within the queue": Case(of("c2", low=(-1, 3)), ("c2", 1, 4, 0)),
    "the newer of equals": Case(of("newer", wl1=(2, 2), wl3=(1, 2), wl2=(1, 2)), ("newer", 1, 2, 0), ("wl2",)),
    "while it borrows": Case(
        of("a-best-effort", alow=(-1, 10)) | of("b-best-effort", blow=(-1, 1)), ("a-standard", 0, 10, 0), ("alow",)
    ),
    "not above the threshold while it borrows": Case(of("b-standard", other=(1, 10)), ("a-standard", 2, 10, 0)),
    "above the threshold, for its own": Case(of("b-standard", other=(1, 13)), ("a-standard", 2, 1, 0), ("other",)),
    "not of its own queue": Case(of("a-standard", own=(1, 13)), ("a-standard", 2, 1, 0)),
    "only of its own queue, as nobody is below the threshold": Case(
        of("a-standard", one=(1, 10), two=(1, 1)) | of("b-standard", mid=(1, 1), high=(2, 1)),
        ("b-standard", 3, 1, 0),
        ("mid",),
    ),
    "of its own queue and of others below the threshold": Case(
        of("b-standard", high=(2, 10), mid=(1, 1)) | of("a-best-effort", low=(-1, 1), lower=(-2, 1)),
        ("b-standard", 2, 2, 0),
        ("lower", "mid"),
    ),
    "reclaimed where only some is lent": Case(
        of("lend1", low=(-1, 3)) | of("lend2", mid=(0, 3), high=(1, 4)), ("lend1", 1, 3, 0), ("mid",)
    ),
    "the quota of a cohort": Case(of("q-borrowing", other=(0, 2)), ("q", 0, 2, 0), ("other",)),
    "nobody who has no more than their own": Case(
        of("q-nominal", low=(-10, 2)) | of("q-borrowing", other=(0, 2)), ("q", 0, 2, 0), ("other",), (NOMINAL,)
    ),
    "several, for the quota of a cohort": Case(
        of("q-borrowing", one=(1, 1), two=(2, 1)), ("q", 0, 2, 0), ("one", "two")
    ),
}


@pytest.mark.parametrize("name", WHO_YIELDS)
def test_who_yields_is_kueues(name: str) -> None:
    """On a node with room for all: only quotas are short. Of equals the later one listed began later."""
    case = WHO_YIELDS[name]
    keys = {work: key for key, work in enumerate(case.runs, 1)}
    queue_, priority, cores, gib = case.waits
    work = [
        workload(keys[one], queue=where, priority=50 + urgent, cpus=cpus, gib=0, phase=Phase.RUNNING, submitted_at=NOON)
        for one, (where, urgent, cpus) in case.runs.items()
    ]
    begun = {one: NOON - 2 * HOUR + key * 60 * SECOND for one, key in keys.items()}
    pods = [
        allocation(keys[one], cpus=cpus, gib=0, created_at=begun[one], started_at=begun[one])
        for one, (_, _, cpus) in case.runs.items()
    ]
    asks = workload(
        99,
        queue=queue_,
        priority=50 + priority,
        cpus=cores,
        gib=gib,
        phase=Phase.QUEUED,
        submitted_at=NOON - 15 * SECOND,
    )
    snapshot = world(
        nodes=[node(cpus=1_000, gib=1_000)], queues=[*QUEUES, *case.more], workloads=[*work, asks], allocations=pods
    )
    found = [one.workload_key for action in preempt(snapshot) for one in action.victims]
    assert sorted(one for one, key in keys.items() if key in found) == sorted(case.yields)
