"""F8 to F11 and F14: what befalls the API server and the way to it, let loose by seed on the whole platform.

Each seed is a storm of one kind of fault while jobs come and the platform crashes now and then; then calm. What the machines have
witnessed must agree with what is on record. A failing seed is printed; keep it in `SEEDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from mainstay.app import SystemClock
from mainstay.clusters.kubernetes import chores, picture
from mainstay.clusters.kubernetes.informer import REST_SECONDS_MAX
from mainstay.clusters.kubernetes.pods import DEAD_MAN_WORDS
from mainstay.decide import reconcile
from mainstay.domain.workload import OnPartition
from testbed.control_plane import ControlPlane
from testbed.faults import Active, Answer, Delay, LoseReply, Rule
from testbed.gate import How
from testbed.puppets import Life
from tests.arena import CLUSTER, Arena, arena
from tests.misfortunes import STORMS, Storm

pytestmark = pytest.mark.xdist_group("storms")
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
    monkeypatch.setattr(chores, "RENEW_SECONDS", 1)


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
    """F8: it is listed anew, nothing is killed for it, and what is seen is what there is, soon after the server is back."""
    async with arena(plane, tmp_path, seed=1) as world:
        long, short = world.submit(*[Life(seconds=40)] * 10), world.submit(*[Life(seconds=4)] * 3)
        await world.until_running(*long, *short)
        saved = await asyncio.to_thread(plane.saved)
        later = world.submit(Life(seconds=1))
        await world.until(lambda: all(world.workloads()[name].phase.final for name in (*short, *later)))
        await world.until(
            lambda: not [row for row in world.replica.store.wanted(CLUSTER) if row.allocation.workload in short]
        )
        lists, deleted = world.replica.cluster._picture._pods.counters.lists, deletions(world, long)
        await asyncio.to_thread(plane.restore, saved)
        await world.until(lambda: world.replica.cluster._picture._pods.counters.lists > lists)
        await converged(world)
        assert deleted.happened == 0
        settled = await world.settle()
        assert await world.violations(settled=settled) == []
        assert [world.attempts(job) for job in (*long, *short, *later)] == [["exited"]] * 14


async def test_an_api_server_that_restarts_is_seen_again_as_it_is_and_nothing_is_ended_for_that(
    plane: ControlPlane, tmp_path: Path, quick: None
) -> None:
    """F8."""
    async with arena(plane, tmp_path, seed=1) as world:
        jobs = world.submit(*[Life(seconds=30)] * 10)
        await world.until_running(*jobs)
        deleted = deletions(world, jobs)
        await asyncio.to_thread(plane.api_server.kill)
        later = world.submit(*[Life(seconds=1)] * 3)
        await asyncio.sleep(3.0)
        await asyncio.to_thread(plane.start_api_server)
        await converged(world)
        assert deleted.happened == 0
        settled = await world.settle()
        assert await world.violations(settled=settled) == []
        assert [world.attempts(job) for job in (*jobs, *later)] == [["exited"]] * 13


def deletions(world: Arena, jobs: Sequence[str]) -> Active:
    """How often that of one of their pods is asked for from now on."""
    return world.proxy.fail(Rule(fault=Delay(seconds=0.0), method="DELETE", path=f"/pods/({'|'.join(jobs)})-"))


async def converged(world: Arena) -> None:
    """What is seen of our pods is what there is: at the latest with the first try after the longest rest between two."""

    async with asyncio.timeout(2 * REST_SECONDS_MAX):
        while not await world.sees_what_there_is():
            await asyncio.sleep(0.1)


class Elapsing(SystemClock):
    """The clock of a platform that can let time pass at once. It starts so far behind that it is right afterwards.

    Both its wall time and its monotonic time move on, as they do while nobody looks.
    """

    def __init__(self, *, seconds: float) -> None:
        self._behind = seconds

    def now(self) -> int:
        return super().now() - round(self._behind * 1_000_000)

    def monotonic(self) -> float:
        return super().monotonic() - self._behind

    def let_pass(self) -> None:
        self._behind = 0.0


CUT_SECONDS = 10.0
"""That truly go by. The rest of a longer cut goes by at once, for the platform: benchmarks/kubernetes_cuts.py waits for it."""
ALONE = Life(seconds=40, alone_seconds=6.0, alone_words=DEAD_MAN_WORDS)
RENEWED = {"on_partition": OnPartition.REQUEUE_AFTER, "partition_seconds": 6}


@pytest.mark.parametrize(("seconds", "how"), [(10, "hang"), (300, "refuse"), (3_600, "hang")])
async def test_a_cut_of_any_length_costs_no_attempt_that_waits_and_doubles_none(
    plane: ControlPlane, tmp_path: Path, quick: None, seconds: int, how: How
) -> None:
    """F14: what goes on, what ends while nobody looks, what is submitted meanwhile, and what ends itself and is tried again."""
    clock = Elapsing(seconds=seconds - CUT_SECONDS)
    async with arena(plane, tmp_path, seed=1, clock=clock, tombstone_seconds=600) as world:
        long, short = world.submit(*[Life(seconds=20)] * 2), world.submit(*[Life(seconds=4)] * 2)
        (alone,) = world.submit(Life(seconds=2), **RENEWED)
        world.lives[f"{alone}-1-0"] = ALONE
        await world.until_running(*long, alone)
        await world.until(lambda: all(world.runs(job) for job in short))
        await asyncio.to_thread(world.proxy.partition, how)
        meanwhile = world.submit(*[Life(seconds=1)] * 2)
        await asyncio.sleep(CUT_SECONDS / 2)
        clock.let_pass()
        await asyncio.sleep(CUT_SECONDS / 2)
        assert not [one for one in world.runs(alone) if one.runs], "it has ended itself"
        assert len(world.runs(alone)) == 1, "and nobody knows that yet"
        await asyncio.to_thread(world.proxy.heal)
        settled = await world.settle()
        assert await world.violations(settled=settled) == []
        assert [world.attempts(job) for job in (*long, *short, *meanwhile)] == [["exited"]] * 6
        assert world.attempts(alone) == ["lost", "exited"]


async def test_creates_of_which_every_reply_is_lost_make_one_pod_each(
    plane: ControlPlane, tmp_path: Path, quick: None
) -> None:
    """F9."""
    async with arena(plane, tmp_path, seed=1) as world:
        lost = world.proxy.fail(Rule(fault=LoseReply(), method="POST", path=r"/pods(\?|$)", times=10))
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
        refused = world.proxy.fail(Rule(fault=Answer(status=status), method="POST", path=r"/pods(\?|$)"))
        world.submit(*[Life(seconds=0.5)] * 20)
        async with asyncio.timeout(120):
            while refused.happened < 20:
                await asyncio.sleep(0.05)
        await asyncio.sleep(6.0)
        assert 20 <= refused.happened <= 20 * RETRIES_MAX
        await asyncio.to_thread(world.proxy.heal)
        settled = await world.settle()
        assert await world.violations(settled=settled) == []
