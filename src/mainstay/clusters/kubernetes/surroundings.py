"""What pods find around them: the namespace of their project, who they are there, whom they reach, and how ranks meet."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.clusters.kubernetes.pods import PORT, Document
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.domain.allocation import Owner

NAME = "mainstay"
"""Of the policy and the quota in a namespace."""
POD_SECURITY_VERSION = "v1.34"
"""Of the restricted profile; an older API server takes its own newest."""

PLATFORM: Mapping[str, str] = MappingProxyType(
    {"app.kubernetes.io/name": "mainstay", "app.kubernetes.io/component": "server"}
)
"""The pods of the platform itself, in its namespace (deploy/kubernetes/base)."""
NAME_SERVERS = (
    ("kube-system", {"k8s-app": "kube-dns"}, 53),
    ("openshift-dns", {"dns.operator.openshift.io/daemonset-dns": "default"}, 5_353),
)
"""(namespace, labels, port) of the DNS of a cluster. CoreDNS has the label of kube-dns; the port is that of the pod."""
NAME_CACHE = "169.254.20.10/32"
"""Where NodeLocal DNSCache listens on every node. Source: https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/."""
NOT_PUBLIC = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
    "168.63.129.16/32",
)
"""Where clusters, their nodes and their clouds live: what IANA's registry of special-purpose IPv4 addresses says is not global,
and the platform service of Azure (WireServer), which lies in public space and hands out what nodes are told.
"""
PODS_MAX = 100_000
"""Of a namespace at a time: as many runs as a tenant may have open unless an administrator says otherwise."""
NEVER = (
    *("services.loadbalancers", "services.nodeports", "replicationcontrollers"),
    *("count/deployments.apps", "count/replicasets.apps", "count/statefulsets.apps", "count/daemonsets.apps"),
    *("count/jobs.batch", "count/cronjobs.batch"),
)
"""As a ResourceQuota names them. Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/."""


def namespace(name: str, owner: Owner, settings: Settings) -> Document:
    """A namespace of a project. What is created in it must be harmless, whoever creates it (A2).

    What is enforced is pinned: an upgrade of the cluster refuses no pod that ran before. Newer rules only warn.
    """
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    levels["pod-security.kubernetes.io/enforce-version"] = POD_SECURITY_VERSION
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {**names.labels(owner, system=settings.system), **levels}},
    }


def account(owner: Owner, settings: Settings) -> Document:
    """Who the pods of a namespace are to the API server: nobody who may do anything (A7)."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": names.ACCOUNT, "labels": names.labels(owner, system=settings.system)},
        "automountServiceAccountToken": False,
    }


def default_deny(owner: Owner, settings: Settings) -> Document:
    """Nothing but what is listed here comes in or goes out (A5).

    Pods of a project reach each other, the DNS of their cluster, and public addresses; the platform reaches the port of models.
    Not listed and so denied: other projects, the cluster's own pods, its API server and its nodes, the metadata service of a
    cloud, and all that lies outside the project and is reached by IPv6.
    """
    same_project = {
        "namespaceSelector": {
            "matchLabels": {
                names.SYSTEM: names.short(settings.system),
                names.TENANT: owner.tenant,
                names.PROJECT: owner.project,
            }
        }
    }
    dns = [{"to": [_pods(namespace, labels)], "ports": _both(port)} for namespace, labels, port in NAME_SERVERS]
    cache = {"to": [{"ipBlock": {"cidr": NAME_CACHE}}], "ports": _both(53)}
    models = {"from": [_pods(names.CONTROL_NAMESPACE, PLATFORM)], "ports": [{"protocol": "TCP", "port": PORT}]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": NAME, "labels": names.labels(owner, system=settings.system)},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [same_project]}, models],
            "egress": [
                {"to": [same_project]},
                *dns,
                cache,
                {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": list(NOT_PUBLIC)}}]},
            ],
        },
    }


def quota(owner: Owner, settings: Settings) -> Document:
    """What a project never has in a cluster: a way in from outside, and things that make pods beside ours (A6).

    CPUs, memory and GPUs are not among it: the ledger of queues grants them in the transaction that places a pod, and a second
    ledger that lags would refuse what the first has granted.
    """
    never = dict.fromkeys(NEVER, "0")
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": NAME, "labels": names.labels(owner, system=settings.system)},
        "spec": {"hard": {**never, "pods": str(PODS_MAX)}},
    }


def _pods(namespace: str, labels: Mapping[str, str]) -> Document:
    """Those with these labels in a namespace, by the label that the API server itself gives every namespace."""
    return {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": dict(labels)},
    }


def _both(port: int) -> list[Document]:
    """A name server is asked by UDP, and by TCP where the answer is long."""
    return [{"protocol": protocol, "port": port} for protocol in ("UDP", "TCP")]


def gang_service(first: Pod) -> Document:
    """By it the ranks of a gang find each other, also before they are ready. It goes with the pod of rank 0, the `first`."""
    meta = first.metadata
    kept = (names.MANAGED_BY, names.SYSTEM, names.TENANT, names.PROJECT, names.GANG)
    labels = {name: meta.labels[name] for name in kept}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": first.spec.subdomain,
            "labels": labels,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid}],
        },
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {name: labels[name] for name in (names.SYSTEM, names.GANG)},
        },
    }
