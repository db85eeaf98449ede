"""A cluster may write nonsense where a figure should be: that counts as nothing, and nothing counts for more than it is."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.clusters.kubernetes.quantities import WHOLE_MAX, instant, milli, whole

FACTORS = {
    "": 1, "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": 10**3, "M": 10**6, "G": 10**9,
    "T": 10**12, "P": 10**15, "E": 10**18, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip
numbers = st.from_regex(r"[0-9]{1,24}(\.[0-9]{0,12})?|\.[0-9]{1,12}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "thousandths"),
    [
        ("4", 4_000), (4, 4_000), (0.5, 500), ("500m", 500), ("1500m", 1_500), ("0.1", 100), (".5", 500), ("5.", 5_000),
        ("100u", 1), ("1n", 1), ("1e3", 1_000_000), ("1E-3", 1), ("3920m", 3_920), ("+2", 2_000), ("0", 0), ("-0", 0),
    ],
)  # fmt: skip
def test_thousandths(text, thousandths):
    assert milli(text) == thousandths


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("8Gi", 8 << 30), ("32818560Ki", 32818560 << 10), ("1G", 10**9), ("1.5Gi", 3 << 29), ("110", 110), ("1Ti", 1 << 40),
        ("1e9", 10**9), ("128974848000m", 128974848), ("1m", 1), ("1E", 10**18), ("1Ei", 0 if WHOLE_MAX < 1 << 60 else 1 << 60),
    ],
)  # fmt: skip
def test_units(text, units):
    assert whole(text) == units


NONSENSE = [
    None, "", " ", "-1", "-500m", "-1e9", "NaN", "nan", "inf", "-inf", "Infinity", "1Gb", "1 Gi", "Gi", "1e", "1e999", "1e99",
    "0x10", "1_000", "1,000", "--1", "1..2", "1.2.3", "9" * 25, "1KI", "1gi", "1e5Gi", "\u0663", "1\n", "\n1", "²", "1" * 10_000,
    float("inf"), float("nan"), -3, 10**30, 1 << 61, "4 cores", "unlimited", "$(X)",
]  # fmt: skip


@pytest.mark.parametrize("quantity", NONSENSE, ids=lambda quantity: ascii(quantity)[:20])
def test_nonsense_and_less_than_nothing_are_nothing(quantity):
    assert (milli(quantity), whole(quantity)) == (0, 0)


@given(quantity=st.none() | st.text() | st.integers() | st.floats() | st.text("0123456789.+-eEinumkKMGTP", max_size=40))
def test_whatever_is_written_is_a_figure_that_a_column_can_hold(quantity):
    for figure in (milli(quantity), whole(quantity)):
        assert isinstance(figure, int)
        assert 0 <= figure <= WHOLE_MAX


@given(number=numbers, suffix=st.sampled_from(sorted(FACTORS)))
def test_never_more_than_what_is_written_rounded_up_to_the_unit(number, suffix):
    with localcontext() as context:
        context.prec = 100
        written = Decimal(number) * FACTORS[suffix]
        assert whole(number + suffix) < written + 1
        assert milli(number + suffix) < written * 1_000 + 1


@given(amount=st.integers(0, 10**12), suffix=st.sampled_from(["", "k", "Ki", "M", "Mi"]))
def test_whole_amounts_are_exact(amount, suffix):
    assert whole(f"{amount}{suffix}") == amount * int(FACTORS[suffix])


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("2026-01-01T10:00:00Z", 1_767_261_600_000_000),
        ("2026-01-01T10:00:00.123456Z", 1_767_261_600_123_456),
        ("2026-01-01T12:00:00+02:00", 1_767_261_600_000_000),
        ("0001-01-01T00:00:00Z", 0),
        ("1969-12-31T23:59:59Z", 0),
        ("yesterday", 0),
        ("2026-13-01T00:00:00Z", 0),
        ("2026-01-01T10:00:00+99:00", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_instants(text, microseconds):
    assert instant(text) == microseconds


@given(text=st.text() | st.datetimes().map(lambda at: at.isoformat()) | st.text("0123456789-:TZ+.", max_size=35))
def test_no_time_fails(text):
    assert instant(text) >= 0
