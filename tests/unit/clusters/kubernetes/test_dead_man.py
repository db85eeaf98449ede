"""Pods that end themselves where they are cut off: what their kubelet asks, who renews them, who has the last word."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.chores import RENEW_SECONDS
from mainstay.clusters.kubernetes.pods import ALIVE, DEAD_MAN_WORDS, PULSE, REVOKED, dead_man, identity, pod
from mainstay.domain.allocation import End, RevokePod, Seen
from tests.unit.clusters.kubernetes.objects import SETTINGS
from tests.unit.clusters.kubernetes.test_cluster_faults import POD, bed, creation

__all__ = ["bed"]
SECONDS = 60


class Asked:
    """A pod as its kubelet asks it, with clocks and words of the test."""

    def __init__(self, folder: Path, **options: int) -> None:
        for name in ("alive", "pulse"):
            (folder / name).mkdir()
        self.folder = folder
        self.words = folder / "termination-log"
        places = {ALIVE: folder / "alive", PULSE: folder / "pulse", "/dev/termination-log": self.words}
        self.script = dead_man(SECONDS, **options).replace("/proc/uptime", str(folder / "uptime"))
        for known, given in places.items():
            self.script = self.script.replace(known, str(given))

    def lives(self, at: float, heard: str) -> bool:
        (self.folder / "uptime").write_text(f"{at:.2f} 99.99\n")
        (self.folder / "alive" / "renewed").write_text(heard)
        return subprocess.run(["/bin/sh", "-c", self.script], check=False).returncode == 0


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


def test_a_pod_that_is_renewed_in_time_lives_on(asked):
    assert all(asked.lives(1_000 + 50 * number, str(1_700_000_000 + number)) for number in range(5))


def test_a_pod_that_is_not_renewed_for_its_time_ends_and_says_why(asked):
    assert asked.lives(1_000, "1")
    assert asked.lives(1_000 + SECONDS - 1, "1")
    assert not asked.words.exists()
    assert not asked.lives(1_000 + SECONDS, "1")
    assert asked.words.read_text() == f"{DEAD_MAN_WORDS}\n"


def test_what_it_is_told_is_compared_and_not_read_so_that_no_wall_clock_counts(asked):
    assert asked.lives(1_000, "1700000000")
    assert asked.lives(1_050, "5")
    assert asked.lives(1_100, "5")
    assert not asked.lives(1_050 + SECONDS, "5")


def test_one_that_is_revoked_ends_at_once(asked):
    assert asked.lives(1_000, "1")
    assert not asked.lives(1_001, REVOKED)


def test_one_that_is_asked_for_the_first_time_lives(asked):
    assert asked.lives(99_999, "0")


def test_one_with_a_deadline_ends_at_it_although_it_is_renewed(tmp_path):
    asked = Asked(tmp_path, deadline_seconds=90)
    assert asked.lives(1_000, "1")
    assert asked.lives(1_089, "2")
    assert not asked.lives(1_090, "3")
    assert not asked.words.exists(), "it was not cut off"


def test_only_a_pod_that_ends_itself_is_asked():
    plain = pod(creation(), SETTINGS)
    assert "livenessProbe" not in plain["spec"]["containers"][0]
    assert names.RENEWED not in plain["metadata"]["annotations"]
    made = pod(creation(dead_man_seconds=SECONDS), SETTINGS)
    probe = made["spec"]["containers"][0]["livenessProbe"]
    assert probe["exec"]["command"][2].replace("$$", "$") == dead_man(SECONDS)
    assert made["metadata"]["annotations"][names.RENEWED] == "0"
    assert identity(creation()) != identity(creation(dead_man_seconds=SECONDS))


def renewed(bed) -> str:
    return str(bed.server.pod(POD)["metadata"]["annotations"][names.RENEWED])


async def runs(bed) -> None:
    await bed.act(creation(dead_man_seconds=SECONDS))
    bed.server.run(POD)
    await bed.until(lambda: True)


async def looked(bed, seconds: float = 0.0) -> None:
    await bed.later(seconds)
    await bed.cluster.observe()
    await bed.settle()
    bed.clock.advance(0.3)
    await bed.cluster.observe()
    await bed.settle()


async def test_a_pod_is_renewed_several_times_within_its_time(bed):
    await runs(bed)
    told = set()
    for _ in range(6):
        await looked(bed, RENEW_SECONDS)
        told.add(renewed(bed))
    assert len(told - {"0"}) >= SECONDS / RENEW_SECONDS


async def test_a_pod_on_a_silent_node_is_not_renewed_and_may_be_revoked_once_and_for_all(bed):
    await runs(bed)
    await looked(bed)
    before = renewed(bed)
    bed.server.node("n1", ready="Unknown")
    for _ in range(4):
        await looked(bed, RENEW_SECONDS)
    assert renewed(bed) == before
    state = await bed.state()
    assert (state.seen, state.revoked) == (Seen.UNKNOWN, False)
    for _ in range(2):
        await bed.act(RevokePod(name=POD))
    assert renewed(bed) == REVOKED
    assert bed.pods("patch").count(POD) <= 2 + int(before != "0")
    state = await bed.state()
    assert (state.seen, state.revoked) == (Seen.UNKNOWN, True)
    bed.server.node("n1")
    for _ in range(4):
        await looked(bed, RENEW_SECONDS)
    assert renewed(bed) == REVOKED


async def test_a_renewal_that_was_on_its_way_does_not_undo_that_it_was_revoked(bed):
    await runs(bed)
    await looked(bed)
    known = bed.cluster._picture.ours[POD]
    await bed.fresh().act(RevokePod(name=POD), epoch=1)
    await bed.cluster._chores._renew(POD, known)
    assert renewed(bed) == REVOKED


async def test_a_renewal_does_not_wait_behind_the_writes_of_a_cluster_that_suffers(bed):
    await runs(bed)
    await looked(bed)
    before, pace, held = renewed(bed), bed.cluster._pace, asyncio.Semaphore(0)
    pace.limit = 1
    others = [asyncio.create_task(pace.write(held.acquire)) for _ in range(100)]
    await looked(bed, RENEW_SECONDS)
    assert renewed(bed) == before  # not even a renewal may make it suffer more
    held.release()
    await bed.until(lambda: renewed(bed) != before)
    assert sum(other.done() for other in others) == 1
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def test_one_that_ended_itself_is_lost_to_the_infrastructure_and_not_the_fault_of_its_user(bed):
    await runs(bed)
    started = bed.server.pod(POD)["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    ended = {"exitCode": 143, "startedAt": started, "finishedAt": bed.server.stamp(), "message": f"{DEAD_MAN_WORDS}\n"}
    bed.server.status(POD, phase="Failed", containerStatuses=[{"name": names.MAIN, "state": {"terminated": ended}}])
    state = await bed.state()
    assert (state.end, state.detail, state.exit_code) == (End.LOST, DEAD_MAN_WORDS, None)
