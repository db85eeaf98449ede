"""Threads of the store under a flood: turns by lane, calls that nobody waits for any more, failures and the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mainstay.domain.errors import TooFast
from mainstay.operations.lanes import WAITING_MAX
from mainstay.operations.offload import Offload, in_lane


@asynccontextmanager
async def busy(offload: Offload, *, threads: int) -> AsyncIterator[None]:
    """All threads are at work for the block."""
    release, began = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        began.release()
        release.wait(10)

    with in_lane("others"):
        calls = [asyncio.create_task(offload(work)) for _ in range(threads)]
    for _ in calls:
        await asyncio.to_thread(began.acquire, timeout=10)
    try:
        yield
    finally:
        release.set()
        await asyncio.gather(*calls)


async def test_a_flood_of_one_lane_does_not_hold_up_another():
    offload, order = Offload(threads=1), list[str]()
    async with busy(offload, threads=1):
        with in_lane("flood"):
            calls = [asyncio.create_task(offload(order.append, "flood")) for _ in range(100)]
        with in_lane("other"):
            calls += [asyncio.create_task(offload(order.append, "other")) for _ in range(3)]
        await asyncio.sleep(0)
    await asyncio.gather(*calls)
    assert order[:6] == ["flood", "other"] * 3
    assert len(order) == 103
    offload.close()


async def test_a_full_lane_is_refused_and_the_others_are_not():
    offload = Offload(threads=1)
    async with busy(offload, threads=1):
        with in_lane("flood"):
            calls = [asyncio.create_task(offload(int)) for _ in range(WAITING_MAX)]
            await asyncio.sleep(0)
            with pytest.raises(TooFast):
                await offload(int)
        with in_lane("other"):
            calls.append(asyncio.create_task(offload(int)))
            await asyncio.sleep(0)
    assert await asyncio.gather(*calls) == [0] * (WAITING_MAX + 1)
    offload.close()


async def test_calls_that_take_long_leave_threads_to_others():
    offload, release = Offload(threads=8), threading.Event()
    with in_lane("short"):
        await offload(int)
    with in_lane("long"):
        long = [asyncio.create_task(offload(release.wait, 10)) for _ in range(12)]
    await asyncio.sleep(0)
    with in_lane("short"):
        assert await offload(int) == 0
    release.set()
    assert await asyncio.gather(*long) == [True] * 12
    offload.close()


async def test_a_call_that_nobody_waits_for_any_more_is_not_carried_out():
    offload, done = Offload(threads=1), list[str]()
    async with busy(offload, threads=1):
        left = asyncio.create_task(offload(done.append, "left"))
        stays = asyncio.create_task(offload(done.append, "stays"))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
    await stays
    assert done == ["stays"]
    offload.close()


async def test_a_call_that_fails_frees_its_thread_and_its_lane():
    offload = Offload(threads=1)

    def fails() -> None:
        msg = "the disk"
        raise OSError(msg)

    for _ in range(3):
        with in_lane("a"), pytest.raises(OSError, match="the disk"):
            await offload(fails)
    offload.close()  # whoever waits is told a moment before the lane is free
    assert not offload._lanes._under_way
    assert not offload._lanes._waiting


async def test_the_lane_of_a_request_is_that_of_its_tasks_and_of_nobody_else():
    offload, lanes = Offload(threads=1), list[str]()
    add = offload._lanes.add
    offload._lanes.add = lambda lane, call: (lanes.append(lane), add(lane, call))[1]  # type: ignore[method-assign]

    async def request(name: str) -> None:
        with in_lane(name):
            await asyncio.gather(*(asyncio.create_task(offload(int)) for _ in range(2)))
            await offload(int)

    await asyncio.gather(request("a"), request("b"))
    await offload(int)
    assert sorted(lanes) == ["", *["a"] * 3, *["b"] * 3]
    offload.close()


async def test_at_the_end_what_waits_is_carried_out():
    offload, done = Offload(threads=1), list[int]()
    calls = [asyncio.create_task(offload(done.append, number)) for number in range(20)]
    await asyncio.sleep(0)
    await asyncio.to_thread(offload.close)
    await asyncio.gather(*calls)
    assert done == list(range(20))


def test_two_event_loops_may_use_the_same_threads():
    offload = Offload(threads=2)

    async def ask() -> list[int]:
        with in_lane("a"):
            return await asyncio.gather(*(offload(int) for _ in range(50)))

    found = list[list[int]]()
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(ask()))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[0] * 50] * 2
    offload.close()
