"""From a node and what others run on it to what we may use: pure functions. What a cluster lies about counts as nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from mainstay.clusters.kubernetes import names
from mainstay.clusters.kubernetes.devices import GPU_RESOURCE, Devices, device_names, devices
from mainstay.clusters.kubernetes.objects import Condition, Node, Pod, Quantity, Requirements
from mainstay.clusters.kubernetes.quantities import milli, whole
from mainstay.clusters.kubernetes.restrictions import Restriction, admits, taints_of
from mainstay.domain.affinity import HARD_EFFECTS, NodeNeed, Taint, Traits, borne, is_spot_taint, meets, traits
from mainstay.domain.capacity import NodeState
from mainstay.domain.quantity import Counts, Resources, is_shape
from mainstay.domain.topology import domains

UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
"""The taint that a cluster puts on a cordoned node: it says nothing that the node itself does not say."""
BORNE_TAINTS = frozenset({GPU_RESOURCE, UNSCHEDULABLE})
"""Our pods put up with these, and with the names of devices that the node has: they only say what it is for."""
NONE: Mapping[str, Restriction] = MappingProxyType({})
NO_LABELS: Mapping[str, str] = MappingProxyType({})
CONDITIONS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""How the taints begin that a cluster sets and takes back by what it sees of a node: nobody can put up with what they say."""
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
"""An administrator says that the machine is off: nothing runs there any more."""

GOOD_WHEN_TRUE = frozenset({"EtcdIsVoter"})
GOOD_ENDINGS = ("Ready", "Healthy", "Available")
"""Conditions of nodes say what is wrong (node-problem-detector), but for those that are called so (EKS node monitoring, k3s)."""
BROKEN = frozenset(
    {
        *("KernelDeadlock", "ReadonlyFilesystem", "CorruptDockerOverlay2", "XfsShutdown", "ContainerRuntimeUnhealthy"),
        *("FilesystemCorruptionProblem", "ContainerRuntimeProblem", "KubeletProblem"),
        *("ContainerRuntimeReady", "KernelReady", "StorageReady", "NetworkingReady"),
    }
)
"""Conditions with which nothing runs well: of node-problem-detector, AKS and EKS (doctor.md N05)."""
BROKEN_GPUS = ("Accelerat", "GPU", "XID", "Xid", "NVLink")
"""How conditions begin that speak of the GPUs of a node (doctor.md G03)."""
WORDS, PROBLEM_CHARACTERS = 200, 500
"""A cluster may say anything, at any length."""
_Read = Callable[[Quantity | None], int]
COMPLAINTS_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Cordon:
    """Whether new pods are kept off a node in its cluster, and by whom."""

    ours: bool
    """It has our mark."""
    undone: bool
    """In spite of our mark nothing is kept off."""
    others: bool


def node_state(
    node: Node,
    taken: Resources,
    restrictions: Mapping[str, Restriction] = NONE,
    *,
    taken_devices: Mapping[str, int] | None = None,
    taken_pods: int = 0,
    offered: tuple[Devices, ...] = (),
    system: str = "",
    topology: Mapping[str, str] = NO_LABELS,
) -> NodeState:
    """What our pods may use of a node: what it can give, less what pods that are not ours have taken.

    `taken_devices`: by resource, beside the whole GPUs in `taken`. `offered`: those that are claimed. `system` is our mark.
    `topology`: as of the settings.
    """
    kinds = usable_devices(node, offered)
    left = {one.model: max(0, one.gives - _taken(one.resource, taken, taken_devices or {})) for one in kinds}
    has = {one.model: one.has for one in kinds}
    gpus = sorted((one for one in kinds if not is_shape(one.model)), key=lambda one: not one.gives)
    model = gpus[0].model if gpus else ""
    cordon = cordon_of(node, system)
    problem, found = why_not(node, system), traits_of(node)
    return NodeState(
        name=node.metadata.name,
        ready=not problem,
        admits=tuple(sorted(name for name, wanted in restrictions.items() if takes_guests(node, wanted, system))),
        traits=found,
        barred=bool(problem) and not why_not(node, system, tolerates_all=True),
        topology=domains(node.metadata.labels, topology),
        capacity=Resources(
            cpu_milli=max(0, _given(node, "cpu", milli) - taken.cpu_milli),
            memory_bytes=max(0, _given(node, "memory", whole) - taken.memory_bytes),
            gpus=sum(count for kind, count in left.items() if not is_shape(kind)),
            gpu_model=model,
        ),
        shapes=_counts({kind: count for kind, count in left.items() if is_shape(kind)}),
        whole=Resources(
            cpu_milli=_given(node, "cpu", milli),
            memory_bytes=_given(node, "memory", whole),
            gpus=sum(count for kind, count in has.items() if not is_shape(kind)),
            gpu_model=model,
        ),
        whole_shapes=_counts({kind: count for kind, count in has.items() if is_shape(kind)}),
        pods_max=max(0, _given(node, "pods", whole) - taken_pods) if "pods" in node.status.allocatable else None,
        unhealthy=_counts({one.model or "GPU": one.has - one.gives for one in kinds}),
        problem=problem,
        complaints=tuple(complaints(node, offered)),
        cordoned=cordon.others,
        marked=cordon.ours,
        mark_undone=cordon.undone,
    )


def maps_users(node: Node | None) -> bool:
    """Whether pods of a node may have users of their own (`hostUsers: false`): its container runtime says that it can."""
    handlers = node.status.runtime_handlers if node else ()
    return any(one.features.user_namespaces for one in handlers if not one.name)


def usable_devices(node: Node, offered: tuple[Devices, ...] = ()) -> tuple[Devices, ...]:
    """Its GPUs and slices; none of them can be given while a condition speaks against them.

    What is both an amount and offered to claims is one thing, offered in two ways: it counts once.
    """
    kinds = devices(node)
    known = {one.model for one in kinds}
    kinds = (*kinds, *(one for one in offered if one.model not in known))
    if not any(_is_bad(one) and one.type.startswith(BROKEN_GPUS) for one in node.status.conditions):
        return kinds
    return tuple(replace(one, gives=0) for one in kinds)


def cordon_of(node: Node, system: str) -> Cordon:
    """Only what we have set do we take back: a cordon without our mark is somebody else's."""
    ours = system != "" and node.metadata.annotations.get(names.CORDONED) == system
    shut = node.spec.unschedulable
    return Cordon(ours=ours, undone=ours and not shut, others=shut and not ours)


def takes_guests(node: Node, wanted: Restriction, system: str = "") -> bool:
    """Whether pods with this restriction may be placed on a node now; they may put up with its taints where ours do not."""
    return not why_not_any(node, system) and admits(node, wanted)


def why_not(node: Node, system: str = "", *, wanted: NodeNeed | None = None, tolerates_all: bool = False) -> str:
    """Why nothing new of ours is placed on a node, in words; empty if it is ready. `wanted`: what is to be placed needs that.
    `tolerates_all`: it puts up with every taint but those that say how its node is.

    Our own mark is no reason: what keeps it out is on record, and what was placed before that is still to come.
    """
    if why := why_not_any(node, system):
        return why
    tolerations = wanted.tolerations if wanted else ()
    strange = [
        taint
        for taint in _strange_taints(node)
        if taint.key.startswith(CONDITIONS) or not (tolerates_all or borne((taint,), tolerations))
    ]
    if strange:
        return f"tainted: {', '.join(sorted({taint.key for taint in strange}))}"[:PROBLEM_CHARACTERS]
    if wanted and not meets(traits_of(node), wanted):
        return f"it is none of those that are needed:{wanted.words.removeprefix(' on')}"
    return ""


def traits_of(node: Node) -> Traits:
    """What workloads of ours may ask of a node."""
    strange = (taint for taint in _strange_taints(node) if not taint.key.startswith(CONDITIONS))
    spot = (taint for taint in taints_of(node) if is_spot_taint(taint))
    return traits(node.metadata.labels, (*strange, *spot), node=node.metadata.name)


def _strange_taints(node: Node) -> list[Taint]:
    """Those that keep pods of ours out which do not put up with them."""
    if not node.spec.taints:
        return []
    borne_names = BORNE_TAINTS | set(device_names(node.status.capacity))
    hard = (taint for taint in taints_of(node) if taint.effect in HARD_EFFECTS)
    return [taint for taint in hard if taint.key not in borne_names and not is_spot_taint(taint)]


def why_not_any(node: Node, system: str = "") -> str:
    """Why nothing at all is placed on a node, whatever its taints."""
    ready = ready_condition(node)
    if ready is None:
        return "its kubelet has not reported yet"
    if ready.status == "Unknown":
        return f"its kubelet does not report any more: {_words(ready)}"
    if ready.status != "True":
        return f"not ready: {_words(ready)}"
    bad = (one for one in node.status.conditions if one.type in BROKEN and _is_bad(one))
    broken = sorted(f"{one.type}: {_words(one)}" for one in bad)
    if broken:
        return "; ".join(broken)[:PROBLEM_CHARACTERS]
    return "cordoned in its cluster" if cordon_of(node, system).others else ""


def complaints(node: Node, offered: tuple[Devices, ...] = ()) -> Iterator[str]:
    """What else is wrong with a node: devices that it cannot give, and what its conditions say beside those that keep it out."""
    for kind in usable_devices(node, offered):
        if kind.has > kind.gives:
            yield f"{kind.has - kind.gives} of {kind.has} {kind.model or 'GPU'} unhealthy"
    bad = (one for one in node.status.conditions if one.type not in BROKEN | {"Ready"} and _is_bad(one))
    for _, one in zip(range(COMPLAINTS_MAX), sorted(bad, key=lambda one: one.type), strict=False):
        yield f"{one.type[:WORDS]}: {_words(one)}"


def let_in_at(node: Node) -> int:
    """When it was uncordoned or released last (UTC microseconds); 0 if never, or if what is written there is no moment."""
    text = node.metadata.annotations.get(names.LET_IN, "")
    return int(text) * 1_000_000 if text.isascii() and text.isdecimal() and len(text) <= 10 else 0


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


def slices(pod: Pod) -> Counts:
    """Slices of GPUs that a pod holds, by resource; counted like whole ones. Most pods have none."""
    everywhere = (*pod.spec.containers, *pod.spec.init_containers)
    asked = {name for one in everywhere for name in device_names((*one.resources.requests, *one.resources.limits))}
    return _counts({name: _peak(pod, name) for name in asked}) if asked else ()


def _peak(pod: Pod, name: str) -> int:
    running = sum(_one(container.resources, name) for container in pod.spec.containers)
    beside = sum(_one(c.resources, name) for c in pod.spec.init_containers if c.restart_policy == "Always")
    first = [_one(c.resources, name) for c in pod.spec.init_containers if c.restart_policy != "Always"]
    return max(running + beside, *(one + beside for one in first), 0)


def _one(of: Requirements, name: str) -> int:
    return whole(of.requests.get(name, of.limits.get(name)))


def _taken(resource: str, taken: Resources, taken_devices: Mapping[str, int]) -> int:
    return taken.gpus if resource == GPU_RESOURCE else taken_devices.get(resource, 0)


def _given(node: Node, name: str, read: _Read) -> int:
    """What can be given is never more than what there is, whatever is said."""
    gives, has = read(node.status.allocatable.get(name)), node.status.capacity.get(name)
    return gives if has is None else min(gives, read(has))


def _counts(found: Mapping[str, int]) -> Counts:
    return tuple(sorted((name, count) for name, count in found.items() if count > 0))


def _is_bad(condition: Condition) -> bool:
    """Unknown says that nobody looks: that is no fault of the node."""
    good = condition.type in GOOD_WHEN_TRUE or condition.type.endswith(GOOD_ENDINGS)
    return condition.status == ("False" if good else "True")


def _words(condition: Condition) -> str:
    return " ".join((condition.message or condition.reason).split())[:WORDS]


_Amount = tuple[int, int, int]


def _amount(of: Requirements) -> _Amount:
    """A limit without a request is the request."""
    asked = {**of.limits, **of.requests}
    return milli(asked.get("cpu")), whole(asked.get("memory")), whole(asked.get(GPU_RESOURCE))


def _sum(amounts: list[_Amount]) -> _Amount:
    return sum(a[0] for a in amounts), sum(a[1] for a in amounts), sum(a[2] for a in amounts)
