"""Which refusals go on record: each is counted in one row, whatever becomes of the commit that writes it."""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import suppress

import pytest

from mainstay.domain.errors import Unavailable
from mainstay.operations.denials import EVERY_SECONDS, Denials
from tests.clock import ManualClock

WHO = "physics/ada"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def denials(clock: ManualClock) -> Denials:
    return Denials(clock)


def due(denials: Denials, who: str = WHO) -> int:
    with denials.due(who) as count:
        return count


def test_a_row_a_second_stands_for_all_since_the_one_before(denials: Denials, clock: ManualClock) -> None:
    assert [due(denials) for _ in range(3)] == [1, 0, 0]
    assert due(denials, "physics/bob") == 1
    clock.advance(EVERY_SECONDS)
    assert [due(denials), due(denials)] == [3, 0]


def test_of_two_rows_that_are_written_at_the_same_time_neither_takes_what_is_of_the_other(
    denials: Denials, clock: ManualClock
) -> None:
    with denials.due(WHO) as first:
        clock.advance(EVERY_SECONDS)
        with denials.due(WHO) as second:
            assert (first, second) == (1, 1)
    clock.advance(EVERY_SECONDS)
    assert due(denials) == 1


@pytest.mark.parametrize("error", [Unavailable("the database is away"), CancelledError()])
def test_what_could_not_be_put_on_record_is_counted_in_the_next_row(
    denials: Denials, clock: ManualClock, error: BaseException
) -> None:
    with suppress(type(error)), denials.due(WHO):
        due(denials)
        raise error
    assert due(denials) == 0
    clock.advance(EVERY_SECONDS)
    assert [due(denials), due(denials)] == [4, 0]
