"""Asks services whether they can serve: one small HTTP request each, never waited for long."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from mainstay.clusters.local.addresses import HOST

PATH = re.compile(r"/[!-~]{0,1000}\Z")
"""Printable ASCII without blanks: nothing that could end the request line."""
WAIT_SECONDS = 1.0
PAUSE_SECONDS = 0.1
PAUSE_SECONDS_READY = 5.0
FAILURES_MAX = 3
"""A service that was ready may miss so many in a row, less one, before it counts as not ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What to ask."""

    pod: str
    port: int
    path: str


@dataclass(slots=True, kw_only=True)
class _Record:
    ready: bool = False
    failures: int = 0
    asked_at: float = -PAUSE_SECONDS_READY
    task: asyncio.Task[bool] | None = None


@dataclass(slots=True, kw_only=True)
class Readiness:
    """The last answers, by pod. Nobody waits for a probe: an observation takes what is known."""

    _records: dict[str, _Record] = field(default_factory=dict)

    def ready(self, probes: Iterable[Probe]) -> frozenset[str]:
        """The pods that are ready, of those asked about now; others are forgotten. Starts the requests that are due."""
        asked = {probe.pod: probe for probe in probes}
        for pod in [pod for pod in self._records if pod not in asked]:
            self._drop(self._records.pop(pod))
        for probe in asked.values():
            self._advance(probe, self._records.setdefault(probe.pod, _Record()))
        return frozenset(pod for pod, record in self._records.items() if record.ready)

    async def close(self) -> None:
        """Drop the requests under way."""
        tasks = [record.task for record in self._records.values() if record.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._records.clear()

    def _advance(self, probe: Probe, record: _Record) -> None:
        if record.task is not None and record.task.done():
            answered = not record.task.cancelled() and record.task.result()
            record.failures = 0 if answered else record.failures + 1
            record.ready = answered or (record.ready and record.failures < FAILURES_MAX)
            record.task = None
        calm = record.ready and not record.failures
        due = record.asked_at + (PAUSE_SECONDS_READY if calm else PAUSE_SECONDS)
        if record.task is None and time.monotonic() >= due:
            record.asked_at = time.monotonic()
            record.task = asyncio.create_task(answers(probe.port, probe.path))

    @staticmethod
    def _drop(record: _Record) -> None:
        if record.task is not None:
            record.task.cancel()


async def answers(port: int, path: str) -> bool:
    """Whether GET gets the status 200. What else a job may answer is not even read."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(WAIT_SECONDS):
            reader, writer = await asyncio.open_connection(HOST, port, limit=1024)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode())
                status = await reader.read(12)
                return re.match(rb"HTTP/1\.[01] 200", status) is not None
            finally:
                writer.close()
    return False
