"""Thirty worlds with faults, none of which breaks a promise; and a seed is a world, to the byte."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from mainstay.decide import growth, reconcile
from mainstay.simulation.__main__ import quieten
from mainstay.simulation.faults import Profile
from mainstay.simulation.run import Outcome, simulate

EVENTS = 800
PARTITION_EVENTS = 3_000
SLACK_SECONDS = 8
"""Simulated nodes notice sooner than real ones that their time is over."""
PAUSE_SECONDS = 2
"""Pods run for seconds there, so that runs grow sooner than real ones."""
KEPT = Path(__file__).with_name("seeds.txt")
"""Seeds that have found something once, with the number of events they needed: `SEED EVENTS  what it was`."""


REPLAYED = range(1, 4)
SEEDS = range(1, 16)
ELASTIC_SEEDS = range(9, 11)
worlds, elastic_worlds = pytest.mark.xdist_group("worlds"), pytest.mark.xdist_group("elastic worlds")
"""One process for all tests that look at the same worlds."""


@functools.cache
def world(seed: int, events: int) -> Outcome:
    """Run once for all tests that only read what came of it; without a default, which would make it two worlds to the cache."""
    return simulate(seed, events=events)


@functools.cache
def elastic_world(seed: int) -> Outcome:
    """Likewise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growth, "PAUSE_SECONDS", PAUSE_SECONDS)
        return simulate(seed, events=EVENTS, preemption=True, elastic=True)


def replay(seed: int, events: int) -> None:
    outcome = world(seed, events)
    command = f"python -m mainstay.simulation --seed {seed} --events {events}"
    assert not outcome.violations, f"{outcome.violations[0]}\n  replay: {command}\n  keep it in {KEPT.name}"


@worlds
@pytest.mark.parametrize("seed", SEEDS)
def test_a_world_with_faults_keeps_every_promise(seed):
    replay(seed, EVENTS)


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_world_in_which_others_make_pods_keeps_every_promise(seed):
    outcome = simulate(seed, events=EVENTS, guests=True)
    command = f"python -m mainstay.simulation --guests --seed {seed} --events {EVENTS}"
    assert not outcome.violations, f"{outcome.violations[0]}\n  replay: {command}"


@pytest.mark.parametrize("seed", range(4, 6))
def test_a_world_in_which_nodes_are_cut_off_keeps_every_promise(seed, monkeypatch):
    """Attempts never overlap (I3), although a pod that nobody hears of is given up before its node comes back."""
    monkeypatch.setattr(reconcile, "DEAD_MAN_SLACK_SECONDS", SLACK_SECONDS)
    outcome = simulate(seed, events=PARTITION_EVENTS, partitions=True)
    assert not outcome.violations, outcome.violations[0]
    assert outcome.faults["node_cut_off"]


@pytest.mark.parametrize("seed", range(2, 4))
def test_a_world_in_which_work_is_displaced_keeps_every_promise(seed):
    """Among them that what is kept for one is given to nobody else (I16), over crashes before and after each commit."""
    outcome = simulate(seed, events=EVENTS, preemption=True)
    command = f"python -m mainstay.simulation --preemption --seed {seed} --events {EVENTS}"
    assert not outcome.violations, f"{outcome.violations[0]}\n  replay: {command}"
    assert outcome.displaced


@elastic_worlds
@pytest.mark.parametrize("seed", ELASTIC_SEEDS)
def test_a_world_in_which_work_is_elastic_keeps_every_promise(seed):
    """Among them that no run is left with fewer ranks than its min (I17), over lost nodes, drains, displacements and crashes."""
    outcome = elastic_world(seed)
    command = f"python -m mainstay.simulation --preemption --elastic --seed {seed} --events {EVENTS}"
    assert not outcome.violations, f"{outcome.violations[0]}\n  replay: {command}"


@elastic_worlds
def test_elastic_work_goes_on_with_fewer_ranks_and_with_more():
    assert sum(elastic_world(seed).shrunk for seed in ELASTIC_SEEDS)
    assert sum(elastic_world(seed).grown for seed in ELASTIC_SEEDS)


def test_a_world_in_which_ranks_of_a_job_are_not_all_alike_keeps_every_promise():
    """Among them that gangs are whole, and that each rank holds what its pod set asks for (I7)."""
    outcome = simulate(4, events=EVENTS, preemption=True, sets=True)
    command = f"python -m mainstay.simulation --preemption --sets --seed 4 --events {EVENTS}"
    assert not outcome.violations, f"{outcome.violations[0]}\n  replay: {command}"
    assert outcome.of_sets
    assert outcome.displaced


@pytest.mark.parametrize("line", [line for line in KEPT.read_text().splitlines() if line and line[0] != "#"])
def test_a_seed_that_has_found_something_finds_nothing_any_more(line):
    seed, events, *_ = line.split()
    replay(int(seed), int(events))


@worlds
def test_a_seed_is_the_same_world_again_and_in_another_process():
    script = f"from {__name__} import print_traces; print_traces()"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True) as other:
        first = [world(seed, EVENTS).trace for seed in REPLAYED]
        again = [simulate(seed, events=EVENTS).trace for seed in REPLAYED]
        elsewhere, _ = other.communicate()
    assert again == first
    assert elsewhere.split() == first


def print_traces() -> None:
    """What the other process does."""
    quieten()
    for seed in REPLAYED:
        print(simulate(seed, events=EVENTS).trace)


def test_other_seeds_are_other_worlds():
    assert simulate(5, events=100).trace != simulate(6, events=100).trace


@worlds
def test_every_fault_does_happen():
    faults = sum((world(seed, EVENTS).faults for seed in SEEDS), start=Counter())
    assert asdict(Profile()).keys() <= faults.keys()
