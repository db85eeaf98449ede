"""The GPUs of a node, slices of them and other devices: by which resource they are asked for, how many it has and can give.

Sources: the labels of NVIDIA's GPU feature discovery and the resources of its device plugin
(https://github.com/NVIDIA/k8s-device-plugin: MIG strategies, time-slicing, MPS). Where a label says that the devices of a
resource are slices, they are none of the whole GPUs that users ask for by model. Any other extended resource, such as
`amd.com/gpu` or `google.com/tpu`, is a kind of its own, called as the resource is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mainstay.clusters.kubernetes.objects import Node
from mainstay.clusters.kubernetes.quantities import whole

GPU_RESOURCE = "nvidia.com/gpu"
MIG_PREFIX = "nvidia.com/mig-"
OTHER_CHARACTERS = 100
"""The longest name of an extended resource that counts."""
SHARED_SUFFIX = ".shared"
"""Of a resource that the device plugin renames where it is shared, and of the name of such a slice."""
PRODUCT = "nvidia.com/gpu.product"
REPLICAS = ".replicas"
"""After the name of a resource: a label that says into how many shares each of its devices is cut."""
MODEL_LABELS = (
    PRODUCT,
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
_MIG_PRODUCT = re.compile(r"-mig-(?P<shape>\d+g\.\d+gb[a-z0-9.+]*)", re.IGNORECASE)
_OTHER = re.compile(
    rf"(?!nvidia\.com/(?:gpu|mig-))(?!(?:[a-z0-9.-]+\.)?(?:kubernetes|k8s)\.io/)(?=.{{1,{OTHER_CHARACTERS}}}\Z)"
    r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+/[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?\Z"
)
_SHAPE = re.compile(r"\d{1,2}g\.\d{1,4}gb(?:\.[a-z0-9]{1,10}){0,3}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """Of one kind on a node. `model` is that of whole GPUs, or the shape of slices."""

    model: str
    resource: str
    has: int
    gives: int
    device_class: str = ""
    """The DeviceClass by which they are claimed; empty: they are asked for as an amount of `resource`."""
    selector: str = ""
    """What a claim says besides, in CEL; empty: nothing."""


def devices(node: Node) -> tuple[Devices, ...]:
    """All kinds that a node has, by resource; what the cluster says of them that cannot be counts as nothing."""
    names = sorted({name for name in (*node.status.capacity, *node.status.allocatable) if _is_device(name)})
    found: dict[str, Devices] = {}
    for name in names:
        gives = whole(node.status.allocatable.get(name))
        has = whole(node.status.capacity.get(name)) if name in node.status.capacity else gives
        model = _model(node, name)
        if has and model not in found:
            found[model] = Devices(model=model, resource=name, has=has, gives=min(gives, has))
    return tuple(found.values())


def shape_name(resource: str) -> str:
    """What users call the slices or devices that a resource stands for on every node; empty if that is for the node to say."""
    if _OTHER.match(resource):
        return resource
    shape = resource.removeprefix(MIG_PREFIX)
    return shape if shape != resource and _SHAPE.match(shape) else ""


def device_names(amounts: Iterable[str]) -> Iterator[str]:
    """Of the names of amounts those of slices of GPUs and of other devices, whole GPUs apart."""
    return (name for name in amounts if "/" in name and name != GPU_RESOURCE and _is_device(name))


def gpu_model(node: Node) -> str:
    """The model as users write it, `H100`, out of `NVIDIA-H100-80GB-HBM3` or `nvidia-tesla-t4`; the label itself if unknown."""
    return model_of(next((node.metadata.labels[name] for name in MODEL_LABELS if node.metadata.labels.get(name)), ""))


def model_of(label: str) -> str:
    """Likewise, of what a platform or a driver says of a GPU."""
    found = _MODEL.search(label.lower())
    # A dot is the mark of a slice.
    return (found["model"].upper().replace("-", "") if found else label.upper()[:40]).replace(".", "-")


def slice_shape(profile: str) -> str:
    """The shape of a slice out of its profile, `1g.10gb+me`; empty if it is none."""
    shape = profile.lower().replace("+", ".")
    return shape if _SHAPE.match(shape) else ""


def _is_device(resource: str) -> bool:
    return resource in {GPU_RESOURCE, GPU_RESOURCE + SHARED_SUFFIX} or bool(shape_name(resource))


def _model(node: Node, resource: str) -> str:
    labels = node.metadata.labels
    base = resource.removesuffix(SHARED_SUFFIX)
    single = _MIG_PRODUCT.search(labels.get(PRODUCT, "")) if base == GPU_RESOURCE else None
    shape = shape_name(base) or (single["shape"].lower().replace("+", ".") if single else "")
    is_shared = resource != base or whole(labels.get(base + REPLICAS)) > 1
    if is_shared:
        return f"{shape or gpu_model(node) or 'GPU'}{SHARED_SUFFIX}"
    return shape or gpu_model(node)
