"""What a pod in a namespace of a project may be, as a checker: every field that leaves the safe set, by path.

Stricter than the restricted profile: no more than what a job needs (security.md A3, A4). The admission policies of
deploy/kubernetes/components/isolated say the same to the API server; tests hold one against the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

Tree = Mapping[str, Any]

HARMLESS_SPEC: Mapping[str, tuple[Any, ...]] = {
    "hostNetwork": (False,),
    "hostPID": (False,),
    "hostIPC": (False,),
    "hostUsers": (False,),
    "dnsPolicy": ("ClusterFirst",),
    "schedulerName": ("default-scheduler",),
    "hostAliases": ([],),
    "ephemeralContainers": ([],),
    "dnsConfig": (),
    "runtimeClassName": (),
}
"""Field -> what it may be, if it is there at all."""
REQUIRED_SPEC = {"serviceAccountName": "mainstay", "automountServiceAccountToken": False, "restartPolicy": "Never"}
HARMLESS_CONTEXT: Mapping[str, tuple[Any, ...]] = {
    "seLinuxOptions": (),
    "windowsOptions": (),
    "sysctls": ([],),
    "supplementalGroups": ([],),
}
HARMLESS_OF_CONTAINER: Mapping[str, tuple[Any, ...]] = {
    "seLinuxOptions": (),
    "windowsOptions": (),
    "runAsUser": (),
    "runAsGroup": (),
    "privileged": (False,),
    "procMount": ("Default",),
    "runAsNonRoot": (True,),
}
REQUIRED_OF_CONTAINER = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
SYSTEM_TAINT = re.compile(r"([^/]*\.)?(kubernetes|k8s)\.io/")
AWAY = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}


def dangers(pod: Tree) -> list[str]:
    """Empty if the pod is in the safe set."""
    return [*_of_meta(pod["metadata"]), *_of_spec(pod["spec"])]


def _of_meta(meta: Tree) -> Iterator[str]:
    if meta.get("ownerReferences"):
        yield "metadata.ownerReferences"
    if set(meta.get("finalizers", ())) - {"mainstay.dev/recorded"}:
        yield "metadata.finalizers"


def _of_spec(spec: Tree) -> Iterator[str]:
    yield from _not_among(spec, HARMLESS_SPEC, "spec")
    yield from (f"spec.{field}" for field, value in REQUIRED_SPEC.items() if spec.get(field) != value)
    if spec.get("priorityClassName", "").startswith("system-"):
        yield "spec.priorityClassName"
    yield from _of_context(spec.get("securityContext", {}))
    yield from (f"spec.tolerations[{one.get('key')}]" for one in spec.get("tolerations", ()) if _too_much(one))
    yield from (f"spec.volumes[{one['name']}]" for one in spec.get("volumes", ()) if not _is_own(one))
    for kind in ("containers", "initContainers"):
        for one in spec.get(kind, ()):
            yield from _of_container(one, f"spec.{kind}[{one['name']}]")
    gated = spec.get("schedulingGates")
    mains = [one for one in spec["containers"] if one["name"] == "main"]
    if not gated and any({"cpu", "memory"} - one.get("resources", {}).get("requests", {}).keys() for one in mains):
        yield "spec.containers[main].resources"


def _of_context(context: Tree) -> Iterator[str]:
    where = "spec.securityContext"
    yield from _not_among(context, HARMLESS_CONTEXT, where)
    yield from _profiles(context, where)
    if context.get("runAsNonRoot") is not True or "seccompProfile" not in context:
        yield f"{where}.runAsNonRoot"
    yield from (f"{where}.{field}" for field in ("runAsUser", "runAsGroup") if not context.get(field))


def _of_container(container: Tree, where: str) -> Iterator[str]:
    context = container.get("securityContext", {})
    yield from _not_among(context, HARMLESS_OF_CONTAINER, f"{where}.securityContext")
    yield from (f"{where}.{field}" for field, value in REQUIRED_OF_CONTAINER.items() if context.get(field) is not value)
    yield from _profiles(context, where)
    if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
        yield f"{where}.securityContext.capabilities"
    if container["name"] not in {"main", "files", "outputs"}:
        yield f"{where}.name"
    yield from (f"{where}.{field}" for field in ("lifecycle", "volumeDevices", "envFrom") if container.get(field))
    if any("valueFrom" in one for one in container.get("env", ())):
        yield f"{where}.env"
    if any(one.get("hostPort") or one.get("hostIP") for one in container.get("ports", ())):
        yield f"{where}.ports"
    probes = [container.get(name, {}) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    if any(probe.get(way, {}).get("host") for probe in probes for way in ("httpGet", "tcpSocket")):
        yield f"{where}.probe"
    if any(one.get("mountPropagation", "None") != "None" for one in container.get("volumeMounts", ())):
        yield f"{where}.volumeMounts"


def _profiles(context: Tree, where: str) -> Iterator[str]:
    for field in ("seccompProfile", "appArmorProfile"):
        if context.get(field, {}).get("type", "RuntimeDefault") != "RuntimeDefault":
            yield f"{where}.{field}"


def _too_much(toleration: Tree) -> bool:
    key = toleration.get("key", "")
    return not key or key == "CriticalAddonsOnly" or (key not in AWAY and bool(SYSTEM_TAINT.match(key)))


def _is_own(volume: Tree) -> bool:
    if items := volume.get("downwardAPI", {}).get("items"):
        return all(one.get("fieldRef", {}).get("fieldPath", "").startswith("metadata.annotations[") for one in items)
    if template := volume.get("ephemeral", {}).get("volumeClaimTemplate"):
        return not {"volumeName", "dataSource", "dataSourceRef"} & template["spec"].keys()
    return bool({"emptyDir", "persistentVolumeClaim"} & volume.keys())


def _not_among(tree: Tree, harmless: Mapping[str, tuple[Any, ...]], where: str) -> Iterator[str]:
    yield from (f"{where}.{field}" for field, values in harmless.items() if field in tree and tree[field] not in values)
