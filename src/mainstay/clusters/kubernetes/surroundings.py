"""What pods find around them: the namespace of their project, who they are there, whom they reach, and how ranks meet."""

from __future__ import annotations

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.objects import Pod
from mainstay.clusters.kubernetes.pods import PORT, Document
from mainstay.clusters.kubernetes.settings import Settings
from mainstay.domain.allocation import Owner

POD_SECURITY_VERSION = "v1.34"
"""Of the restricted profile; an older API server takes its own newest."""


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
    """Pods of a project reach each other, DNS and the world, but neither other projects nor the cluster's own (A5)."""
    private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"]
    same_project = {
        "namespaceSelector": {
            "matchLabels": {
                names.SYSTEM: names.short(settings.system),
                names.TENANT: owner.tenant,
                names.PROJECT: owner.project,
            }
        }
    }
    dns = {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "mainstay", "labels": names.labels(owner, system=settings.system)},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [same_project]}, {"ports": [{"protocol": "TCP", "port": PORT}]}],
            "egress": [
                {"to": [same_project]},
                dns,
                {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": private}}]},
            ],
        },
    }


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
