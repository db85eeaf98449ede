"""What keeps the containers of a pod from starting, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from mainstay.clusters.kubernetes import kubelet_words, names
from mainstay.clusters.kubernetes.objects import ContainerStatus, Pod

PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable"})
HOPELESS_REASONS = frozenset({"InvalidImageName", "ErrImageNeverPull"})
START_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
DETAIL_CHARACTERS = 800
"""Room for what we say of an error, and behind it what a container runtime says of it."""


def shown(text: str) -> str:
    """One line, and not too much of it: a cluster may say anything."""
    return " ".join(text.split())[:DETAIL_CHARACTERS]


def status_of(pod: Pod, container: str) -> ContainerStatus | None:
    """Of a container by its name; None while nothing is said of it."""
    statuses = (*pod.status.container_statuses, *pod.status.init_container_statuses)
    return next((status for status in statuses if status.name == container), None)


def hopeless(pod: Pod) -> str:
    """Why a pod that has not started cannot as things stand, in words; empty if nothing is wrong."""
    return next((words for status in _needed(pod) if (words := _trouble(pod, status))), "")


def is_hopeless_for_good(pod: Pod) -> bool:
    """Whether nothing but another image can help it."""
    return any(status.state.waiting and status.state.waiting.reason in HOPELESS_REASONS for status in _needed(pod))


def keeps_no_output(pod: Pod) -> str:
    """That the output of a pod of ours waits for a helper which does not start, in words; empty if nothing is wrong."""
    outputs = status_of(pod, names.OUTPUTS)
    why = _trouble(pod, outputs) if outputs is not None else ""
    return shown(f"the helper that keeps its output does not start: {why}") if why else ""


def waits(pod: Pod, status: ContainerStatus) -> str:
    """Why a container has not started, in words; empty if it has."""
    waiting = status.state.waiting
    if waiting is None:
        return ""
    said = f"{waiting.reason}: {waiting.message}" if waiting.message else waiting.reason or "it waits"
    return _trouble(pod, status) or shown(said)


def unplaced(pod: Pod) -> str:
    """Why the scheduler of the cluster does not put a pod of ours on the node that it was given, in words; else empty."""
    said = next((c for c in pod.status.conditions if c.type == "PodScheduled" and c.status == "False"), None)
    if said is None or pod.spec.node_name or names.PLACE not in pod.metadata.annotations:
        return ""
    words = next((words for mark, words in _OF_VOLUMES.items() if mark in said.message), "")
    return shown(f"{words}: {said.message}" if words else f"{said.reason}: {said.message}")


def copying(pod: Pod) -> str:
    """That it does not run yet because much is on its way; empty if that is not so. Code alone is there in a moment."""
    files = status_of(pod, names.FILES)
    waits = files is not None and files.state.running is not None
    return "its files are copied from an object store" if waits and names.OBJECTS in pod.metadata.annotations else ""


def _needed(pod: Pod) -> Iterator[ContainerStatus]:
    """Of the containers without which it does not start: of a pod of ours, what keeps the output may come later."""
    yield from pod.status.init_container_statuses
    for status in pod.status.container_statuses:
        if not (status.name == names.OUTPUTS and _is_ours(pod)):
            yield status


def _trouble(pod: Pod, status: ContainerStatus) -> str:
    """Why a container cannot be started as things stand, in words; empty if nothing is wrong."""
    waiting = status.state.waiting
    if waiting is None or waiting.reason not in PULL_REASONS | HOPELESS_REASONS | START_REASONS:
        return ""
    if waiting.reason in START_REASONS:
        return shown(f"{waiting.reason}: {waiting.message}")
    helps = status.name in {names.FILES, names.OUTPUTS} and _is_ours(pod)
    return shown(kubelet_words.of_image(waiting.message, what="helper image" if helps else "image"))


def _is_ours(pod: Pod) -> bool:
    """As far as the names of its containers go."""
    return names.SYSTEM in pod.metadata.labels


_OF_VOLUMES: Mapping[str, str] = MappingProxyType(
    {
        "PersistentVolume's node affinity": "its volume lies where this node cannot reach it (another zone or machine)",
        "volume node affinity conflict": "its volume lies where this node cannot reach it (another zone or machine)",
        "unbound immediate PersistentVolumeClaims": "its claim is not bound: no volume fits it, or none was made yet",
        "didn't find available persistent volumes": "no volume fits its claim, and its storage class makes none",
        "ReadWriteOncePod": "its claim is in use by another pod, and may be by one only",
        'resourceclaim.resource.k8s.io "': "its claim of devices is not made yet",
        "device class": "its claim names a DeviceClass that this cluster does not have",
        "ResourceClaim not created": "its claims of devices are not made: is there a ResourceClaimTemplate of that name?",
        "cannot allocate all claims": "this node has not the devices that are claimed, or they are in use",
        "is being deleted": "its claim is being deleted",
        "not found": "its claim is not there any more",
    }
)
"""What a scheduler says of claims, by words that it says (Kubernetes, pkg/scheduler/framework/plugins: volumebinding,
volumerestrictions, dynamicresources; the second line is of versions before 1.34), and what that means.
"""
