"""Changes to a pod of ours that leave the safe set, and that stay within it; images from where they may come, and not."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

Change = tuple[str, Any]
"""(path with dots and numbers, value)"""

_TAINT = {"operator": "Exists", "effect": "NoSchedule"}
_CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
_MAIN, _CONTEXT = "spec.containers.0", "spec.containers.0.securityContext"
_SECRET = {"secretKeyRef": {"name": "x", "key": "y"}}

FORBIDDEN: tuple[Change, ...] = (
    ("spec.hostNetwork", True),
    ("spec", {"hostPID": True, "shareProcessNamespace": False}),
    ("spec.hostIPC", True),
    ("spec.hostUsers", True),
    ("spec.serviceAccountName", "default"),
    ("spec.automountServiceAccountToken", True),
    ("spec.schedulerName", "other"),
    ("spec.priorityClassName", "system-node-critical"),
    ("spec.priorityClassName", "system-cluster-critical"),
    ("spec.runtimeClassName", "of-the-node"),
    ("spec.dnsPolicy", "Default"),
    ("spec", {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["203.0.113.1"]}}),
    ("spec.hostAliases", [{"ip": "203.0.113.1", "hostnames": ["kubernetes.default.svc"]}]),
    ("spec.restartPolicy", "Always"),
    ("metadata.ownerReferences", [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u"}]),
    ("metadata.finalizers", ["mainstay.dev/recorded", "example.com/stays"]),
    ("spec.securityContext.runAsNonRoot", False),
    ("spec.securityContext", {"runAsNonRoot": False, "runAsUser": 0}),
    ("spec.securityContext.runAsGroup", 0),
    ("spec.securityContext.supplementalGroups", [0]),
    ("spec.securityContext.seccompProfile", {"type": "Unconfined"}),
    ("spec.securityContext.appArmorProfile", {"type": "Unconfined"}),
    ("spec.securityContext.sysctls", [{"name": "kernel.shm_rmid_forced", "value": "1"}]),
    ("spec.securityContext.seLinuxOptions", {"type": "spc_t"}),
    (f"{_CONTEXT}", {"privileged": True, "allowPrivilegeEscalation": True}),
    (f"{_CONTEXT}.allowPrivilegeEscalation", True),
    (f"{_CONTEXT}.readOnlyRootFilesystem", False),
    (f"{_CONTEXT}.capabilities", {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}),
    (f"{_CONTEXT}.capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    (f"{_CONTEXT}.capabilities", {"drop": ["NET_RAW"]}),
    (f"{_CONTEXT}.runAsUser", 0),
    (f"{_CONTEXT}.runAsUser", 65_534),
    (f"{_CONTEXT}.runAsNonRoot", False),
    (f"{_CONTEXT}.seccompProfile", {"type": "Unconfined"}),
    (f"{_CONTEXT}.seLinuxOptions", {"type": "spc_t"}),
    (f"{_MAIN}.name", "sidecar"),
    (f"{_MAIN}.lifecycle", {"postStart": {"exec": {"command": ["true"]}}}),
    (f"{_MAIN}.ports", [{"containerPort": 8_080, "hostPort": 8_080}]),
    (f"{_MAIN}.startupProbe", {"httpGet": {"path": "/", "port": 80, "host": "169.254.169.254"}}),
    (f"{_MAIN}.startupProbe", {"tcpSocket": {"port": 80, "host": "127.0.0.1"}}),
    (f"{_MAIN}.envFrom", [{"secretRef": {"name": "x"}}]),
    (f"{_MAIN}.env", [{"name": "A", "valueFrom": _SECRET}]),
    (f"{_MAIN}.env", [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]),
    (f"{_MAIN}.resources", {}),
    ("spec.volumes.0", {"name": "work", "hostPath": {"path": "/"}}),
    ("spec.volumes.0", {"name": "work", "secret": {"secretName": "x"}}),
    ("spec.volumes.0", {"name": "work", "configMap": {"name": "kube-root-ca.crt"}}),
    ("spec.volumes.0", {"name": "work", "nfs": {"server": "203.0.113.1", "path": "/"}}),
    ("spec.volumes.0", {"name": "work", "csi": {"driver": "inline.example.com"}}),
    (
        "spec.volumes.0",
        {"name": "work", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    ),
    (
        "spec.volumes.0",
        {"name": "work", "downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ),
    (
        "spec.volumes.0",
        {"name": "work", "ephemeral": {"volumeClaimTemplate": {"spec": {**_CLAIM, "volumeName": "of-others"}}}},
    ),
    ("spec.tolerations", [{"operator": "Exists"}]),
    ("spec.tolerations", [{"key": "node-role.kubernetes.io/control-plane", **_TAINT}]),
    ("spec.tolerations", [{"key": "node-role.kubernetes.io/master", **_TAINT}]),
    ("spec.tolerations", [{"key": "node.kubernetes.io/unschedulable", **_TAINT}]),
    ("spec.tolerations", [{"key": "node.cloudprovider.kubernetes.io/uninitialized", **_TAINT}]),
    ("spec.tolerations", [{"key": "node.kubernetes.io/out-of-service", "operator": "Exists", "effect": "NoExecute"}]),
    ("spec.tolerations", [{"key": "CriticalAddonsOnly", "operator": "Exists"}]),
)
"""Each is valid for an API server, and none of it is for a tenant."""

HARMLESS: tuple[Change, ...] = (
    ("spec.hostNetwork", False),
    ("spec.hostUsers", False),
    ("spec.dnsPolicy", "ClusterFirst"),
    ("spec.schedulerName", "default-scheduler"),
    ("spec.terminationGracePeriodSeconds", 7),
    ("spec.enableServiceLinks", False),
    ("spec.hostAliases", []),
    ("metadata.labels.example", "x"),
    ("metadata.annotations.example", "x"),
    ("spec.securityContext.appArmorProfile", {"type": "RuntimeDefault"}),
    ("spec.securityContext.runAsUser", 65_534),
    (f"{_CONTEXT}.privileged", False),
    (f"{_CONTEXT}.runAsNonRoot", True),
    (f"{_CONTEXT}.seccompProfile", {"type": "RuntimeDefault"}),
    (f"{_MAIN}.env", [{"name": "A", "value": "$(B)"}]),
    (f"{_MAIN}.startupProbe", {"httpGet": {"path": "/", "port": 80}}),
    (f"{_MAIN}.ports", [{"containerPort": 8_080}]),
    ("spec.volumes.0", {"name": "work", "persistentVolumeClaim": {"claimName": "x"}}),
    ("spec.volumes.0", {"name": "work", "ephemeral": {"volumeClaimTemplate": {"spec": _CLAIM}}}),
    ("spec.tolerations", [{"key": "dedicated", **_TAINT}]),
    ("spec.tolerations", [{"key": "nvidia.com/gpu", "operator": "Exists"}]),
    ("spec.tolerations", [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]),
    ("spec.tolerations", [{"key": "kubernetes.azure.com/scalesetpriority", **_TAINT}]),
)

changes = st.lists(st.sampled_from(FORBIDDEN + HARMLESS * 3), max_size=4)


def changed(pod: dict[str, Any], *some: Change) -> dict[str, Any]:
    """A copy with these changes, in their order. A mapping is merged, anything else replaced."""
    document = copy.deepcopy(pod)
    for path, value in some:
        *way, last = (int(step) if step.isdecimal() else step for step in path.split("."))
        place: Any = document
        for step in way:
            place = place[step] if isinstance(step, int) else place.setdefault(step, {})
        merges = isinstance(value, dict) and value and isinstance(place, dict) and isinstance(place.get(last), dict)
        place[last] = {**place[last], **value} if merges else copy.deepcopy(value)
    return document


DIGEST = "@sha256:" + "0" * 64
ALLOWED = "registry.example.com/ml docker.io/library/python\nlocalhost:5000"
"""Repositories, as an administrator allows them."""
FROM_THERE = [
    f"registry.example.com/ml/train:1{DIGEST}",
    f"registry.example.com/ml{DIGEST}",
    f"python{DIGEST}",
    f"python:3.12-slim{DIGEST}",
    f"docker.io/library/python:3{DIGEST}",
    f"localhost:5000/any/thing:1{DIGEST}",
]
FROM_ELSEWHERE = [
    f"registry.example.com/mlx{DIGEST}",
    f"registry.example.com/other{DIGEST}",
    f"registry.example.com:443/ml/train{DIGEST}",
    f"registry.example.com.evil.example/ml/train{DIGEST}",
    f"registry.example.com@evil.example/ml/train{DIGEST}",
    f"evil.example/registry.example.com/ml/train{DIGEST}",
    f"REGISTRY.example.com/ml/train{DIGEST}",
    f"registry.example.com/ML/train{DIGEST}",
    f"registry.ex\u0430mple.com/ml/train{DIGEST}",
    f"registry.example.com/ml/../other{DIGEST}",
    f"registry.example.com/ml//train{DIGEST}",
    f"localhost:50000/x{DIGEST}",
    f"localhost/x{DIGEST}",
    f"pythonista{DIGEST}",
    f"evil/python{DIGEST}",
    f"docker.io/evil/python{DIGEST}",
    f"https://registry.example.com/ml/train{DIGEST}",
]
