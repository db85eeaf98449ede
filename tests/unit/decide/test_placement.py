"""The arrays under placement: counting room, grouping shapes, and two ways to one answer."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.placement import POLICIES
from mainstay.decide.placement.best_fit import best_fit
from mainstay.decide.placement.fill import Policy, fill, lowest
from mainstay.decide.placement.fit import Request, feasible, free_of, request_of, room
from mainstay.decide.placement.gang import place
from mainstay.decide.shapes import shape_numbers, shape_of
from mainstay.domain.quantity import Resources
from tests.worlds import node, workload, world

REQUEST = Request(cpu_milli=1_000, memory_bytes=0, gpus=0, gpu_model=0)
NODES = st.lists(
    st.builds(
        node, cpus=st.integers(0, 9), gib=st.integers(1, 3), gpus=st.integers(0, 1), cluster=st.sampled_from("ab")
    ),
    min_size=1,
    max_size=8,
)


def test_room_counts_the_scarcest_resource():
    free = free_of(world(nodes=[node(cpus=9, gib=4, gpus=8, gpu_model="L4")]))
    asked = Resources(cpu_milli=2_000, memory_bytes=2 << 30, gpus=1)
    assert room(free, request_of(asked, ("", "L4"))).tolist() == [2]


def test_a_request_without_gpus_minds_no_model():
    assert request_of(Resources(gpus=0, gpu_model="H100"), ("",)).gpu_model == 0


def test_a_model_that_nobody_has_is_feasible_nowhere():
    free = free_of(world(nodes=[node(gpus=8, gpu_model="L4")]))
    assert not feasible(free, request_of(Resources(gpus=1, gpu_model="H100"), ("", "L4"))).any()


def test_a_node_that_shrank_under_its_work_takes_nothing():
    free = free_of(world(nodes=[node(cpus=4, used_cpus=6)]))
    assert room(free, REQUEST).tolist() == [0]


@given(NODES, st.sampled_from(sorted(POLICIES)))
def test_one_pod_goes_where_a_gang_would_start(nodes, policy):
    free = free_of(world(nodes=nodes))
    rows = np.flatnonzero(room(free, REQUEST))
    if rows.size:
        one, two = (fill(free, REQUEST, POLICIES[policy], rows, count)[0] for count in (1, rows.size))
        assert one[0] == two[0]


@given(NODES, st.integers(1, 20), st.sampled_from(sorted(POLICIES)))
def test_pods_fill_up_to_what_was_asked_or_to_the_brim(nodes, count, policy):
    free = free_of(world(nodes=nodes))
    fits = room(free, REQUEST)
    rows, pods = fill(free, REQUEST, POLICIES[policy], np.flatnonzero(fits), count)
    assert (pods > 0).all()
    assert (pods <= fits[rows]).all()
    assert pods.sum() == min(count, fits.sum())
    assert np.unique(rows).size == rows.size


@given(NODES, st.integers(1, 20))
def test_pods_of_one_kind_fill_as_they_would_one_after_another(nodes, count):
    together, alone = (free_of(world(nodes=nodes)) for _ in range(2))
    rows, pods = fill(together, REQUEST, Policy(best_fit), np.flatnonzero(room(together, REQUEST)), count)
    expected = np.zeros(len(nodes), dtype=np.int64)
    for _ in range(count):
        row, pod = fill(alone, REQUEST, Policy(best_fit), np.flatnonzero(room(alone, REQUEST)), 1)
        alone.take(row, pod, REQUEST)
        expected[row] += pod
    found = np.zeros(len(nodes), dtype=np.int64)
    found[rows] = pods
    assert found.tolist() == expected.tolist()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 40))
def test_the_lowest_scores_come_in_order_and_of_equals_the_first(scores, count):
    values = np.array(scores, dtype=np.float64)
    assert lowest(values, count).tolist() == np.argsort(values, kind="stable")[:count].tolist()


@given(NODES, st.integers(1, 20), st.sampled_from(sorted(POLICIES)))
def test_a_gang_is_placed_exactly_when_one_cluster_has_room_for_it(nodes, count, policy):
    free = free_of(world(nodes=nodes))
    rows = place(free, REQUEST, count=count, policy=POLICIES[policy])
    fits = room(free, REQUEST)
    holds = [int(fits[free.cluster == number].sum()) >= count for number in set(free.cluster.tolist())]
    assert (rows is not None) == any(holds)
    if rows is not None:
        assert rows.size == count
        assert (np.bincount(rows, minlength=fits.size) <= fits).all()


@given(
    st.lists(
        st.builds(
            lambda cpus, nodes, choices: {"cpus": cpus, "nodes": nodes, "choices": choices},
            st.integers(0, 2),
            st.integers(1, 2),
            st.lists(st.builds(Resources, cpu_milli=st.integers(0, 1)), max_size=2).map(tuple),
        ),
        max_size=12,
    )
)
def test_rows_share_a_number_exactly_when_they_ask_for_the_same(requests):
    snapshot = world(workloads=[workload(key, **values) for key, values in enumerate(requests, 1)])
    rows = np.arange(len(requests))
    numbers = shape_numbers(snapshot, rows).tolist()
    shapes = [shape_of(snapshot, row) for row in rows.tolist()]
    for first in rows:
        for second in rows:
            assert (numbers[first] == numbers[second]) == (shapes[first] == shapes[second])
