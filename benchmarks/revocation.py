"""How long a revoked token goes on opening things at another replica: requests, an event stream and the stream of a log.

Two `mainstay server` on one PostgreSQL, as processes. Tokens are revoked at the first, one after the other and side by side;
each is used at the second all the while, and what it has opened there stays open until that replica ends it. Time counts from
the answer to the revocation: what is refused before it has arrived took no time.

    python -m benchmarks.revocation
    python -m benchmarks.revocation --rounds 40 --at-once 8
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.report import figure, percentile, progress, report
from mainstay.api.standing import RECHECK_SECONDS
from tests import postgres

GOAL_SECONDS = 5.0
"""Source: security.md C3."""
PAUSE_SECONDS = 0.02
"""Between two requests of one client: what is measured is the platform, not a full core."""
CLIENTS = 2
START_SECONDS_MAX = 60
ANSWER_SECONDS_MAX = 30
MEMBER = "watcher"
JOB = {"job": {"name": "talks", "run": "while true; do echo here; sleep 0.2; done"}}


@dataclass(slots=True)
class Seen:
    """Seconds from the answers of all revocations, and what was let in that was asked after them."""

    requests: list[float] = field(default_factory=list)
    events: list[float] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    asked_after: int = 0
    let_in: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    """How streams ended, by the last event that they brought."""


@dataclass(slots=True)
class Revoked:
    """When the answer to a revocation came; 0: not yet. `over`: everything that was open has ended."""

    at: float = 0.0
    over: bool = False


def main() -> None:
    """Run everything and report; exits with 1 if a token opened anything after it was revoked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--at-once", type=int, default=4, help="tokens that are used and revoked side by side")
    options = parser.parse_args()
    with replicas() as (first, second, token):
        seen = asyncio.run(measure(first, second, token, rounds=options.rounds, at_once=options.at_once))
    figures = []
    for name, seconds in (("requests", seen.requests), ("event stream", seen.events), ("log stream", seen.logs)):
        for share in (0.5, 0.99):
            taken = [percentile(seconds, share)]
            goal = GOAL_SECONDS if share == 0.99 else None
            figures.append(
                figure(f"{name}: refused after, p{share * 100:g}", "s", taken, goal=goal, higher_is_better=False)
            )
    figures.append(
        figure("requests let in after the answer", "requests", [seen.let_in], goal=0, higher_is_better=False)
    )
    notes = [
        f"{len(seen.requests)} tokens revoked; {seen.asked_after} requests asked after the answers, {seen.let_in} let in",
        f"what is open is asked about every {RECHECK_SECONDS:g} s; streams ended with: {seen.ends}",
    ]
    report("revocation", figures, notes=notes)
    sys.exit(1 if seen.let_in else 0)


async def measure(first: str, second: str, token: str, *, rounds: int, at_once: int) -> Seen:
    """Revoke tokens, so many rounds of so many side by side."""
    seen = Seen()
    timeout = aiohttp.ClientTimeout(total=None, sock_read=ANSWER_SECONDS_MAX)
    async with (
        aiohttp.ClientSession(first, headers=_bearer(token), timeout=timeout) as administrator,
        aiohttp.ClientSession(second, connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as member,
    ):
        run = await _talking_run(administrator)
        for number in range(rounds):
            await asyncio.gather(*(_one(administrator, member, run, seen) for _ in range(at_once)))
            progress(f"round {number + 1} of {rounds}: {seen.let_in} let in, {max(seen.events):.2f} s at most")
        await _sent(administrator, "POST", f"/v1/workloads/{run}/stop", {})
    return seen


async def _one(administrator: aiohttp.ClientSession, member: aiohttp.ClientSession, run: str, seen: Seen) -> None:
    """A token that is used, revoked, and then used until it is refused everywhere."""
    made = await _sent(administrator, "POST", "/v1/tokens", {"name": "revoked", "member": MEMBER})
    headers, revoked = _bearer(made["token"]), Revoked()
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(_opened(member, path, headers))
            for path in ("/v1/events/stream", f"/v1/workloads/{run}/logs/stream")
        ]
        using = [asyncio.create_task(_used(member, headers, revoked, seen)) for _ in range(CLIENTS)]
        ending = [asyncio.create_task(_ended(stream)) for stream in opened]
        # Anywhere between two looks at whether what is open may stay so.
        await asyncio.sleep(random.uniform(0.2, 0.2 + RECHECK_SECONDS))
        await _sent(administrator, "DELETE", f"/v1/tokens/{made['id']}", None)
        revoked.at = time.monotonic()
        for told, (ended, how) in zip((seen.events, seen.logs), await asyncio.gather(*ending), strict=True):
            told.append(max(0.0, ended - revoked.at))
            seen.ends[how] = seen.ends.get(how, 0) + 1
        revoked.over = True
        seen.requests.append(max(0.0, max(await asyncio.gather(*using)) - revoked.at))


async def _used(session: aiohttp.ClientSession, headers: Mapping[str, str], revoked: Revoked, seen: Seen) -> float:
    """Ask, also for some seconds after the revocation; when the first request was refused."""
    refused_at = 0.0
    while not revoked.over:
        after = bool(revoked.at)
        async with session.get("/v1/server", headers=headers) as answer:
            await answer.read()
        assert answer.status in {200, 401}, answer.status
        if answer.status == 401:
            refused_at = refused_at or time.monotonic()
        seen.asked_after += after
        seen.let_in += after and answer.status == 200
        await asyncio.sleep(PAUSE_SECONDS)
    assert refused_at, "no request was refused"
    return refused_at


async def _ended(stream: aiohttp.ClientResponse) -> tuple[float, str]:
    """When a stream ended, and with which event."""
    last = "nothing"
    async for line in stream.content:
        if line.startswith(b"event: "):
            last = line[7:].strip().decode()
    return time.monotonic(), last


@contextlib.asynccontextmanager
async def _opened(
    session: aiohttp.ClientSession, path: str, headers: Mapping[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream that has brought something."""
    async with session.get(path, headers=headers) as stream:
        assert stream.status == 200, await stream.text()
        await stream.content.readline()
        yield stream


async def _talking_run(administrator: aiohttp.ClientSession) -> str:
    """A run with a log that goes on, and a member who may read it."""
    await _sent(administrator, "PUT", f"/v1/members/{MEMBER}", {"role": "viewer"})
    run = str((await _sent(administrator, "POST", "/v1/workloads", JOB))["id"])
    async with asyncio.timeout(START_SECONDS_MAX):
        while (await _sent(administrator, "GET", f"/v1/workloads/{run}", None))["phase"] != "running":
            await asyncio.sleep(0.1)
    return run


async def _sent(session: aiohttp.ClientSession, method: str, path: str, body: object) -> Any:
    """What is answered, as JSON; `Any`: of many shapes."""
    async with session.request(method, path, json=body) as answer:
        text = await answer.text()
        assert answer.status < 300, f"{method} {path}: {answer.status} {text}"
        return json.loads(text or "null")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@contextlib.contextmanager
def replicas() -> Iterator[tuple[str, str, str]]:
    """Where two replicas answer, and the token of their administrator. The first one runs pods."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(postgres.running(postgres.FAST))
        database.create_database("mainstay")
        one, two = folder / "one", folder / "two"
        address = database.url("mainstay").replace("postgresql+psycopg", "postgresql")
        urls = [stack.enter_context(_replica(one, address, "--local-cluster"))]
        two.mkdir(mode=0o700)
        for name in ("token", "secrets-key"):
            shutil.copy(one / name, two / name)
        urls.append(stack.enter_context(_replica(two, address)))
        yield urls[0], urls[1], (one / "token").read_text().strip()


@contextlib.contextmanager
def _replica(state: Path, database: str, *more: str) -> Iterator[str]:
    """A whole platform process, until the end of the block."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAINSTAY_")}
    command = ["server", "--port", "0", "--state", str(state), "--artifacts", str(state.parent / "artifacts")]
    with (state.parent / f"{state.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mainstay", *command, "--rate-max", "0", *more],
            env={**kept, "MAINSTAY_DATABASE": database},
            stdout=log,
            stderr=log,
        )
    try:
        told, until = state / "server.json", time.monotonic() + START_SECONDS_MAX
        while not told.exists():
            assert process.poll() is None, (state.parent / f"{state.name}.log").read_text()
            assert time.monotonic() < until, "it did not start"
            time.sleep(0.05)
        yield json.loads(told.read_text())["url"]
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
