"""Token buckets: never more than a burst and the rate, never a wait without need, whatever the clock does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mainstay.api import buckets
from mainstay.api.buckets import BURST_SECONDS, Buckets

RATE = 8.0
SLACK = 1e-6
pauses = st.floats(0, 5, allow_nan=False)


@given(st.lists(pauses, max_size=200))
def test_nobody_gets_more_than_a_burst_and_the_rate(given_pauses: list[float]):
    rates, now, spent = Buckets(per_second=RATE), 100.0, list[float]()
    for pause in given_pauses:
        now += pause
        while not rates.wait("a", now=now):
            rates.spend("a", 1, now=now)
            spent.append(now)
    for number, since in enumerate(spent):
        assert len(spent) - number <= RATE * (BURST_SECONDS + spent[-1] - since) + 1 + SLACK


@given(st.lists(pauses, max_size=50), st.floats(0.1, RATE * BURST_SECONDS))
def test_who_waits_as_long_as_told_may_go_on(given_pauses: list[float], amount: float):
    rates, now = Buckets(per_second=RATE), 0.0
    for pause in given_pauses:
        now += pause
        now += rates.wait("a", now=now) + SLACK
        assert rates.wait("a", now=now) == 0
        rates.spend("a", amount, now=now)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 30)), max_size=40))
def test_a_clock_that_jumps_makes_nobody_wait_longer_than_two_bursts(jumps: list[tuple[float, int]]):
    rates, now = Buckets(per_second=RATE), 0.0
    for jump, asks in jumps:
        now += jump
        for _ in range(asks):
            if not rates.wait("a", now=now):
                rates.spend("a", 1, now=now)
        wait = rates.wait("a", now=now)
        assert wait <= BURST_SECONDS
        now += wait + SLACK
        assert rates.wait("a", now=now) == 0


def test_a_clock_that_goes_back_gives_no_second_burst():
    rates = Buckets(per_second=RATE)
    for now in (1_000.0, 0.0):
        went = 0
        while not rates.wait("a", now=now):
            rates.spend("a", 1, now=now)
            went += 1
        assert went == (RATE * BURST_SECONDS + 1 if now else 1)


def test_what_one_key_spends_is_not_missing_from_another():
    rates = Buckets(per_second=RATE)
    for _ in range(30):
        rates.spend("a", 1, now=0)
    assert rates.wait("a", now=0) > 0
    assert rates.wait("b", now=0) == 0


def test_keys_that_have_all_they_may_have_are_forgotten(monkeypatch):
    monkeypatch.setattr(buckets, "KEPT_MAX", 10)
    rates = Buckets(per_second=RATE)
    for number in range(1_000):
        rates.spend(str(number), 1, now=float(number))
    assert len(rates._full_at) <= 11
