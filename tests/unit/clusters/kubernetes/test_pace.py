"""Writes go as fast as the API server takes them, and slower when it suffers; none is lost or made twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.clusters.kubernetes.errors import AlreadyExists, ApiError, OutcomeUnknown, ServerFailed, TooManyRequests
from mainstay.clusters.kubernetes.pace import SLOW_SECONDS, Pace
from tests.clock import ManualClock

FAST = 1e9


class Target:
    """Counts what reaches it, and how much of it at once."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.now = self.most = 0

    def call(self, number: int, error: ApiError | None = None) -> Callable[[], object]:
        async def write() -> int:
            self.made.append(number)
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await asyncio.sleep(0)
                if error is not None:
                    raise error
                return number
            finally:
                self.now -= 1

        return write


def too_many(seconds: float = 0.0) -> TooManyRequests:
    error = TooManyRequests("later")
    error.retry_after = seconds
    return error


async def test_outcomes_come_in_order_and_a_failure_stops_no_other() -> None:
    target, taken = Target(), AlreadyExists("taken")
    pace = Pace(clock=ManualClock(), in_flight_max=4, writes_per_second_max=FAST)
    outcomes = await pace.run([target.call(0), target.call(1, taken), target.call(2)])
    assert outcomes == [0, taken, 2]


async def test_no_more_are_in_flight_than_allowed() -> None:
    target = Target()
    pace = Pace(clock=ManualClock(), in_flight_max=4, writes_per_second_max=FAST)
    await asyncio.gather(*(pace.run([target.call(number) for number in range(50)]) for _ in range(3)))
    assert (target.most, len(target.made)) == (4, 150)


async def test_the_rate_is_bounded() -> None:
    target, clock = Target(), ManualClock()
    pace = Pace(clock=clock, in_flight_max=4, writes_per_second_max=10.0)
    began = clock.seconds
    await pace.run([target.call(number) for number in range(101)])
    assert clock.seconds - began >= 9.9


async def test_trouble_halves_the_limit_once_for_all_that_were_in_flight() -> None:
    clock = ManualClock()
    pace = Pace(clock=clock, in_flight_max=16, writes_per_second_max=FAST)
    start, trouble = asyncio.Event(), ServerFailed("500")

    async def suffer() -> None:
        await start.wait()
        raise trouble

    task = asyncio.create_task(pace.run([suffer] * 16))
    await asyncio.sleep(0.01)
    clock.advance(1.0)
    start.set()
    await task
    assert pace.limit == 8


async def test_the_limit_falls_to_one_and_comes_back() -> None:
    target, clock = Target(), ManualClock()
    pace = Pace(clock=clock, in_flight_max=8, writes_per_second_max=FAST)
    for _ in range(5):
        clock.advance(1.0)
        await pace.run([target.call(0, too_many())])
    assert pace.limit == 1
    target.most = 0
    await pace.run([target.call(number) for number in range(2)])
    assert target.most == 1
    await pace.run([target.call(number) for number in range(100)])
    assert pace.limit == 8


async def test_a_wait_that_the_server_asks_for_is_kept() -> None:
    target, clock = Target(), ManualClock()
    pace = Pace(clock=clock, in_flight_max=1, writes_per_second_max=FAST)
    await pace.run([target.call(0, too_many(7.0))])
    before = clock.seconds
    await pace.run([target.call(1)])
    assert clock.seconds - before == pytest.approx(7.0)


async def test_a_slow_answer_is_trouble_too() -> None:
    clock = ManualClock()
    pace = Pace(clock=clock, in_flight_max=8, writes_per_second_max=FAST)

    async def crawl() -> None:
        clock.advance(SLOW_SECONDS + 1)

    await pace.run([crawl])
    assert pace.limit == 4


async def test_a_conflict_is_no_trouble() -> None:
    target = Target()
    pace = Pace(clock=ManualClock(), in_flight_max=8, writes_per_second_max=FAST)
    await pace.run([target.call(0, AlreadyExists("taken"))])
    assert pace.limit == 8


async def test_a_write_that_is_given_up_gives_its_place_back() -> None:
    pace = Pace(clock=ManualClock(), in_flight_max=1, writes_per_second_max=FAST)
    forever = asyncio.create_task(pace.write(asyncio.Event().wait))
    waiting = asyncio.create_task(pace.write(asyncio.Event().wait))
    await asyncio.sleep(0.01)
    for task in (waiting, forever):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await pace.write(Target().call(1)) == 1  # type: ignore[arg-type]


async def test_a_write_that_is_given_up_in_the_moment_of_its_turn_gives_its_place_back() -> None:
    pace = Pace(clock=ManualClock(), in_flight_max=1, writes_per_second_max=FAST)
    first_may_end = asyncio.Event()
    first = asyncio.create_task(pace.write(first_may_end.wait))
    second = asyncio.create_task(pace.write(asyncio.Event().wait))
    await asyncio.sleep(0.01)
    first_may_end.set()
    await asyncio.sleep(0)  # the first ends now, and hands its place over
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    async with asyncio.timeout(1.0):
        assert await pace.write(Target().call(1)) == 1  # type: ignore[arg-type]


async def test_what_is_urgent_comes_before_all_that_waits_but_not_before_the_server_allows_it() -> None:
    clock, order, asked = ManualClock(), list[str](), asyncio.Event()
    pace = Pace(clock=clock, in_flight_max=1, writes_per_second_max=FAST)
    trouble = too_many(7.0)

    async def suffer() -> None:
        await asked.wait()
        raise trouble

    async def tell(word: str) -> None:
        order.append(word)

    began = clock.monotonic()
    writes = [asyncio.create_task(pace.write(suffer))]
    await asyncio.sleep(0.01)
    writes += [asyncio.create_task(pace.write(lambda: tell("create"))) for _ in range(50)]
    await asyncio.sleep(0.01)
    writes += [asyncio.create_task(pace.write(lambda: tell("renewal"), urgent=True)) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert order == []
    asked.set()
    await asyncio.gather(*writes, return_exceptions=True)
    assert order == ["renewal"] * 2 + ["create"] * 50
    assert clock.monotonic() - began >= 7.0


async def test_an_error_that_is_ours_ends_the_run() -> None:
    pace = Pace(clock=ManualClock(), in_flight_max=2, writes_per_second_max=FAST)

    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        await pace.run([broken])


@given(
    st.lists(
        st.sampled_from([None, too_many(), ServerFailed("500"), OutcomeUnknown("504"), AlreadyExists("taken")]),
        max_size=60,
    )
)
def test_places_are_never_lost_or_made(errors: list[ApiError | None]) -> None:
    async def story() -> None:
        target, clock = Target(), ManualClock()
        pace = Pace(clock=clock, in_flight_max=6, writes_per_second_max=1_000.0)
        await pace.run([target.call(number, error) for number, error in enumerate(errors)])
        assert sorted(target.made) == list(range(len(errors)))
        assert 1 <= pace.limit <= 6
        await pace.run([target.call(number) for number in range(60)])
        target.most = 0
        await pace.run([target.call(number) for number in range(60)])
        assert target.most == pace.limit == 6

    asyncio.run(story())
