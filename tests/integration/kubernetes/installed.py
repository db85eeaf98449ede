"""What is shipped for a cluster, put into one as an administrator does it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from testbed import programs
from testbed.control_plane import ControlPlane

MANIFESTS = Path(__file__).parents[3] / "deploy" / "kubernetes"
HARDEN = Path(__file__).parents[3] / "docs" / "how-to" / "harden.md"
ACCOUNT = "system:serviceaccount:mainstay:mainstay"


def kubectl(control_plane: ControlPlane, *words: str, given: str = "") -> str:
    """What it says. Raises AssertionError with its complaint."""
    command = [str(programs.path("kubectl")), f"--kubeconfig={control_plane.kubeconfig}", *words]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def apply(control_plane: ControlPlane, overlay: Path) -> None:
    kubectl(control_plane, "apply", "-k", str(overlay))


def let_reach(control_plane: ControlPlane, namespace: str, address: str, *ports: int) -> None:
    """Pods there may reach a private address, by the policy of the page."""
    (policy,) = re.findall(r"```yaml\n(apiVersion: networking.k8s.io/v1\n.+?)```", HARDEN.read_text(), re.DOTALL)
    for example, value in (
        ("ms-acme-nlp-4h3k2j5m6n", namespace),
        ("10.20.0.15", address),
        ("{protocol: TCP, port: 9000}", ", ".join(f"{{protocol: TCP, port: {port}}}" for port in ports)),
    ):
        assert example in policy
        policy = policy.replace(example, value)
    kubectl(control_plane, "apply", "--filename=-", given=policy)


def kubeconfig(control_plane: ControlPlane) -> str:
    """Of the account, as the script makes it."""
    script = MANIFESTS / "overlays" / "remote-cluster" / "kubeconfig.sh"
    path = f"{programs.path('kubectl').parent}:{os.environ['PATH']}"
    command = [str(script), f"--kubeconfig={control_plane.kubeconfig}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}).stdout


def can(control_plane: ControlPlane, verb: str, resource: str, *, namespace: str = "", group: str = "") -> bool:
    """Whether the account may do this."""
    name, _, sub = resource.partition("/")
    asked = {"verb": verb, "resource": name, "subresource": sub, "namespace": namespace, "group": group}
    review = {"spec": {"user": ACCOUNT, "groups": ["system:authenticated"], "resourceAttributes": asked}}
    answer = control_plane.ask("/apis/authorization.k8s.io/v1/subjectaccessreviews", method="POST", body=review)
    return bool(answer["status"]["allowed"])


def objects(control_plane: ControlPlane, *words: str) -> list[dict]:
    return json.loads(kubectl(control_plane, "get", "-o", "json", *words))["items"]
