"""Remove any guard and the simulation fails: every planted bug is found within a few seeds."""

from __future__ import annotations

import pytest

from mainstay.simulation.run import simulate
from tests.simulation.planted import BUGS, Plant

SEEDS = 12
EVENTS = 800


@pytest.mark.parametrize(("plant", "first"), BUGS, ids=[plant.__name__ for plant, _ in BUGS])
def test_a_planted_bug_is_found(plant: Plant, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert any(simulate(seed, events=EVENTS).violations for seed in range(first, first + SEEDS))
