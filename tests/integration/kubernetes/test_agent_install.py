"""The agent that we ship is put into a real cluster as its page says, calls a platform outside of it, and carries the cluster."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed import images, mainstay_image, programs
from testbed.fixtures import until
from tests.clusters import RealCluster
from tests.e2e.platform import Platform, platform
from tests.integration.kubernetes.installed import MANIFESTS, kubectl, objects
from tests.integration.kubernetes.test_install import rendered
from tests.unit.clusters.kubernetes.restricted import faults

pytestmark = pytest.mark.xdist_group("kubernetes")

ROOT = MANIFESTS.parents[1]
OVERLAY = MANIFESTS / "overlays" / "agent"
PAGE = ROOT / "docs" / "how-to" / "run-an-agent.md"
PLANT = "plant"


def test_the_agent_passes_the_restricted_profile_is_probed_and_lets_nobody_in() -> None:
    documents = {document["kind"]: document for document in rendered(OVERLAY)}
    template = documents["Deployment"]["spec"]["template"]
    assert not faults(template)
    (agent,) = template["spec"]["containers"]
    assert {"livenessProbe", "readinessProbe"} <= agent.keys()
    assert agent["securityContext"]["readOnlyRootFilesystem"]
    assert agent["resources"]["requests"].keys() >= {"cpu", "memory"}
    assert re.search(r":\d", agent["image"]), "no version"
    policy = documents["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A platform outside of a cluster, and an agent in it."""

    platform: Platform
    real: RealCluster

    def agents(self) -> list[dict[str, Any]]:
        return objects(
            self.real.control_plane, "pods", "--namespace=mainstay", "--selector=app.kubernetes.io/component=agent"
        )

    def cluster(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.platform.mainstay("cluster", "show", PLANT, "--json").stdout)
        return found

    def run(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.platform.json("show", name)
        return found


@pytest.fixture
def planted(real_cluster: RealCluster, tmp_path: Path) -> Iterator[Planted]:
    plane, node = real_cluster.control_plane, real_cluster.node
    node.load(mainstay_image.mainstay())
    outer = node.machine.network.outer
    keys = plane.keys.authority.server("mainstay-outside", outer)
    authority = plane.keys.authority.certificate
    options = ("--host", outer, "--tls-cert", str(keys.certificate), "--tls-key", str(keys.key))
    with platform(tmp_path / "state", *options) as running:
        running.environment["MAINSTAY_CA_FILE"] = str(authority)
        added = running.mainstay(
            "cluster", "add", PLANT, "--agent", "--image", images.BUSYBOX, "--helper-image", images.BUSYBOX
        )
        assert added.returncode == 0, added.stderr
        (tmp_path / "plant-token").write_text(added.stdout)
        overlay = overlay_of(tmp_path / "overlay", url=running.url, node=node.name)
        (commands,) = re.findall(
            rf"<!-- tried: \S*{Path(__file__).name} -->\n```sh\n(.+?)```", PAGE.read_text(), re.DOTALL
        )
        for example, value in (
            (" deploy/kubernetes/overlays/plant", f" {overlay}"),
            (" deploy/", f" {ROOT}/deploy/"),
            ("plant-token", f"plant-token --from-file=ca.crt={authority}"),
        ):
            assert example in commands
            commands = commands.replace(example, value)
        environment = {
            **os.environ,
            "PATH": f"{programs.path('kubectl').parent}:{os.environ['PATH']}",
            "KUBECONFIG": str(plane.kubeconfig),
        }
        try:
            done = subprocess.run(
                ["sh", "-ec", commands], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(kubectl(plane, "--namespace=mainstay", "describe", "pods")[-4_000:])
                print(kubectl(plane, "--namespace=mainstay", "logs", "--selector=app.kubernetes.io/component=agent"))
            assert done.returncode == 0, done.stdout + done.stderr
            yield Planted(platform=running, real=real_cluster)
        finally:
            kubectl(plane, "delete", "-k", str(overlay), "--wait=false")


def overlay_of(folder: Path, *, url: str, node: str) -> Path:
    """The shipped one with the values of this test bed; no scheduler runs here, so it is told its node."""
    folder.mkdir()
    document = yaml.safe_load((OVERLAY / "kustomization.yaml").read_text())
    paths = {
        name: os.path.relpath(OVERLAY / name, folder) for name in (*document["resources"], *document["components"])
    }
    for name in ("deployment.yaml", "network.yaml"):
        # Files outside of its folder are none of a kustomization's business.
        (folder / name).write_text((OVERLAY / name).read_text())
        paths[name] = name
    document["resources"] = [paths[name] for name in document["resources"]]
    document["components"] = [paths[name] for name in document["components"]]
    document["images"] = [{"name": "mainstay", "newName": "localhost/mainstay", "newTag": mainstay_image.version()}]
    (settings,) = document["configMapGenerator"]
    settings["literals"] = [f"server={url}", f"cluster={PLANT}", "ca-file=/mainstay/secret/ca.crt"]
    placed = [{"op": "add", "path": "/spec/template/spec/nodeName", "value": node}]
    document["patches"] = [{"target": {"kind": "Deployment"}, "patch": json.dumps(placed)}]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
    return folder


def test_it_carries_the_cluster_that_it_lives_in_and_is_replaced_in_the_middle_of_a_run(planted: Planted) -> None:
    until(lambda: planted.cluster()["state"] == "ready")
    assert planted.cluster()["agent_heard"]
    script = "echo first; sleep 7; echo second"
    done = planted.platform.mainstay("run", "-y", "-d", "-n", "long", "--infra", PLANT, "--", "/bin/sh", "-c", script)
    assert done.returncode == 0, done.stderr
    until(lambda: "first" in planted.platform.mainstay("logs", "long").stdout)
    inside = planted.platform.mainstay("exec", "long", "--", "hostname")
    assert inside.stdout.strip() == planted.run("long")["pods"][0]["pod"], inside.stderr
    (agent,) = planted.agents()
    name = agent["metadata"]["name"]
    kubectl(planted.real.control_plane, "--namespace=mainstay", "delete", "pod", name, "--grace-period=1")
    until(lambda: planted.run("long")["phase"] == "succeeded")
    assert planted.run("long")["attempt"] == 1
    until(lambda: "second" in planted.platform.mainstay("logs", "long").stdout)
    assert name not in {agent["metadata"]["name"] for agent in planted.agents()}
