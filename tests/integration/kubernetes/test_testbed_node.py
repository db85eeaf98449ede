"""Pods on the real node of the test bed are containers, as restricted as in production, and nothing of them stays."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from testbed import cgroups, folders, images, machine, mainstay_image, node, programs, runtime
from testbed.control_plane import ControlPlane, running
from testbed.fixtures import unavailable, until
from testbed.images import BUSYBOX
from testbed.node import Node
from testbed.proxy import Proxy

pytestmark = pytest.mark.xdist_group("kubernetes")

TRAIN = Path(__file__).parents[3] / "examples/01-first-job/train.py"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


class Pods:
    """Pods of one namespace on the real node, under the restricted profile, which the API server enforces."""

    def __init__(self, control_plane: ControlPlane, namespace: str, on: Node) -> None:
        self.control_plane, self.namespace, self.node = control_plane, namespace, on
        self.path = f"/api/v1/namespaces/{namespace}"
        self.kubectl("label", "namespace", namespace, RESTRICTED)
        on.load(images.busybox())

    def make(self, name: str, *command: str, image: str = BUSYBOX, env: Mapping[str, str] = {}, **spec: Any) -> None:
        container = {
            "name": "main",
            "image": image,
            "command": command,
            "volumeMounts": [{"name": "out", "mountPath": "/out"}],
            "env": [{"name": key, "value": value} for key, value in env.items()],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        pod = {
            "nodeName": self.node.name,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "out", "emptyDir": {}}],
            "containers": [container],
        }
        body = {"metadata": {"name": name, "labels": {"app": "test"}}, "spec": pod | spec}
        self.control_plane.ask(f"{self.path}/pods", method="POST", body=body)

    def status(self, name: str) -> dict[str, Any]:
        return self.control_plane.ask(f"{self.path}/pods/{name}")["status"]

    def reaches(self, name: str, *phases: str) -> dict[str, Any]:
        until(lambda: self.status(name)["phase"] in phases)
        return self.status(name)

    def log(self, name: str) -> str:
        return self.control_plane.ask(f"{self.path}/pods/{name}/log")

    def kubectl(self, *words: str) -> str:
        command = [str(programs.path("kubectl")), f"--kubeconfig={self.control_plane.kubeconfig}"]
        done = subprocess.run(
            [*command, f"--namespace={self.namespace}", *words], capture_output=True, text=True, check=True
        )
        return done.stdout


@pytest.fixture
def control_plane(real_control_plane: ControlPlane) -> ControlPlane:
    """The cluster of the real node."""
    return real_control_plane


@pytest.fixture
def pods(control_plane: ControlPlane, namespace: str, real_node: Node) -> Pods:
    return Pods(control_plane, namespace, real_node)


def test_where_a_real_node_cannot_be_it_is_said_in_a_sentence_that_helps(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(programs, "missing", list)
    monkeypatch.setattr("os.geteuid", lambda: 1_000)
    assert node.why_not() == "a real node needs Linux and root"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None if name in {"runc", "ctr", "containerd"} else f"/bin/{name}")
    monkeypatch.setattr(runtime, "NETWORK_PLUGINS", ())
    assert node.why_not() == (
        "a real node needs containerd, containernetworking-plugins, runc; hint: scripts/ensure-containerd"
    )
    monkeypatch.setattr(programs, "missing", lambda: ["kubelet"])
    assert node.why_not() == "the programs of the test bed are not built (kubelet); hint: make testbed-programs"


def test_where_the_kernel_keeps_no_policies_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    if reason := node.why_not():
        unavailable(reason)
    (tmp_path / "ipset").write_text("#!/bin/sh\necho 'Kernel error received: Invalid argument' >&2; exit 1\n")
    (tmp_path / "ipset").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert node.why_not() == "this machine cannot keep network policies: Kernel error received: Invalid argument"


def test_a_pod_under_the_restricted_profile_runs_logs_and_fails_with_its_exit_code(pods: Pods):
    pods.make("one", "sh", "-c", "id -u; grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status; touch /x 2>&1; exit 3")
    status = pods.reaches("one", "Succeeded", "Failed")
    assert status["phase"] == "Failed"
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    said = pods.log("one")
    assert said.split() == [
        str(images.USER),
        *("CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"),
        *["touch:", "/x:", "Read-only", "file", "system"],
    ]


def test_a_pod_that_wants_more_than_the_restricted_profile_is_refused(pods: Pods):
    with pytest.raises(httpx2.HTTPStatusError) as refused:
        pods.make("root", "id", securityContext={"runAsUser": 0})
    assert refused.value.response.status_code == 403


def test_a_command_in_a_running_pod_and_a_forwarded_port_are_reached_through_the_api_server(pods: Pods):
    pods.make("web", "sh", "-c", "echo hello > /out/index.html; httpd -f -p 8080 -h /out")
    pods.reaches("web", "Running")
    assert pods.kubectl("exec", "web", "--", "cat", "/out/index.html") == "hello\n"
    through = f"{pods.path}/pods/web:8080/proxy/index.html"
    assert until(lambda: _answer(pods.control_plane, through)) == "hello\n"
    command = [str(programs.path("kubectl")), f"--kubeconfig={pods.control_plane.kubeconfig}", "port-forward"]
    with subprocess.Popen(
        [*command, f"--namespace={pods.namespace}", "web", ":8080"], stdout=subprocess.PIPE, text=True
    ) as forwarding:
        assert forwarding.stdout is not None
        port = forwarding.stdout.readline().split(" -> ")[0].rpartition(":")[2]
        with httpx2.Client(trust_env=False) as client:
            assert client.get(f"http://127.0.0.1:{port}/index.html").text == "hello\n"
        forwarding.terminate()


def test_a_command_in_a_pod_is_reached_through_the_proxy_too(pods: Pods, proxy: Proxy):
    pods.make("shell", "sleep", "infinity")
    pods.reaches("shell", "Running")
    assert pods.kubectl(f"--kubeconfig={proxy.kubeconfig}", "exec", "shell", "--", "echo", "hello") == "hello\n"


def _answer(control_plane: ControlPlane, path: str) -> str:
    try:
        return control_plane.ask(path)
    except httpx2.HTTPStatusError:  # it does not listen yet
        return ""


def test_pods_find_each_other_by_name_and_by_the_address_of_a_service(pods: Pods):
    for name, address in (("ranks", "None"), ("web", None)):
        spec = {"selector": {"app": "test"}, "ports": [{"port": 80, "targetPort": 8080}]}
        spec |= {"clusterIP": address, "publishNotReadyAddresses": True} if address else {}
        pods.control_plane.ask(f"{pods.path}/services", method="POST", body={"metadata": {"name": name}, "spec": spec})
    pods.make("rank-0", "httpd", "-f", "-p", "8080", "-h", "/bin", hostname="rank-0", subdomain="ranks")
    address = pods.reaches("rank-0", "Running")["podIP"]
    asks = "until nslookup -type=a rank-0.ranks.$NS.svc.cluster.local && wget -q -O /out/x http://web/sh; do sleep 0.1; done"
    pods.make("rank-1", "sh", "-c", asks.replace("$NS", pods.namespace), hostname="rank-1", subdomain="ranks")
    assert pods.reaches("rank-1", "Succeeded", "Failed")["phase"] == "Succeeded"
    assert address in pods.log("rank-1")


def test_policies_are_kept_also_while_their_keeper_is_dead_and_changed_once_it_is_back(pods: Pods):
    path = f"/apis/networking.k8s.io/v1/namespaces/{pods.namespace}/networkpolicies"
    closed = {"podSelector": {}, "policyTypes": ["Ingress"]}
    pods.make("web", "httpd", "-f", "-p", "8080", "-h", "/bin")
    at = pods.reaches("web", "Running")["podIP"]
    pods.control_plane.ask(path, method="POST", body={"metadata": {"name": "closed"}, "spec": closed})
    pods.make("refused", "sh", "-c", f"while nc -w 1 {at} 8080 -e true; do :; done")
    pods.reaches("refused", "Succeeded")
    pods.node.firewall.kill()
    pods.control_plane.ask(f"{path}/closed", method="DELETE")
    pods.make("still", "nc", "-w", "1", at, "8080", "-e", "true")
    pods.reaches("still", "Failed")
    pods.node.start_firewall()
    pods.make("open", "sh", "-c", f"until nc -w 1 {at} 8080 -e true; do :; done")
    pods.reaches("open", "Succeeded")


def test_a_pod_reaches_the_api_server_with_its_own_token(pods: Pods):
    image = mainstay_image.mainstay()
    pods.node.load(image)
    script = """
import os, pathlib, ssl, urllib.request
place = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
request = urllib.request.Request(
    "https://kubernetes.default.svc/version", headers={"Authorization": f"Bearer {(place / 'token').read_text()}"}
)
print(urllib.request.urlopen(request, context=ssl.create_default_context(cafile=place / "ca.crt")).read().decode())
"""
    pods.make("inside", "python", "-c", script, image=image.reference)
    assert pods.reaches("inside", "Succeeded", "Failed")["phase"] == "Succeeded", pods.log("inside")
    assert json.loads(pods.log("inside"))["gitVersion"] == programs.KUBERNETES


def test_the_image_of_this_project_trains_a_model_and_has_the_model_server(pods: Pods):
    image = mainstay_image.mainstay()
    pods.node.load(image)
    program = 'python -c "$TRAIN" && python -m mainstay.serving --help && mainstay --version'
    env = {"TRAIN": TRAIN.read_text(), "MAINSTAY_OUTPUT_DIR": "/out", "OMP_NUM_THREADS": "1"}
    pods.make("train", "sh", "-c", program, image=image.reference, env=env)
    assert pods.reaches("train", "Succeeded", "Failed")["phase"] == "Succeeded", pods.log("train")
    said = pods.log("train")
    assert "held-out accuracy: 0.9" in said
    assert "Serve one model" in said
    assert mainstay_image.version() in said


def _last(pods: Pods) -> str:
    with contextlib.suppress(subprocess.CalledProcessError):  # kubelet does not know the pod again yet
        return pods.kubectl("exec", "long", "--", "tail", "-n", "1", "/out/alive")
    return ""


def test_containers_run_on_while_kubelet_is_dead(pods: Pods):
    pods.make("long", "sh", "-c", "while true; do date +%s >> /out/alive; sleep 0.1; done")
    pods.reaches("long", "Running")
    pods.node.kubelet.kill()
    pods.node.start_kubelet()
    assert pods.status("long")["containerStatuses"][0]["restartCount"] == 0
    before = int(until(lambda: _last(pods)))
    until(lambda: int(_last(pods) or 0) > before)


def test_a_node_that_lost_its_power_comes_back_with_its_address_and_without_what_ran(pods: Pods):
    pods.make("lost", "sleep", "infinity")
    pods.reaches("lost", "Running")
    address = pods.node.address
    pods.node.stop()
    pods.node.start()
    assert pods.node.address == address
    pods.reaches("lost", "Failed")
    pods.make("next", "true")
    pods.reaches("next", "Succeeded")


def test_a_node_has_its_large_images_from_an_earlier_start_and_none_of_its_containers_changes_them(pods: Pods):
    image = mainstay_image.mainstay()
    kept = runtime.seed(mainstay_image.large_part())
    pods.node.load(image)
    before = _python_files(kept)
    script = "cd /opt/mainstay/lib/python*/site-packages/uvicorn && chmod a+w *.py && echo >> main.py && rm config.py"
    pods.kubectl("label", "namespace", pods.namespace, "pod-security.kubernetes.io/enforce=privileged", "--overwrite")
    root = {
        "name": "main",
        "image": image.reference,
        "command": ["sh", "-c", script],
        "securityContext": {"runAsUser": 0},
    }
    pods.make("vandal", securityContext={}, containers=[root])
    assert pods.reaches("vandal", "Succeeded", "Failed")["phase"] == "Succeeded", pods.log("vandal")
    assert _python_files(kept) == before
    assert before
    assert image.digest in pods.node.machine.do("ctr", f"--address={runtime.SOCKET}", "-n", "k8s.io", "i", "list")


def _python_files(folder: Path) -> list[tuple[str, int, int, int]]:
    found = ((path, path.stat()) for path in folder.rglob("site-packages/uvicorn/*.py"))
    return sorted((str(path), stat.st_mode, stat.st_size, stat.st_mtime_ns) for path, stat in found)


def test_a_second_node_runs_beside_the_first_and_leaves_this_machine_as_it_was(real_node: Node):
    before = _settings()
    with running() as control_plane, node.running(control_plane, "other") as other:
        assert other.address != real_node.address
        other.load(images.busybox())
        assert _settings() == before
        group, folder, network = control_plane.folder.name, control_plane.folder, other.machine.network
        assert any((hierarchy / group).exists() for hierarchy in cgroups.hierarchies())
        assert network.device in _said("ip", "link")
        assert str(folder) not in _said("findmnt")
    assert not folder.exists()
    assert folders.processes(folder) == []
    assert not any((hierarchy / group).exists() for hierarchy in cgroups.hierarchies())
    until(lambda: f"{network.device}@" not in _said("ip", "link"))
    assert str(network.pods) not in _said("ip", "route")
    assert "KUBE" not in _said("iptables-save") + _said("ipset", "list", "-name")
    assert _settings() == before


def _settings() -> list[str]:
    return [Path("/proc/sys", name).read_text() for name in (*machine.SETTINGS, "net/ipv4/ip_forward")]


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
