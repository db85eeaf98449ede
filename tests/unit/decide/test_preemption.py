"""Who yields for whom: tables for what is known, properties for what must always hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mainstay.decide.explain import explain
from mainstay.decide.lifecycle import lifecycle
from mainstay.decide.nomination import reserved
from mainstay.decide.placement.fit import Request, free_of
from mainstay.decide.preemption import preempt
from mainstay.decide.preemption.search import Search
from mainstay.decide.schedule import schedule
from mainstay.domain.allocation import End, Seen
from mainstay.domain.plan import Advance, Allocate
from mainstay.domain.preemption import (
    DISPLACED_MAX,
    Borrow,
    FairShare,
    Nomination,
    PreemptionPolicy,
    Reclaim,
    Rule,
    Slot,
    WithinQueue,
)
from mainstay.domain.quantity import BYTES_PER_GIB, Resources
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, AnAllocation, AWorkload, allocation, ended, lies, node, workload, world

HOUR = 3_600 * SECOND
LOWER = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY)


def queue(name: str, policy: PreemptionPolicy = LOWER, *, own: int | None = None, **values: Any) -> QueueSpec:
    """A queue with so many GPUs as its own, if any."""
    quotas = {} if own is None else {("default", "gpu"): Quota(nominal=own)}
    return QueueSpec(name=name, preemption=policy, quotas=quotas, **values)


def waits(key: int, **values: Any) -> AWorkload:
    """It has been looked for a place, and there was none."""
    return workload(key, **{"phase": Phase.QUEUED, "queue": "a", **values})


def runs(key: int, **values: Any) -> AWorkload:
    return workload(key, **{"phase": Phase.RUNNING, "queue": "a", **values})


def holds(key: int, **values: Any) -> AnAllocation:
    """It was placed two hours ago, and has run since."""
    return allocation(key, **{"created_at": NOON - 2 * HOUR, "started_at": NOON - 2 * HOUR, **values})


def victims(snapshot: Snapshot) -> list[tuple[int, ...]]:
    """Of each workload that displaces: who yields, by key."""
    return [tuple(sorted(one.workload_key for one in action.victims)) for action in preempt(snapshot)]


def full(*held: tuple[AWorkload, AnAllocation], waiting: AWorkload, policy: PreemptionPolicy = LOWER) -> Snapshot:
    """One node of 16 CPUs, one queue."""
    return world(
        nodes=[node()],
        workloads=[*(work for work, _ in held), waiting],
        allocations=[pod for _, pod in held],
        queues=[queue("a", policy)],
    )


def test_less_urgent_work_of_its_queue_yields() -> None:
    low = runs(1, priority=10, cpus=16), holds(1, cpus=16)
    (action,) = preempt(full(low, waiting=waits(2, priority=50, cpus=8)))
    assert action.workload_key == 2
    assert [(one.workload_key, one.rule) for one in action.victims] == [(1, Rule.WITHIN_QUEUE)]
    assert [(slot.rank, slot.node_key, slot.resources.cpu_milli) for slot in action.slots] == [(0, 1, 8_000)]


def test_by_default_nobody_yields() -> None:
    low = runs(1, priority=10, cpus=16), holds(1, cpus=16)
    assert not preempt(full(low, waiting=waits(2, priority=50), policy=PreemptionPolicy()))


# One table: who yields for a workload of queue a. Kueue's published cases are among them (docs: preemption, fair sharing).
def gpus(
    *,
    own: dict[str, int | None],
    held: list[tuple[int, str, int, int]],
    wish: AWorkload,
    policy: PreemptionPolicy,
    gpus_in_fleet: int,
    cohort: str = "all",
    weights: dict[str, float] | None = None,
) -> Snapshot:
    """Queues of one cohort that hold GPUs of one large node. `held`: (key, queue, priority, GPUs)."""
    specs = [QueueSpec(name="all", cohort=True)] if cohort else []
    specs += [
        queue(name, policy, own=amount, parent=cohort, weight=(weights or {}).get(name, 1.0))
        for name, amount in own.items()
    ]
    return world(
        nodes=[node(cpus=1_000, gib=1_000, gpus=gpus_in_fleet, gpu_model="H100")],
        workloads=[
            *(
                runs(key, queue=name, priority=rank, gpus=count, submitted_at=NOON + key)
                for key, name, rank, count in held
            ),
            wish,
        ],
        allocations=[holds(key, gpus=count, gpu_model="H100") for key, _, _, count in held],
        queues=specs,
    )


RECLAIM_ANY = PreemptionPolicy(reclaim=Reclaim.ANY)
RECLAIM_LOWER = PreemptionPolicy(reclaim=Reclaim.LOWER_PRIORITY)
EQUAL = PreemptionPolicy(within_queue=WithinQueue.LOWER_OR_NEWER_EQUAL_PRIORITY)
BORROW = PreemptionPolicy(reclaim=Reclaim.ANY, borrow=Borrow.LOWER_PRIORITY, borrow_priority_max=30)
FINAL = PreemptionPolicy(fair_share=FairShare.FINAL_SHARE)
INITIAL = PreemptionPolicy(fair_share=FairShare.INITIAL_SHARE)

CASES: dict[str, tuple[Snapshot, list[tuple[int, ...]]]] = {
    "within: the least urgent yields, not the newest": (
        gpus(
            own={"a": 4},
            held=[(1, "a", 20, 2), (2, "a", 10, 2)],
            wish=waits(9, priority=50, gpus=2),
            policy=LOWER,
            gpus_in_fleet=4,
        ),
        [(2,)],
    ),
    "within: as urgent does not yield": (
        gpus(own={"a": 4}, held=[(1, "a", 50, 4)], wish=waits(9, priority=50, gpus=2), policy=LOWER, gpus_in_fleet=4),
        [],
    ),
    "within: as urgent and newer yields, if the policy says so": (
        gpus(
            own={"a": 4},
            held=[(1, "a", 50, 4)],
            wish=waits(9, priority=50, gpus=2, submitted_at=NOON),
            policy=EQUAL,
            gpus_in_fleet=4,
        ),
        [(1,)],
    ),
    "within: as urgent and older does not": (
        gpus(
            own={"a": 4},
            held=[(1, "a", 50, 4)],
            wish=waits(9, priority=50, gpus=2, submitted_at=NOON + 99),
            policy=EQUAL,
            gpus_in_fleet=4,
        ),
        [],
    ),
    "reclaim: who has borrowed yields, whatever its priority": (
        gpus(
            own={"a": 4, "b": 4},
            held=[(1, "b", 90, 4), (2, "b", 90, 4)],
            wish=waits(9, priority=0, gpus=4),
            policy=RECLAIM_ANY,
            gpus_in_fleet=8,
        ),
        [(2,)],
    ),
    "reclaim: not if it is more urgent and the policy minds": (
        gpus(
            own={"a": 4, "b": 4},
            held=[(1, "b", 90, 4), (2, "b", 90, 4)],
            wish=waits(9, priority=0, gpus=4),
            policy=RECLAIM_LOWER,
            gpus_in_fleet=8,
        ),
        [],
    ),
    "reclaim: nobody who is within its own quota": (
        gpus(
            own={"a": 4, "b": 8},
            held=[(1, "b", 0, 4), (2, "b", 0, 4)],
            wish=waits(9, priority=90, gpus=4),
            policy=RECLAIM_ANY,
            gpus_in_fleet=8,
        ),
        [],
    ),
    "reclaim: not what the queue would borrow itself": (
        gpus(
            own={"a": 2, "b": 4},
            held=[(1, "b", 0, 4), (2, "b", 0, 2)],
            wish=waits(9, priority=90, gpus=4),
            policy=RECLAIM_ANY,
            gpus_in_fleet=8,
        ),
        [],
    ),
    "reclaim: who was taken first is put back where another makes room for all": (
        gpus(
            own={"a": 8, "b": 0, "c": 0},
            held=[(1, "b", 0, 2), (3, "c", 0, 4)],
            wish=waits(9, priority=0, gpus=4),
            policy=RECLAIM_ANY,
            gpus_in_fleet=6,
        ),
        [(3,)],
    ),
    "reclaim: where its own work yields, too, so that it borrows nothing (Kueue: preempt from all ClusterQueues in cohort)": (
        gpus(
            own={"a": 6, "b": 6},
            held=[(1, "a", 10, 3), (2, "a", 20, 2), (3, "b", 10, 3), (4, "b", 20, 4)],
            wish=waits(9, priority=20, gpus=4),
            policy=PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY, reclaim=Reclaim.LOWER_PRIORITY),
            gpus_in_fleet=12,
        ),
        [(1, 3)],
    ),
    "reclaim: not where it would borrow all the same once its own work has yielded": (
        gpus(
            own={"a": 6, "b": 6},
            held=[(1, "a", 10, 2), (2, "a", 20, 3), (3, "b", 10, 3), (4, "b", 20, 4)],
            wish=waits(9, priority=20, gpus=4),
            policy=PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY, reclaim=Reclaim.LOWER_PRIORITY),
            gpus_in_fleet=12,
        ),
        [],
    ),
    "reclaim: not where it uses all of its own, even if its own work would make room": (
        gpus(
            own={"a": 4, "b": 4, "c": 2},
            held=[(1, "a", 10, 2), (2, "a", 20, 2), (3, "b", 10, 6)],
            wish=waits(9, priority=20, gpus=2),
            policy=PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY, reclaim=Reclaim.LOWER_PRIORITY),
            gpus_in_fleet=10,
        ),
        [(1,)],
    ),
    "borrow: less urgent borrowers yield to who borrows": (
        gpus(
            own={"a": 2, "b": 2, "c": 4},
            held=[(1, "b", 20, 4), (2, "b", 40, 4)],
            wish=waits(9, priority=50, gpus=4),
            policy=BORROW,
            gpus_in_fleet=8,
        ),
        [(1,)],
    ),
    "borrow: not above the threshold": (
        gpus(
            own={"a": 2, "b": 2, "c": 4},
            held=[(2, "b", 40, 8)],
            wish=waits(9, priority=50, gpus=4),
            policy=BORROW,
            gpus_in_fleet=8,
        ),
        [],
    ),
    "fair share: who holds more yields until both hold as much": (
        gpus(
            own={"a": None, "b": None},
            held=[(1, "b", 0, 2), (2, "b", 0, 2), (3, "b", 0, 2), (4, "b", 0, 2)],
            wish=waits(9, gpus=4),
            policy=FINAL,
            gpus_in_fleet=8,
        ),
        [(3, 4)],
    ),
    "fair share: no more than that": (
        gpus(
            own={"a": None, "b": None},
            held=[(1, "b", 0, 2), (2, "a", 0, 2), (3, "b", 0, 2), (4, "b", 0, 2)],
            wish=waits(9, gpus=4),
            policy=FINAL,
            gpus_in_fleet=8,
        ),
        [],
    ),
    "fair share: by weight": (
        gpus(
            own={"a": None, "b": None},
            held=[(1, "b", 0, 2), (2, "a", 0, 2), (3, "b", 0, 2), (4, "b", 0, 2)],
            wish=waits(9, gpus=4),
            policy=FINAL,
            gpus_in_fleet=8,
            weights={"a": 3.0},
        ),
        [(3, 4)],
    ),
    "fair share: one large run stays where its end would turn the unfairness round": (
        gpus(own={"a": None, "b": None}, held=[(1, "b", 0, 8)], wish=waits(9, gpus=4), policy=FINAL, gpus_in_fleet=8),
        [],
    ),
    "fair share: by the initial share it yields": (
        gpus(own={"a": None, "b": None}, held=[(1, "b", 0, 8)], wish=waits(9, gpus=4), policy=INITIAL, gpus_in_fleet=8),
        [(1,)],
    ),
    "an own quota that nobody has borrowed is no reason for others without a cohort": (
        gpus(
            own={"a": 4, "b": 4},
            held=[(1, "b", 0, 4)],
            wish=waits(9, priority=90, gpus=4),
            policy=RECLAIM_ANY,
            gpus_in_fleet=4,
            cohort="",
        ),
        [],
    ),
    "what is not limited yields to who has a quota": (
        gpus(
            own={"a": 4, "b": None},
            held=[(1, "b", 90, 4)],
            wish=waits(9, gpus=4),
            policy=RECLAIM_ANY,
            gpus_in_fleet=4,
            cohort="",
        ),
        [(1,)],
    ),
    "nobody yields for what would not fit then": (
        gpus(own={"a": 16}, held=[(1, "a", 0, 8)], wish=waits(9, priority=90, gpus=16), policy=LOWER, gpus_in_fleet=8),
        [],
    ),
    "nobody yields for what fits as it is": (
        gpus(own={"a": 8}, held=[(1, "a", 0, 4)], wish=waits(9, priority=90, gpus=4), policy=LOWER, gpus_in_fleet=8),
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_who_yields(name: str) -> None:
    snapshot, expected = CASES[name]
    assert victims(snapshot) == expected


def test_the_quota_of_a_cohort_is_reclaimed_from_those_outside_of_it() -> None:
    specs = [
        QueueSpec(name="all", cohort=True),
        QueueSpec(name="mine", cohort=True, parent="all", quotas={("default", "gpu"): Quota(nominal=4)}),
        queue("a", RECLAIM_ANY, own=0, parent="mine"),
        queue("b", RECLAIM_ANY, own=0, parent="mine"),
        queue("c", RECLAIM_ANY, own=4, parent="all"),
    ]
    snapshot = world(
        nodes=[node(gpus=8, gpu_model="H100")],
        workloads=[runs(1, queue="c", gpus=4), runs(2, queue="c", gpus=4, submitted_at=NOON + 1), waits(9, gpus=4)],
        allocations=[holds(1, gpus=4, gpu_model="H100"), holds(2, gpus=4, gpu_model="H100")],
        queues=specs,
    )
    assert victims(snapshot) == [(2,)]


def test_the_work_that_is_lost_counts_by_its_price_and_since_it_was_saved_last() -> None:
    """One has run for two hours and saves its state each; the other has run for one, and does not."""
    saved = runs(1, cpus=8, checkpoint_seconds=3_600), holds(1, cpus=8)
    other = runs(2, cpus=8), holds(2, cpus=8, started_at=NOON - HOUR)
    assert victims(full(saved, other, waiting=waits(9, priority=50, cpus=8))) == [(1,)]
    never = runs(1, cpus=8), holds(1, cpus=8)
    assert victims(full(never, other, waiting=waits(9, priority=50, cpus=8))) == [(2,)]


def test_work_is_left_alone_for_its_minimum_run_time() -> None:
    young = runs(1, cpus=16), holds(1, cpus=16, created_at=NOON - 60 * SECOND, started_at=NOON - 50 * SECOND)
    policy = replace(LOWER, min_runtime_seconds=61)
    assert not victims(full(young, waiting=waits(9, priority=50), policy=policy))
    assert victims(full(young, waiting=waits(9, priority=50), policy=replace(policy, min_runtime_seconds=60))) == [(1,)]


@pytest.mark.parametrize(
    "why",
    [{"preemptible": False}, {"stop_requested": True}, {"phase": Phase.UNKNOWN}],
    ids=["class", "stopped", "lost"],
)
def test_what_cannot_yield_does_not(why: dict[str, Any]) -> None:
    assert not victims(full((runs(1, cpus=16, **why), holds(1, cpus=16)), waiting=waits(9, priority=50)))


def test_a_gang_yields_whole_and_is_placed_whole() -> None:
    snapshot = world(
        nodes=[node(), node(), node()],
        workloads=[runs(1, nodes=2, cpus=16), runs(2, cpus=16, priority=5), waits(9, priority=50, nodes=2, cpus=10)],
        allocations=[holds(1, cpus=16), holds(1, rank=1, node_key=2, cpus=16), holds(2, node_key=3, cpus=16)],
        queues=[queue("a")],
    )
    (action,) = preempt(snapshot)
    assert [(one.workload_key, one.allocation_keys) for one in action.victims] == [(1, (1, 2))]
    assert [slot.node_key for slot in action.slots] == [1, 2]


def test_a_gang_takes_what_is_free_already_and_only_the_rest_yields() -> None:
    """Volcano #3291: gangs that need some free and some evicted places never ran."""
    snapshot = world(
        nodes=[node(), node(), node()],
        workloads=[runs(1, cpus=16), runs(2, cpus=16), waits(9, priority=50, nodes=2, cpus=10)],
        allocations=[holds(1, cpus=16), holds(2, node_key=2, cpus=16, started_at=NOON - HOUR)],
        queues=[queue("a")],
    )
    assert victims(snapshot) == [(2,)]


RWO = ("ReadWriteOnce",)


def shares_a_volume(*held: tuple[AWorkload, AnAllocation], waiting: Sequence[AWorkload] = ()) -> Snapshot:
    """Two nodes of 8 CPUs; a gang of two times four whose volume cannot be on both, unless others wait."""
    gang = waits(9, priority=50, cpus=4, nodes=2, volumes=("data",))
    return world(
        nodes=[node(cpus=8), node(cpus=8)],
        workloads=[*(work for work, _ in held), *(waiting or [gang])],
        allocations=[pod for _, pod in held],
        queues=[queue("a")],
        volumes=[lies("data", "local", access=RWO)],
    )


def test_a_gang_that_shares_a_volume_of_one_node_finds_all_its_room_there() -> None:
    stays = [(runs(3, cpus=4, preemptible=False), holds(3, cpus=4))]
    low = [(runs(key, cpus=4), holds(key, cpus=4, node_key=2)) for key in (1, 2)]
    (action,) = preempt(shares_a_volume(*stays, *low))
    assert {slot.node_key for slot in action.slots} == {2}
    assert sorted(one.workload_key for one in action.victims) == [1, 2]


def test_a_gang_that_would_fit_on_two_nodes_but_on_no_single_one_displaces_nobody() -> None:
    stays = [(runs(2 + key, cpus=4, preemptible=False), holds(2 + key, cpus=4, node_key=key)) for key in (1, 2)]
    low = [(runs(key, cpus=4), holds(key, cpus=4, node_key=key)) for key in (1, 2)]
    snapshot = shares_a_volume(*stays, *low)
    assert not preempt(snapshot)
    assert said(snapshot).startswith("nobody yields for it: ")


def test_two_that_share_a_volume_of_one_node_displace_on_one_node() -> None:
    low = [(runs(key, cpus=cpus), holds(key, cpus=cpus, node_key=at)) for key, at, cpus in ((1, 1, 8), (2, 2, 8))]
    both = [waits(key, priority=50, cpus=key, volumes=("data",)) for key in (5, 6)]
    first, *others = preempt(shares_a_volume(*low, waiting=both))
    assert not others, "who comes second finds no room where the first one will be"
    assert {slot.node_key for slot in first.slots} == {first.victims[0].workload_key}


def test_a_node_that_shrank_under_its_work_is_used_again_once_enough_have_yielded() -> None:
    """8 CPUs, of which 9 are in use: the first finds its place there, and so does the next one, beside it."""
    snapshot = world(
        nodes=[node(cpus=8, used_cpus=2)],
        workloads=[runs(1, cpus=7), waits(8, priority=50, cpus=4), waits(9, priority=50, cpus=1)],
        allocations=[holds(1, cpus=7)],
        queues=[queue("a")],
    )
    assert victims(snapshot) == [(1,)]
    assert said(snapshot) == "could take the place of 1 run (1 pod): 1 in queue a"


def test_where_nobody_may_yield_on_a_node_that_shrank_nobody_does() -> None:
    stays = runs(1, cpus=16, preemptible=False), holds(1, cpus=16)
    snapshot = full(stays, waiting=waits(9, priority=50, cpus=1))
    shrunk = replace(snapshot, nodes=replace(snapshot.nodes, cpu_milli=np.array([12_000])))
    assert not preempt(shrunk)
    assert said(shrunk) == "nobody yields for it: nothing runs in queue a that may yield"


@pytest.mark.parametrize("borrow", list(Borrow))
@pytest.mark.parametrize("within", list(WithinQueue))
def test_something_is_always_said_of_why_nobody_yields(within: WithinQueue, borrow: Borrow) -> None:
    policy = PreemptionPolicy(within_queue=within, reclaim=Reclaim(borrow.value), borrow=borrow)
    if policy.displaces:
        low = runs(1, cpus=4), holds(1, cpus=4)
        stays = runs(2, cpus=12, preemptible=False), holds(2, cpus=12)
        words = said(full(low, stays, waiting=waits(9, priority=50, cpus=16), policy=policy))
        assert words.removeprefix("nobody yields for it: ").strip()


def test_those_who_yield_for_the_quota_yield_where_it_fits() -> None:
    """Kueue #5243: victims spread over nodes, so that the preemptor still did not fit."""
    snapshot = world(
        nodes=[node(gpus=4, gpu_model="H100"), node(gpus=4, gpu_model="H100")],
        workloads=[
            *(runs(key, gpus=1, priority=10 if key in {1, 5} else 11) for key in range(1, 9)),
            waits(9, priority=50, gpus=2),
        ],
        allocations=[holds(key, gpus=1, gpu_model="H100", node_key=1 + (key > 4)) for key in range(1, 9)],
        queues=[queue("a", own=8)],
    )
    (action,) = preempt(snapshot)
    (slot,) = action.slots
    held = snapshot.allocations
    nodes = {int(held.node_key[held.key.tolist().index(pod)]) for one in action.victims for pod in one.allocation_keys}
    assert nodes == {slot.node_key}


def test_what_leaves_anyway_counts_as_free_and_nobody_else_yields() -> None:
    leaving = runs(1, cpus=16), holds(1, cpus=16, stop=True, moves=True)
    assert not victims(full(leaving, waiting=waits(9, priority=50, cpus=16)))


@pytest.mark.parametrize(("seconds", "others"), [(0, []), (-5, []), (329, []), (330, [(2,)]), (-90_000, [(2,)])])
def test_what_does_not_end_in_time_counts_as_free_no_longer(seconds: int, others: list[tuple[int, ...]]) -> None:
    """A grace of 30 seconds and five minutes. A clock that was set back by more than that keeps nobody waiting for it."""
    told = {"stop": True, "moves": True, "stop_asked_at": NOON - seconds * SECOND}
    snapshot = world(
        nodes=[node(), node()],
        workloads=[runs(1, cpus=16), runs(2, cpus=16), waits(9, priority=50, cpus=16)],
        allocations=[holds(1, cpus=16, **told), holds(2, node_key=2, cpus=16)],
        queues=[queue("a")],
        displaced_by={1: (9,)},
    )
    assert victims(snapshot) == others
    late = "it would have room if those had ended that were told to: 1 pod has not in time"
    assert said(snapshot) == (f"could take the place of 1 run (1 pod): 1 in queue a; {late}" if others else "")
    no_other = replace(snapshot, workloads=replace(snapshot.workloads, preemptible=np.zeros(3, dtype=np.bool_)))
    assert said(no_other).startswith(f"nobody yields for it: {late}; " if others else "")


OWN = {
    ("default", "cpu"): Quota(nominal=16_000),
    ("default", "memory"): Quota(nominal=64 << 30),
    ("default", "gpu"): Quota(nominal=8),
}
"""Of all that a share is made of."""


@pytest.mark.parametrize(("gpus", "yields"), [(8, []), (9, [(1,)])])
def test_who_holds_no_more_than_their_own_yields_to_nobodys_share(gpus: int, yields: list[tuple[int, ...]]) -> None:
    """The nodes are fewer than the quotas, so there is no room for what is the other's own."""
    policy = PreemptionPolicy(fair_share=FairShare.FINAL_SHARE)
    queues = [QueueSpec(name=name, parent="all", quotas=OWN, preemption=policy) for name in "ab"]
    work = [runs(1, queue="b", gpus=gpus), waits(2, gpus=8)]
    snapshot = world(
        nodes=[node(gpus=gpus, gpu_model="H100")],
        queues=queues,
        workloads=work,
        allocations=[holds(1, gpus=gpus, gpu_model="H100")],
    )
    assert victims(snapshot) == yields


def test_of_equals_those_yield_who_leave_their_queue_what_is_its_own() -> None:
    """Whatever their work is worth: the larger one has lost nothing yet."""
    reclaim = PreemptionPolicy(reclaim=Reclaim.ANY)
    queues = [queue("a", reclaim, own=2, parent="all"), queue("b", own=4, parent="all")]
    small, large = runs(1, queue="b", gpus=2), runs(2, queue="b", gpus=4, checkpoint_seconds=60)
    snapshot = world(
        nodes=[node(gpus=6, gpu_model="H100")],
        queues=queues,
        workloads=[small, large, waits(3, gpus=2)],
        allocations=[holds(1, gpus=2, gpu_model="H100"), holds(2, gpus=4, gpu_model="H100")],
    )
    assert victims(snapshot) == [(1,)]
    urgent = replace(small, priority=90)
    again = world(
        nodes=[node(gpus=6, gpu_model="H100")],
        queues=queues,
        workloads=[urgent, large, waits(3, gpus=2)],
        allocations=[holds(1, gpus=2, gpu_model="H100"), holds(2, gpus=4, gpu_model="H100")],
    )
    assert victims(again) == [(2,)], "the less urgent goes first all the same"


def test_what_is_kept_for_another_is_not_given_away_twice() -> None:
    slot = Slot(rank=0, node_key=1, resources=Resources(cpu_milli=16_000, memory_bytes=BYTES_PER_GIB))
    snapshot = world(
        nodes=[node(), node()],
        workloads=[runs(1, cpus=16), runs(2, cpus=16), waits(8, priority=50, cpus=16), waits(9, priority=50, cpus=16)],
        allocations=[holds(1, cpus=16, stop=True, moves=True), holds(2, node_key=2, cpus=16)],
        queues=[queue("a")],
        nominations={8: Nomination(slots=(slot,), until=NOON + HOUR)},
    )
    assert victims(snapshot) == [(2,)]


def test_slices_of_a_shape_that_no_node_lists_any_more_are_no_whole_gpus() -> None:
    """Who holds one yields its CPUs; nobody finds a GPU in it."""
    snapshot = world(
        nodes=[node(gpus=2, gpu_model="A100")],
        workloads=[
            runs(1, gpus=1, gpu_model="1g.10gb", cpus=10),
            runs(2, gpus=2, gpu_model="A100", preemptible=False),
            waits(9, priority=50, cpus=8, gpus=1),
        ],
        allocations=[holds(1, gpus=1, gpu_model="1g.10gb", cpus=10), holds(2, gpus=2, gpu_model="A100")],
        queues=[queue("a")],
    )
    assert not preempt(snapshot)
    search = Search(snapshot)
    before = search.staying.free.nodes.free.copy()
    search.staying.move(0, sign=-1)
    assert search.staying.free.gpus.tolist() == [0]
    assert search.staying.free.cpu_milli.tolist() == [15_000]
    search.staying.move(0, sign=1)
    np.testing.assert_array_equal(search.staying.free.nodes.free, before)
    without_gpus = replace(snapshot, workloads=replace(snapshot.workloads, gpus=np.array([1, 2, 0])))
    assert victims(without_gpus) == [(1,)]


def test_what_no_node_has_is_never_taken_from_one() -> None:
    free = free_of(world(nodes=[node(gpus=2, gpu_model="A100")]))
    request = Request(cpu_milli=1, memory_bytes=1, gpus=1, gpu_model=0, shape="1g.10gb")
    with pytest.raises(AssertionError, match="where what it asks for is not"):
        free.take(np.array([0]), 1, request)


def two_for_one_node(*, ended_for: int) -> Snapshot:
    """16 CPUs: 12 are kept for run 8 and 4 for run 9; those who yield for one of them have ended. Another asks for 4."""
    cpus = {8: 12, 9: 4}

    def slot(key: int) -> Slot:
        resources = Resources(cpu_milli=1_000 * cpus[key], memory_bytes=BYTES_PER_GIB)
        return Slot(rank=0, node_key=1, resources=resources)

    told = {"stop": True, "moves": True, "preempted": int(Rule.WITHIN_QUEUE)}
    return world(
        nodes=[node()],
        workloads=[
            *(runs(key - 7, cpus=cpus[key]) for key in cpus),
            *(waits(key, cpus=cpus[key], priority=90 - key) for key in cpus),
            waits(10, cpus=4, priority=100),
        ],
        allocations=[holds(key - 7, cpus=cpus[key], **told) for key in cpus if key != ended_for],
        queues=[queue("a")],
        nominations={key: Nomination(slots=(slot(key),), until=NOON + HOUR) for key in cpus},
        displaced_by={1: (8,), 2: (9,)},
    )


@pytest.mark.parametrize("key", [8, 9])
def test_whose_place_is_free_has_it_though_others_on_its_node_still_wait_for_theirs(key: int) -> None:
    """And nobody else has anything of it, however urgent."""
    snapshot = two_for_one_node(ended_for=key)
    assert [action.workload_key for action in schedule(snapshot) if isinstance(action, Allocate)] == [key]


def test_what_is_kept_is_taken_off_once_where_those_who_yield_still_hold_it() -> None:
    for key, cpus in ((8, 12_000), (9, 4_000)):
        snapshot = two_for_one_node(ended_for=key)
        assert snapshot.nodes.used_cpu_milli.tolist() == [16_000 - cpus]
        assert reserved(snapshot).nodes.used_cpu_milli.tolist() == [16_000]


def test_who_displaced_it_is_not_displaced_by_it_nor_by_those_whom_it_displaced() -> None:
    held = [(runs(key, cpus=8, priority=1), holds(key, cpus=8)) for key in (1, 2)]
    wish = waits(9, priority=50, cpus=8)
    snapshot = full(*held, waiting=wish)
    assert victims(replace(snapshot, displaced_by={9: (2,)})) == [(1,)]
    assert victims(replace(snapshot, displaced_by={9: (5,), 5: (1, 2)})) == []


def test_what_was_displaced_very_often_is_left_alone() -> None:
    snapshot = full((runs(1, cpus=16), holds(1, cpus=16)), waiting=waits(9, priority=50))
    assert not victims(replace(snapshot, displaced_by={1: tuple(range(100, 100 + DISPLACED_MAX))}))


def test_pods_of_others_yield_once_they_are_bound() -> None:
    wish = waits(9, priority=50)
    assert victims(full((runs(1, cpus=16, kind=2), holds(1, cpus=16)), waiting=wish)) == [(1,)]
    unbound = runs(1, cpus=16, kind=2, phase=Phase.STARTING), holds(1, cpus=16, seen=Seen.NOTHING)
    assert not victims(full(unbound, waiting=wish))


def test_what_was_displaced_waits_again_and_pods_of_others_are_over() -> None:
    """Neither counts as a failure. To make those pods anew is their owner's business."""
    given = {"stop": True, "moves": True, "preempted": int(Rule.RECLAIM)}
    snapshot = world(
        nodes=[node()],
        workloads=[runs(1), runs(2, kind=2, nodes=1)],
        allocations=[ended(1, End.STOPPED, **given), ended(2, End.STOPPED, **given)],
        queues=[queue("a")],
    )
    ours, theirs = lifecycle(snapshot)
    assert isinstance(ours, Advance)
    assert isinstance(theirs, Advance)
    assert (ours.phase, ours.attempt, ours.infrastructure_failures) == (Phase.PENDING, 2, 0)
    assert ours.reason.sentence == (
        "was preempted: its queue had borrowed what another queue now needs of its own quota;"
        " waits for another place with its age"
    )
    assert (theirs.phase, theirs.infrastructure_failures) == (Phase.PREEMPTED, 0)


def said(snapshot: Snapshot, key: int = 9) -> str:
    return explain(snapshot, key).preemption


def test_it_is_told_whom_it_could_displace_by_queue() -> None:
    snapshot, _ = CASES["fair share: who holds more yields until both hold as much"]
    assert said(snapshot) == "could take the place of 2 runs (2 pods): 2 in queue b"


def test_it_is_told_why_nobody_yields() -> None:
    full_of_equals = full((runs(1, priority=10, cpus=16), holds(1, cpus=16)), waiting=waits(9, priority=0))
    assert said(full_of_equals) == "nobody yields for it: in queue a that needs a priority above 10; yours is 0"
    urgent = full((runs(1, priority=100, cpus=16), holds(1, cpus=16)), waiting=waits(9, priority=25))
    assert said(urgent) == "nobody yields for it: what runs in queue a is as urgent as can be"
    young = runs(1, cpus=16), holds(1, cpus=16, created_at=NOON)
    policy = replace(LOWER, min_runtime_seconds=60)
    assert "1 run is within its minimum run time" in said(full(young, waiting=waits(9, priority=50), policy=policy))


def test_where_no_queue_displaces_anything_nothing_is_said_of_it() -> None:
    held = runs(1, cpus=16), holds(1, cpus=16)
    assert not said(full(held, waiting=waits(9, priority=50), policy=PreemptionPolicy()))


def test_whoever_waits_for_those_that_yield_is_told_so() -> None:
    slot = Slot(rank=0, node_key=1, resources=Resources(cpu_milli=16_000, memory_bytes=BYTES_PER_GIB))
    yields = holds(1, cpus=16, stop=True, moves=True, preempted=int(Rule.WITHIN_QUEUE), yields_to=9)
    snapshot = replace(
        full((runs(1, cpus=16), yields), waiting=waits(9, priority=50, cpus=16)),
        nominations={9: Nomination(slots=(slot,), until=NOON + HOUR)},
        displaced_by={1: (9,)},
    )
    assert explain(snapshot, 9).reason.sentence == (
        "waits for 1 pod of 1 run to yield to it: its places on node-1 are kept"
    )


def test_where_nodes_take_only_so_many_pods_one_that_yields_makes_room_for_one() -> None:
    snapshot = world(
        nodes=[node(others={"pods": 1}, used_others={"pods": 1})],
        workloads=[runs(1), waits(2, priority=50)],
        allocations=[holds(1)],
        queues=[queue("a")],
    )
    assert victims(snapshot) == [(1,)]


def test_places_that_are_kept_count_as_pods_of_their_node() -> None:
    """Two are kept for run 2, of which run 1 holds one; the node takes two, so the other is not for run 3."""
    held = Resources(cpu_milli=1_000, memory_bytes=BYTES_PER_GIB)
    snapshot = world(
        nodes=[node(others={"pods": 2}, used_others={"pods": 1})],
        workloads=[runs(1), waits(2, priority=50, nodes=2), waits(3, priority=90)],
        allocations=[holds(1, stop=True, preempted=int(Rule.WITHIN_QUEUE))],
        queues=[queue("a")],
        nominations={2: Nomination(slots=(Slot(rank=0, node_key=1, resources=held),) * 2, until=NOON + HOUR)},
        displaced_by={1: (2,)},
    )
    assert not [action for action in schedule(snapshot) if isinstance(action, Allocate)]
    assert reserved(snapshot).nodes.used_others["pods"].tolist() == [2]
