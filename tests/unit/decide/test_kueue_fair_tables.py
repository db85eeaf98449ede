"""Kueue's published cases of fair sharing as tables of numbers: what the share of a queue is, and who yields for it.

Sources: TestDominantResourceShare (pkg/cache/scheduler) and TestFairPreemptions (pkg/scheduler/preemption), 2026, retyped as
numbers. Priorities are shifted by 50, as ours begin at 0. Where an answer of ours is another one, the case says why. Not among
them: a quota of 10^18 cores, which is refused here (AMOUNT_MAX), and the case of one queue with two flavors (test_flavor_laws).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from mainstay.decide import kernel, turns
from mainstay.decide.preemption import preempt
from mainstay.domain.preemption import NOBODY_YIELDS, FairShare, PreemptionPolicy, Reclaim, WithinQueue
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, allocation, flavor, node, workload, world

HOUR = 3_600 * SECOND
Own = Mapping[str, float]
"""What is its own: `cpu` or `FLAVOR/cpu` in cores, `gpu` in GPUs."""


def quotas(own: Own, **limits: Mapping[str, float]) -> dict[tuple[str, str], Quota]:
    """`limits`: `borrowing` or `lending`, of some of them."""
    found = {}
    for word, amount in own.items():
        flavor_, _, resource = word.rpartition("/")
        unit = 1_000 if resource == "cpu" else 1
        limited = {f"{kind}_limit": int(unit * of[word]) for kind, of in limits.items() if word in of}
        found[flavor_ or "default", resource] = Quota(nominal=int(unit * amount), **limited)
    return found


def row(
    name: str,
    parent: str = "",
    own: Own | None = None,
    *,
    weight: float = 1,
    cohort: bool = False,
    policy: PreemptionPolicy = NOBODY_YIELDS,
    **limits: Mapping[str, float],
) -> QueueSpec:
    cells = quotas(own or {}, **limits)
    return QueueSpec(name=name, parent=parent, cohort=cohort, weight=weight, quotas=cells, preemption=policy)


@dataclass(frozen=True, slots=True)
class Shares:
    """What is used in `cq`, more of it that is asked for, and the share of each row in thousandths; others have none, and of
    roots it is not asked: there they have none, here they take turns by theirs.
    """

    rows: Sequence[QueueSpec]
    used: Own
    want: Mapping[str, float]
    more: Own | None = None
    instead: str = ""
    """Why `want` is not what Kueue says."""


def two(weight: float = 1, **own: float) -> tuple[QueueSpec, QueueSpec]:
    """A queue of 2 cores and 5 GPUs that shares with one of 8 and 5, or both with so many GPUs."""
    mine, theirs = {"cpu": 2, "gpu": 5}, {"cpu": 8, "gpu": 5}
    return row("cq", "all", mine | own, weight=weight), row("lending", "all", theirs | own)


ROOT_50 = (row("child", "root", weight=2, cohort=True), row("root", own={"gpu": 50}, cohort=True))
SHARES: dict[str, Shares] = {
    "less than its own": Shares(two(), {"cpu": 1, "gpu": 2}, {}),
    "more than its own": Shares(two(), {"cpu": 3, "gpu": 7}, {"cq": 200}),
    "a little of much, rounded up": Shares(
        [row("cq", "all", {"gpu": 500}), row("lending", "all", {"gpu": 1_000}, weight=300)], {"gpu": 501}, {"cq": 1}
    ),
    "much, at a large weight": Shares(
        [row("cq", "all", {"gpu": 500}, weight=300), row("lending", "all", {"gpu": 1_000}, weight=300)],
        {"gpu": 800},
        {"cq": 1},
    ),
    "more of one resource": Shares(two(), {"cpu": 3, "gpu": 3}, {"cq": 100}),
    "with what it asks for": Shares(two(), {"cpu": 1, "gpu": 2}, {"cq": 300}, {"cpu": 4, "gpu": 4}),
    "nobody lends one resource": Shares(
        [
            row("cq", "all", {"cpu": 2, "gpu": 2}, lending={"gpu": 0}),
            row("lending", "all", {"cpu": 8, "gpu": 64}, lending={"gpu": 0}),
        ],
        {"cpu": 1, "gpu": 1},
        {"cq": 300},
        {"cpu": 4, "gpu": 4},
    ),
    "no weight, and nobody lends": Shares(
        [
            row("cq", "all", {"gpu": 2}, weight=0, lending={"gpu": 0}),
            row("lending", "all", {"gpu": 64}, lending={"gpu": 0}),
        ],
        {"gpu": 3},
        {"cq": math.inf},
    ),
    "several flavors": Shares(
        [row("cq", "all", {"on-demand/cpu": 20, "spot/cpu": 80}), row("lending", "all", {"cpu": 100})],
        {"on-demand/cpu": 15, "spot/cpu": 5},
        {"cq": 0},
        {"on-demand/cpu": 10},
        instead="25 there: 5 cores on demand beside 75 idle of its own. Here a resource is one sum over all flavors",
    ),
    "a weight": Shares(two(2), {"gpu": 7}, {"cq": 100}),
    "a part of a weight": Shares(two(0.5), {"gpu": 7}, {"cq": 400}),
    "no weight": Shares(
        [row("cq", "all", {"gpu": 5}, weight=0), row("lending", "all", {"gpu": 10})], {"gpu": 7}, {"cq": math.inf}
    ),
    "a cohort has a share": Shares(
        [row("cq", "child", {"gpu": 5}), ROOT_50[0], row("root", own={"gpu": 45}, cohort=True)],
        {"gpu": 10},
        {"cq": 100, "child": 50},
    ),
    "only the root has some": Shares(
        [row("cq", "child", {"gpu": 0}), *ROOT_50], {"gpu": 10}, {"cq": 200, "child": 100}
    ),
    "a limit to borrow": Shares(
        [
            row("cq", "child", {"gpu": 0}),
            row("child", "root", {"gpu": 0}, cohort=True, borrowing={"gpu": 10}),
            ROOT_50[1],
        ],
        {"gpu": 10},
        {"cq": 1_000, "child": 200},
    ),
    "a cohort of one that lends nothing": Shares(
        [row("cq", "child", {"gpu": 10}, lending={"gpu": 0}), *ROOT_50],
        {"gpu": 10},
        {},
    ),
}


@pytest.mark.parametrize("name", SHARES)
def test_the_share_of_a_queue_is_kueues(name: str) -> None:
    case = SHARES[name]
    where = {"": 1, "on-demand": 2, "spot": 3}
    nodes = [
        node(cpus=10_000, gpus=5_000, gpu_model="A100"),
        *(node(cpus=10_000, labels={"pool": one}) for one in ("on-demand", "spot")),
    ]
    pods = [
        allocation(
            1,
            rank=rank,
            node_key=where[word.rpartition("/")[0]],
            cpus=amount if word.endswith("cpu") else 0,
            gib=0,
            gpus=int(amount) if word == "gpu" else 0,
            gpu_model="A100" if word == "gpu" else "",
        )
        for rank, (word, amount) in enumerate(case.used.items())
    ]
    snapshot = world(
        nodes=nodes,
        queues=case.rows,
        flavors=[flavor("on-demand"), flavor("spot")],
        workloads=[workload(1, queue="cq", phase=Phase.RUNNING, nodes=len(pods))],
        allocations=pods,
    )
    more = np.zeros(3, dtype=np.int64)
    for word, amount in (case.more or {}).items():
        more[2 if word == "gpu" else 0] += int(amount if word == "gpu" else 1_000 * amount)
    ledger, names = turns.ledger_of(snapshot), snapshot.queues.names
    found = {
        one: 1_000 * kernel.share(ledger, number, more if one == "cq" else 0 * more, number)
        for number, one in enumerate(names)
    }
    thousandths = {one: share if math.isinf(share) else math.ceil(round(share, 6)) for one, share in found.items()}
    below = [one for one, parent in zip(names, snapshot.queues.parent.tolist(), strict=True) if parent >= 0]
    assert {one: thousandths[one] for one in below} == dict.fromkeys(below, 0) | dict(case.want)


FINAL = PreemptionPolicy(within_queue=WithinQueue.LOWER_PRIORITY, reclaim=Reclaim.ANY, fair_share=FairShare.FINAL_SHARE)
INITIAL = PreemptionPolicy(
    within_queue=WithinQueue.LOWER_PRIORITY, reclaim=Reclaim.ANY, fair_share=FairShare.INITIAL_SHARE
)
ONLY_RECLAIM = PreemptionPolicy(reclaim=Reclaim.ANY, fair_share=FairShare.INITIAL_SHARE)


def three(policy: PreemptionPolicy = INITIAL, **weights: float) -> tuple[QueueSpec, ...]:
    """Queues of 3 cores each that share, and one that has none."""
    queues = (row(name, "all", {"cpu": 3}, weight=weights.get(name, 1), policy=policy) for name in "abc")
    return (*queues, row("preemptible", "all", {"cpu": 0}))


@dataclass(frozen=True, slots=True)
class Case:
    """Who runs, and with how many cores: those of each queue by their names, with their priority where it is not 0; how many
    cores and in which queue the one who waits asks for; who yields.
    """

    rows: Sequence[QueueSpec]
    runs: Mapping[str, Sequence[float | tuple[float, int]]]
    waits: tuple[str, float]
    yields: frozenset[str] = frozenset()
    priority: int = 0
    instead: str = ""
    """Why that is not what Kueue says."""


def these(*names: str) -> frozenset[str]:
    return frozenset(names)


def low(cores: float, priority: int = -1) -> tuple[float, int]:
    return cores, priority


ONES: Sequence[float] = (1, 1, 1)
FAIR_YIELDS: dict[str, Case] = {
    "its own, from who uses the most": Case(three(), {"a": ONES, "b": (1,) * 5, "c": (1,)}, ("c", 1), these("b1")),
    "its own, from who uses less, where that is enough": Case(
        three(),
        {"a": (3, 1), "b": (2, 3)},
        ("c", 3),
        these("a2", "b1"),
        instead="a1 there, of 3 cores: here those go first without whom their queue keeps what is its own",
    ),
    "what it borrows, from who uses the most": Case(
        three(), {"a": ONES, "b": (1,) * 5, "c": (1,)}, ("a", 1), these("b1")
    ),
    "as little as is needed, of who borrows": Case(
        three(),
        {"a": (0.5, 0.5, 3), "b": (0.5, 0.5, 3)},
        ("c", 2),
        these("a1", "a2"),
        instead="a1 and b1 there: after each the queue of the largest share is next. Here what is lost decides, of equals age",
    ),
    "nobody where all have their own": Case(three(), {"a": ONES, "b": ONES, "c": ONES}, ("c", 1)),
    "nobody where the imbalance would change sides": Case(three(), {"a": ONES, "b": (1,) * 5}, ("a", 2)),
    "the less urgent of its own queue": Case(
        three(), {"a": (low(1), low(1), 1, 1), "b": (1,) * 5}, ("a", 2), these("a1", "a2")
    ),
    "of its own queue and of who uses the most": Case(
        three(), {"a": (low(1), 1, 1), "b": (1,) * 6}, ("a", 2), these("a1", "b1")
    ),
    "a huge one where nobody else could": Case(three(), {"b": (9,)}, ("a", 2), these("b1")),
    "not a huge one for a huge one": Case(three(), {"a": (2,), "b": (7,)}, ("a", 5)),
    "not two for a huge one": Case(three(), {"b": (2, 2, 3)}, ("a", 6)),
    "of its own queue and of others, beyond its own": Case(
        three(),
        {"a": (low(2), low(1)), "b": (3, 3)},
        ("a", 4),
        these("a1", "b1"),
    ),
    "who leaves it not with the most": Case(three(), {"b": (2, 1, 2), "c": (1,)}, ("a", 3.5), these("b2")),
    "of several queues": Case(three(), {"b": (2, 2.5), "c": (2, 2.5)}, ("a", 3.5), these("b1", "c1")),
    "and not back again": Case(three(), {"a": (3.5,), "b": (0, 2.5), "c": (0, 2.5)}, ("b", 2)),
    "nobody who would go below their own": Case(three(), {"b": (3, 3), "c": (3,)}, ("a", 4)),
    "nobody for being less urgent alone": Case(
        three(), {"a": ONES, "b": ONES, "preemptible": (low(1, -3),) * 3}, ("a", 2)
    ),
    "the less urgent, be it large: by the share before": Case(
        three(INITIAL), {"a": (3,), "b": (5, low(1, 1))}, ("a", 1), these("b1")
    ),
    "the small one, be it urgent: by the share after": Case(
        three(FINAL), {"a": (3,), "b": (5, low(1, 1))}, ("a", 1), these("b2")
    ),
    "more for a larger weight": Case(three(a=2), {"a": ONES, "b": (1,) * 6}, ("a", 2), these("b1", "b2")),
    "all that is borrowed without a weight": Case(
        three(b=0), {"a": ONES, "b": (1,) * 6}, ("a", 3), these("b1", "b2", "b3")
    ),
    "not what is its own, be it without a weight": Case(three(b=0)[:2], {"a": ONES, "b": ONES}, ("a", 1)),
    "not what is its cohort's own, be it without a weight": Case(
        (
            row("left", "root", {"cpu": 0}, policy=ONLY_RECLAIM),
            row("right", "right-cohort", {"cpu": 0}, policy=ONLY_RECLAIM, weight=0),
            row("right-cohort", "root", {"cpu": 1}, cohort=True, weight=0),
        ),
        {"right": (1,)},
        ("left", 1),
    ),
    "within a queue in no cohort": Case(
        [row("a", own={"cpu": 1}, policy=INITIAL)], {"a": (1,)}, ("a", 1), these("a1"), 50
    ),
    "in a tree": Case(
        (
            row("a", "LEFT", {"cpu": 1}, weight=2, policy=ONLY_RECLAIM),
            row("b", "LEFT", {"cpu": 1}),
            row("c", "ROOT", {"cpu": 1}),
            row("d", "RIGHT", {"cpu": 1}),
            row("e", "RIGHT", {"cpu": 1}, weight=0.99),
            row("ROOT", own={"cpu": 5}, cohort=True),
            row("LEFT", "ROOT", {"cpu": 5}, cohort=True, weight=2),
            row("RIGHT", "ROOT", {"cpu": 5}, cohort=True),
        ),
        {queue: [low(1, at) for at in range(1, 6)] for queue in "bcde"},
        ("a", 5),
        these("b1", "b2", "c1", "d1", "e1"),
        instead="c2 there, not d1: here the less urgent go first, whatever the shares are, where all may yield",
    ),
    "not who borrows in a cohort that does not": Case(
        (
            row("a", "ROOT", {"cpu": 5}, weight=10, policy=INITIAL),
            row("b", "RIGHT", {"cpu": 0}, weight=0.1),
            row("RIGHT", "ROOT", {"cpu": 1}, cohort=True, weight=0.1),
        ),
        {"a": (low(1),) * 3, "b": (low(1),)},
        ("a", 5),
        these("a1", "a2", "a3"),
    ),
    "its own, as who borrows is too urgent": Case(
        (
            row(
                "a",
                "ROOT",
                {"cpu": 5},
                weight=10,
                policy=PreemptionPolicy(
                    within_queue=WithinQueue.LOWER_PRIORITY,
                    reclaim=Reclaim.LOWER_PRIORITY,
                    fair_share=FairShare.INITIAL_SHARE,
                ),
            ),
            row("b", "RIGHT", {"cpu": 0}, weight=0.1),
            row("RIGHT", "ROOT", {"cpu": 3}, cohort=True, weight=0.1),
        ),
        {"a": (low(1),) * 3, "b": (low(4, 50),)},
        ("a", 4),
        these("a1", "a2", "a3"),
    ),
    "deep in a tree": Case(
        (
            row("a", "AAA", {"cpu": 0}, policy=ONLY_RECLAIM),
            row("b", "BBB", {"cpu": 0}),
            *(row(*names, cohort=True) for names in (("AAA", "AA"), ("AA", "A"), ("BBB", "BB"), ("BB", "B"))),
            *(row(*names, cohort=True) for names in (("CCC", "CC"), ("CC", "C"), ("C", "ROOT"))),
            row("A", "ROOT", cohort=True, weight=1.01),
            row("B", "ROOT", cohort=True, weight=0.99),
            row("CCCC", "CCC", {"cpu": 1}, cohort=True),
        ),
        {"b": (1,)},
        ("a", 1),
        these("b1"),
    ),
    "what is its own, be it without a weight": Case(
        (row("a", "ROOT", {"cpu": 1}, weight=0, policy=ONLY_RECLAIM), row("b", "ROOT", {"cpu": 0})),
        {"b": (1,)},
        ("a", 1),
        these("b1"),
    ),
    "what is its cohort's own, be it without a weight": Case(
        (
            row("a", "A", {"cpu": 0}, weight=0, policy=ONLY_RECLAIM),
            row("b", "ROOT", {"cpu": 0}),
            row("A", "ROOT", {"cpu": 1}, cohort=True, weight=0),
        ),
        {"b": (1,)},
        ("a", 1),
        these("b1"),
    ),
}


@pytest.mark.parametrize("name", FAIR_YIELDS)
def test_who_yields_to_a_fair_share_is_kueues(name: str) -> None:
    """On a node with room for all: only quotas are short. Of equals the first one listed began last."""
    case = FAIR_YIELDS[name]
    who = [
        (f"{queue}{number}", queue, *(one if isinstance(one, tuple) else (one, 0)))
        for queue, runs in case.runs.items()
        for number, one in enumerate(runs, 1)
    ]
    keys = {work: key for key, (work, *_) in enumerate(who, 1)}
    begun = {work: NOON - 2 * HOUR - key * 60 * SECOND for work, key in keys.items()}
    work = [
        workload(keys[one], queue=queue, priority=50 + urgent, cpus=cores, gib=0, phase=Phase.RUNNING)
        for one, queue, cores, urgent in who
        if cores
    ]
    pods = [
        allocation(keys[one], cpus=cores, gib=0, created_at=begun[one], started_at=begun[one])
        for one, _, cores, _ in who
        if cores
    ]
    queue, cores = case.waits
    waits = workload(
        99, queue=queue, priority=50 + case.priority, cpus=cores, gib=0, phase=Phase.QUEUED, submitted_at=NOON - SECOND
    )
    snapshot = world(nodes=[node(cpus=1_000, gib=1_000)], queues=case.rows, workloads=[*work, waits], allocations=pods)
    found = {one.workload_key for action in preempt(snapshot) for one in action.victims}
    assert {one for one, key in keys.items() if key in found} == case.yields
