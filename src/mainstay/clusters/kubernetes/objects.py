"""What we read of Kubernetes objects: the fields we use and no others, so that 150,000 pods fit in memory.

Field names are those of the API in snake_case (https://kubernetes.io/docs/reference/kubernetes-api/). Every field has a
default: a cluster may leave out anything. Quantities and times stay text here, for a cluster may write nonsense in them; who
needs a figure parses it, and decides what nonsense means.

`gc=False`: the collector never visits these values. That halves the time of a big list; they hold no cycles.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

Quantity = str | int | float
"""`"500m"`, `"1Gi"`, `2`: as the cluster wrote it, negative ones and nonsense included."""

Resources = dict[str, Quantity]


class Slim(Struct, frozen=True, gc=False, rename="camel"):
    """A part of an object: unknown fields are skipped, missing ones have their default."""


class Owner(Slim, frozen=True):
    """An entry of ownerReferences."""

    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class Meta(Slim, frozen=True):
    """ObjectMeta. `resource_version` is opaque: equal or not, never less or more. Times are RFC 3339 in UTC."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[Owner, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name): what the API server keeps unique at any moment."""
        return self.namespace, self.name


class Object(Slim, frozen=True):
    """What every object has; also the answer to a request for metadata only (PartialObjectMetadata)."""

    metadata: Meta = Meta()


class Condition(Slim, frozen=True):
    """One line of what a controller says of an object. `status` is True, False or Unknown."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


# Pods


class Requirements(Slim, frozen=True):
    """What a container asks for and what it may not exceed."""

    requests: Resources = {}
    limits: Resources = {}


class Port(Slim, frozen=True):
    """`host_port` is one of the node, 0 for none."""

    host_port: int = 0


class Container(Slim, frozen=True):
    """A container. An init container whose `restart_policy` is Always is a sidecar and runs beside the others."""

    name: str = ""
    image: str = ""
    resources: Requirements = Requirements()
    restart_policy: str = ""
    ports: tuple[Port, ...] = ()


class Toleration(Slim, frozen=True):
    """A taint that a pod puts up with."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class SchedulingGate(Slim, frozen=True):
    """While a pod has one it may not be placed (KEP-3521)."""

    name: str = ""


class Volume(Slim, frozen=True):
    """Only what may have to be bound before its pod is placed. Any: trees of JSON."""

    name: str = ""
    persistent_volume_claim: dict[str, Any] | None = None
    ephemeral: dict[str, Any] | None = None


class Spread(Slim, frozen=True):
    """How evenly the pods of a kind are to lie over parts of the cluster."""

    when_unsatisfiable: str = ""
    topology_key: str = ""
    label_selector: dict[str, Any] | None = None  # Any: a tree of JSON, as an affinity


class Claim(Slim, frozen=True):
    """A device that is to be allocated (DRA)."""

    name: str = ""


class PodSpec(Slim, frozen=True):
    """`affinity` stays JSON: few pods have one, and few readers look."""

    node_name: str = ""
    subdomain: str = ""
    scheduler_name: str = ""
    scheduling_gates: tuple[SchedulingGate, ...] = ()
    priority: int | None = None
    priority_class_name: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    overhead: Resources = {}
    resources: Requirements = Requirements()
    tolerations: tuple[Toleration, ...] = ()
    node_selector: dict[str, str] = {}
    affinity: dict[str, Any] | None = None  # Any: a tree of JSON (a `Raw` would keep its whole page in memory)
    termination_grace_period_seconds: int | None = None
    active_deadline_seconds: int = 0
    restart_policy: str = ""
    volumes: tuple[Volume, ...] = ()
    topology_spread_constraints: tuple[Spread, ...] = ()
    resource_claims: tuple[Claim, ...] = ()


class Waiting(Slim, frozen=True):
    """Not started, and why."""

    reason: str = ""
    message: str = ""


class Running(Slim, frozen=True):
    """Started."""

    started_at: str | None = None


class Terminated(Slim, frozen=True):
    """Ended. `signal` is 0 where the runtime does not say; a killed process then has an exit code above 128."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None


class ContainerState(Slim, frozen=True):
    """At most one of the three; none means waiting."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(Slim, frozen=True):
    """What the kubelet reports of a container."""

    name: str = ""
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    state: ContainerState = ContainerState()


class PodStatus(Slim, frozen=True):
    """What the kubelet reports of a pod. `phase` is Pending, Running, Succeeded, Failed or Unknown."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    start_time: str | None = None
    pod_ip: str = field(default="", name="podIP")
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(Object, frozen=True):
    """core/v1 Pod."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


# Nodes


class Taint(Slim, frozen=True):
    """What keeps pods off a node. `effect` is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str | None = None


class NodeSpec(Slim, frozen=True):
    """`provider_id` names the machine at its cloud."""

    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    provider_id: str = field(default="", name="providerID")


class NodeInfo(Slim, frozen=True):
    """`boot_id` changes with every boot: another one proves that all processes of the last boot are dead."""

    boot_id: str = field(default="", name="bootID")
    machine_id: str = field(default="", name="machineID")
    kubelet_version: str = ""
    container_runtime_version: str = ""
    kernel_version: str = ""
    os_image: str = ""
    operating_system: str = ""
    architecture: str = ""


class Image(Slim, frozen=True):
    """An image on a node, by all its names: with a tag, with a digest."""

    names: tuple[str, ...] | None = None
    size_bytes: int = 0


class HandlerFeatures(Slim, frozen=True):
    """What a container runtime can do with pods of one handler (Kubernetes 1.31 and newer)."""

    user_namespaces: bool = False


class RuntimeHandler(Slim, frozen=True):
    """One of a container runtime. The one without a name is for pods that name no RuntimeClass."""

    name: str = ""
    features: HandlerFeatures = HandlerFeatures()


class NodeStatus(Slim, frozen=True):
    """What the kubelet reports of a node; of images the 50 largest, unless it is told otherwise (nodeStatusMaxImages)."""

    capacity: Resources = {}
    allocatable: Resources = {}
    conditions: tuple[Condition, ...] = ()
    node_info: NodeInfo = NodeInfo()
    runtime_handlers: tuple[RuntimeHandler, ...] = ()
    images: tuple[Image, ...] = ()


class Node(Object, frozen=True):
    """core/v1 Node."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


# The rest


class NamespaceStatus(Slim, frozen=True):
    """`phase` is Active or Terminating."""

    phase: str = ""


class Namespace(Object, frozen=True):
    """core/v1 Namespace."""

    status: NamespaceStatus = NamespaceStatus()


class PodGroupSpec(Slim, frozen=True):
    """`min_member` pods are placed together or not at all."""

    min_member: int = 0


class PodGroup(Object, frozen=True):
    """scheduling.x-k8s.io/v1alpha1 and scheduling.volcano.sh/v1beta1 PodGroup."""

    spec: PodGroupSpec = PodGroupSpec()


class DeviceAttribute(Slim, frozen=True):
    """What a driver says of a device; only text is read."""

    string: str = ""


class DeviceTaint(Slim, frozen=True):
    """What keeps claims off a device (KEP-5055)."""

    key: str = ""
    effect: str = ""


class Device(Slim, frozen=True):
    """`consumes_counters`: it is cut out of something that other devices are cut out of too. Any: trees of JSON."""

    name: str = ""
    attributes: dict[str, DeviceAttribute] = {}
    consumes_counters: tuple[dict[str, Any], ...] = ()
    taints: tuple[DeviceTaint, ...] = ()


class ResourcePool(Slim, frozen=True):
    """Slices of one generation that together say what there is."""

    name: str = ""
    generation: int = 0
    resource_slice_count: int = 0


class ResourceSliceSpec(Slim, frozen=True):
    """Devices of a driver; `node_name` is empty where more than one node reaches them."""

    driver: str = ""
    node_name: str = ""
    pool: ResourcePool = ResourcePool()
    devices: tuple[Device, ...] = ()


class ResourceSlice(Object, frozen=True):
    """resource.k8s.io/v1 ResourceSlice."""

    spec: ResourceSliceSpec = ResourceSliceSpec()


class AllocatedDevice(Slim, frozen=True):
    """A device that a claim was given; with `admin_access` others may have it too."""

    driver: str = ""
    pool: str = ""
    device: str = ""
    admin_access: bool = False


class AllocatedDevices(Slim, frozen=True):
    """All of them."""

    results: tuple[AllocatedDevice, ...] = ()


class ClaimAllocation(Slim, frozen=True):
    """What a claim was given."""

    devices: AllocatedDevices = AllocatedDevices()


class ResourceClaimStatus(Slim, frozen=True):
    """No allocation: it waits."""

    allocation: ClaimAllocation | None = None


class ResourceClaim(Object, frozen=True):
    """resource.k8s.io/v1 ResourceClaim."""

    status: ResourceClaimStatus = ResourceClaimStatus()


class VolumeClaimSpec(Slim, frozen=True):
    """What storage is asked for. `volume_name` is empty until it is bound."""

    access_modes: tuple[str, ...] = ()
    resources: Requirements = Requirements()
    storage_class_name: str | None = None
    volume_name: str = ""


class VolumeClaimStatus(Slim, frozen=True):
    """What it got."""

    phase: str = ""
    access_modes: tuple[str, ...] = ()
    capacity: dict[str, Quantity] = {}


class VolumeClaim(Object, frozen=True):
    """core/v1 PersistentVolumeClaim."""

    spec: VolumeClaimSpec = VolumeClaimSpec()
    status: VolumeClaimStatus = VolumeClaimStatus()


class PersistentVolumeSpec(Slim, frozen=True):
    """Which nodes reach it: VolumeNodeAffinity as it is."""

    node_affinity: dict[str, Any] = {}


class PersistentVolume(Object, frozen=True):
    """core/v1 PersistentVolume."""

    spec: PersistentVolumeSpec = PersistentVolumeSpec()


class ObjectReference(Slim, frozen=True):
    """Which object an event is about."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    field_path: str = ""


class Event(Object, frozen=True):
    """core/v1 Event. Old writers fill `last_timestamp` and `count`, new ones `event_time`."""

    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    type: str = ""
    count: int = 0
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None


class LeaseSpec(Slim, frozen=True):
    """Who holds it, and since when."""

    holder_identity: str = ""
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int = 0


class Lease(Object, frozen=True):
    """coordination.k8s.io/v1 Lease."""

    spec: LeaseSpec = LeaseSpec()


class ConfigMap(Object, frozen=True):
    """core/v1 ConfigMap; `binary_data` is base64."""

    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}


class Secret(Object, frozen=True):
    """core/v1 Secret; `data` is base64 and is never printed."""

    type: str = ""
    data: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Secret({self.metadata.namespace}/{self.metadata.name}, {len(self.data)} values)"


# What the API server says of a request


class Cause(Slim, frozen=True):
    """One of the things that are wrong."""

    reason: str = ""
    message: str = ""
    field: str = ""


class Details(Slim, frozen=True):
    """What a refusal is about, and when to come back."""

    name: str = ""
    kind: str = ""
    uid: str = ""
    retry_after_seconds: int = 0
    causes: tuple[Cause, ...] = ()


class Status(Slim, frozen=True):
    """meta/v1 Status: the answer to a request that was refused, or that has nothing else to say."""

    status: str = ""
    reason: str = ""
    message: str = ""
    code: int = 0
    details: Details = Details()


class Version(Slim, frozen=True):
    """The answer of /version."""

    major: str = ""
    minor: str = ""
    git_version: str = ""
    platform: str = ""
