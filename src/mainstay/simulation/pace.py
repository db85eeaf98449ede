"""Cuts coroutines into steps: wherever real code waits for a thread or a network, a simulation may let others go first."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, ParamSpec, TypeVar, cast

from mainstay.operations.offload import Offload

P = ParamSpec("P")
R = TypeVar("R")

Steps = AsyncGenerator[float, None]
"""Something that goes on by steps: each value is after how many seconds its next one is due."""


@types.coroutine
def pause() -> Generator[None, None, None]:
    """The step ends here. In a task of its own: nothing but a turn of the event loop."""
    yield


async def in_steps(work: Coroutine[Any, None, object], *, wait: Callable[[], float]) -> Steps:
    """Run `work` from one pause to the next; between them as many seconds as `wait` says. Raises what it raises."""
    try:
        while True:
            waits_for = work.send(None)
            if waits_for is None:
                yield wait()
            else:
                # A future of asyncio: `work` has tasks in the background, for which no time passes.
                await asyncio.wait([cast("asyncio.Future[object]", waits_for)])
    except StopIteration:
        return
    finally:
        work.close()


class Inline(Offload):
    """`Offload` without threads: a simulation has one thread and one order."""

    def __init__(self) -> None:
        """No pool."""

    async def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it here, after a pause."""
        await pause()
        return function(*args, **kwargs)

    def later(self, function: Callable[[], object]) -> None:
        """At once."""
        function()

    def close(self) -> None:
        """Nothing to wait for."""
