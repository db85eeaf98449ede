"""The most that a run may hold and cost is never less than what it turns out to hold and cost."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mainstay.decide import at_most, billing
from mainstay.domain.billing import Price, UsageRecord
from mainstay.domain.quantity import BYTES_PER_GIB, MICROSECONDS_PER_HOUR, MICROSECONDS_PER_SECOND, Money, Resources
from mainstay.domain.workload import Elastic, PodSet, RetryPolicy
from tests.stores import spec

HOUR = MICROSECONDS_PER_HOUR
CORE = Resources(cpu_milli=1_000)
SKUS = ("cpu", "memory", "gpu", "gpu/T4", "gpu/H100", "gpu/1g.10gb")


def price(sku: str, micros: int, since: int = 0) -> Price:
    return Price(sku=sku, per_hour=Money(micros=micros), effective_from=since)


def gpus(count: int, model: str = "") -> Resources:
    return replace(CORE, gpus=count, gpu_model=model)


@pytest.mark.parametrize(
    ("what", "held"),
    [
        ({"choices": (gpus(2),)}, 2),
        ({"choices": (gpus(2),), "nodes": 3}, 6),
        ({"choices": (gpus(2),), "nodes": 2, "elastic": Elastic(nodes_min=1, nodes_max=5)}, 10),
        ({"choices": (gpus(1), gpus(4), gpus(2))}, 4),
        ({"devices": ("gpu.example.com:2", "nic.example.com:1"), "nodes": 2}, 6),
        (
            {
                "nodes": 3,
                "sets": (PodSet(name="a", nodes=1, resources=CORE), PodSet(name="b", nodes=2, resources=gpus(4))),
            },
            8,
        ),
    ],
)
def test_it_holds_as_many_gpus_as_its_largest_choice_and_size_has(what, held):
    assert at_most.gpus(spec(**what)) == held


def test_it_may_cost_its_limit_and_its_last_words_in_every_attempt():
    run = spec(
        choices=(CORE,),
        nodes=2,
        max_duration_seconds=3_600,
        stop_grace_seconds=1_800,
        retry=RetryPolicy(infrastructure_max=2, user_max=1),
    )
    assert at_most.cost_micros(run, now=0, prices=[price("cpu", 1_000_000)]) == 4 * 2 * 1_500_000


def test_a_price_that_is_to_come_counts_and_one_of_the_past_does_not():
    prices = [price("cpu", 9_000_000), price("cpu", 1_000_000, since=5 * HOUR), price("cpu", 2_000_000, since=9 * HOUR)]
    most = [billing.cost_at_most(CORE, seconds=3_600, now=hour * HOUR, prices=prices) for hour in (4, 5, 9)]
    assert most == [9_000_002, 2_000_001, 2_000_000]


@pytest.mark.parametrize(
    ("asked", "micros"),
    [
        (gpus(1, "T4"), 1_000_000 + 2_000_000),
        (gpus(1, "L4"), 1_000_000 + 500_000),
        (gpus(1), 1_000_000 + 8_000_000),
        (replace(gpus(1), gpu_memory_bytes=40 * 10**9), 1_000_000 + 8_000_000),
        (replace(gpus(1, "T4"), gpu_part_permille=500), 1_000_000 + 8_000_000),
    ],
    ids=["a model", "a model without a price", "any", "any of that memory", "a part of one"],
)
def test_a_gpu_that_may_be_of_any_model_counts_with_the_dearest(asked, micros):
    prices = [price("cpu", 1_000_000), price("gpu", 500_000), price("gpu/T4", 2_000_000), price("gpu/H100", 8_000_000)]
    assert billing.cost_at_most(asked, seconds=3_600, now=0, prices=prices) == micros


BOOK = some.lists(
    some.builds(price, some.sampled_from(SKUS), some.integers(0, 10_000_000), some.integers(0, 6).map(HOUR.__mul__)),
    max_size=8,
    unique_by=lambda one: (one.sku, one.effective_from),
)


PODS = some.builds(
    lambda cpu_milli, model: Resources(cpu_milli=cpu_milli, memory_bytes=BYTES_PER_GIB // 3, gpus=1, gpu_model=model),
    some.integers(1, 5_000),
    some.sampled_from(["", "T4", "H100", "L4"]),
)
TIMES = some.tuples(some.integers(0, 4 * HOUR), some.integers(0, 3 * HOUR), some.integers(1, 10_000))
"""Now, so long it waits, and so many seconds it runs."""


@given(
    BOOK,
    PODS,
    some.sampled_from(["T4", "H100", "1g.10gb"]),
    TIMES,
    some.lists(some.integers(0, 10_000 * MICROSECONDS_PER_SECOND), max_size=4),
)
def test_no_pod_costs_more_however_its_time_is_cut_and_priced(book, asked, found, times, cuts):
    now, waited, seconds = times
    held = replace(asked, gpu_model=asked.gpu_model or found)
    start = now + waited
    end = start + seconds * MICROSECONDS_PER_SECOND
    instants = sorted({start, end, *(start + cut for cut in cuts if start + cut < end)})
    pieces = (
        UsageRecord(allocation_key=1, tenant="t", project="p", workload="w", resources=held, start=begin, end=until)
        for begin, until in itertools.pairwise(instants)
    )
    bill = (billing.charges(piece, since_start=start, prices=book) for piece in pieces)
    cost = sum(charge.cost.micros for charges in bill for charge in charges)
    assert cost <= billing.cost_at_most(asked, seconds=seconds, now=now, prices=book)
