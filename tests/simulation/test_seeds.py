"""Thirty worlds with faults, none of which breaks a promise; and a seed is a world, to the byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mainstay.simulation.run import simulate

EVENTS = 800
KEPT = Path(__file__).with_name("seeds.txt")
"""Seeds that have found something once, with the number of events they needed: `SEED EVENTS  what it was`."""


def replay(seed: int, events: int) -> None:
    outcome = simulate(seed, events=events)
    command = f"python -m mainstay.simulation --seed {seed} --events {events}"
    assert not outcome.violations, f"{outcome.violations[0]}\n  replay: {command}\n  keep it in {KEPT.name}"


@pytest.mark.parametrize("seed", range(1, 31))
def test_a_world_with_faults_keeps_every_promise(seed):
    replay(seed, EVENTS)


@pytest.mark.parametrize("line", [line for line in KEPT.read_text().splitlines() if line and line[0] != "#"])
def test_a_seed_that_has_found_something_finds_nothing_any_more(line):
    seed, events, *_ = line.split()
    replay(int(seed), int(events))


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_same_seed_is_the_same_world_in_another_process(hash_seed):
    script = "from mainstay.simulation.run import simulate; print(simulate(5, events=400).trace)"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == simulate(5, events=400).trace


def test_other_seeds_are_other_worlds():
    assert simulate(5, events=100).trace != simulate(6, events=100).trace


def test_faults_do_happen():
    faults = sum((simulate(seed, events=EVENTS).faults for seed in range(1, 4)), start=simulate(4, events=10).faults)
    assert {"act_lost", "act_reply_lost", "long_pause", "pod_unreported", "report_stale"} <= faults.keys()
