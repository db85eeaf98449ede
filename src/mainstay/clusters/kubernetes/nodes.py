"""From a node and what others run on it to what we may use: pure functions. What a cluster lies about counts as nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from mainstay.clusters.kubernetes.objects import Condition, Node, Pod, Requirements
from mainstay.clusters.kubernetes.pods import GPU_RESOURCE
from mainstay.clusters.kubernetes.quantities import milli, whole
from mainstay.clusters.kubernetes.restrictions import HARD_EFFECTS, Restriction, admits
from mainstay.domain.capacity import NodeState
from mainstay.domain.quantity import Resources

MODEL_LABELS = (
    "nvidia.com/gpu.product",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "kubernetes.azure.com/accelerator",
    "accelerator",
)
"""Where the platforms write the model of the GPUs: GPU feature discovery, GKE, EKS, Karpenter, AKS; the first that is there."""
_MODEL = re.compile(
    r"(?:^|[^a-z0-9])(?P<model>[abhlptvkgm]\d{1,4}[a-z]{0,2}|rtx-?\d{4}|gb\d{3}|gh\d{3}|mi\d{3}[a-z]?)(?:[^a-z0-9]|$)"
)
BORNE_TAINTS = frozenset({GPU_RESOURCE})
"""Our pods put up with these: they only say what the node is for."""
NONE: Mapping[str, Restriction] = MappingProxyType({})
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
"""An administrator says that the machine is off: nothing runs there any more."""


def node_state(node: Node, taken: Resources, restrictions: Mapping[str, Restriction] = NONE) -> NodeState:
    """What our pods may use of a node: what it can give, less what pods that are not ours have taken."""
    can_give = node.status.allocatable
    gpus = whole(can_give.get(GPU_RESOURCE))
    return NodeState(
        name=node.metadata.name,
        ready=not why_not(node),
        admits=tuple(sorted(name for name, wanted in restrictions.items() if takes_guests(node, wanted))),
        capacity=Resources(
            cpu_milli=max(0, milli(can_give.get("cpu")) - taken.cpu_milli),
            memory_bytes=max(0, whole(can_give.get("memory")) - taken.memory_bytes),
            gpus=max(0, gpus - taken.gpus),
            gpu_model=gpu_model(node) if gpus else "",
        ),
    )


def takes_guests(node: Node, wanted: Restriction) -> bool:
    """Whether pods with this restriction may be placed on a node now; they may put up with its taints where ours do not."""
    return not why_not_any(node) and admits(node, wanted)


def why_not(node: Node) -> str:
    """Why nothing new of ours is placed on a node, in words; empty if it is ready."""
    if why := why_not_any(node):
        return why
    taints = [taint for taint in node.spec.taints if taint.effect in HARD_EFFECTS]
    strange = sorted({taint.key for taint in taints} - BORNE_TAINTS)
    return f"tainted: {', '.join(strange)}" if strange else ""


def why_not_any(node: Node) -> str:
    """Why nothing at all is placed on a node, whatever its taints."""
    ready = ready_condition(node)
    if ready is None:
        return "its kubelet has not reported yet"
    if ready.status == "Unknown":
        return f"its kubelet does not report any more: {ready.message or ready.reason}"
    if ready.status != "True":
        return f"not ready: {ready.message or ready.reason}"
    return "cordoned" if node.spec.unschedulable else ""


def is_silent(node: Node) -> bool:
    """Whether its kubelet has stopped reporting: what is on record of its pods may not be true any more."""
    ready = ready_condition(node)
    return ready is not None and ready.status == "Unknown"


def is_well(node: Node) -> bool:
    """Whether its kubelet reports, and can do what it is told: one without a runtime ends nothing."""
    ready = ready_condition(node)
    return ready is not None and ready.status == "True"


def has_kubelet(node: Node) -> bool:
    """Whether a kubelet has ever reported: a hollow node that nobody plays takes no pod, and refuses none."""
    return node.status.node_info.kubelet_version != ""


def is_off(node: Node) -> bool:
    """Whether somebody has vouched for it that nothing runs there any more."""
    return any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints)


def ready_condition(node: Node) -> Condition | None:
    """What the control plane says of its kubelet."""
    return next((condition for condition in node.status.conditions if condition.type == "Ready"), None)


def gpu_model(node: Node) -> str:
    """The model as users write it, `H100`, out of `NVIDIA-H100-80GB-HBM3` or `nvidia-tesla-t4`; the label itself if unknown."""
    label = next((node.metadata.labels[name] for name in MODEL_LABELS if node.metadata.labels.get(name)), "")
    found = _MODEL.search(label.lower())
    return found["model"].upper().replace("-", "") if found else label.upper()[:40]


def requests(pod: Pod) -> Resources:
    """What a pod holds of its node: the larger of all containers and of any init container beside sidecars (KEP-753).

    What is asked for the pod as a whole counts instead of that (KEP-2837).
    """
    containers = [_amount(container.resources) for container in pod.spec.containers]
    sidecars = [_amount(c.resources) for c in pod.spec.init_containers if c.restart_policy == "Always"]
    first = [_amount(c.resources) for c in pod.spec.init_containers if c.restart_policy != "Always"]
    running = _sum([*containers, *sidecars])
    beside = _sum(sidecars)
    overhead = (milli(pod.spec.overhead.get("cpu")), whole(pod.spec.overhead.get("memory")), 0)
    whole_pod = _amount(pod.spec.resources)
    peak = [
        (whole_pod[k] or max(running[k], *(one[k] + beside[k] for one in first), 0)) + overhead[k] for k in range(3)
    ]
    return Resources(cpu_milli=peak[0], memory_bytes=peak[1], gpus=peak[2])


_Amount = tuple[int, int, int]


def _amount(of: Requirements) -> _Amount:
    """A limit without a request is the request."""
    asked = {**of.limits, **of.requests}
    return milli(asked.get("cpu")), whole(asked.get("memory")), whole(asked.get(GPU_RESOURCE))


def _sum(amounts: list[_Amount]) -> _Amount:
    return sum(a[0] for a in amounts), sum(a[1] for a in amounts), sum(a[2] for a in amounts)
