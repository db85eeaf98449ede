"""Jobs in virtual time: who runs when, what an interruption costs, and what always holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.ordering import ORDERS
from mainstay.decide.placement.consolidated import consolidated
from mainstay.simulation.player import Jobs, play

JOB = st.tuples(
    st.integers(0, 20),  # arrives at
    st.integers(0, 9),  # work
    st.integers(1, 20),  # GPUs
    st.integers(0, 3),  # start-up
)


def jobs(*rows, startup=0):
    """(arrival, work, GPUs[, start-up]) per job."""
    table = np.array([(*row, startup)[:4] for row in rows], dtype=float).reshape(-1, 4)
    return Jobs(
        arrives_at=table[:, 0], work_seconds=table[:, 1], gpus=table[:, 2].astype(int), startup_seconds=table[:, 3]
    )


def played(*rows, nodes=(8,), order="fifo", preempts=True, startup=0, place=consolidated):
    return play(jobs(*rows, startup=startup), np.array(nodes), order=ORDERS[order], place=place, preempts=preempts)


def test_a_job_alone_runs_as_long_as_its_work():
    outcome = played((3, 5, 8), startup=2)
    assert (outcome.started_at.tolist(), outcome.ended_at.tolist()) == ([3], [8])


def test_who_finds_no_room_waits_and_others_go_on_in_its_place():
    outcome = played((0, 10, 6), (1, 10, 4), (2, 10, 2))
    assert outcome.started_at.tolist() == [0, 10, 2]


def test_a_job_larger_than_a_node_waits_for_whole_ones():
    outcome = played((0, 10, 1), (0, 5, 16), (0, 5, 4), nodes=(8, 8))
    assert outcome.started_at.tolist() == [0, 10, 0]


def test_an_interruption_costs_a_job_its_start_up():
    outcome = played((0, 100, 8), (50, 10, 8), order="srtf", startup=4)
    assert outcome.ended_at.tolist() == [100 + 10 + 4, 60]
    assert outcome.preemptions.tolist() == [1, 0]


def test_an_interruption_costs_no_more_than_was_done_since_the_last():
    outcome = played((0, 100, 8), (1, 10, 8), order="srtf", startup=4)
    assert outcome.ended_at[0] == 100 + 10 + 1


def test_who_keeps_its_place_pays_all_the_same_where_everything_is_placed_again():
    outcome = played((0, 100, 4), (50, 10, 4), order="srtf", startup=4)
    assert outcome.ended_at.tolist() == [100 + 2 * 4, 60]  # an arrival and an end
    assert outcome.preemptions.tolist() == [0, 0]


def test_without_preemption_what_runs_runs_on_and_pays_nothing():
    outcome = played((0, 100, 8), (50, 10, 8), order="srtf", startup=4, preempts=False)
    assert outcome.ended_at.tolist() == [100, 110]


def test_remaining_service_weighs_the_gpus():
    assert played((0, 3, 8), (0, 10, 1), nodes=(8,), order="srtf").started_at.tolist() == [0, 3]
    assert played((0, 3, 8), (0, 10, 1), nodes=(8,), order="srsf").started_at.tolist() == [10, 0]


def test_a_job_that_no_room_would_do_for_never_starts_and_holds_up_nobody():
    outcome = played((0, 1, 17), (0, 5, 16), nodes=(8, 8), order="srtf")
    assert outcome.started_at.tolist() == [np.inf, 0]
    assert outcome.ended_at.tolist() == [np.inf, 5]


def test_rounding_does_not_make_two_events_of_one():
    assert played((0.1, 0.2, 4), (0, 0.3, 4)).events == 3  # 0.1 + 0.2 > 0.3: two arrivals, one end


def test_no_jobs_are_no_events():
    assert played().events == 0


@given(rows=st.lists(JOB, max_size=12), preempts=st.booleans(), order=st.sampled_from(sorted(ORDERS)))
def test_nothing_is_over_capacity_and_whatever_fits_comes_to_its_end(rows, preempts, order):
    nodes = np.array([8, 4])
    least_free = []

    def watched(free, size, gpus):
        least_free.append(int(free.min()))
        return consolidated(free, size, gpus)

    outcome = played(*rows, nodes=nodes, order=order, preempts=preempts, place=watched)
    table = jobs(*rows)
    fits = np.array([consolidated(nodes, nodes, gpus) is not None for gpus in table.gpus.tolist()], dtype=bool)
    assert min(least_free, default=0) >= 0
    assert np.isfinite(outcome.ended_at[fits]).all()
    assert np.isinf(outcome.started_at[~fits]).all()
    assert (outcome.started_at >= table.arrives_at).all()
    ran = outcome.ended_at[fits] - outcome.started_at[fits]
    assert (ran >= table.work_seconds[fits] - 1e-9).all()
    if not preempts:
        assert ran == pytest.approx(table.work_seconds[fits])
        assert not outcome.preemptions.any()


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=8))
def test_shortest_remaining_time_first_is_best_on_one_machine(rows):
    mean = {
        order: played(*((arrival, work, 1) for arrival, work in rows), nodes=(1,), order=order).ended_at.mean()
        for order in ORDERS
    }
    assert mean["srtf"] <= min(mean.values()) + 1e-9


@given(rows=st.lists(JOB, max_size=8, unique_by=lambda job: job[0]), seed=st.randoms(use_true_random=False))
def test_the_order_of_rows_means_nothing_where_nothing_is_equal(rows, seed):
    shuffled = list(range(len(rows)))
    seed.shuffle(shuffled)
    outcome = played(*rows, order="srtf")
    again = played(*(rows[index] for index in shuffled), order="srtf")
    assert again.ended_at.tolist() == outcome.ended_at[np.array(shuffled, dtype=int)].tolist()
