"""The restricted profile of the Pod Security Standards as a checker: what of a pod breaks it, by path.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ (baseline and restricted, v1.34), read strictly:
a field that may only have harmless values must have one of them or be absent, and whatever is required stands in every container.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SECCOMP = {"RuntimeDefault", "Localhost"}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}


def faults(pod: Mapping[str, Any]) -> list[str]:
    """Every field that the profile does not allow; empty if the pod passes."""
    return list(_faults(pod["spec"], pod.get("metadata", {})))


def _faults(spec: Mapping[str, Any], meta: Mapping[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"spec.{field}"
    for volume in spec.get("volumes", []):
        yield from (f"spec.volumes[{volume['name']}].{kind}" for kind in volume.keys() - {"name"} - VOLUMES)
    for annotation, value in meta.get("annotations", {}).items():
        if annotation.startswith("container.apparmor.security.beta.kubernetes.io/") and value == "unconfined":
            yield f"metadata.annotations[{annotation}]"
    of_pod = spec.get("securityContext", {})
    yield from _context(of_pod, "spec.securityContext")
    for sysctl in of_pod.get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            yield f"spec.securityContext.sysctls[{sysctl['name']}]"
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            yield from _container(container, of_pod, f"spec.{kind}[{container['name']}]")


def _container(container: Mapping[str, Any], of_pod: Mapping[str, Any], path: str) -> Iterator[str]:
    context = container.get("securityContext", {})
    yield from _context(context, f"{path}.securityContext")
    if context.get("privileged"):
        yield f"{path}.securityContext.privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{path}.securityContext.allowPrivilegeEscalation"
    if context.get("procMount", "Default") != "Default":
        yield f"{path}.securityContext.procMount"
    capabilities = context.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{path}.securityContext.capabilities"
    if context.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True:
        yield f"{path}.securityContext.runAsNonRoot"
    if context.get("seccompProfile", of_pod.get("seccompProfile", {})).get("type") not in SECCOMP:
        yield f"{path}.securityContext.seccompProfile"
    yield from _ways_to_the_node(container, path)


def _ways_to_the_node(container: Mapping[str, Any], path: str) -> Iterator[str]:
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{path}.ports.hostPort"
    probes = [container[name] for name in ("livenessProbe", "readinessProbe", "startupProbe") if name in container]
    hooks = [hook for hook in container.get("lifecycle", {}).values() if isinstance(hook, Mapping)]
    for handler in (*probes, *hooks):
        if any(handler.get(kind, {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield f"{path}.probe.host"


def _context(context: Mapping[str, Any], path: str) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield f"{path}.runAsUser"
    if context.get("runAsNonRoot") is False:
        yield f"{path}.runAsNonRoot"
    if "seccompProfile" in context and context["seccompProfile"].get("type") not in SECCOMP:
        yield f"{path}.seccompProfile"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in SECCOMP:
        yield f"{path}.appArmorProfile"
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"{path}.seLinuxOptions"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{path}.windowsOptions.hostProcess"
