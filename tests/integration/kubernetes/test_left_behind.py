"""What a removed cluster keeps is cleared away by the commands of docs/how-to/add-a-cluster.md, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mainstay.clusters.kubernetes import names, pods, surroundings
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.domain.allocation import DeletePod, Owner
from mainstay.domain.workload import Volume
from testbed import programs
from testbed.control_plane import ControlPlane
from tests.clusters import OWNER, create
from tests.integration.kubernetes.installed import kubectl, objects

pytestmark = pytest.mark.xdist_group("api-server")

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "add-a-cluster.md"
GONE, BESIDE = Settings(system="gone for good"), Settings(system="beside it")


def blocks() -> list[str]:
    """The commands of the section, block by block, each as one script."""
    section = PAGE.read_text().partition("### What stays there")[2].partition("\n## ")[0]
    found = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return ["\n".join(line.removeprefix("$ ") for line in block.splitlines()) for block in found]


def run(control_plane: ControlPlane, script: str) -> str:
    environment = {
        **os.environ,
        "PATH": f"{programs.path('kubectl').parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(control_plane.kubeconfig),
    }
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def leave(control_plane: ControlPlane, settings: Settings, owner: Owner) -> str:
    """All that a platform makes for a project, and a pod on a machine that is off; the namespace."""
    space = names.namespace(owner, system=settings.system)

    def make(what: str, document: Any, group: str = "api/v1") -> None:
        control_plane.ask(f"/{group}/namespaces/{space}/{what}", method="POST", body=document)

    body = surroundings.namespace(space, owner, settings)
    control_plane.ask("/api/v1/namespaces", method="POST", body=body)
    make("serviceaccounts", surroundings.account(owner, settings))
    make("networkpolicies", surroundings.default_deny(owner, settings), "apis/networking.k8s.io/v1")
    make("resourcequotas", surroundings.quota(owner, settings))
    make("persistentvolumeclaims", pods.claim(Volume(path="/data", name="ckpt", size_bytes=1 << 20), owner, settings))
    make("pods", pods.pod(create("run-1-0", "machine-that-is-off", script="true", owner=owner), settings))
    deleted = DeletePod(name="run-2-0", grace_seconds=5, owner=owner)
    make("pods", pods.tombstone(deleted, settings, image="busybox"))
    return space


def test_nothing_of_ours_is_left_and_what_others_have_stays(
    control_plane: ControlPlane, hollow_nodes: tuple[str, ...]
) -> None:
    mine = leave(control_plane, GONE, OWNER)
    theirs = leave(control_plane, BESIDE, OWNER)
    node = hollow_nodes[0]
    kubectl(control_plane, "cordon", node)
    kubectl(
        control_plane,
        "annotate",
        "node",
        node,
        f"{names.CORDONED}={names.short(GONE.system)}",
        f"{names.CORDON_REASON}=x",
    )
    look, clear, uncordon = blocks()
    shown = run(control_plane, look)
    assert names.short(GONE.system) in shown
    assert {"pod/run-1-0", "pod/run-2-0", "persistentvolumeclaim/ckpt"} <= set(shown.split())

    run(control_plane, with_mark(clear, GONE))
    spaces = {one["metadata"]["name"] for one in objects(control_plane, "namespaces")}
    assert (mine in spaces, theirs in spaces) == (False, True)
    kinds = "pods,services,persistentvolumeclaims,networkpolicies,resourcequotas"
    assert not objects(control_plane, kinds, "-A", f"-l{names.SYSTEM}={names.short(GONE.system)}")
    assert {one["metadata"]["name"] for one in objects(control_plane, "pods", "-n", theirs)} == {"run-1-0", "run-2-0"}

    run(
        control_plane,
        uncordon.replace("NODE mainstay", f"{node} mainstay").replace("uncordon NODE", f"uncordon {node}"),
    )
    (cleared,) = [one for one in objects(control_plane, "nodes") if one["metadata"]["name"] == node]
    assert not cleared["spec"].get("unschedulable")
    assert not [name for name in cleared["metadata"].get("annotations", {}) if name.startswith(names.PREFIX)]
    run(control_plane, with_mark(clear, BESIDE).replace("delete namespaces", "delete namespaces --wait=false"))


def with_mark(script: str, settings: Settings) -> str:
    """For this platform, on machines that are off."""
    assert "MARK=0123456789ab" in script
    script = script.replace("MARK=0123456789ab", f"MARK={names.short(settings.system)}")
    return script.replace("--wait=false", "--wait=false --force --grace-period=0", 1)
