"""The platform on API servers of the oldest and the newest version that is supported: jobs, a stop, a crash, its permissions.

Their API servers are built by `make test-others` only; without them these tests skip.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mainstay.app import SystemClock
from mainstay.artifacts.objects import open_artifacts
from mainstay.clusters.kubernetes import KubernetesConnector, chores, picture
from mainstay.clusters.kubernetes.connector import OLDEST
from mainstay.domain.fleet import ClusterSettings, Credentials
from testbed import programs
from testbed.control_plane import ControlPlane, running
from testbed.puppets import Life
from tests.arena import arena
from tests.drawer import Drawer

pytestmark = pytest.mark.xdist_group("kubernetes")


@pytest.fixture(scope="module", params=sorted(programs.OTHERS))
def plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    which: str = request.param
    if programs.missing() or not (programs.folder() / programs.api_server(which).name).exists():
        pytest.skip(f"the {which} API server is not built; hint: make test-others")
    with running(version=which) as started:
        yield started


def test_the_oldest_one_is_the_oldest_that_is_supported():
    assert programs.OTHERS["oldest"].startswith(f"v{OLDEST[0]}.{OLDEST[1]}.")


def test_the_range_that_users_are_told_is_the_one_that_is_tried():
    told = (Path(__file__).parents[2] / "docs/how-to/add-a-cluster.md").read_text()
    oldest, newest = (programs.OTHERS[which].lstrip("v").rpartition(".")[0] for which in ("oldest", "newest"))
    assert f"Clusters of Kubernetes {oldest} to {newest} are supported." in told


async def test_it_says_its_version_and_lets_us_do_all_that_we_need(plane: ControlPlane, tmp_path: Path) -> None:
    connector = KubernetesConnector(open_artifacts(str(tmp_path)), Drawer(), SystemClock(), system="versions")
    document = json.loads(plane.kubeconfig.read_text())
    facts = await connector.check(ClusterSettings(), Credentials(kubeconfig=json.dumps(document)))
    assert facts.version in programs.OTHERS.values()
    assert (facts.missing, facts.warnings) == ((), ())


async def test_jobs_run_are_stopped_by_force_and_survive_a_crash(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "ORPHAN_SECONDS", 4)
    monkeypatch.setattr(picture, "REPORT_SECONDS", 2)
    monkeypatch.setattr(chores, "BURIAL_SECONDS", 1.0)
    async with arena(plane, tmp_path, seed=1) as world:
        jobs = world.submit(*[Life(seconds=3)] * 3, Life(seconds=1, exit_code=3))
        await world.until_running(*jobs[:3])
        path, _ = world.pod_of(jobs[0])
        await world.call("DELETE", path, {"gracePeriodSeconds": 0})
        await world.restart(down_seconds=0.5)
        settled = await world.settle()
        assert await world.violations(settled=settled) == []
        assert len(world.attempts(jobs[0])) == 2
        assert [world.attempts(job) for job in jobs[1:]] == [["exited"]] * 3
