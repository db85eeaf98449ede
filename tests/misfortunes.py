"""What may go wrong around a cluster, let loose by seed: each kind of reliability.md 3.4 that concerns Kubernetes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx2

from testbed.faults import (
    Answer,
    CutBody,
    Delay,
    Drop,
    Duplicate,
    Expire,
    LoseReply,
    LoseRequest,
    Reorder,
    Rule,
    SlowBody,
    Stall,
)
from testbed.puppets import Life
from tests.arena import Arena

Misfortune = Callable[[Arena, random.Random], Awaitable[None]]
CALM_SECONDS = (0.2, 1.5)
JOBS_EVERY_SECONDS = (0.3, 1.5)
JOBS_MAX = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """Misfortunes of one kind, one after the other, while jobs come."""

    name: str
    misfortunes: Sequence[Misfortune]

    async def rage(self, world: Arena, *, seconds: float) -> None:
        """For so long; then everything is healed."""
        rng = world.rng
        jobs = asyncio.create_task(_jobs(world, random.Random(rng.random())))
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                await asyncio.sleep(rng.uniform(*CALM_SECONDS))
                await rng.choice(self.misfortunes)(world, rng)
        finally:
            jobs.cancel()
            await asyncio.gather(jobs, return_exceptions=True)
            await heal(world)

    def __str__(self) -> str:
        return self.name


async def heal(world: Arena) -> None:
    """Everything works again."""
    await asyncio.to_thread(world.proxy.heal)
    for machine in world.puppets.machines.values():
        machine.refuses = ""
        if not machine.works:
            await world.puppets.come_back(machine.name)


async def _jobs(world: Arena, rng: random.Random) -> None:
    """Short and long ones, most of which end well."""
    while len(world.submitted) < JOBS_MAX:
        lives = [
            Life(
                seconds=rng.choice((0.2, 1.0, 3.0, 8.0)),
                exit_code=rng.choice((0, 0, 0, 0, 1)),
                starts_after=rng.choice((0.0, 0.05, 0.5)),
            )
            for _ in range(rng.randint(1, 4))
        ]
        world.submit(*lives)
        await asyncio.sleep(rng.uniform(*JOBS_EVERY_SECONDS))


# What happens


async def crash(world: Arena, rng: random.Random) -> None:
    """The platform dies, and comes back."""
    await world.restart(down_seconds=rng.choice((0.0, 0.5, 3.0)))


async def api_server_restarts(world: Arena, rng: random.Random) -> None:
    """Without warning; away for a moment."""
    server = world.control_plane.api_server
    await asyncio.to_thread(server.kill if rng.random() < 0.5 else server.stop)
    await asyncio.sleep(rng.choice((0.0, 2.0)))
    await asyncio.to_thread(world.control_plane.start_api_server)


async def set_back(world: Arena, rng: random.Random) -> None:
    """The cluster is restored to the state of a few seconds ago, while the platform is up or down."""
    saved = await asyncio.to_thread(world.control_plane.saved)
    await asyncio.sleep(rng.uniform(1.0, 6.0))
    await asyncio.to_thread(world.control_plane.restore, saved)


def requests_fail(world: Arena, rng: random.Random) -> contextlib.AbstractAsyncContextManager[None]:
    """Some of them, in one way or another."""
    fault = rng.choice(
        (
            Answer(status=429, retry_after_seconds=1),
            Answer(status=500),
            Answer(status=504),
            LoseReply(),
            LoseRequest(),
            Delay(seconds=0.5),
            SlowBody(bytes_per_second=20_000),
        )
    )
    method = rng.choice((".*", "POST", "PATCH", "DELETE", "GET"))
    return _faulty(world, Rule(fault=fault, method=method, probability=rng.choice((0.05, 0.2, 0.5))))


def watches_fail(world: Arena, rng: random.Random) -> contextlib.AbstractAsyncContextManager[None]:
    """They stall, expire, lose, double and swap events; lists break off."""
    fault = rng.choice(
        (
            Stall(),
            Expire(),
            Drop(probability=0.3, kinds=frozenset({"ADDED"})),
            Drop(probability=0.3, kinds=frozenset({"DELETED"})),
            Drop(probability=0.3, kinds=frozenset({"MODIFIED"})),
            Drop(probability=1.0, kinds=frozenset({"BOOKMARK"})),
            Duplicate(probability=0.5),
            Reorder(probability=0.5),
            CutBody(after_bytes=3_000),
        )
    )
    return _faulty(world, Rule(fault=fault, path="/(pods|nodes)", probability=rng.choice((0.5, 1.0))))


async def partition(world: Arena, rng: random.Random) -> None:
    """Nothing passes between the platform and the cluster."""
    await asyncio.to_thread(world.proxy.partition, rng.choice(("refuse", "hang")))
    await asyncio.sleep(rng.choice((1.0, 4.0)))
    await asyncio.to_thread(world.proxy.heal)


async def cut(world: Arena, _: random.Random) -> None:
    """Every connection breaks."""
    await asyncio.to_thread(world.proxy.cut_connections)


async def node_is_cut_off(world: Arena, rng: random.Random) -> None:
    """For a moment or for longer; what runs there runs on."""
    name = rng.choice(sorted(world.puppets.machines))
    await world.puppets.cut_off(name)
    await asyncio.sleep(rng.choice((0.5, 3.0)))
    await world.puppets.come_back(name)


async def node_loses_power(world: Arena, rng: random.Random) -> None:
    """With all that runs there, and comes back."""
    name = rng.choice(sorted(world.puppets.machines))
    await world.puppets.power_off(name)
    await asyncio.sleep(rng.choice((0.5, 3.0)))
    await world.puppets.come_back(name)


async def node_refuses(world: Arena, rng: random.Random) -> None:
    """Its kubelet takes nothing for a moment."""
    machine = world.puppets.machines[rng.choice(sorted(world.puppets.machines))]
    machine.refuses = rng.choice(("OutOfcpu", "UnexpectedAdmissionError"))
    await asyncio.sleep(1.0)
    machine.refuses = ""


async def pod_is_ended(world: Arena, rng: random.Random) -> None:
    """Somebody deletes, evicts, or tears out one that runs."""
    running = world.puppets.running()
    if not running:
        return
    meta = world.puppets.pod(rng.choice(running).uid)["metadata"]
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
    with contextlib.suppress(httpx2.HTTPError, KeyError):
        match rng.choice(("delete", "force", "evict", "tear out")):
            case "delete":
                await world.call("DELETE", path)
            case "force":
                await world.call("DELETE", path, {"gracePeriodSeconds": 0})
            case "evict":
                eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": meta["name"]}}
                await world.call("POST", f"{path}/eviction", eviction)
            case _:
                found = await world.call("GET", path)
                found["metadata"]["finalizers"] = []
                await world.call("PUT", path, found)
                await world.call("DELETE", path, {"gracePeriodSeconds": 0})


def _for_a_while(
    fault: Callable[[Arena, random.Random], contextlib.AbstractAsyncContextManager[None]],
) -> Misfortune:
    async def happen(world: Arena, rng: random.Random) -> None:
        async with fault(world, rng):
            await asyncio.sleep(rng.uniform(1.0, 4.0))

    return happen


@contextlib.asynccontextmanager
async def _faulty(world: Arena, rule: Rule) -> AsyncIterator[None]:
    world.proxy.fail(rule)
    try:
        yield
    finally:
        await asyncio.to_thread(world.proxy.heal)


async def _stale_lists(world: Arena, rng: random.Random) -> None:
    """Whoever is content with any version gets an old one; the platform restarts meanwhile."""
    for path in ("/api/v1/pods", "/api/v1/nodes"):
        await asyncio.to_thread(world.proxy.serve_old_list, path)
    await asyncio.sleep(rng.uniform(0.5, 2.0))
    await crash(world, rng)
    await asyncio.sleep(rng.uniform(0.5, 2.0))
    await asyncio.to_thread(world.proxy.heal)


REQUESTS, WATCHES = _for_a_while(requests_fail), _for_a_while(watches_fail)
STORMS = (
    Storm(name="f8", misfortunes=(api_server_restarts, set_back, crash)),
    Storm(name="f9", misfortunes=(REQUESTS, REQUESTS, REQUESTS, crash)),
    Storm(name="f10", misfortunes=(WATCHES, WATCHES, WATCHES, crash, pod_is_ended)),
    Storm(name="f11", misfortunes=(_stale_lists, api_server_restarts)),
    Storm(name="f14", misfortunes=(partition, cut, REQUESTS, crash)),
)
NODES = Storm(
    name="f15", misfortunes=(node_is_cut_off, node_loses_power, node_refuses, pod_is_ended, pod_is_ended, crash)
)
"""Played in full by the campaign; test_faults_nodes.py plays each by itself."""
EVERYTHING = Storm(
    name="all", misfortunes=tuple(one for storm in (*STORMS, NODES) for one in storm.misfortunes if one is not set_back)
)
