"""What is said of workloads by their numbers alone."""

from __future__ import annotations

import numpy as np
import pytest

from mainstay.domain.workload import SPREAD_PERMILLE_MIN, typical, usual_seconds


@pytest.mark.parametrize(
    ("run_times", "seconds"),
    [((), 0), ((60, 60), 0), ((60, 60, 60), 60), ((0, 0, 0), 1), ((100, 110, 120), 140), ((10, 10, 10, 10, 100), 149)],
)
def test_the_usual_time_is_above_the_mean_by_three_deviations_and_needs_a_history(run_times, seconds):
    assert usual_seconds(run_times) == seconds


def test_what_the_next_run_takes_is_known_from_three_runs_on_and_never_to_the_second():
    assert typical((60, 60)) == (0, 0)
    assert typical((60, 60, 60)) == (60, SPREAD_PERMILLE_MIN)
    assert typical((0, 0, 0)) == (1, SPREAD_PERMILLE_MIN)
    few, many = typical((100, 200, 400)), typical((100, 200, 400) * 6)
    assert few[0] == many[0] == 200
    assert few[1] > 1.5 * many[1]


@pytest.mark.parametrize("runs", [3, 5, 20])
def test_nine_of_ten_next_runs_are_shorter_than_the_spread_says_however_few_are_known(runs):
    random = np.random.default_rng(runs)
    shorter, times = 0, 4_000
    for *last, following in random.lognormal(8, 0.6, (times, runs + 1)).tolist():
        middle, spread = typical([round(each) for each in last])
        shorter += following < middle * np.exp(1.2816 * spread / 1_000)
    assert shorter / times == pytest.approx(0.9, abs=0.02)
