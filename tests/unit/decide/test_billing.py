"""Exact money: known sums, and that no cut, order or delay ever changes them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide import billing
from mainstay.domain.allocation import Allocation, Seen
from mainstay.domain.billing import Price, UsageRecord
from mainstay.domain.quantity import BYTES_PER_GIB, MICROSECONDS_PER_HOUR, Money, Resources, cost_micros
from tests.worlds import SECOND

HOUR = MICROSECONDS_PER_HOUR
ONE_GPU = Resources(cpu_milli=2_000, memory_bytes=4 * BYTES_PER_GIB, gpus=1, gpu_model="H100")


def price(sku: str, micros: int, since: int = 0) -> Price:
    return Price(sku=sku, per_hour=Money(micros=micros), effective_from=since)


def usage(start: int, end: int, resources: Resources = ONE_GPU) -> UsageRecord:
    return UsageRecord(
        allocation_key=1, tenant="acme", project="vision", workload="w", resources=resources, start=start, end=end
    )


def bill(start: int, end: int, prices: list[Price], *, since_start: int, resources: Resources = ONE_GPU) -> int:
    found = billing.charges(usage(start, end, resources), since_start=since_start, prices=prices)
    return sum(charge.cost.micros for charge in found)


def test_an_hour_costs_the_price_of_an_hour():
    prices = [price("cpu", 35_000), price("gpu", 390_000), price("memory", 3_460)]
    found = billing.charges(usage(HOUR, 2 * HOUR), since_start=HOUR, prices=prices)
    assert [(c.sku, c.quantity, c.cost.micros) for c in found] == [
        ("cpu", 2_000, 70_000),
        ("memory", 4 * BYTES_PER_GIB, 13_840),
        ("gpu", 1, 390_000),
    ]


def test_the_price_of_a_gpu_model_goes_before_the_general_one():
    prices = [price("gpu", 1_000), price("gpu/H100", 9_000)]
    assert [c.sku for c in billing.charges(usage(0, HOUR), since_start=0, prices=prices)] == ["gpu/H100"]
    other = Resources(gpus=1, gpu_model="L4")
    assert [c.sku for c in billing.charges(usage(0, HOUR, other), since_start=0, prices=prices)] == ["gpu"]


def test_a_price_of_its_own_leaves_the_past_of_a_model_as_it_was():
    prices = [price("gpu", 1_000), price("gpu/H100", 9_000, since=HOUR)]
    found = billing.charges(usage(0, 2 * HOUR), since_start=0, prices=prices)
    assert [(c.sku, c.start, c.end, c.cost.micros) for c in found] == [
        ("gpu", 0, HOUR, 1_000),
        ("gpu/H100", HOUR, 2 * HOUR, 9_000),
    ]


def test_a_change_of_price_cuts_the_charge():
    prices = [price("gpu", 1_000), price("gpu", 3_000, since=HOUR + HOUR // 2)]
    found = billing.charges(usage(HOUR, 2 * HOUR), since_start=HOUR, prices=prices)
    assert [(c.start, c.end, c.unit_price.micros, c.cost.micros) for c in found] == [
        (HOUR, HOUR + HOUR // 2, 1_000, 500),
        (HOUR + HOUR // 2, 2 * HOUR, 3_000, 1_500),
    ]


def test_what_has_no_price_or_no_amount_has_no_charge():
    assert billing.charges(usage(0, HOUR), since_start=0, prices=[]) == ()
    assert billing.charges(usage(0, HOUR), since_start=0, prices=[price("gpu", 1, since=HOUR)]) == ()
    assert billing.charges(usage(0, HOUR, Resources()), since_start=0, prices=[price("cpu", 1)]) == ()


def test_three_seconds_are_billed():
    assert bill(0, 3 * SECOND, [price("gpu", 390_000)], since_start=0) == 325


PRICES = st.lists(
    st.builds(
        price,
        st.sampled_from(["cpu", "memory", "gpu", "gpu/H100"]),
        st.integers(0, 10_000_000),
        st.integers(0, 5 * HOUR),
    ),
    max_size=6,
    unique_by=lambda p: (p.sku, p.effective_from),
)
RESOURCES = st.builds(
    Resources,
    cpu_milli=st.integers(0, 10_000),
    memory_bytes=st.integers(0, 1 << 40),
    gpus=st.integers(0, 8),
    gpu_model=st.sampled_from(["", "H100", "L4"]),
)
INSTANTS = st.lists(st.integers(0, 6 * HOUR), min_size=2, max_size=12, unique=True).map(sorted)


@given(PRICES, RESOURCES, INSTANTS)
def test_cutting_an_interval_never_changes_its_sum(prices, resources, cuts):
    whole = bill(cuts[0], cuts[-1], prices, since_start=cuts[0], resources=resources)
    pieces = [
        bill(start, end, prices, since_start=cuts[0], resources=resources) for start, end in itertools.pairwise(cuts)
    ]
    assert sum(pieces) == whole


@given(PRICES, RESOURCES, INSTANTS)
def test_no_charge_is_negative_and_charges_of_a_sku_cover_time_once(prices, resources, cuts):
    found = billing.charges(usage(cuts[0], cuts[-1], resources), since_start=0, prices=prices)
    assert all(charge.cost.micros >= 0 for charge in found)
    by_kind: dict[str, list[tuple[int, int]]] = {}
    for charge in found:
        by_kind.setdefault(charge.sku.partition("/")[0], []).append((charge.start, charge.end))
    for spans in by_kind.values():
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))
        assert all(cuts[0] <= start < end <= cuts[-1] for start, end in spans)


@given(st.integers(0, 10_000_000), st.integers(0, 64_000), INSTANTS)
def test_the_charges_of_an_allocation_add_up_to_the_cost_of_the_whole(micros, cpu_milli, cuts):
    resources = Resources(cpu_milli=cpu_milli)
    pieces = sum(
        bill(start, end, [price("cpu", micros)], since_start=cuts[0], resources=resources)
        for start, end in itertools.pairwise(cuts)
    )
    whole = cost_micros(
        price_per_hour_micros=micros, amount=cpu_milli, per_amount=1_000, duration_us=cuts[-1] - cuts[0]
    )
    assert pieces == whole


@given(PRICES, st.randoms(use_true_random=False))
def test_the_order_of_the_price_book_does_not_matter(prices, random):
    shuffled = list(prices)
    random.shuffle(shuffled)
    record = usage(HOUR, 4 * HOUR)
    assert billing.charges(record, since_start=0, prices=prices) == billing.charges(
        record, since_start=0, prices=shuffled
    )


def pod(**values) -> Allocation:
    given_values = {
        "key": 1, "workload_key": 1, "workload": "w", "tenant": "t", "project": "p", "attempt": 1,
        "rank": 0, "ranks": 1, "node": "n", "cluster": "c",
        "resources": ONE_GPU, "stop": False, "seen": Seen.RUNNING, "ready": False, "address": "", "created_at": 0,
        "started_at": 0, "ended_at": 0, "metered_until": 0, "end": None, "exit_code": None, "detail": "",
        "closed": False, "version": 1, **values,
    }  # fmt: skip
    return Allocation(**given_values)


@pytest.mark.parametrize(
    ("values", "now", "micros"),
    [
        ({}, HOUR, 0),
        ({"started_at": HOUR}, 2 * HOUR, 1_000),
        ({"started_at": HOUR, "metered_until": 2 * HOUR}, 2 * HOUR + HOUR // 2, 500),
        ({"started_at": HOUR, "ended_at": HOUR + HOUR // 4}, 9 * HOUR, 250),
        ({"started_at": HOUR, "metered_until": 2 * HOUR, "ended_at": 2 * HOUR}, 9 * HOUR, 0),
        ({"started_at": 2 * HOUR}, HOUR, 0),
    ],
)
def test_what_accrues_is_what_is_not_yet_recorded(values, now, micros):
    found = billing.accrued(pod(**values), now, [price("gpu", 1_000)])
    assert billing.total(found) == Money(micros=micros)


def test_the_price_of_an_hour_adds_up_its_parts():
    prices = [price("cpu", 35_000), price("gpu/H100", 6_710_000), price("memory", 3_460)]
    assert billing.price_per_hour(ONE_GPU, HOUR, prices) == Money(micros=70_000 + 13_840 + 6_710_000)


def test_the_default_book_prices_every_resource():
    skus = {entry.sku for entry in billing.default_price_book()}
    assert {"cpu", "memory", "gpu"} <= skus
    assert all(entry.per_hour.micros > 0 and entry.effective_from == 0 for entry in billing.default_price_book())
