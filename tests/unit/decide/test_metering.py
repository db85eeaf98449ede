"""Usage records: cut at the hour, once, and never for time that may not have been used."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainstay.decide.billing import default_price_book
from mainstay.decide.metering import meter
from mainstay.domain.allocation import End, Seen
from mainstay.domain.plan import RowVersion
from mainstay.domain.quantity import BYTES_PER_GIB, MICROSECONDS_PER_HOUR, Resources
from tests.worlds import NOON, SECOND, AnAllocation, allocation, ended, node, world

HOUR = MICROSECONDS_PER_HOUR


def spans(pod: AnAllocation, *, now: int = NOON, observed: int = NOON) -> list[tuple[int, int]]:
    """All records of one allocation, as the meter writes them turn by turn, with its cluster witnessed to `observed`."""
    found: list[tuple[int, int]] = []
    while actions := meter(world(nodes=[node()], allocations=[pod], now=now, observed={"local": observed})):
        (action,) = actions
        found.append((action.usage.start, action.usage.end))
        pod = replace(pod, metered_until=action.usage.end)
    return found


def test_a_short_pod_is_one_record_from_start_to_end():
    assert spans(ended(1, started_at=NOON - 5 * SECOND, ended_at=NOON - 2 * SECOND)) == [
        (NOON - 5 * SECOND, NOON - 2 * SECOND)
    ]


def test_a_long_pod_is_cut_at_every_hour():
    pod = ended(1, started_at=NOON - HOUR - 10, ended_at=NOON + 20)
    assert spans(pod, now=NOON + HOUR) == [(NOON - HOUR - 10, NOON - HOUR), (NOON - HOUR, NOON), (NOON, NOON + 20)]


def test_a_full_hour_of_a_running_pod_is_recorded_once_its_cluster_was_witnessed_to_its_end():
    pod = allocation(1, started_at=NOON - 10)
    assert spans(pod, observed=NOON - 1) == []
    assert spans(pod, observed=NOON) == [(NOON - 10, NOON)]


def test_what_our_own_clock_says_records_nothing_of_a_running_pod():
    pod = allocation(1, started_at=NOON - 3 * HOUR)
    assert spans(pod, now=NOON + 1_000 * HOUR, observed=0) == []
    assert spans(pod, now=NOON - 5 * HOUR, observed=NOON - 2 * HOUR) == [(NOON - 3 * HOUR, NOON - 2 * HOUR)]


def test_a_running_pod_on_a_node_that_is_not_known_is_not_recorded():
    pod = allocation(1, node_key=9, started_at=NOON - 3 * HOUR)
    assert meter(world(nodes=[node()], allocations=[pod], observed={"local": NOON})) == ()


@pytest.mark.parametrize(
    "pod",
    [
        allocation(1, seen=Seen.NOTHING),
        allocation(1, seen=Seen.STARTING),
        allocation(1, seen=Seen.UNKNOWN, started_at=NOON - 5 * HOUR),
        ended(1, End.NEVER_STARTED, started_at=0),
        ended(1, started_at=NOON - 9, ended_at=NOON - 5, metered_until=NOON - 5),
        ended(1, started_at=NOON, ended_at=NOON - 5),
        allocation(1, started_at=NOON + HOUR),
    ],
)
def test_nothing_is_recorded_of_what_did_not_run_is_recorded_or_is_in_doubt(pod):
    assert spans(pod) == []


def test_a_record_names_who_held_what_and_what_it_read():
    pod = ended(7, key=3, version=9, cpus=2, gib=4, gpus=1, gpu_model="L4")
    owners = {7: ("acme", "speech", "w-seven")}
    (action,) = meter(world(allocations=[pod], owners=owners, prices=default_price_book()))
    usage = action.usage
    assert (usage.tenant, usage.project, usage.workload) == ("acme", "speech", "w-seven")
    assert usage.resources == Resources(cpu_milli=2_000, memory_bytes=4 * BYTES_PER_GIB, gpus=1, gpu_model="L4")
    assert [charge.sku for charge in action.charges] == ["cpu", "memory", "gpu/L4"]
    assert action.guards == (RowVersion(kind="allocation", key=3, version=9),)


@given(st.integers(1, 5 * HOUR), st.integers(1, 5 * HOUR), st.lists(st.integers(-HOUR, 6 * HOUR), max_size=6))
def test_however_often_and_whenever_it_runs_the_records_tile_the_life_of_the_pod(start, length, turns):
    """Turns at any instants, the clock going back included, while the pod runs; then it ends and is settled."""
    base = NOON - 12 * HOUR
    started_at, ended_at = base + start, base + start + length
    metered_until, found = 0, []
    for turn in turns:
        now = min(base + start + turn, ended_at)
        for action in meter(
            world(allocations=[allocation(1, started_at=started_at, metered_until=metered_until)], now=now)
        ):
            found.append((action.usage.start, action.usage.end))
            metered_until = action.usage.end
    found += spans(ended(1, started_at=started_at, ended_at=ended_at, metered_until=metered_until))
    assert found[0][0] == started_at
    assert found[-1][1] == ended_at
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(found))
    assert all(start < end and start // HOUR == (end - 1) // HOUR for start, end in found)
