"""Runs store calls on worker threads, so that the event loop never waits for a disk. Who asks have turns (`lanes.py`)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from mainstay.operations.lanes import PLATFORM, Lanes

P = ParamSpec("P")
R = TypeVar("R")

_LANE: Final = ContextVar("lane", default=PLATFORM)
"""In whose lane the calls of this task wait: told once where a request arrives, so that none of its calls can be in another."""


@contextmanager
def in_lane(lane: str) -> Iterator[None]:
    """Calls of the block, and of the tasks that are begun in it, wait in this lane."""
    token = _LANE.set(lane)
    try:
        yield
    finally:
        _LANE.reset(token)


class Offload:
    """`await offload(function, ...)` runs a plain function on one of a few threads and returns what it returns."""

    def __init__(self, *, threads: int = 4) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._lanes = Lanes[_Job](threads=threads)
        self._lock = threading.Lock()

    async def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Raises whatever `function` raises, and TooFast where as many calls of its lane wait as may."""
        result: R = await asyncio.wrap_future(self._add(_LANE.get(), partial(function, *args, **kwargs)))
        return result

    def later(self, function: Callable[[], object]) -> None:
        """Have it done in a turn of the platform: nobody waits for it, and nobody is told where it fails."""
        self._add(PLATFORM, function)

    def close(self) -> None:
        """Wait for the calls in flight and end the threads."""
        self._pool.shutdown()

    def _add(self, lane: str, call: Callable[[], Any]) -> Future[Any]:
        job = _Job(call=call, future=Future())
        with self._lock:
            self._lanes.add(lane, job)
        self._pool.submit(self._work)
        return job.future

    def _work(self) -> None:
        """Carry out what may be, one call after the other.

        There is one of these for each call that waits, so that no thread is idle while one may be carried out. Whoever comes
        while a lane has as many under way as it may leaves again: those threads go on with it.
        """
        while True:
            with self._lock:
                taken = self._lanes.next()
            if taken is None:
                return
            lane, job = taken
            try:
                job.carry_out()
            finally:
                del job, taken  # what it was about is not kept alive by a thread that waits
                with self._lock:
                    self._lanes.done(lane)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    call: Callable[[], Any]
    future: Future[Any]

    def carry_out(self) -> None:
        """Nothing happens where nobody waits for it any more."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.call()
        except BaseException as error:  # noqa: BLE001 whoever waits is told, as by any executor
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
