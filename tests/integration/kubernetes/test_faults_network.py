"""F8 to F11 and F14: what befalls the API server and the way to it, let loose by seed on the whole platform.

Each seed is a storm of one kind of fault while jobs come and the platform crashes now and then; then calm. What the machines have
witnessed must agree with what is on record. A failing seed is printed; keep it in `SEEDS`.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from mainstay.clusters.kubernetes import chores, picture
from mainstay.decide import reconcile
from testbed.control_plane import ControlPlane
from testbed.faults import Answer, LoseReply, Rule
from testbed.puppets import Life
from tests.arena import CANCELLED_WHILE_CONNECTING, CLUSTER, arena
from tests.misfortunes import STORMS, Storm

pytestmark = [pytest.mark.xdist_group("storms"), CANCELLED_WHILE_CONNECTING]
RETRIES_MAX = 8
"""0.2 s after the first failed turn, then twice as long each time, at random from half of it."""
SEEDS: dict[str, tuple[int, ...]] = {"f8": (1,), "f9": (2,), "f10": (3,), "f11": (4,), "f14": (5,)}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Played kubelets end what vanished within a second, and report at once."""
    monkeypatch.setattr(reconcile, "MISSING_GRACE_SECONDS", 3)
    monkeypatch.setattr(picture, "ORPHAN_SECONDS", 4)
    monkeypatch.setattr(picture, "REPORT_SECONDS", 2)
    monkeypatch.setattr(picture, "SETTLED_SECONDS", 2)
    monkeypatch.setattr(chores, "BURIAL_SECONDS", 1.0)


@pytest.mark.parametrize(("storm", "seed"), [(storm, seed) for storm in STORMS for seed in SEEDS[storm.name]], ids=str)
async def test_a_storm_breaks_no_promise(
    storm: Storm, seed: int, plane: ControlPlane, tmp_path: Path, quick: None
) -> None:
    # A cluster must not be set back by more than that: kubelets start again what they have forgotten.
    async with arena(plane, tmp_path, seed=seed, tombstone_seconds=60) as world:
        await storm.rage(world, seconds=10.0)
        ended = await world.settle()
        assert await world.violations(settled=ended) == [], f"{storm.name} with seed {seed}"


async def test_a_cluster_that_is_set_back_ends_nothing_that_runs_and_takes_back_what_has_ended(
    plane: ControlPlane, tmp_path: Path, quick: None
) -> None:
    """F8: no mass kill; and how long it takes until what is seen is what there is."""
    async with arena(plane, tmp_path, seed=1) as world:
        long, short = world.submit(*[Life(seconds=20)] * 10), world.submit(*[Life(seconds=4)] * 3)
        await world.until_running(*long, *short)
        saved = await asyncio.to_thread(plane.saved)
        later = world.submit(Life(seconds=1))
        await world.until(lambda: all(world.workloads()[name].phase.final for name in (*short, *later)))
        await world.until(
            lambda: not [row for row in world.replica.store.wanted(CLUSTER) if row.allocation.workload in short]
        )
        await asyncio.to_thread(plane.restore, saved)
        began = time.monotonic()
        settled = await world.settle()
        assert await world.violations(settled=settled) == []
        assert [world.attempts(job) for job in (*long, *short, *later)] == [["exited"]] * 14
        print(f"converged within {time.monotonic() - began:.1f} s, the jobs included")


async def test_creates_of_which_every_reply_is_lost_make_one_pod_each(
    plane: ControlPlane, tmp_path: Path, quick: None
) -> None:
    """F9."""
    async with arena(plane, tmp_path, seed=1) as world:
        lost = world.proxy.fail(Rule(fault=LoseReply(), method="POST", path="/pods$", times=10))
        jobs = world.submit(*[Life(seconds=1)] * 10)
        settled = await world.settle()
        assert await world.violations(settled=settled) == []
        assert lost.happened == 10
        assert [(len(world.runs(job)), world.attempts(job)) for job in jobs] == [(1, ["exited"])] * 10


@pytest.mark.parametrize("status", [429, 500])
async def test_an_api_server_that_refuses_every_write_is_not_hammered(
    plane: ControlPlane, tmp_path: Path, quick: None, status: int
) -> None:
    """F9: the budget of retries. Twenty pods, six seconds: each is asked for a few times."""
    async with arena(plane, tmp_path, seed=1) as world:
        refused = world.proxy.fail(Rule(fault=Answer(status=status), method="POST", path="/pods$"))
        world.submit(*[Life(seconds=0.5)] * 20)
        await asyncio.sleep(6.0)
        assert 20 <= refused.happened <= 20 * RETRIES_MAX
        await asyncio.to_thread(world.proxy.heal)
        settled = await world.settle()
        assert await world.violations(settled=settled) == []
