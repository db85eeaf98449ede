"""What is said of workloads by their numbers alone."""

from __future__ import annotations

import pytest

from mainstay.domain.workload import usual_seconds


@pytest.mark.parametrize(
    ("run_times", "seconds"),
    [((), 0), ((60, 60), 0), ((60, 60, 60), 60), ((0, 0, 0), 1), ((100, 110, 120), 140), ((10, 10, 10, 10, 100), 149)],
)
def test_the_usual_time_is_above_the_mean_by_three_deviations_and_needs_a_history(run_times, seconds):
    assert usual_seconds(run_times) == seconds
