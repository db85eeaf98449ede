"""Kueue's performance configurations, in small: what `make bench-fairness` plays keeps the quotas and loses nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import fairness
from benchmarks.fairness import SETUPS
from benchmarks.queue_play import BEGIN, NOMINAL, bound, play, tree_of, work_of

PART = 0.04


@pytest.mark.parametrize(("name", "workloads"), [("baseline", 15_000), ("large-scale", 50_000), ("gangs", 15_000)])
def test_there_is_as_much_work_as_is_published(name, workloads):
    setup = SETUPS[name]
    assert work_of(setup, tree_of(setup)).queue.size == workloads


def test_no_schedule_is_shorter_than_the_bound():
    setup = SETUPS["baseline"]
    # Of each queue 1,320 core seconds for its 20 cores. Of them 11 x 0.2 x 1 and 2 x 0.5 x 5 arrive before 1.2 s.
    assert bound(setup, work_of(setup, tree_of(setup))) == pytest.approx(1.2e6 + (1_320 - 7.2) / 20 * 1e6)


@pytest.mark.parametrize("name", ["baseline", "gangs"])
def test_all_work_ends_whole_and_within_the_quotas(name):
    setup = SETUPS[name]
    work, outcome = play(setup, part=PART)
    assert (outcome.admitted_at >= work.arrives_at).all()
    assert (outcome.ended_at == outcome.admitted_at + work.run_us).all()
    assert max(outcome.peak) <= setup.queues * NOMINAL
    assert outcome.ended_at.max() - BEGIN >= bound(setup, work)
    assert outcome.admissions == work.queue.size + outcome.evictions.sum()
    assert outcome.used >= work.core_us.sum()


def test_the_same_work_makes_the_same_play():
    (_, one), (_, other) = (play(SETUPS["baseline"], part=PART) for _ in range(2))
    assert np.array_equal(one.admitted_at, other.admitted_at)
    assert one.evictions.sum() > 0
    assert one.evictions.tolist() == other.evictions.tolist()


def test_the_last_line_is_one_object_with_what_is_published(capsys):
    fairness.run(["baseline"], part=PART)
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    figures = {row["name"]: row for row in document["figures"]}
    assert (document["benchmark"], document["part"]) == ("fairness", PART)
    assert figures["makespan over its lower bound"]["median"] >= 1
    assert figures["mean time to admit, small"]["published"] == 215.5
    assert all(row["median"] >= 0 for row in figures.values())
