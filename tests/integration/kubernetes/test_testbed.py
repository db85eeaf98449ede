"""The test bed is a real Kubernetes, and does to its clients what a real one may do to them."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from testbed import hollow, programs
from testbed.control_plane import ControlPlane
from testbed.hollow import HollowNode

pytestmark = pytest.mark.xdist_group("kubernetes")


def names(control_plane: ControlPlane, path: str) -> set[str]:
    return {item["metadata"]["name"] for item in control_plane.ask(path)["items"]}


def until(true: Callable[[], Any], *, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_is_the_version_that_is_pinned(control_plane: ControlPlane):
    assert control_plane.ask("/version")["gitVersion"] == programs.KUBERNETES


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 403), ({"Authorization": "Bearer wrong"}, 401)], ids=["no token", "a wrong token"]
)
def test_a_stranger_sees_nothing(control_plane: ControlPlane, headers: dict[str, str], status: int):
    trusted = ssl.create_default_context(cafile=str(control_plane.keys.authority.certificate))
    with httpx2.Client(base_url=control_plane.url, verify=trusted, headers=headers, trust_env=False) as stranger:
        assert stranger.get("/api/v1/nodes").status_code == status


def test_a_pod_on_a_hollow_node_seems_to_run_and_is_gone_when_deleted(control_plane: ControlPlane):
    pods = "/api/v1/namespaces/default/pods"
    with hollow.simulated(control_plane) as simulator:
        made = list(hollow.add(control_plane, [HollowNode(name="cpu-0"), HollowNode(name="gpu-0", gpus=8)]))
        simulator.wait_until(lambda: hollow.are_ready(control_plane, made), seconds=hollow.START_SECONDS_MAX)
        assert control_plane.ask("/api/v1/nodes/gpu-0")["status"]["allocatable"]["nvidia.com/gpu"] == "8"
        spec = {"nodeName": "gpu-0", "containers": [{"name": "main", "image": "any"}]}
        control_plane.ask(pods, method="POST", body={"metadata": {"name": "one"}, "spec": spec})
        until(lambda: control_plane.ask(f"{pods}/one")["status"]["phase"] == "Running")
        control_plane.ask(f"{pods}/one", method="DELETE")
        until(lambda: "one" not in names(control_plane, pods))


def test_an_api_server_that_was_killed_answers_again_with_all_that_it_had(control_plane: ControlPlane):
    control_plane.ask("/api/v1/namespaces", method="POST", body={"metadata": {"name": "kept"}})
    control_plane.api_server.kill()
    with pytest.raises(httpx2.TransportError):
        control_plane.ask("/version")
    control_plane.start_api_server()
    assert "kept" in names(control_plane, "/api/v1/namespaces")


def test_a_cluster_that_is_set_back_knows_nothing_of_what_came_after_and_counts_again(control_plane: ControlPlane):
    saved = control_plane.saved()
    control_plane.ask("/api/v1/namespaces", method="POST", body={"metadata": {"name": "later"}})
    after = int(control_plane.ask("/api/v1/namespaces/later")["metadata"]["resourceVersion"])
    control_plane.restore(saved)
    assert "later" not in names(control_plane, "/api/v1/namespaces")
    again = control_plane.ask("/api/v1/namespaces", method="POST", body={"metadata": {"name": "another"}})
    assert abs(int(again["metadata"]["resourceVersion"]) - after) < 1_000
