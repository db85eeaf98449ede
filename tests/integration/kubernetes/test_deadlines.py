"""The deadline of a run on a real node: its kubelet keeps it, whoever is away, and what ended before it keeps its output."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mainstay.artifacts.objects import open_artifacts
from mainstay.domain.allocation import End, Seen
from mainstay.domain.artifact import Entry, Tree
from testbed.control_plane import ControlPlane
from testbed.fixtures import until
from tests.clusters import OWNER, Program, RealCluster, Rig, kubernetes_rig, mount

pytestmark = pytest.mark.xdist_group("kubernetes")


@pytest.fixture(scope="module")
def control_plane(real_control_plane: ControlPlane) -> ControlPlane:
    return real_control_plane


@pytest.fixture
async def rig(real_cluster: RealCluster, tmp_path: Path) -> AsyncIterator[Rig]:
    made = await kubernetes_rig(real_cluster, tmp_path)
    yield made
    await made.close()


async def away(rig: Rig) -> None:
    """Nobody looks after the cluster any more."""
    await rig.cluster.close()


def container(plane: ControlPlane, pod: str, name: str) -> dict:
    """The state of a container, as its kubelet says."""
    (found,) = plane.ask(f"/api/v1/pods?fieldSelector=metadata.name={pod}")["items"]
    return {one["name"]: one["state"] for one in found["status"].get("containerStatuses", [])}.get(name, {})


async def test_a_job_that_ended_well_while_we_were_away_keeps_its_output_past_its_deadline(
    rig: Rig, control_plane: ControlPlane
) -> None:
    await rig.create("well-1-0", Program(runs_for=1, files={"model": "weights"}), deadline_seconds=3)
    await away(rig)
    until(lambda: "terminated" in container(control_plane, "well-1-0", "main"))
    await asyncio.sleep(6.0)
    assert "running" in container(control_plane, "well-1-0", "outputs")
    rig.again()
    ended = await rig.seen("well-1-0", Seen.ENDED)
    assert (ended.end, ended.exit_code) == (End.EXITED, 0)
    assert await rig.output("well-1-0") == {"model": "weights"}


async def test_a_run_ends_at_its_deadline_while_we_are_away_however_it_resists(
    rig: Rig, control_plane: ControlPlane
) -> None:
    stubborn = Program(runs_for=60, ignores_term=True)
    await rig.create("late-1-0", stubborn, deadline_seconds=3, stop_grace_seconds=1)
    await away(rig)
    until(lambda: "terminated" in container(control_plane, "late-1-0", "main"), seconds=30)
    rig.again()
    ended = await rig.seen("late-1-0", Seen.ENDED)
    assert (ended.end, ended.exit_code) == (End.DEADLINE, None)
    assert 3_000_000 <= ended.ended_at - ended.started_at <= 8_000_000


async def test_what_a_run_waits_for_before_it_starts_is_no_part_of_its_time(
    rig: Rig, control_plane: ControlPlane, tmp_path: Path
) -> None:
    """Nobody hands in its code for longer than it may run."""
    code = b"sleep 1\n"
    digest = hashlib.sha256(code).hexdigest()
    artifacts = open_artifacts(str(tmp_path / "artifacts"))

    async def content() -> AsyncIterator[bytes]:
        yield code

    await artifacts.of(OWNER).put(digest, content())
    tree = await artifacts.of(OWNER).put_tree(Tree(entries=(Entry(path="run.sh", size=len(code), digest=digest),)))
    await rig.create("wait-1-0", Program(), argv=("/bin/sh", "run.sh"), mounts=mount(tree, "."), deadline_seconds=3)
    await away(rig)
    await asyncio.sleep(5.0)
    assert "running" not in container(control_plane, "wait-1-0", "main")
    rig.again()
    ended = await rig.seen("wait-1-0", Seen.ENDED)
    assert (ended.end, ended.exit_code) == (End.EXITED, 0)
