"""Each action of a turn of preemption stands for itself, and what is kept is only taken once its quota is free, too."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from mainstay.decide.nomination import settle
from mainstay.decide.preemption import balance as balance_module
from mainstay.decide.preemption import preempt
from mainstay.decide.preemption.balance import Balance
from mainstay.decide.quota import Quotas, available, quotas_of, usage
from mainstay.domain.arrays import Ints
from mainstay.domain.plan import Allocate
from mainstay.domain.preemption import Nomination, PreemptionPolicy, Reclaim, Rule, Slot, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, AWorkload, allocation, node, workload, world

LOWER = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)
RECLAIMS = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY, reclaim=Reclaim.ANY)
CPU = ("default", "cpu")


def running(key: int, *, cpus: int) -> AWorkload:
    return workload(key, queue="q", priority=10, cpus=cpus, phase=Phase.RUNNING)


def urgent(key: int, **values: object) -> AWorkload:
    return workload(key, queue="q", priority=100 - key, phase=Phase.QUEUED, **values)


def who(snapshot: Snapshot) -> list[tuple[int, list[int]]]:
    """Who displaces whom."""
    return [(action.workload_key, [one.workload_key for one in action.victims]) for action in preempt(snapshot)]


def test_nobody_yields_for_a_gang_that_also_needs_what_is_left_where_another_displaces() -> None:
    """If that one were refused, half of the gang would have no place, and whoever had yielded had done so in vain."""
    snapshot = world(
        nodes=[node(cpus=8), node(cpus=2)],
        queues=[QueueSpec(name="q", preemption=LOWER)],
        workloads=[running(8, cpus=8), running(9, cpus=2), urgent(1, cpus=5), urgent(2, cpus=2, nodes=2)],
        allocations=[allocation(8, node_key=1, cpus=8), allocation(9, node_key=2, cpus=2)],
    )
    assert who(snapshot) == [(1, [8])]


def test_nobody_yields_for_one_that_also_needs_the_quota_that_another_leaves() -> None:
    snapshot = world(
        nodes=[node(cpus=32)],
        queues=[QueueSpec(name="q", preemption=LOWER, quotas={("default", "cpu"): Quota(nominal=10_000)})],
        workloads=[running(8, cpus=8), running(9, cpus=2), urgent(1, cpus=5), urgent(2, cpus=5)],
        allocations=[allocation(8, cpus=8), allocation(9, cpus=2)],
    )
    assert who(snapshot) == [(1, [8])]


def test_those_who_need_nothing_of_each_other_displace_in_one_turn() -> None:
    quotas = {("default", "cpu"): Quota(nominal=10_000)}
    snapshot = world(
        nodes=[node(cpus=8), node(cpus=2)],
        queues=[QueueSpec(name="q", preemption=LOWER, quotas=quotas)],
        workloads=[running(8, cpus=8), running(9, cpus=2), urgent(1, cpus=8), urgent(2, cpus=2)],
        allocations=[allocation(8, node_key=1, cpus=8), allocation(9, node_key=2, cpus=2)],
    )
    assert who(snapshot) == [(1, [8]), (2, [9])]


def test_nobody_yields_for_one_that_lacks_quota_if_another_is_refused_and_a_third_is_not() -> None:
    """Queue a lends none of its 10, and uses 9. Run 1 takes 5 away from it, of which nothing was lent; run 2 adds 6."""
    a = QueueSpec(name="a", parent="all", preemption=RECLAIMS, quotas={CPU: Quota(nominal=10_000, lending_limit=0)})
    b = QueueSpec(name="b", parent="all", preemption=LOWER, quotas={CPU: Quota(nominal=0)})
    snapshot = world(
        nodes=[node(cpus=6, gpus=1, gpu_model="A100"), node(cpus=3), node(cpus=6), node(cpus=9, gib=1)],
        queues=[QueueSpec(name="all", cohort=True, quotas={CPU: Quota(nominal=10_000)}), a, b],
        workloads=[
            workload(6, queue="a", priority=10, cpus=6, gpus=1, phase=Phase.RUNNING),
            workload(7, queue="a", priority=10, cpus=3, phase=Phase.RUNNING, preemptible=False),
            workload(8, queue="b", priority=10, cpus=1, phase=Phase.RUNNING),
            workload(9, queue="b", priority=20, cpus=1, phase=Phase.RUNNING),
            workload(1, queue="a", priority=90, cpus=1, gpus=1, phase=Phase.QUEUED),
            workload(2, queue="a", priority=80, cpus=6, phase=Phase.QUEUED),
            workload(3, queue="b", priority=70, cpus=9, phase=Phase.QUEUED),
        ],
        allocations=[
            allocation(6, node_key=1, cpus=6, gpus=1, gpu_model="A100"),
            allocation(7, node_key=2, cpus=3),
            allocation(8, node_key=3, cpus=1),
            allocation(9, node_key=4, cpus=1),
        ],
    )
    assert who(snapshot) == [(1, [6]), (2, [8])]


@pytest.mark.parametrize("seed", range(150))
def test_the_most_that_is_used_with_any_of_some_changes_is_exact(seed: int) -> None:
    """Against all subsets of them. What the last queue has counted already, it has quota for whenever nothing might be over."""
    snapshot, own, changes = tree_with_changes(random.Random(seed))
    balance, quotas, queue = Balance(snapshot), quotas_of(snapshot.queues), len(own) - 1
    ways = [
        own + sum(chosen, np.zeros_like(own)) for k in range(len(changes) + 1) for chosen in combinations(changes, k)
    ]
    used = np.stack([usage(quotas, one[:, np.newaxis])[:, 0] for one in ways])
    as_mappings = [dict(enumerate(change.tolist())) for change in changes]
    for row in range(own.size):
        assert balance.most_used(row, 0, as_mappings) == used[:, row].max()
    wish = int(own[queue])
    if (
        min(available_beside(quotas, one, queue, wish) for one in ways)
        < wish
        <= available_beside(quotas, own, queue, wish)
    ):
        assert balance.might_be_over(queue, {0: as_mappings})


@pytest.mark.parametrize("seed", range(50))
def test_where_too_many_have_lending_limits_no_less_is_reckoned_with(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, own, changes = tree_with_changes(random.Random(seed))
    as_mappings = [dict(enumerate(change.tolist())) for change in changes]
    exact = [Balance(snapshot).most_used(row, 0, as_mappings) for row in range(own.size)]
    monkeypatch.setattr(balance_module, "CLIPS_MAX", 0)
    bound = [Balance(snapshot).most_used(row, 0, as_mappings) for row in range(own.size)]
    assert all(one >= other for one, other in zip(bound, exact, strict=True))


def tree_with_changes(rng: random.Random) -> tuple[Snapshot, Ints, list[Ints]]:
    """Two levels of cohorts and five queues: what each holds of its CPU quota [rows], and some changes of that [rows]."""

    def limited(name: str, parent: str, *, cohort: bool = False) -> QueueSpec:
        nominal = rng.randint(0, 8)
        limits = {
            "borrowing_limit": rng.choice((None, None, 1, 4)),
            "lending_limit": rng.choice((None, 0, nominal // 2)),
        }
        quota = Quota(nominal=nominal, **(limits if parent else {}))
        return QueueSpec(name=name, parent=parent, cohort=cohort, quotas={CPU: quota})

    above = [limited("all", "", cohort=True), limited("some", "all", cohort=True)]
    leaves = [limited(f"q{number}", rng.choice(("all", "some", "some"))) for number in range(5)]
    held = {spec.name: rng.randint(0, 12) for spec in leaves}
    snapshot = world(
        nodes=[node(cpus=100)],
        queues=above + leaves,
        workloads=[
            workload(key, queue=name, cpus=amount / 1_000, phase=Phase.RUNNING)
            for key, (name, amount) in enumerate(held.items(), 1)
        ],
        allocations=[allocation(key, cpus=amount / 1_000) for key, amount in enumerate(held.values(), 1)],
    )
    own = np.array([held.get(name, 0) for name in snapshot.queues.names], dtype=np.int64)
    left, changes = own.copy(), list[Ints]()
    for _ in range(rng.randint(1, 5)):
        change = np.zeros_like(own)
        for name in rng.sample(sorted(held), rng.randint(1, 3)):
            row = snapshot.queues.names.index(name)
            # No more goes than there is, whichever of them come about; of the last queue, which is asked about, nothing does.
            change[row] = rng.randint(-int(left[row]) if row < own.size - 1 else 0, 6)
            left[row] += min(0, change[row])
        changes.append(change)
    return snapshot, own, changes


def available_beside(quotas: Quotas, own: Ints, queue: int, wish: int) -> int:
    """What the queue may use beside what all use, its own wish not among that."""
    others = own.copy()
    others[queue] -= wish
    return int(available(quotas, usage(quotas, others[:, np.newaxis]))[queue, 0])


def test_what_is_kept_is_not_taken_while_those_who_leave_hold_its_quota() -> None:
    """Its node has room already."""
    kept = Slot(rank=0, node_key=1, resources=Resources(cpu_milli=4_000, memory_bytes=BYTES_PER_GIB))
    leaves = allocation(8, node_key=2, cpus=8, stop=True, moves=True, preempted=int(Rule.WITHIN_QUEUE))
    snapshot = world(
        nodes=[node(cpus=8), node(cpus=8)],
        queues=[QueueSpec(name="q", preemption=LOWER, quotas={("default", "cpu"): Quota(nominal=8_000)})],
        workloads=[running(8, cpus=8), urgent(1, cpus=4)],
        allocations=[leaves],
        nominations={1: Nomination(slots=(kept,), until=NOON + 60 * SECOND)},
        displaced_by={8: (1,)},
    )
    assert list(settle(snapshot)) == []
    gone = replace(snapshot, allocations=world(nodes=[node(), node()]).allocations)
    (action,) = settle(gone)
    assert isinstance(action, Allocate)
    assert action.workload_key == 1
