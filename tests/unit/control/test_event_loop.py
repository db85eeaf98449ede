"""The event loop of a server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest
import uvloop

from mainstay.control import event_loop


@pytest.fixture(autouse=True)
def the_collector_as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_a_server_runs_on_libuv_with_a_collector_that_comes_rarely() -> None:
    found: list[object] = []

    async def look() -> None:
        found.extend((type(asyncio.get_running_loop()), gc.isenabled(), gc.get_threshold()[0]))

    event_loop.run(look())

    assert found == [uvloop.Loop, True, event_loop.NEW_OBJECTS_MAX]


def test_what_ends_the_work_is_raised() -> None:
    async def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        event_loop.run(fail())
