"""A cluster that is cut off, restarted and set back under load: how long until all is right again, and what it has cost.

F8 and F14 of the fault experiments, at their full length and with the graces of production. The API server is real, behind a
proxy that refuses or falls silent; the nodes are played (testbed/puppets.py) and write down what truly ran.

    python -m benchmarks.kubernetes_cuts                        # 10 s, 5 minutes and an hour: 70 minutes
    python -m benchmarks.kubernetes_cuts --seconds 10 300       # 9 minutes

Measured once, on 2 cores that did other work too (load 10), with cuts of 10 s and 300 s and 140 jobs: all succeeded, none lost
an attempt, no promise was broken, and no two attempts of one job ran at once. Counted from when the API server answered again,
everything was seen as it is after 0.05 s (restart), 0.4 s (set back), 0.6 s (10 s, hung) and 1.2 s (300 s, refused); jobs of
`requeue_after` whose pods had ended themselves in the long cut ran again after 28 to 30 s. The cut of an hour was not run here.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import figure, progress, report
from mainstay.app import configure_log
from mainstay.clusters.kubernetes.pods import DEAD_MAN_WORDS
from mainstay.domain.workload import OnPartition, Phase
from testbed.control_plane import ControlPlane, running
from testbed.gate import How
from testbed.puppets import Life
from tests.arena import Arena, arena
from tests.promises import Promise, Violation, workload_of

JOBS = 20
"""Of each kind, during each cut."""
ALONE_SECONDS = 60
"""After so long without being renewed a pod of `requeue_after` ends itself; it is the least that may be asked for."""
CONVERGED_SECONDS_MAX = 120.0
SETTLE_SECONDS_MAX = 600.0
"""Nobody is in a hurry: an orphan is given 90 s to end, and its node a minute to report."""


@dataclass(slots=True)
class Found:
    """What came of one fault."""

    name: str
    converged: float = 0.0
    """From when requests are answered again until what is seen is what there is."""
    requeued: list[float] = field(default_factory=list)
    """From then until the next attempt of a job runs whose pod has ended itself."""
    lost: int = 0
    """Attempts of jobs that wait, and were not to lose one."""


async def cut(world: Arena, found: Found, *, seconds: float, how: How) -> None:
    """F14."""
    waiting = world.submit(*[Life(seconds=seconds + 30)] * (JOBS // 2), *[Life(seconds=5)] * (JOBS // 2))
    policy = {"on_partition": OnPartition.REQUEUE_AFTER, "partition_seconds": ALONE_SECONDS}
    alone = world.submit(*[Life(seconds=5)] * JOBS, **policy)
    for job in alone:
        world.lives[f"{job}-1-0"] = Life(seconds=seconds + 30, alone_seconds=ALONE_SECONDS, alone_words=DEAD_MAN_WORDS)
    await world.until_running(*waiting[: JOBS // 2], *alone, seconds=120)
    await asyncio.to_thread(world.proxy.partition, how)
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        progress(f"{found.name}: {left:.0f} s left")
        await asyncio.sleep(min(10.0, left))
    await asyncio.to_thread(world.proxy.heal)
    began = time.monotonic()
    found.converged = await converged(world)
    await world.settle(seconds=SETTLE_SECONDS_MAX)
    for job in alone:
        found.requeued += [run.started - began for run in world.runs(job)[1:]]
    found.lost = sum(len(world.attempts(job)) - 1 for job in waiting)


async def restarted(world: Arena, plane: ControlPlane, found: Found, *, back: bool) -> None:
    """F8: killed and started again, or set back to what it was a while ago."""
    jobs = world.submit(*[Life(seconds=40)] * JOBS)
    await world.until_running(*jobs, seconds=120)
    if back:
        saved = await asyncio.to_thread(plane.saved)
        world.submit(*[Life(seconds=1)] * JOBS)
        await asyncio.sleep(5.0)
        await asyncio.to_thread(plane.restore, saved)
    else:
        await asyncio.to_thread(plane.api_server.kill)
        await asyncio.sleep(5.0)
        await asyncio.to_thread(plane.start_api_server)
    found.converged = await converged(world)
    await world.settle(seconds=SETTLE_SECONDS_MAX)
    found.lost = sum(len(world.attempts(job)) - 1 for job in jobs)


async def converged(world: Arena) -> float:
    """Seconds until what is seen of our pods is what there is."""
    began = time.monotonic()
    async with asyncio.timeout(CONVERGED_SECONDS_MAX):
        while not await world.sees_what_there_is():
            await asyncio.sleep(0.05)
    return time.monotonic() - began


async def measure(plane: ControlPlane, folder: Path, cuts: Sequence[float]) -> int:
    """All of it, one after the other on one platform; the exit status."""
    all_found: list[Found] = []
    async with arena(plane, folder, seed=1, machines=8, tombstone_seconds=600) as world:
        for back in (False, True):
            all_found.append(Found("set back" if back else "restart"))
            progress(all_found[-1].name)
            await restarted(world, plane, all_found[-1], back=back)
        for number, seconds in enumerate(cuts):
            how: How = "refuse" if number % 2 else "hang"
            all_found.append(Found(f"cut of {seconds:.0f} s ({how})"))
            await cut(world, all_found[-1], seconds=seconds, how=how)
        settled = await world.settle(seconds=SETTLE_SECONDS_MAX)
        broken = await world.violations(settled=settled)
        ended = sum(one.phase is Phase.SUCCEEDED for one in world.workloads().values())
        overlap = _overlap(world)
    tell(all_found, broken, ended=ended, overlap=overlap)
    return 1 if broken or any(found.lost for found in all_found) else 0


def _overlap(world: Arena) -> float:
    """Seconds for which two attempts of one job ran at once."""
    last: dict[str, float] = {}
    total = 0.0
    for run in world.puppets.history:
        job = workload_of(run.pod)
        total += max(0.0, last.get(job, 0.0) - run.started)
        last[job] = max(last.get(job, 0.0), run.ended or time.monotonic())
    return total


def tell(all_found: Sequence[Found], broken: Sequence[Violation], *, ended: int, overlap: float) -> None:
    """A table, and a line of JSON."""
    count = Counter(one.promise for one in broken)
    figures = [figure("jobs that succeeded", "jobs", [ended])]
    for one in all_found:
        figures.append(figure(f"{one.name}: seen as it is after", "s", [one.converged], higher_is_better=False))
        figures.append(figure(f"{one.name}: attempts lost", "", [one.lost], goal=0, higher_is_better=False))
        if one.requeued:
            figures.append(figure(f"{one.name}: tried again after", "s", one.requeued, higher_is_better=False))
    report(
        "kubernetes_cuts",
        [
            *figures,
            figure("two attempts at once", "s", [overlap], goal=0, higher_is_better=False),
            *(figure(f"broken: {one.value}", "", [count[one]], goal=0, higher_is_better=False) for one in Promise),
        ],
        notes=[*map(repr, broken[:20])],
    )


def main() -> int:
    """Run it; the exit status is 1 if anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10.0, 300.0, 3_600.0])
    options = parser.parse_args()
    configure_log("error")  # that the cluster does not answer is no news here
    with contextlib.ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        plane = parts.enter_context(running())
        return asyncio.run(measure(plane, folder, options.seconds))


if __name__ == "__main__":
    sys.exit(main())
