"""What the parts of a real node are told: one document each, as they read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.certificates import Pair
from testbed.machine import Network
from testbed.runtime import NETWORK_FILES, SOCKET

DOMAIN = "cluster.local"
NAME_SERVER = "169.254.20.10"
"""Of pods: where NodeLocal DNSCache listens on the nodes of others, so that network policies name it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFiles:
    """The documents of one node. `group`: its control group."""

    group: str
    network: Network
    authority: Path
    server: Pair

    def pod_network(self) -> dict[str, Any]:
        """Each pod on a cable of its own to the node, so that every packet passes the rules of kube-proxy and of policies."""
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
            "clusterDNS": [NAME_SERVER],
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
