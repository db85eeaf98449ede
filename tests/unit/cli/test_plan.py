"""What a plan says on a terminal of when a job would start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mainstay.cli.submit import plan_text
from mainstay.wire.views import ExpectedStartView, OptionView, PlanView, ReasonView, ResourcesView

HOUR = timedelta(hours=1, seconds=30)


def plan(starts: str = "later", **expected: Any) -> str:
    option = OptionView(
        where="",
        resources=ResourcesView(cpu=1, memory_bytes=1 << 30),
        nodes=1,
        starts=starts,  # type: ignore[arg-type]
        price_per_hour="1",
        reason=ReasonView(code="WaitsForCapacity", sentence="waits for capacity"),
    )
    since = datetime.now(UTC)
    told = {name: since + value if isinstance(value, timedelta) else value for name, value in expected.items()}
    found = ExpectedStartView(**{"sentence": "all in words", **told}) if expected else None
    return plan_text(PlanView(name="job", options=[option], position=0 if starts == "now" else 2, expected=found))


@pytest.mark.parametrize(
    ("expected", "cell"),
    [
        ({"p50": HOUR, "p90": 2 * HOUR}, "in 1h 0m / 2h 1m"),
        ({"p50": HOUR}, "in 1h 0m / ?"),
        ({"not_before": HOUR}, "not before 1h 0m"),
        ({"sentence": "nobody knows"}, "later"),
        ({}, "later"),
    ],
)
def test_in_how_long_it_starts_half_of_the_time_and_nine_times_of_ten(expected, cell):
    head, row, *more = plan(**expected).splitlines()
    at = head.index("START p50/p90")
    assert row[at : head.index("WHY")].strip() == cell
    assert ("  " + expected.get("sentence", "all in words") in more) is bool(expected)


def test_what_starts_now_starts_now():
    text = plan("now", p50=timedelta(0), p90=timedelta(0))
    assert text.splitlines()[1].split()[-4:] == ["now", "waits", "for", "capacity"]
    assert "all in words" not in text
