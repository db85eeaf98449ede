"""Real coroutines in steps: where they stop, what they raise, and what goes on in the background meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from mainstay.simulation.pace import Inline, in_steps, pause


async def test_a_coroutine_stops_at_each_pause_and_goes_on_when_it_is_asked():
    done: list[str] = []

    async def work() -> None:
        done.append("first")
        await pause()
        done.append(await Inline()(str.upper, "second"))

    steps = in_steps(work(), wait=lambda: 2.5)
    assert (await anext(steps), done) == (2.5, ["first"])
    assert (await anext(steps), done) == (2.5, ["first"])
    assert await anext(steps, None) is None
    assert done == ["first", "SECOND"]


async def test_tasks_in_the_background_are_waited_for_without_a_step():
    async def late() -> str:
        await asyncio.sleep(0)
        await pause()
        return "late"

    async def work() -> None:
        assert await asyncio.gather(asyncio.create_task(late())) == ["late"]

    assert [seconds async for seconds in in_steps(work(), wait=lambda: 1.0)] == []


async def test_what_it_raises_is_raised():
    async def work() -> None:
        await pause()
        raise LookupError

    steps = in_steps(work(), wait=lambda: 1.0)
    await anext(steps)
    with pytest.raises(LookupError):
        await anext(steps)


async def test_a_process_that_dies_does_nothing_more():
    done: list[str] = []

    async def work() -> None:
        await pause()
        done.append("never")

    steps = in_steps(work(), wait=lambda: 1.0)
    await anext(steps)
    await steps.aclose()
    assert done == []
