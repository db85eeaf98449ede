"""Remove any guard and the simulation fails: every planted bug is found, at the latest within a few seeds."""

from __future__ import annotations

import pytest

from mainstay.simulation import run
from mainstay.simulation.run import simulate
from tests.simulation.planted import BUGS, GUEST_BUGS, PARTITION_BUGS, PREEMPTION_BUGS, Plant

SEEDS = 12
"""The first of them finds it; the others are for when another change has made it another world."""
SETTLE_SECONDS_MAX = 450.0
"""Twice the longest of sixty seeds without a bug."""


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world that a bug keeps from settling is not watched for long."""
    monkeypatch.setattr(run, "SETTLE_SECONDS_MAX", SETTLE_SECONDS_MAX)


@pytest.mark.parametrize(("plant", "first", "events"), BUGS, ids=[plant.__name__ for plant, _, _ in BUGS])
def test_a_planted_bug_is_found(plant: Plant, first: int, events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert any(simulate(seed, events=events).violations for seed in range(first, first + SEEDS))


@pytest.mark.parametrize(("plant", "first", "events"), GUEST_BUGS, ids=[plant.__name__ for plant, _, _ in GUEST_BUGS])
def test_a_planted_bug_about_guests_is_found(
    plant: Plant, first: int, events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert any(simulate(seed, events=events, guests=True).violations for seed in range(first, first + SEEDS))


@pytest.mark.parametrize(
    ("plant", "first", "events"), PARTITION_BUGS, ids=[plant.__name__ for plant, _, _ in PARTITION_BUGS]
)
def test_a_planted_bug_about_partitions_is_found(
    plant: Plant, first: int, events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert any(simulate(seed, events=events, partitions=True).violations for seed in range(first, first + SEEDS))


@pytest.mark.parametrize(
    ("plant", "first", "events"), PREEMPTION_BUGS, ids=[plant.__name__ for plant, _, _ in PREEMPTION_BUGS]
)
def test_a_planted_bug_about_preemption_is_found(
    plant: Plant, first: int, events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert any(simulate(seed, events=events, preemption=True).violations for seed in range(first, first + SEEDS))
