"""What an agent and its control plane say to each other. Not public: both ends are mainstay, of neighbouring versions.

Whoever reads tolerates fields that it does not know, and every field that is added has a default. A change that the other end
must understand raises `PROTOCOL`. The control plane is upgraded first: it speaks the newest version and the one before it.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

PROTOCOL: Final = 2
"""2: files are kept apart by their owners, whom requests for them name."""
PROTOCOL_OLDEST: Final = 2
"""The control plane still speaks with agents of this version. Those of 1 said of no file whose it is."""
PROTOCOL_HEADER: Final = "Mainstay-Agent-Protocol"
TOKEN_PREFIX: Final = "msa_"  # noqa: S105 what every token of an agent begins with
HOLDER: Final = "agent/"
"""What the holder of a lease is called begins with this, if it is an agent."""
PATHS: Final = "/v1/agent/"
TEXT_MAX: Final = 8_000
"""Characters of a text that an agent reports; it cuts what is longer."""
COUNT_MAX: Final = 1 << 50
"""And no amount is larger: an agent cuts what a cluster or a pod claims beyond it, which fits nowhere either way."""
SECONDS_MAX: Final = 1 << 31
"""68 years: a pod may name any length of grace; what is longer is cut."""
Text = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]
Name = Annotated[str, msgspec.Meta(max_length=TEXT_MAX, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]
"""One by which something is looked up or compared: databases differ in what they do with a NUL."""
Number = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
"""What a database can hold."""
Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
"""And the sum of many."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all messages."""


class Amount(Message, frozen=True):
    """Resources, in the units of the platform."""

    cpu_milli: Count = 0
    memory_bytes: Count = 0
    gpus: Count = 0
    gpu_model: Text = ""


class Hello(Message, frozen=True):
    """An agent that has tried its cluster, and what it found."""

    identity: Name
    server: Text = ""
    """Where the agent reaches the API server, to be shown."""
    one_user: bool = False
    """All jobs run as one user there, as on the agent's own machine."""


class ClusterSaid(Message, frozen=True):
    """The cluster as it is on record: how the agent is to use it."""

    name: str
    system: str
    """Identity of the platform."""
    identity: str = ""
    """Which cluster it must be; empty until one was found."""
    namespaces_per_project: int = 1
    helper_image: str = ""
    image: str = ""
    scheduler_name: str = ""
    """Pods of others that name it are guests; empty: none."""
    topology: tuple[tuple[str, str], ...] = ()
    """(level, label of nodes)."""
    now: int = 0
    """By the clock of the control plane."""


class LeaseAsked(Message, frozen=True):
    """Take or renew the lease of the cluster."""

    holder: Name
    seconds: float


class LeaseSaid(Message, frozen=True):
    """The epoch, or 0 and who leads."""

    epoch: int = 0
    held_by: str = ""


class Why(Message, frozen=True):
    """A reason: a code, what it is about, and the figures."""

    code: Text
    object: Text = ""
    numbers: dict[Text, int | float | Text] = {}


class Storage(Message, frozen=True):
    """A volume of a workload."""

    path: str
    name: str = ""
    size_bytes: int = 0
    storage_class: str = ""
    access: str = ""
    read_only: bool = False
    source: str = ""
    target: str = ""
    secret: str = ""


class RequirementSaid(Message, frozen=True):
    """What a label of a node must be."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


class NeedSaid(Message, frozen=True):
    """Which nodes a workload may use."""

    requirements: tuple[RequirementSaid, ...] = ()
    tolerations: tuple[tuple[str, str, str, str], ...] = ()
    """(key, operator, value, effect)."""
    spot: str = "auto"


class Alike(Message, frozen=True):
    """A pod set."""

    name: str
    nodes: int
    resources: Amount
    cpu_limit_milli: int = 0
    memory_limit_bytes: int = 0
    run: tuple[str, ...] = ()


class Specified(Message, frozen=True):
    """What a workload is to run."""

    kind: str
    name: str
    run: tuple[str, ...]
    setup: str = ""
    image: str = ""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()
    """(path, digest of the tree)."""
    secrets: tuple[tuple[str, str, bool], ...] = ()
    """(name, variable, whether it is a file): never a value."""
    volumes: tuple[Storage, ...] = ()
    devices: tuple[str, ...] = ()
    nodes: int = 1
    elastic: tuple[int, int] | None = None
    """(fewest, most)."""
    choices: tuple[Amount, ...] = ()
    equals: int = 1
    sets: tuple[Alike, ...] = ()
    cpu_limit_milli: int = 0
    memory_limit_bytes: int = 0
    infrastructure_max: int = 3
    user_max: int = 0
    backoff_seconds: int = 10
    backoff_seconds_max: int = 360
    always: bool = False
    attempts_max: int = 0
    max_duration_seconds: int = 0
    stop_grace_seconds: int = 30
    checkpoint_seconds: int = 0
    port: bool = False
    ready_path: str = ""
    cluster: str = ""
    guests: tuple[tuple[str, str, str], ...] = ()
    """(namespace, name, UID)."""
    restriction: str = ""
    topology: tuple[str, bool] | None = None
    """(level, whether it is required)."""
    spread: tuple[str, int] | None = None
    """(level, how many lie in one domain of it at most; 0: as many as there is room for)."""
    need: NeedSaid | None = None
    on_partition: str = "wait"
    partition_seconds: int = 0


class Slice(Message, frozen=True):
    """An allocation of this cluster that is not closed."""

    key: int
    workload_key: int
    workload: str
    tenant: str
    project: str
    attempt: int
    rank: int
    node: str
    resources: Amount
    version: int
    created_at: int
    stop: bool = False
    stop_asked_at: int = 0
    moves: bool = False
    seen: int = 0
    ready: bool = False
    address: str = ""
    started_at: int = 0
    ended_at: int = 0
    metered_until: int = 0
    witnessed_at: int = 0
    end: str = ""
    exit_code: int | None = None
    detail: str = ""
    settled: bool = False
    ranks: int = 0
    """Of its attempt when it was placed; 0: as many as its specification says."""
    surplus: bool = False


class Adopted(Message, frozen=True):
    """A workload of guests of this cluster that is not final."""

    key: int
    id: str
    tenant: str
    project: str
    queue: str
    submitted_by: str
    priority: int
    phase: int
    reason: Why
    attempt: int
    submitted_at: int
    version: int
    infrastructure_failures: int = 0
    user_failures: int = 0
    stop_requested: bool = False
    not_before: int = 0
    started_at: int = 0
    finished_at: int = 0
    output: str = ""
    held: bool = False
    preemptible: bool = True


class KeptOut(Message, frozen=True):
    """Nothing new is placed on a node: who said so, and why."""

    node: str
    keeping: str
    reason: Why
    since: int = 0
    until: int = 0
    drains: bool = False
    wait_seconds: int = 0


class Removal(Message, frozen=True):
    """A volume that somebody wants gone."""

    tenant: str
    project: str
    name: str


class WantedSaid(Message, frozen=True):
    """What has changed of the wanted side, up to a version. `whole`: it is all there is, and what is not here is not wanted."""

    version: int
    whole: bool = False
    rows: tuple[Slice, ...] = ()
    closed: tuple[int, ...] = ()
    guests: tuple[Adopted, ...] = ()
    finished: tuple[int, ...] = ()
    """Workloads of guests, by their keys."""
    specifications: dict[int, Specified] = {}
    """By the key of the workload, of all `rows` and `guests`."""
    closed_nodes: tuple[KeptOut, ...] | None = None
    """All nodes that somebody keeps out; none: as before."""
    removals: tuple[Removal, ...] | None = None
    """All volumes that somebody wants gone; none: as before."""


class ClosedAsked(Message, frozen=True):
    """Which of these pods were of this cluster, and are over and done with? The answer is a `WantedSaid` of their rows."""

    pods: tuple[Name, ...]


class PodSaid(Message, frozen=True):
    """What a cluster reports of one pod."""

    name: Text
    node: Text
    seen: Number
    started_at: Number = 0
    ended_at: Number = 0
    end: Text = ""
    exit_code: Number | None = None
    detail: Text = ""
    address: Text = ""
    ready: bool = False
    forgotten: bool = False


class NodeSaid(Message, frozen=True):
    """A node as its cluster reports it."""

    name: Text
    capacity: Amount
    ready: bool = False
    admits: tuple[Text, ...] = ()
    labels: tuple[tuple[Text, Text], ...] = ()
    taints: tuple[tuple[Text, Text, Text], ...] = ()
    """(key, value, effect)."""
    spot: bool = False
    barred: bool = False
    """Of agents that do not tell these yet, as if there were none."""
    topology: tuple[tuple[Text, Text], ...] = ()
    """(level, domain)."""
    images: tuple[tuple[Text, Number], ...] = ()
    """(name, bytes); none from agents that do not tell them yet."""
    shapes: tuple[tuple[Text, Number], ...] = ()
    whole: Amount | None = None
    whole_shapes: tuple[tuple[Text, Number], ...] = ()
    """None and nothing: as `capacity` and `shapes`, also from agents that do not tell it yet."""
    pods_max: Number | None = None
    """How many of ours it takes; None: no limit is known, as from agents that do not tell it yet."""
    unhealthy: tuple[tuple[Text, Number], ...] = ()
    problem: Text = ""
    complaints: tuple[Text, ...] = ()
    cordoned: bool = False
    marked: bool | None = None
    mark_undone: bool = False
    strangers: tuple[Text, ...] = ()
    refusal: Text = ""
    refused_at: Number = 0


class Observed(Message, frozen=True, tag="observe_pod"):
    """An observation of a pod. `version` is that of the allocation as it was read; 0: no guard."""

    allocation_key: Number
    state: PodSaid
    reason: Why
    output: Text = ""
    version: Number = 0


class Closed(Message, frozen=True, tag="close_pod"):
    """The cluster has forgotten a pod."""

    allocation_key: Number
    reason: Why
    version: Number = 0


class NodesObserved(Message, frozen=True, tag="observe_nodes"):
    """All nodes of the cluster."""

    nodes: tuple[NodeSaid, ...]
    reason: Why
    at: Number = 0


class NodeSuspected(Message, frozen=True, tag="quarantine_node"):
    """A node refuses what it is given: it is kept out for a while, unless somebody has said otherwise since."""

    node: Text
    reason: Why
    until: Number
    refused_at: Number


class ContactObserved(Message, frozen=True, tag="observe_cluster"):
    """Whether the cluster answers its agent."""

    seen: str
    reason: Why


class GuestsSubmitted(Message, frozen=True, tag="submit_guests"):
    """Pods of others that ask for a place, together, and what each of them needs. The other end makes a workload of that."""

    name: Text
    pods: tuple[tuple[Text, Text, Text], ...]
    """(namespace, name, UID), by rank."""
    tenant: Text
    project: Text
    queue: Text
    priority: Number
    resources: Amount
    """Of each, unless `sets` says so."""
    sets: tuple[tuple[Number, Amount], ...] = ()
    """(pods, what each of them needs), one after the other: of pods that are not all alike."""
    restriction: Text = ""
    grace_seconds: Number = 0
    max_duration_seconds: Number = 0
    topology: tuple[Text, bool] | None = None
    """As of a specification."""
    spread: Text = ""
    """The level alone: guests prefer to lie apart, and never wait for it."""


class GuestsWithdrawn(Message, frozen=True, tag="withdraw_guests"):
    """The pods of a workload of guests that waits do not wait any more."""

    workload_key: Number
    attempt: Number
    version: Number
    infrastructure_failures: Number = 0
    user_failures: Number = 0
    workload: Text = ""


class VolumeSaid(Message, frozen=True):
    """A volume as its cluster reports it."""

    tenant: Text
    project: Text
    name: Text
    size_bytes: Count = 0
    access: tuple[Text, ...] = ()
    storage_class: Text = ""
    bound: bool = True
    leaving: bool = False
    reach: Text = ""
    place: Text = ""


class VolumesObserved(Message, frozen=True, tag="observe_volumes"):
    """All volumes of projects in the cluster."""

    volumes: tuple[VolumeSaid, ...]
    reason: Why


Act = (
    Observed
    | Closed
    | NodesObserved
    | NodeSuspected
    | ContactObserved
    | GuestsSubmitted
    | GuestsWithdrawn
    | VolumesObserved
)
"""All that an effect loop commits: nothing else can even be said."""


class PlanSaid(Message, frozen=True):
    """Actions to commit under an epoch."""

    epoch: Number
    actions: tuple[Act, ...]


class Tagged(msgspec.Struct, frozen=True):
    """An action of which only the name is read."""

    type: str = ""


class PlanNamed(msgspec.Struct, frozen=True):
    """A plan of which only the names of the actions are read: to tell what is not allowed from what is malformed."""

    actions: tuple[Tagged, ...] = ()


class RefusedSaid(Message, frozen=True):
    """An action that was not applied, and why."""

    index: int
    reason: Why


class CommitSaid(Message, frozen=True):
    """What became of a plan."""

    version: int
    applied: int
    refused: tuple[RefusedSaid, ...] = ()


LOGS: Final = "logs"
"""In the place of an owner: the files are logs of pods."""


def owner_said(*, tenant: str, project: str) -> str:
    """An owner of files, as requests for them name one: no tenant is called so that it could be taken for `LOGS`."""
    return f"{tenant}/{project}"


class BlobStored(Message, frozen=True):
    """A file is stored. Whoever refers to it shows the receipt: that he had its content, and does not only know its digest."""

    receipt: str


class TreeSaid(Message, frozen=True):
    """A tree by its manifest."""

    manifest: str
    receipts: dict[str, str] = {}
    """Of its blobs, by digest, from whoever stores it."""


class TreeStored(Message, frozen=True):
    """A tree is stored, or these of its blobs must be sent first."""

    digest: str
    missing: tuple[str, ...] = ()
    receipt: str = ""


class SlotFilled(Message, frozen=True):
    """Make a tree the content of a slot."""

    slot: Text
    attempt: Number
    tree: Text
    receipt: Text = ""


class SlotSaid(Message, frozen=True):
    """What a slot holds."""

    attempt: int
    tree: str


class SecretsAsked(Message, frozen=True):
    """What a pod is to be handed, which lies where pods of this owner lie."""

    pod: Name
    tenant: Name
    project: Name


class SecretSaid(Message, frozen=True):
    """A secret in the clear, for a pod."""

    name: str
    value: bytes
    env: str = ""
    file: bool = True

    def __repr__(self) -> str:
        """Without the value."""
        return f"SecretSaid(name={self.name!r})"


class SecretsSaid(Message, frozen=True):
    """In the order in which the pod asks for them."""

    secrets: tuple[SecretSaid, ...] = ()
