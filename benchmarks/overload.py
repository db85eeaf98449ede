"""One tenant floods while 20 others work: what the others notice of it, before and during, side by side.

A real server process on SQLite with all its loops, asked over sockets from other processes. Each tenant asks at a steady pace,
whatever the answers take (an open loop: a slow answer is not a reason to ask less): lists, single runs and submissions. The
flood asks ten times as much as all of them together. Rounds with and without it take turns in one run.

    python -m benchmarks.overload --rounds 5 --seconds 15
    python -m benchmarks.overload --rate-max 0    # turns at the store alone, without a limit on the pace
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp

from benchmarks.report import figure, percentile, progress, report
from mainstay.api.app import create_api
from mainstay.app import configure_log, opened, serve, wire
from mainstay.control import event_loop
from mainstay.operations.principal import Principal
from mainstay.start.settings import Settings
from mainstay.start.sockets import listening

TENANTS = 20
PACE = 2.0
"""Requests a second of each tenant."""
TIMES = 10
"""What the flood asks, as a multiple of what all tenants do together."""
GOAL = 2.0
"""Issue 6: the p99 of the others at most so many times as high."""
FLOOD = "flood"
MEMBERS = 4
"""Of each tenant, as whom it asks in turns: the flood is not held by the limit of one member."""
FLOOD_AT_ONCE = 200
"""Connections of the flood; where all are busy it has what a server that is too slow for it gives."""
SETTLE_SECONDS = 1.0
JOB = {"job": {"name": "waits", "run": "true"}}


@dataclass(slots=True)
class Seen:
    """What one side of a round saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    def note(self, status: int, seconds: float) -> None:
        """One answer; 0 is none."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.seconds.append(seconds)

    @property
    def errors(self) -> float:
        """Percent that were not answered with success."""
        bad = sum(count for status, count in self.statuses.items() if not 200 <= status < 300)
        return 100 * bad / max(1, len(self.seconds))


def main() -> None:
    """Run everything and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rate-max", type=int, default=50, help="of a tenant, as `mainstay server` has it")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--flood", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_tenants(options.serve, rate_max=options.rate_max)
    elif options.flood:
        print(json.dumps(asyncio.run(flood(options.flood, options.seconds)).statuses))
    else:
        compare(rounds=options.rounds, seconds=options.seconds, rate_max=options.rate_max)


def compare(*, rounds: int, seconds: float, rate_max: int) -> None:
    """Rounds with and without the flood, in turns."""
    before, during, floods = list[Seen](), list[Seen](), list[dict[str, int]]()
    cpu_before, cpu_during = list[float](), list[float]()
    with server(rate_max) as (url, process_id):
        asyncio.run(work(url, 3))  # everything is loaded and compiled
        for number in range(rounds):
            idle = cpu_seconds(process_id)
            before.append(asyncio.run(work(url, seconds)))
            cpu_before.append(100 * (cpu_seconds(process_id) - idle) / seconds)
            with flooding(url, seconds + SETTLE_SECONDS) as process:
                time.sleep(SETTLE_SECONDS)
                idle = cpu_seconds(process_id)
                during.append(asyncio.run(work(url, seconds)))
                cpu_during.append(100 * (cpu_seconds(process_id) - idle) / seconds)
                floods.append(json.loads(process.communicate()[0]))
            p99s = [1_000 * percentile(seen.seconds, 0.99) for seen in (before[-1], during[-1])]
            progress(f"round {number + 1}: p99 {p99s[0]:.1f} ms before, {p99s[1]:.1f} ms during; flood {floods[-1]}")
    figures = []
    for share in (0.5, 0.99):
        name = f"p{share * 100:g} of the others"
        sides = [[1_000 * percentile(seen.seconds, share) for seen in side] for side in (before, during)]
        ratios = [after / first for first, after in zip(*sides, strict=True)]
        figures += [
            figure(f"{name}, before", "ms", sides[0], higher_is_better=False),
            figure(f"{name}, during", "ms", sides[1], higher_is_better=False),
            figure(
                f"{name}, during / before",
                "times",
                ratios,
                goal=GOAL if share == 0.99 else None,
                higher_is_better=False,
            ),
        ]
    figures += [
        figure("errors of the others, before", "%", [seen.errors for seen in before], higher_is_better=False),
        figure("errors of the others, during", "%", [seen.errors for seen in during], goal=0, higher_is_better=False),
        figure("asked by the flood", "requests/s", [sum(one.values()) / seconds for one in floods]),
        figure("of these refused with 429", "%", [100 * one.get("429", 0) / sum(one.values()) for one in floods]),
        figure("of a core, used by the server, before", "%", cpu_before, higher_is_better=False),
        figure("of a core, used by the server, during", "%", cpu_during, higher_is_better=False),
    ]
    notes = [
        f"{TENANTS} tenants, {PACE:g} requests a second each; --rate-max {rate_max}; {rounds} rounds of {seconds:g} s"
    ]
    report("overload", figures, notes=notes)


async def work(url: str, seconds: float) -> Seen:
    """What all tenants see who ask at their pace."""
    seen = Seen()
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(_tenant(session, f"tenant-{number}", seconds, seen) for number in range(TENANTS)))
    return seen


async def flood(url: str, seconds: float) -> Seen:
    """Ask without regard to anything that is answered."""
    seen, pace, ends = Seen(), TENANTS * PACE * TIMES, time.monotonic() + seconds
    connector = aiohttp.TCPConnector(limit=FLOOD_AT_ONCE)
    async with aiohttp.ClientSession(url, connector=connector) as session, asyncio.TaskGroup() as group:
        began, asked, under_way = time.monotonic(), 0, set[asyncio.Task[None]]()
        while (now := time.monotonic()) < ends:
            while asked < (now - began) * pace and len(under_way) < FLOOD_AT_ONCE:
                task = group.create_task(_ask(session, FLOOD, asked, seen))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                asked += 1
            asked = max(asked, int((now - began) * pace) - FLOOD_AT_ONCE)
            await asyncio.sleep(0.002)
    return seen


async def _tenant(session: aiohttp.ClientSession, name: str, seconds: float, seen: Seen) -> None:
    began = time.monotonic() + random.uniform(0, 1 / PACE)
    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds * PACE)):
            await asyncio.sleep(max(0.0, began + number / PACE - time.monotonic()))
            group.create_task(_ask(session, name, number, seen))


async def _ask(session: aiohttp.ClientSession, tenant: str, number: int, seen: Seen) -> None:
    """Of five requests two lists, two single runs and one submission."""
    token, began = f"{tenant}/{number % MEMBERS}", time.monotonic()
    headers = {"Authorization": f"Bearer {token}"}
    try:
        if number % 5 == 0:
            answer = await session.post("/v1/workloads", json=JOB, headers=headers)
        else:
            path = "/v1/workloads?limit=20" if number % 2 else "/v1/workloads/waits"
            answer = await session.get(path, headers=headers)
        async with answer:
            await answer.read()
        seen.note(answer.status, time.monotonic() - began)
    except (OSError, aiohttp.ClientError, TimeoutError):
        seen.note(0, time.monotonic() - began)


@contextlib.contextmanager
def flooding(url: str, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """In a process of its own, which leaves the cores to server and others: its client is not what is measured."""
    command = [sys.executable, "-m", "benchmarks.overload", "--flood", url, "--seconds", str(seconds)]
    with subprocess.Popen(["nice", "-n", "19", *command], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def server(rate_max: int) -> Iterator[tuple[str, int]]:
    """A platform of many tenants in a process of its own: where it is, and which process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.overload", "--serve", folder, "--rate-max", str(rate_max)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                assert process.stdout
                yield process.stdout.readline().decode().strip(), process.pid
            finally:
                process.terminate()


def principal(token: str) -> Principal:
    """Whoever the token says."""
    tenant, _, member = token.partition("/")
    return Principal(name=member, tenant=tenant, role="user")


def cpu_seconds(process_id: int) -> float:
    """What a process has used. Source: /proc/PID/stat, fields 14 and 15."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def serve_tenants(state: Path, *, rate_max: int) -> None:
    """As `mainstay server` does, but that a token is the name of its tenant, and that nothing can run."""
    configure_log("error")
    settings = Settings(state=state, port=0, local_cluster=False, rate_max=rate_max)
    with listening(settings) as listener, opened(settings) as parts:
        app = wire(settings, parts, port=listener.getsockname()[1])
        services = replace(app.services, authenticate=principal)
        tenants = replace(app, services=services, api=create_api(services))
        event_loop.run(serve(tenants, settings, listener, lambda app: print(app.here, flush=True)))


if __name__ == "__main__":
    main()
