"""A real node: kubelet, containerd, kube-proxy and kube-router, which enforces network policies, in a machine inside this one.

Pods on it are real containers.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2

from testbed import cgroups, hollow, images, mainstay_image, names, programs, relay, runtime
from testbed.control_plane import API_ADDRESS, API_NAME, SERVICE_ADDRESSES, ControlPlane, write_kubeconfig
from testbed.images import Image
from testbed.machine import Machine
from testbed.node_files import NAME_SERVER, NodeFiles
from testbed.processes import Running
from testbed.runtime import NETWORK_FILES, Runtime

START_SECONDS_MAX = 90.0
API_PORT = 6443
PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ipset": "ipset",
    "busybox": "busybox-static",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
"""What a node needs, and Debian's packages that have it."""


def why_not() -> str:
    """Why this machine cannot run a real node, in a sentence; empty if it can."""
    if reason := why_never():
        return reason
    if lacking := programs.missing():
        return f"the programs of the test bed are not built ({', '.join(lacking)}); hint: make testbed-programs"
    packages = {package for program, package in PACKAGES.items() if not shutil.which(program)}
    if not runtime.network_plugins():
        packages.add("containernetworking-plugins")
    if packages:
        return f"a real node needs {', '.join(sorted(packages))}; hint: scripts/ensure-containerd"
    return _no_firewall()


def why_never() -> str:
    """Why this machine could not, whatever is built and installed on it, in a sentence; empty if it could."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a real node needs Linux and root"
    return _refused()


class Node:
    """One real node of a cluster. Its parts may be stopped and started again, and so may the whole."""

    def __init__(self, control_plane: ControlPlane, name: str = "real-0") -> None:
        self.name = name
        self._control_plane = control_plane
        self._group = f"{control_plane.folder.name}/{name}"
        self.machine = Machine(control_plane.folder / name)
        self._run = self.machine.folder / "run"
        self.runtime = Runtime(self.machine)
        self.kubelet = self.machine.program("kubelet", self._kubelet)
        self.proxy = self.machine.program("kube-proxy", self._kube_proxy)
        self.firewall = self.machine.program("kube-router", self._kube_router)
        self._names = self.machine.program("names", self._name_server)
        self._relay: Running | None = None

    @property
    def address(self) -> str:
        """Reached from this machine, as are its pods."""
        return self.machine.network.inner

    def start(self) -> None:
        """Until it is Ready."""
        seed = runtime.seed(mainstay_image.large_part())
        cgroups.make(self._group)
        self.machine.switch_on()
        self.machine.do("ip", "address", "add", f"{NAME_SERVER}/32", "dev", "lo")
        self._write_files()
        self._relay = self._started_relay()
        self.runtime.start(seed=seed)
        self.load(images.pause())
        self.proxy.start()
        self._names.start()
        self.start_kubelet()
        self.start_firewall()
        for helper in (self._relay, self._names):
            helper.require_alive()

    def start_kubelet(self) -> None:
        """Until the API server reaches it and calls the node Ready, which it may do since an earlier start."""
        self.kubelet.start()
        self.kubelet.wait_until(lambda: self._answers() and self.is_ready(), seconds=START_SECONDS_MAX)

    def start_firewall(self) -> None:
        """Until network policies are enforced: those of a pod from the moment on at which the API server says its address."""
        self.firewall.start()
        self.firewall.wait_until(self._is_enforcing, seconds=START_SECONDS_MAX)

    def stop(self) -> None:
        """At once, as without power: pods and all. It may be started again."""
        self.machine.switch_off()
        for part in (self._names, self.firewall, self.proxy, self.kubelet, self.runtime.containerd):
            part.kill()  # they have gone with the machine; this only takes note
        if self._relay is not None:
            self._relay.stop()
        cgroups.remove(self._group)

    def is_ready(self) -> bool:
        """Whether the API server says so."""
        return hollow.are_ready(self._control_plane, [self.name])

    def load(self, image: Image) -> None:
        """Pods of this node may use the image from now on. Nothing happens if it is there."""
        self.runtime.load(image)

    def _answers(self) -> bool:
        """Whether the API server reaches its kubelet."""
        with contextlib.suppress(httpx2.HTTPStatusError):  # no such node yet, or no such kubelet
            return bool(self._control_plane.ask(f"/api/v1/nodes/{self.name}/proxy/healthz") == "ok")
        return False

    def _is_enforcing(self) -> bool:
        """Whether what goes through the machine meets the rules."""
        return "-j KUBE-ROUTER-FORWARD" in self.machine.do("iptables", "--list-rules", "FORWARD")

    def _kubelet(self) -> list[str]:
        options = ["--config=/run/kubelet.json", "--kubeconfig=/run/kubelet.kubeconfig"]
        options += [f"--hostname-override={self.name}", f"--node-ip={self.address}"]
        return [str(programs.path("kubelet")), *options]

    def _kube_proxy(self) -> list[str]:
        options = ["--config=/run/kube-proxy.json", f"--hostname-override={self.name}"]
        return [str(programs.path("kube-proxy")), *options]

    def _kube_router(self) -> list[str]:
        """Its network policies alone: there is one node, and kube-proxy."""
        options = ["--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--health-port=0"]
        options += ["--kubeconfig=/run/kube-router.kubeconfig", f"--hostname-override={self.name}"]
        options += [f"--service-cluster-ip-range={SERVICE_ADDRESSES}"]
        return [str(programs.path("kube-router")), *options]

    def _name_server(self) -> list[str]:
        return [sys.executable, names.__file__, NAME_SERVER, "/run/names.kubeconfig"]

    def _write_files(self) -> None:
        keys, network = self._control_plane.keys, self.machine.network
        files = NodeFiles(
            group=self._group,
            network=network,
            authority=keys.authority.certificate,
            server=keys.authority.server(f"{self.name}-server", self.name, network.inner),
        )
        folder = self._run / Path(NETWORK_FILES).name
        folder.mkdir(exist_ok=True)
        (folder / "pods.conflist").write_text(json.dumps(files.pod_network()))
        (self._run / "kubelet.json").write_text(json.dumps(files.kubelet()))
        (self._run / "kube-proxy.json").write_text(json.dumps(files.kube_proxy("/run/kube-proxy.kubeconfig")))
        (self._run / "resolv.conf").write_text(f"nameserver {NAME_SERVER}\n")
        mine = keys.authority.client(f"{self.name}-client", user=f"system:node:{self.name}", group="system:nodes")
        certified = {"client-certificate": str(mine.certificate), "client-key": str(mine.key)}
        directly, admin = f"https://{network.outer}:{API_PORT}", {"token": keys.token}
        for name, url, user in (
            ("kubelet", directly, certified),
            ("kube-proxy", directly, admin),
            ("kube-router", directly, admin),
            ("names", f"https://{API_ADDRESS}", admin),
        ):
            write_kubeconfig(
                self._run / f"{name}.kubeconfig",
                url=url,
                authority=keys.authority.certificate,
                user=user,
                server_name=API_NAME,
            )

    def _started_relay(self) -> Running:
        """The API server listens on loopback: what the node and its pods send there is carried."""
        outer = self.machine.network.outer
        ways = [f"{outer}:{API_PORT}", f"127.0.0.1:{self._control_plane.port}"]
        helper = Running("relay", [sys.executable, relay.__file__, *ways], log=self.machine.folder / "relay.log")
        helper.start()
        _announce(self._control_plane, outer)
        return helper


@contextlib.contextmanager
def running(control_plane: ControlPlane, name: str = "real-0") -> Iterator[Node]:
    """A real node until the end of the block. Raises RuntimeError where that cannot be."""
    if reason := why_not():
        raise RuntimeError(reason)
    node = Node(control_plane, name)
    try:
        node.start()
        yield node
    finally:
        node.stop()


def _announce(control_plane: ControlPlane, address: str) -> None:
    """Where pods find the API server behind the service `kubernetes`: the server itself knows of loopback only."""
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    name = f"kubernetes-{address.replace('.', '-')}"
    with contextlib.suppress(httpx2.HTTPStatusError):  # it is there since an earlier start
        control_plane.ask(
            path,
            method="POST",
            body={
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "kubernetes"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
                "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP"}],
            },
        )


def _no_firewall() -> str:
    """What the kernel lacks of what network policies are kept with, tried in a network that goes with its process."""
    rules = "ipset create trial hash:net && iptables -A FORWARD -m set --match-set trial src -j REJECT"
    tried = subprocess.run(["unshare", "--net", "sh", "-c", rules], capture_output=True, text=True, check=False)
    return f"this machine cannot keep network policies: {tried.stderr.strip()}" if tried.returncode else ""


def _refused() -> str:
    """What this machine does not let us do, tried."""
    trial = f"mainstay-testbed-trial-{secrets.token_hex(4)}"
    try:
        cgroups.make(trial)
        subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=True, capture_output=True)
    except OSError as error:
        return f"this machine does not let us make control groups: {error}"
    except subprocess.CalledProcessError as error:
        return f"this machine does not let us make namespaces: {error.stderr.decode().strip()}"
    finally:
        cgroups.remove(trial)
    return ""
