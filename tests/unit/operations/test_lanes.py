"""Lanes take turns: nobody waits for another's flood, and nothing is lost, doubled or out of its order."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.domain.errors import TooFast
from mainstay.operations.lanes import ALONE_TURNS, PLATFORM, Lanes

LANES = (PLATFORM, "a", "b", "c")
THREADS, SHARE, WAITING = 8, 2, 5

Step = tuple[str, str]
steps = st.lists(st.tuples(st.sampled_from(["add", "next", "done"]), st.sampled_from(LANES)), max_size=120)


@given(steps)
def test_each_call_is_carried_out_once_in_the_order_of_its_lane_and_within_its_bounds(given_steps: list[Step]):
    lanes, waiting = Lanes[int](threads=THREADS, waiting_max=WAITING), defaultdict[str, list[int]](list)
    under_way = Counter[str]()
    for number, (step, lane) in enumerate(given_steps):
        if step == "add":
            if lane != PLATFORM and len(waiting[lane]) >= WAITING:
                with pytest.raises(TooFast, match="5 requests of yours wait"):
                    lanes.add(lane, number)
            else:
                lanes.add(lane, number)
                waiting[lane].append(number)
        elif step == "done":
            if under_way[lane]:
                lanes.done(lane)
                under_way[lane] -= 1
        elif (taken := lanes.next()) is not None:
            whose, call = taken
            assert call == waiting[whose].pop(0)
            under_way[whose] += 1
            assert whose == PLATFORM or under_way[whose] <= THREADS
        else:
            may = [each for each in LANES if waiting[each] and (each == PLATFORM or under_way[each] < SHARE)]
            assert not may, "a thread is idle while a call may be carried out"


@given(
    lengths=st.dictionaries(st.sampled_from(LANES), st.integers(1, WAITING), min_size=1),
    already=st.lists(st.sampled_from(LANES), max_size=8),
    arrivals=st.lists(st.sampled_from(LANES), min_size=40, max_size=40),
)
def test_who_waits_is_next_after_one_call_of_each_other_lane_however_many_others_wait(
    lengths: dict[str, int], already: list[str], arrivals: list[str]
):
    lanes = Lanes[str](threads=4_000, waiting_max=1_000)
    for lane in already:
        lanes.add(lane, "before")
    for _ in already:
        lanes.next()
    for lane, length in lengths.items():
        for _ in range(length):
            lanes.add(lane, "flood")
    lanes.add("late", "late")
    turns = 0
    while lanes.next() != ("late", "late"):
        lanes.add(arrivals[turns], "more")
        turns += 1
    # One of each other lane, and the platform before each of these and before us.
    assert turns <= 2 * (len(LANES) - 1) + 1


def test_the_platform_has_every_second_turn_and_the_others_the_rest():
    lanes = Lanes[str](threads=100)
    for lane in LANES:
        for _ in range(6):
            lanes.add(lane, "call")
    assert [lanes.next()[0] for _ in range(8)] == [PLATFORM, "a", PLATFORM, "b", PLATFORM, "c", PLATFORM, "a"]


def test_who_is_alone_has_all_threads_and_a_quarter_of_them_as_soon_as_somebody_else_asks():
    lanes = Lanes[str](threads=8)
    for _ in range(20):
        lanes.add("a", "long")
    assert [lanes.next() for _ in range(9)] == [("a", "long")] * 8 + [None]
    lanes.add("b", "short")
    for _ in range(7):
        lanes.done("a")
    assert [lanes.next() for _ in range(3)] == [("a", "long"), ("b", "short"), None]
    lanes.done("b")
    lanes.done("a")
    assert [lanes.next() for _ in range(2)] == [("a", "long"), None]


def test_who_has_had_all_turns_for_a_while_is_alone_again():
    lanes = Lanes[str](threads=2)
    lanes.add("b", "call")
    assert lanes.next() == ("b", "call")
    lanes.done("b")
    for turn in range(ALONE_TURNS + 2):
        for _ in range(2):
            lanes.add("a", "call")
        assert lanes.next() == ("a", "call")
        second = lanes.next()
        assert (second is not None) == (turn >= ALONE_TURNS - 1), turn
        lanes.done("a")
        if second:
            lanes.done("a")


def test_who_has_too_many_waiting_is_told_when_to_come_back():
    lanes = Lanes[int](threads=1, waiting_max=2)
    lanes.add("a", 1)
    lanes.add("a", 2)
    with pytest.raises(TooFast) as refused:
        lanes.add("a", 3)
    assert refused.value.numbers == {"waiting": 2, "retry_after_seconds": 1}
    lanes.add("b", 4)
