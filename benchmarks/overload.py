"""One tenant floods while 20 others work: what the others notice of it, before and during, side by side.

A real server process with all its loops, on SQLite or PostgreSQL, asked over sockets from other processes with tokens that are
on record, as `mainstay server` is. Each tenant asks at a steady pace,
whatever the answers take (an open loop: a slow answer is not a reason to ask less): lists, single runs and submissions. The
flood asks ten times as much as all of them together. Rounds with and without it take turns in one run.

    python -m benchmarks.overload --rounds 5 --seconds 15
    python -m benchmarks.overload --rate-max 0    # turns at the store alone, without a limit on the pace
    python -m benchmarks.overload --postgresql
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from benchmarks.report import figure, percentile, progress, report
from mainstay.app import SystemClock, configure_log, opened, serve, wire
from mainstay.control import event_loop
from mainstay.domain.access import DEFAULT_TENANT, PLATFORM_ADMIN
from mainstay.operations.members import put
from mainstay.operations.principal import Principal
from mainstay.operations.tenants import create
from mainstay.operations.tokens import TokenWish, authenticated, make
from mainstay.ports import Store
from mainstay.start.settings import Settings
from mainstay.start.sockets import listening
from tests import postgres

TENANTS = 20
PACE = 2.0
"""Requests a second of each tenant."""
CYCLE = 5
"""Requests of which one is a submission."""
TIMES = 10
"""What the flood asks, as a multiple of what all tenants do together."""
GOAL = 2.0
"""Issue 6: the p99 of the others at most so many times as high."""
FLOOD = "flood"
MEMBERS = 4
"""Of each tenant, as whom it asks in turns: the flood is not held by the limit of one member."""
FLOOD_AT_ONCE = 200
"""Connections of the flood; where all are busy it has what a server that is too slow for it gives."""
LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")
SETTLE_SECONDS = 1.0
TOKENS = "tokens.json"
DURABLE = ()
"""As PostgreSQL is by itself: every commit waits for the disk."""
JOB = {"job": {"name": "waits", "run": "true"}}


@dataclass(frozen=True, slots=True)
class Asked:
    """A server, and the tokens of the members of each tenant."""

    url: str
    tokens_file: Path

    def tokens(self) -> dict[str, list[str]]:
        """By tenant."""
        found: dict[str, list[str]] = json.loads(self.tokens_file.read_text())
        return found


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
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--database", default="", help=argparse.SUPPRESS)
    parser.add_argument("--flood", help=argparse.SUPPRESS)
    parser.add_argument("--tokens", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_tenants(options.serve, rate_max=options.rate_max, database=options.database)
    elif options.flood:
        asked = Asked(options.flood, options.tokens)
        print(json.dumps(asyncio.run(flood(asked, options.seconds)).statuses))
    elif options.postgresql:
        with postgres.running(DURABLE) as database:
            database.create_database("mainstay")
            compare(options, database=database.url("mainstay"))
    else:
        compare(options, database="")


def compare(options: argparse.Namespace, *, database: str) -> None:
    """Rounds with and without the flood, in turns."""
    before, during, floods = list[Seen](), list[Seen](), list[dict[str, int]]()
    cpu_before, cpu_during = list[float](), list[float]()
    rounds, seconds = options.rounds, options.seconds
    with server(options.rate_max, database) as (asked, process_id):
        asyncio.run(work(asked, 3))  # everything is loaded and compiled
        for number in range(rounds):
            idle = cpu_seconds(process_id)
            before.append(asyncio.run(work(asked, seconds)))
            cpu_before.append(100 * (cpu_seconds(process_id) - idle) / seconds)
            with flooding(asked, seconds + SETTLE_SECONDS) as process:
                time.sleep(SETTLE_SECONDS)
                idle = cpu_seconds(process_id)
                during.append(asyncio.run(work(asked, seconds)))
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
        f"{TENANTS} tenants, {PACE:g} requests a second each; --rate-max {options.rate_max}",
        f"{'PostgreSQL' if database else 'SQLite'}; {rounds} rounds of {seconds:g} s",
    ]
    report("overload", figures, notes=notes)


async def work(asked: Asked, seconds: float) -> Seen:
    """What all tenants see who ask at their pace."""
    seen, tokens = Seen(), asked.tokens()
    async with aiohttp.ClientSession(asked.url, connector=aiohttp.TCPConnector(limit=0)) as session:
        mine = (tokens[f"tenant-{number}"] for number in range(TENANTS))
        await asyncio.gather(*(_tenant(session, each, seconds, seen) for each in mine))
    return seen


async def flood(asked: Asked, seconds: float) -> Seen:
    """Ask without regard to what is answered. Requests are bytes made before: what the client computes is not measured."""
    address, pace = urlsplit(asked.url), TENANTS * PACE * TIMES
    tokens = asked.tokens()[FLOOD]
    requests = [_written(number, tokens[number % len(tokens)]) for number in range(2 * CYCLE * len(tokens))]
    seen, began, numbers = Seen(), time.monotonic(), itertools.count()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while (number := next(numbers)) < seconds * pace and (now := time.monotonic()) < began + seconds:
            await asyncio.sleep(max(0.0, began + number / pace - now))
            sent = time.monotonic()
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            assert length, head
            await reader.readexactly(int(length[1]))
            seen.note(int(head[9:12]), time.monotonic() - sent)
        writer.close()

    await asyncio.gather(*(ask() for _ in range(FLOOD_AT_ONCE)))
    return seen


def _wish(number: int) -> tuple[str, str, bytes]:
    """Method, path and body: of five requests two lists, two single runs and one submission."""
    if number % CYCLE == 0:
        return "POST", "/v1/workloads", json.dumps(JOB).encode()
    return "GET", "/v1/workloads?limit=20" if number % 2 else "/v1/workloads/waits", b""


def _written(number: int, token: str) -> bytes:
    method, path, body = _wish(number)
    headers = (
        f"Host: here\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return f"{method} {path} HTTP/1.1\r\n{headers}\r\n\r\n".encode() + body


async def _tenant(session: aiohttp.ClientSession, tokens: list[str], seconds: float, seen: Seen) -> None:
    began = time.monotonic() + random.uniform(0, 1 / PACE)
    first = random.randrange(CYCLE)  # or all would submit at the same moment
    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds * PACE)):
            await asyncio.sleep(max(0.0, began + number / PACE - time.monotonic()))
            group.create_task(_ask(session, tokens, first + number, seen))


async def _ask(session: aiohttp.ClientSession, tokens: list[str], number: int, seen: Seen) -> None:
    headers = {"Authorization": f"Bearer {tokens[number % len(tokens)]}", "Content-Type": "application/json"}
    method, path, body = _wish(number)
    began = time.monotonic()
    try:
        async with session.request(method, path, data=body or None, headers=headers) as answer:
            await answer.read()
        seen.note(answer.status, time.monotonic() - began)
    except (OSError, aiohttp.ClientError, TimeoutError):
        seen.note(0, time.monotonic() - began)


@contextlib.contextmanager
def flooding(asked: Asked, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """In a process of its own, which leaves the cores to server and others: its client is not what is measured."""
    command = [sys.executable, "-m", "benchmarks.overload", "--flood", asked.url, "--tokens", str(asked.tokens_file)]
    command += ["--seconds", str(seconds)]
    with subprocess.Popen(["nice", "-n", "19", *command], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def server(rate_max: int, database: str = "") -> Iterator[tuple[Asked, int]]:
    """A platform of many tenants in a process of its own: where it is, and which process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.overload", "--serve", folder, "--rate-max", str(rate_max)]
        command += ["--database", database]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                assert process.stdout
                yield Asked(process.stdout.readline().decode().strip(), Path(folder, TOKENS)), process.pid
            finally:
                process.terminate()


def make_tenants(store: Store) -> dict[str, list[str]]:
    """All tenants, and a token of each of their members."""
    platform = Principal(name="benchmark", tenant=DEFAULT_TENANT, role=PLATFORM_ADMIN)
    tokens = dict[str, list[str]]()
    for tenant in (FLOOD, *(f"tenant-{number}" for number in range(TENANTS))):
        now = SystemClock().now()
        first = create(store, platform, tenant, administrator="member-0", now=now, request=None)
        administrator, tokens[tenant] = authenticated(store, first, now=now), [first]
        for number in range(1, MEMBERS):
            name = f"member-{number}"
            put(store, administrator, name, role="user", kind=None, project="", now=now)
            wish = TokenWish(name="benchmark", member=name, seconds=86_400)
            tokens[tenant].append(make(store, administrator, wish, now=now, request=None)[1])
    return tokens


def cpu_seconds(process_id: int) -> float:
    """What a process has used. Source: /proc/PID/stat, fields 14 and 15."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def serve_tenants(state: Path, *, rate_max: int, database: str) -> None:
    """As `mainstay server` does, but that nothing can run."""
    configure_log("error")
    settings = Settings(state=state, port=0, local_cluster=False, rate_max=rate_max, database=database)
    with listening(settings) as listener, opened(settings) as parts:
        (state / TOKENS).write_text(json.dumps(make_tenants(parts.store)))
        app = wire(settings, parts, port=listener.getsockname()[1])
        event_loop.run(serve(app, settings, listener, lambda app: print(app.here, flush=True)))


if __name__ == "__main__":
    main()
