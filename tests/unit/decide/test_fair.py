"""Fair shares: Armada's published cases, quotas that come first, the tree, and what must hold of every split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.fair import fair_shares
from mainstay.decide.standing import Fairness, fairness_of
from mainstay.domain.arrays import Floats
from mainstay.domain.history import HistoryPolicy
from mainstay.domain.queue import QueueSpec, Quota
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from tests.worlds import NOON, SECOND, allocation, node, workload, world

MUCH = 10.0


def level(*siblings: tuple[float, float], own: tuple[float, ...] = ()) -> list[float]:
    """Of roots, each (weight, demand)."""
    weight, demand = (np.array(column, dtype=float) for column in zip(*siblings, strict=True))
    found = fair_shares(
        parent=np.full(weight.size, -1), weight=weight, own=np.array(own or [0.0] * weight.size), demand=demand
    )
    return [round(one, 9) for one in found.tolist()]


@pytest.mark.parametrize(
    ("siblings", "expected"),
    [
        ([(1, MUCH)], [1]),
        ([(1, 0.01)], [0.01]),
        ([(1, MUCH), (1, MUCH)], [0.5, 0.5]),
        ([(1, 0.01), (1, 0.01)], [0.01, 0.01]),
        ([(1, 0.01), (1, MUCH)], [0.01, 0.99]),
        ([(1, MUCH), (3, MUCH)], [0.25, 0.75]),
        ([(1, 0.01), (3, MUCH)], [0.01, 0.99]),
        ([(1, MUCH), (3, 0.01)], [0.99, 0.01]),
        ([(1, 0.01), (1, 0.4), (1, MUCH)], [0.01, 0.4, 0.59]),
        ([(1, 0), (1, 0), (1, 0)], [0, 0, 0]),
    ],
)
def test_the_cases_that_armada_publishes(siblings, expected):
    assert level(*siblings) == expected


def test_its_own_comes_first_and_what_nobody_owns_goes_by_weight():
    assert level((1, MUCH), (1, MUCH), own=(0.5, 0)) == [0.75, 0.25]
    assert level((1, 0.2), (1, MUCH), own=(0.5, 0)) == [0.2, 0.8], "what it does not want of its own, others may have"


def test_quotas_of_more_than_there_is_shrink_alike():
    assert level((1, MUCH), (9, MUCH), own=(1.5, 0.5)) == [0.75, 0.25]


def test_without_a_weight_it_has_what_nobody_else_wants():
    assert level((0, MUCH), (1, 0.25), (0, MUCH)) == [0.375, 0.25, 0.375]
    assert level((0, MUCH), (1, MUCH)) == [0, 1]


def test_a_cohort_wants_what_its_children_do_and_shares_among_them():
    """Half of the fleet is for the cohort (0), of which one child (2) wants little; the queue beside it (1) wants all."""
    found = fair_shares(
        parent=np.array([-1, -1, 0, 0]),
        weight=np.array([1.0, 1, 1, 1]),
        own=np.zeros(4),
        demand=np.array([0, MUCH, 0.1, MUCH]),
    )
    assert found.round(9).tolist() == [0.5, 0.5, 0.1, 0.4]


@st.composite
def trees(draw: st.DrawFn) -> dict[str, np.ndarray]:
    count = draw(st.integers(1, 8))
    part = st.integers(0, 20).map(lambda number: number / 20)
    return {
        "parent": np.array([draw(st.integers(-1, row - 1)) for row in range(count)]),
        "weight": np.array([draw(st.sampled_from((0.0, 0.5, 1.0, 3.0))) for _ in range(count)]),
        "own": np.array([draw(st.sampled_from((0.0, 0.0, 0.1, 0.6))) for _ in range(count)]),
        "demand": np.array([draw(part) for _ in range(count)]),
    }


def wanted(tree: dict[str, np.ndarray]) -> Floats:
    """Of cohorts too."""
    found = tree["demand"].astype(float).copy()
    for row in range(found.size - 1, -1, -1):
        below = np.flatnonzero(tree["parent"] == row)
        if below.size:
            found[row] = found[below].sum()
    return found


@given(trees())
def test_no_more_is_given_than_there_is_or_than_anybody_wants_and_nothing_is_left_while_somebody_wants(tree):
    found, demand = fair_shares(**tree), wanted(tree)
    assert (found <= demand + 1e-9).all()
    assert (found >= 0).all()
    for row in range(-1, found.size):
        below = np.flatnonzero(tree["parent"] == row)
        there = 1.0 if row < 0 else found[row]
        if below.size:
            assert found[below].sum() == pytest.approx(min(there, demand[below].sum()))


@given(trees())
def test_nobody_who_wants_more_has_less_above_its_own_for_its_weight_than_a_sibling(tree):
    found, demand = fair_shares(**tree), wanted(tree)
    own = tree["own"].copy()
    for row in range(own.size - 1, -1, -1):
        if tree["parent"][row] >= 0:
            own[tree["parent"][row]] += own[row]
    for row in range(found.size):
        for other in np.flatnonzero(tree["parent"] == tree["parent"][row]).tolist():
            above = [found[one] - min(own[one], demand[one]) for one in (row, other)]
            if found[row] < demand[row] - 1e-9 and tree["weight"][row]:
                weights = tree["weight"][row], tree["weight"][other]
                theirs = above[1] / weights[1] if weights[1] else (np.inf if above[1] > 1e-9 else 0)
                assert theirs <= max(0, above[0]) / weights[0] + 1e-9


@given(trees(), st.randoms(use_true_random=False))
def test_the_order_of_siblings_does_not_matter(tree, rng):
    count = tree["parent"].size
    depth = [0] * count
    for row in range(count):
        depth[row] = depth[tree["parent"][row]] + 1 if tree["parent"][row] >= 0 else 0
    order = sorted(range(count), key=lambda row: (depth[row], rng.random()))
    place = {row: at for at, row in enumerate(order)}
    other = {name: column[order] for name, column in tree.items()}
    other["parent"] = np.array([place.get(row, -1) for row in tree["parent"][order].tolist()])
    assert fair_shares(**other) == pytest.approx(fair_shares(**tree)[order])


def of(snapshot: Snapshot, name: str) -> Fairness:
    return fairness_of(snapshot)[snapshot.queues.names.index(name)]


def test_a_queue_is_told_what_is_fair_what_it_could_have_and_what_it_holds():
    snapshot = world(
        nodes=[node(cpus=100, gib=1_000)],
        workloads=[
            workload(1, queue="a", cpus=10, gib=0.01, phase=Phase.RUNNING),
            workload(2, queue="a", cpus=10, gib=0.01),
            workload(3, queue="b", cpus=1_000, gib=0.01),
        ],
        allocations=[allocation(1, cpus=10, gib=0.01)],
        queues=[QueueSpec(name="a"), QueueSpec(name="b", weight=2)],
    )
    assert of(snapshot, "a") == Fairness(fair=0.25, capped=0.2, held=0.1, lately=0)
    assert of(snapshot, "b") == Fairness(fair=0.5, capped=0.8, held=0, lately=0)


def test_nobody_is_due_what_their_quotas_never_let_them_have():
    quotas = {("default", "cpu"): Quota(nominal=10_000, borrowing_limit=20_000)}
    queues = [
        QueueSpec(name="all", cohort=True),
        QueueSpec(name="a", parent="all", quotas=quotas),
        QueueSpec(name="b", parent="all", quotas={("default", "cpu"): Quota(nominal=90_000)}),
    ]
    wants = [workload(1, queue="a", cpus=80), workload(2, queue="b", cpus=90)]
    snapshot = world(nodes=[node(cpus=100)], workloads=wants, queues=queues)
    assert of(snapshot, "a").capped == pytest.approx(0.1)
    assert of(snapshot, "b").capped == pytest.approx(0.9)
    alone = world(nodes=[node(cpus=100)], workloads=wants[:1], queues=queues)
    assert of(alone, "a").capped == pytest.approx(0.3)


def test_what_it_used_lately_is_told_where_a_history_is_kept():
    def held(policy: HistoryPolicy) -> Fairness:
        snapshot = world(
            nodes=[node(cpus=100)],
            workloads=[workload(1, queue="a", cpus=50, phase=Phase.RUNNING)],
            allocations=[allocation(1, cpus=50, gib=0, created_at=NOON - 3_600 * SECOND)],
            queues=[QueueSpec(name="a")],
            history_policy=policy,
        )
        return of(snapshot, "a")

    assert held(HistoryPolicy()).lately == 0
    assert held(HistoryPolicy(half_life_seconds=3_600)).lately == pytest.approx(0.25)


def test_the_only_queue_holds_what_is_held():
    snapshot = world(
        nodes=[node(cpus=10)], workloads=[workload(1, phase=Phase.RUNNING)], allocations=[allocation(1, cpus=5)]
    )
    assert of(snapshot, "default").held == 0.5
