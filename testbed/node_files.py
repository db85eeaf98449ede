"""What the parts of a real node are told: one document each, as they read it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.certificates import Pair
from testbed.machine import Network

PAUSE = "localhost/pause:1"
SOCKET = "/run/containerd/containerd.sock"
NETWORK_FILES = "/run/cni"
DOMAIN = "cluster.local"
_CAP_SYS_RESOURCE = 24
_CRI = 'plugins."io.containerd.grpc.v1.cri"'


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFiles:
    """The documents of one node. `group`: its control group; `plugins`: where the network plug-ins are."""

    group: str
    network: Network
    plugins: Path
    authority: Path
    server: Pair

    def containerd(self) -> str:
        """TOML."""
        return "\n".join(self._containerd()) + "\n"

    def pod_network(self) -> dict[str, Any]:
        """Each pod on a cable of its own to the node, so that every packet passes the rules of kube-proxy."""
        addresses = {
            "type": "host-local",
            "dataDir": f"{NETWORK_FILES}-addresses",
            "ranges": [[{"subnet": str(self.network.pods)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        plugins = [{"type": "ptp", "ipam": addresses}, {"type": "portmap", "capabilities": {"portMappings": True}}]
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}

    def kubelet(self) -> dict[str, Any]:
        """Its KubeletConfiguration. Nothing is evicted and no image removed: the disk is this machine's."""
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.network.inner,
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(self.authority)},
            },
            "authorization": {"mode": "AlwaysAllow"},  # who has a certificate of this cluster
            "tlsCertFile": str(self.server.certificate),
            "tlsPrivateKeyFile": str(self.server.key),
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.group}",
            "failCgroupV1": False,
            "enforceNodeAllocatable": ["none"],
            "failSwapOn": False,
            "evictionHard": {"memory.available": "50Mi"},
            "imageGCHighThresholdPercent": 100,
            "clusterDomain": DOMAIN,
            "clusterDNS": [self.network.outer],
            "resolvConf": "/run/resolv.conf",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "registerWithTaints": [],
            "nodeStatusUpdateFrequency": "5s",
            "syncFrequency": "10s",
            "maxPods": 100,
            "serializeImagePulls": False,
        }

    def kube_proxy(self, kubeconfig: str) -> dict[str, Any]:
        """Its KubeProxyConfiguration. Zeros: the kernel's own limits belong to this machine."""
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clientConnection": {"kubeconfig": kubeconfig},
            "clusterCIDR": str(self.network.pods),
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "iptables": {"minSyncPeriod": "0.1s"},
        }

    def _containerd(self) -> Iterator[str]:
        yield "version = 2"
        yield 'root = "/var/lib/containerd"\nstate = "/run/containerd"'
        others = [f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")]
        yield f"disabled_plugins = {json.dumps(others)}"
        yield f'[grpc]\naddress = "{SOCKET}"'
        yield f'[{_CRI}]\nsandbox_image = "{PAUSE}"'
        if not _may_raise_priority():
            yield "restrict_oom_score_adj = true"
        yield f'[{_CRI}.containerd.runtimes.runc]\nruntime_type = "io.containerd.runc.v2"'
        yield f'[{_CRI}.cni]\nbin_dir = "{self.plugins}"\nconf_dir = "{NETWORK_FILES}"'


def _may_raise_priority() -> bool:
    """Whether this process may make others less likely to be ended when memory is short."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return bool(effective >> _CAP_SYS_RESOURCE & 1) and os.geteuid() == 0
