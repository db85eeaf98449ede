"""The pulse: everybody who waits is woken, and a beat between two waits is not slept through."""

from __future__ import annotations

import asyncio

import pytest

from mainstay.operations.pulse import Pulse


async def test_a_beat_wakes_everybody_who_waits() -> None:
    pulse = Pulse()
    with pulse.listener() as one, pulse.listener() as two:
        waits = asyncio.gather(one.wait(5), two.wait(5))
        await asyncio.sleep(0)
        pulse.beat()
        assert await waits == [True, True]


async def test_a_beat_before_the_wait_is_remembered_once() -> None:
    pulse = Pulse()
    with pulse.listener() as listener:
        pulse.beat()
        pulse.beat()
        assert await listener.wait(5)
        assert not await listener.wait(0.001)


async def test_without_a_beat_the_wait_ends_by_itself() -> None:
    with Pulse().listener() as listener:
        assert not await listener.wait(0.001)


async def test_a_listener_that_has_gone_is_forgotten() -> None:
    pulse = Pulse()
    with pulse.listener():
        pass
    pulse.beat()
    assert not pulse._waiters


@pytest.mark.parametrize("steps", range(6))
async def test_who_is_cancelled_at_the_moment_of_a_beat_ends(steps: int) -> None:
    pulse = Pulse()

    async def loop() -> None:
        with pulse.listener() as listener:
            while True:
                await listener.wait(1)

    task = asyncio.create_task(loop())
    await asyncio.sleep(0.01)
    pulse.beat()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=3)
    assert done
    assert task.cancelled()
