"""The test bed is a real Kubernetes, and does to its clients what a real one may do to them."""

from __future__ import annotations

import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2
import pytest

from testbed import folders, programs
from testbed.control_plane import ControlPlane
from testbed.fixtures import unavailable, until

pytestmark = pytest.mark.xdist_group("api-server")


def names(control_plane: ControlPlane, path: str) -> set[str]:
    return {item["metadata"]["name"] for item in control_plane.ask(path)["items"]}


def test_it_is_the_version_that_is_pinned(control_plane: ControlPlane):
    assert control_plane.ask("/version")["gitVersion"] == programs.KUBERNETES


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 403), ({"Authorization": "Bearer wrong"}, 401)], ids=["no token", "a wrong token"]
)
def test_a_stranger_sees_nothing(control_plane: ControlPlane, headers: dict[str, str], status: int):
    trusted = ssl.create_default_context(cafile=str(control_plane.keys.authority.certificate))
    with httpx2.Client(base_url=control_plane.url, verify=trusted, headers=headers, trust_env=False) as stranger:
        assert stranger.get("/api/v1/nodes").status_code == status


def test_a_pod_on_a_hollow_node_seems_to_run_and_is_gone_when_deleted(
    control_plane: ControlPlane, namespace: str, hollow_nodes: tuple[str, ...]
):
    pods, gpu = f"/api/v1/namespaces/{namespace}/pods", hollow_nodes[-1]
    assert control_plane.ask(f"/api/v1/nodes/{gpu}")["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    spec = {"nodeName": gpu, "containers": [{"name": "main", "image": "any"}]}
    control_plane.ask(pods, method="POST", body={"metadata": {"name": "one"}, "spec": spec})
    until(lambda: control_plane.ask(f"{pods}/one")["status"]["phase"] == "Running")
    control_plane.ask(f"{pods}/one", method="DELETE")
    until(lambda: "one" not in names(control_plane, pods))


def test_the_scheduler_of_kubernetes_places_a_pod_if_it_is_started(
    control_plane: ControlPlane, namespace: str, hollow_nodes: tuple[str, ...]
):
    pods = f"/api/v1/namespaces/{namespace}/pods"
    limits = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    spec = {"containers": [{"name": "main", "image": "any", **limits}]}
    control_plane.ask(pods, method="POST", body={"metadata": {"name": "one"}, "spec": spec})
    assert "nodeName" not in control_plane.ask(f"{pods}/one")["spec"]
    control_plane.scheduler.start()
    try:
        assert until(lambda: control_plane.ask(f"{pods}/one")["spec"].get("nodeName")) == hollow_nodes[-1]
    finally:
        control_plane.scheduler.stop()


def test_an_api_server_that_was_killed_answers_again_with_all_that_it_had(breakable_control_plane: ControlPlane):
    control_plane = breakable_control_plane
    control_plane.ask("/api/v1/namespaces", method="POST", body={"metadata": {"name": "kept"}})
    control_plane.api_server.kill()
    with pytest.raises(httpx2.TransportError):
        control_plane.ask("/version")
    control_plane.start_api_server()
    assert "kept" in names(control_plane, "/api/v1/namespaces")


def test_a_cluster_that_is_set_back_knows_nothing_of_what_came_after_and_counts_again(
    breakable_control_plane: ControlPlane,
):
    control_plane = breakable_control_plane
    saved = control_plane.saved()
    control_plane.ask("/api/v1/namespaces", method="POST", body={"metadata": {"name": "later"}})
    after = int(control_plane.ask("/api/v1/namespaces/later")["metadata"]["resourceVersion"])
    control_plane.restore(saved)
    assert "later" not in names(control_plane, "/api/v1/namespaces")
    again = control_plane.ask("/api/v1/namespaces", method="POST", body={"metadata": {"name": "another"}})
    assert abs(int(again["metadata"]["resourceVersion"]) - after) < 1_000


def test_what_a_killed_test_bed_has_left_is_cleared_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if programs.missing():
        unavailable("the programs of the test bed are not built; hint: make testbed-programs")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    script = "from testbed.control_plane import running\nwith running() as it: print(it.folder, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip())
        assert len(folders.processes(left)) == 3
        assert folders.abandoned() == []
        other.kill()
    until(lambda: folders.abandoned() == [left])
    with folders.temporary():
        assert not left.exists()
        assert folders.processes(left) == []


def test_in_ci_a_test_that_cannot_run_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="has to run, but nothing is built"):
        unavailable("nothing is built")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="nothing is built"):
        unavailable("nothing is built")
