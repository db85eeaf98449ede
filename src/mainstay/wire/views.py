"""What the API answers: one model per object, instants as RFC 3339 strings in UTC, money as decimal strings."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")
Number = int | float | str


class View(BaseModel):
    """Base of all answers: unknown fields are tolerated on reading, so that an older client reads a newer server."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ReasonView(View):
    """Why: a stable code, what it is about, the figures, and the same in words."""

    code: str
    object: str = ""
    numbers: dict[str, Number] = Field(default_factory=dict)
    sentence: str
    brief: str = ""
    """The sentence as a list shows it: without what it repeats in full, 200 characters at most."""


class Problem(View):
    """An RFC 9457 problem. `code` is stable, `errors` locates the faults of a request body."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    object: str = ""
    numbers: dict[str, Number] = Field(default_factory=dict)
    hint: str = ""
    errors: list[FieldProblem] = Field(default_factory=list)


class FieldProblem(View):
    """One fault at one field, e.g. `resources.gpu`."""

    field: str
    message: str
    allowed: list[str] = Field(default_factory=list)
    nearest: str = ""


class ResourcesView(View):
    """The request of one pod, or the size of a node."""

    cpu: float
    memory_bytes: int
    gpus: int = 0
    gpu_model: str = ""
    gpu_memory_bytes: int = 0
    """Only of what is asked for: at least so much of each GPU."""
    gpu_part: float = 0
    """Only of what is asked for: at least such a part of a GPU, in place of a whole one."""


class PodView(View):
    """One pod of an attempt."""

    pod: str
    attempt: int
    rank: int
    node: str
    cluster: str
    state: str
    """What was seen of it last: nothing, pulling, starting, running, unknown, ended; or `stopping` once it was told to end."""
    ready: bool
    address: str = ""
    resources: ResourcesView
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    stopping_since: datetime | None = None
    """When it was told to end, while it has not."""
    surplus: bool = False
    """The attempt goes on without it."""
    end: str = ""
    exit_code: int | None = None
    detail: str = ""


class SecretUseView(View):
    """A secret that a workload is handed, by name; `env`: also as this variable."""

    name: str
    env: str = ""


class VolumeView(View):
    """A volume as it was asked for. With a name a claim that outlives the run, without one scratch."""

    path: str
    name: str = ""
    size_bytes: int = 0
    """0: none was asked for."""
    storage_class: str = ""
    access: str = ""
    read_only: bool = False
    source: str = ""
    target: str = ""
    secret: str = ""


class NamedVolumeView(View):
    """A volume that outlives runs. A name is unique within a project and a cluster."""

    name: str
    project: str
    cluster: str
    place: str = ""
    """Where in its cluster it lies, in words; empty: every node reaches it."""
    size_bytes: int = 0
    """0: its cluster does not say, or sets no limit."""
    storage_class: str = ""
    access: list[str] = Field(default_factory=list)
    state: Literal["ready", "unbound", "removing"]
    """`unbound`: there is no storage for it yet; it is found where it is needed first."""
    used_by: list[str] = Field(default_factory=list)
    """Ids of the workloads that wait, run or end, and name it."""


class SecretView(View):
    """A secret: its value is never shown to anybody."""

    name: str
    set_at: datetime
    set_by: str


class PodSetView(View):
    """Some of the ranks of a job whose ranks are not all alike; those of the first set come first."""

    name: str
    nodes: int
    resources: ResourcesView
    run: list[str] = Field(default_factory=list)
    """Empty: what the job runs."""


class WorkloadView(View):
    """A workload as `ps` and `show` display it. `pods` only where a single workload was asked for."""

    id: str
    name: str
    kind: str
    project: str
    queue: str
    submitted_by: str
    priority: int
    preemptible: bool = True
    """More urgent work may take its place."""
    held: bool = False
    """It waits until it is released, whatever is free."""
    phase: str
    state: str = ""
    """In one word, for people: `phase`, or `stopping` from the request for its end until its last pod has ended."""
    reason: ReasonView
    attempt: int
    nodes: int
    nodes_min: int = 0
    """Of an elastic job: without so many it does not start; 0 of any other."""
    nodes_max: int = 0
    """Likewise: it never has more."""
    ranks: int = 0
    """So many nodes its last attempt has, or had at its end; 0 before it had any. Only where workloads were asked for."""
    resources: ResourcesView
    """Of one pod; of several pod sets, of one of the first."""
    sets: list[PodSetView] = Field(default_factory=list)
    """Where not all pods ask for the same."""
    infra: str = ""
    """The cluster where it must run; empty: any."""
    topology: str = ""
    """How near to each other its pods are to lie: `required rack`, `preferred block`; empty: anywhere in one cluster."""
    spread: str = ""
    """How far apart: `at most 1 per host`, `evenly over zones`; empty: it does not say."""
    max_duration_seconds: int = 0
    """Its time limit, of an attempt: its own, or that of its queue when it was submitted; 0: none."""
    node_labels: list[str] = Field(default_factory=list)
    """What the labels of its nodes must be, all of it: `disk=ssd`, `zone in (a, b)`."""
    node_preferences: list[str] = Field(default_factory=list)
    """Which nodes go before others, with their weight: `disk=nvme (10)`."""
    tolerations: list[str] = Field(default_factory=list)
    """Taints that it puts up with: `dedicated=ml:NoSchedule`."""
    spot: Literal["never", "auto", "only"] = "auto"
    """Whether nodes that may be taken away will do."""
    run: list[str]
    guests: list[str] = Field(default_factory=list)
    """Of the kind `pod`: the pods that others made, as NAMESPACE/NAME by rank."""
    env: dict[str, str] = Field(default_factory=dict)
    secrets: list[SecretUseView] = Field(default_factory=list)
    volumes: list[VolumeView] = Field(default_factory=list)
    devices: list[str] = Field(default_factory=list)
    submitted_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    ran_seconds: float = 0
    """How long the attempts that do not run any more ran, together; what it waited between them does not count. Only where
    workloads were asked for, as `running_since` and `stopping_since`.
    """
    running_since: datetime | None = None
    """When the attempt that runs has begun to."""
    stop_requested: bool = False
    stopping_since: datetime | None = None
    """When the first of its pods that have not ended was told to end: because somebody stopped it, or to be moved."""
    output: str = ""
    """Digest of the tree of output files; empty until it succeeded."""
    pods: list[PodView] = Field(default_factory=list)


class Page(View, Generic[Item]):
    """A page of a list. Ask again with `cursor=next` for the rest; `next` is empty on the last page."""

    items: list[Item]
    next: str = ""


class QuotaView(View):
    """A quota of a queue or cohort, and what is used of it. Amounts are in `unit`."""

    resource: str
    flavor: str
    unit: str
    """cores, bytes, gpus or pods"""
    nominal: float
    borrowing_limit: float | None = None
    """None: as much as is left."""
    lending_limit: float | None = None
    """None: all of it."""
    used: float
    """By the workloads that you may see: all of them, for an administrator, or those of your own tenant."""
    available: float
    """What it may still use now, borrowing included."""
    borrowed: float | None = None
    """Above what is its own. Only for administrators, as `lent`."""
    lent: float | None = None
    """Of its own, what it could not have now because others use it."""


class FlavorView(View):
    """A flavor of nodes, and what its nodes that take work have. In their order: a node is of the first that it meets."""

    name: str
    node_labels: list[str]
    """All of them hold on its nodes."""
    nodes: int
    cores: float
    memory_bytes: int
    gpus: int
    queues: list[str] = Field(default_factory=list)
    """Queues and cohorts that have a quota of it."""
    set_at: datetime
    set_by: str


class PreemptionView(View):
    """Whose place the work of a queue may take, in the words of `PreemptionRequest`."""

    within_queue: str = "never"
    reclaim: str = "never"
    borrow: str = "never"
    borrow_priority_max: int | None = None
    fair_share: str = "never"
    min_runtime_seconds: int = 0


class QueueView(View):
    """A queue or cohort. Rows of the tree: a parent comes before its children."""

    name: str
    parent: str = ""
    cohort: bool = False
    weight: float = 1
    quotas: list[QuotaView] = Field(default_factory=list)
    preemption: PreemptionView = PreemptionView()
    reserved_after_seconds: int = 600
    """So long its work waits, finding no room, before a start is reserved for it."""
    placement: str = "least-waste"
    """The policy by which nodes are chosen for its work."""
    order: str = "fair"
    """Which of its work goes first of what is as urgent."""
    default_max_duration_seconds: int = 0
    """The limit of a job that is submitted to it and says none; 0: none."""
    share: float | None = None
    """Weighted dominant share: the largest part of what it could borrow that it does, 0 to 1 at weight 1. Only for
    administrators, as the four that follow.
    """
    fair_share: float | None = None
    """Part of the fleet, 0 to 1: its own, and of the rest its part by weight; what it had if everybody wanted all."""
    demand_capped_share: float | None = None
    """The same if nobody has more than they hold and ask for, and others share what that leaves."""
    held_share: float | None = None
    """What it holds now, of the resource of which that is most."""
    lately: float | None = None
    """What it has used lately, likewise; 0 where no history is kept."""
    waiting: int
    """Workloads that you may see, as `used`; a cohort counts all below it."""
    running: int
    """Those that have a place."""
    set_at: datetime | None = None
    """None: nobody has set it; it is the default queue, or a cohort that others name."""
    set_by: str = ""
    warnings: list[str] = Field(default_factory=list)


class LocalQueueView(View):
    """The name that a namespace has for a queue."""

    cluster: str = ""
    """Empty: every cluster that says nothing else of that name."""
    namespace: str
    name: str
    queue: str
    set_at: datetime
    set_by: str


class QueueHistoryView(View):
    """Whether what queues have used lately counts towards their turns, and how."""

    half_life_seconds: int
    """What was used so long ago counts half; 0: it is off."""
    weight: float
    """How many times as much as what is held now."""
    entry_seconds: int
    """Every pod counts as if it had run for so long at least."""
    set_at: datetime | None = None
    """None: nobody has set it."""
    set_by: str = ""


class PriorityClassView(View):
    """A name for a priority."""

    name: str
    priority: int
    preemptible: bool = True


class EventView(View):
    """One line of the event log. `seq` grows without gaps; resume after it."""

    seq: int
    at: datetime
    actor: str
    kind: str
    object: str
    workload: str = ""
    reason: ReasonView
    phase_before: str = ""
    phase_after: str = ""


class LogView(View):
    """Printable text of a pod's log. Ask again from `next_offset`; `ended`: nothing will follow."""

    pod: str
    rank: int
    attempt: int
    text: str
    next_offset: int
    dropped: int = 0
    ended: bool = False


class LogEnd(View):
    """The end of the log of one attempt. `next_attempt` is the one that follows, 0 if there is none."""

    workload: str
    rank: int
    attempt: int
    next_attempt: int
    phase: str


class DeviceView(View):
    """GPUs of a model on a node, or slices of a shape (`1g.10gb`, `T4.shared`)."""

    model: str
    total: int
    used: int
    unhealthy: int = 0
    """Those that it has beside `total` and cannot give."""
    memory_bytes: int = 0
    """Of each; 0: nobody knows."""


class ResidentView(View):
    """A pod of ours on a node."""

    pod: str
    workload: str
    tenant: str
    state: str
    detail: str = ""
    """What becomes of it while the node is drained."""


class NodeView(View):
    """A node, what it has and what is used. `pods`, `labels` and `strangers` only where a single node was asked for."""

    name: str
    cluster: str
    cluster_state: str = "ready"
    """Of its cluster: nothing new is placed on any node of one that is not `ready`."""
    ready: bool
    """As its cluster reports it."""
    state: Literal["ready", "tainted", "not ready", "cordoned", "draining", "quarantined"] = "ready"
    """Nothing new is placed on one that is not `ready`, but on one that is `tainted` what tolerates its taints."""
    reason: ReasonView | None = None
    """Why it is in this state; none if it is ready."""
    since: datetime | None = None
    """When somebody kept it out."""
    until: datetime | None = None
    """When that ends by itself; none: when somebody says so."""
    complaints: list[str] = Field(default_factory=list)
    """What is wrong with it besides: unhealthy devices, conditions."""
    spot: bool = False
    """Its provider may take it away."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Those that jobs may ask for; only where a single node was asked for."""
    taints: list[str] = Field(default_factory=list)
    """Those that keep jobs off it which do not tolerate them: `dedicated=ml:NoSchedule`."""
    capacity: ResourcesView
    used: ResourcesView
    devices: list[DeviceView] = Field(default_factory=list)
    pods_used: int = 0
    """How many pods of this platform are there."""
    pods_max: int | None = None
    """How many it takes at most, without those of others; none: no limit is known."""
    pods: list[ResidentView] = Field(default_factory=list)
    """Those that the caller may see."""
    pods_left: int = 0
    """All that have not ended."""
    strangers: list[str] = Field(default_factory=list)
    """Pods of others on a node that is kept out, as NAMESPACE/NAME: a drain leaves them alone. Not all of many."""


class ClusterView(View):
    """A cluster of the fleet, whether it takes work, and what there is on it. Credentials are never shown."""

    name: str
    kind: Literal["local", "simulated", "kubernetes", "agent"]
    state: Literal["ready", "connecting", "unreachable", "refused", "draining", "removed"]
    """`connecting`: its agent is awaited for the first time, or has just come back and catches up."""
    reason: ReasonView
    server: str = ""
    context: str = ""
    in_cluster: bool = False
    namespaces_per_project: int = 1
    helper_image: str = ""
    image: str = ""
    topology: dict[str, str] = Field(default_factory=dict)
    """Level -> label of nodes, where an administrator has named one."""
    identity: str = ""
    """The same for as long as it is the same cluster; empty if its kind has none."""
    nodes: int = 0
    nodes_ready: int = 0
    capacity: ResourcesView | None = None
    """Of all its nodes; `gpu_model` only where they have one in common."""
    used: ResourcesView | None = None
    added_at: datetime | None = None
    added_by: str = ""
    warnings: list[str] = Field(default_factory=list)
    """What was found when it was added; only in the answer to that."""
    agent_heard: bool | None = None
    """Whether its agent is connected just now; null if it has none."""
    token: str = ""
    """Of its agent: shown once, in the answer to adding it."""


class AgentTokenView(View):
    """A token for the agent of a cluster. It is shown once; only its SHA-256 is kept."""

    cluster: str
    token: str = ""
    """Empty if this was a repetition of the request that it was made for."""


class GpuView(View):
    """GPUs of one model, or slices of one shape, in one cluster."""

    model: str
    """Of whole GPUs, or the shape of slices."""
    cluster: str
    total: int
    used: int
    unhealthy: int = 0
    """Those that there are beside `total` and cannot be given."""
    memory_bytes: int = 0
    """Of the smallest of them of which it is known; 0: of none."""
    price_per_hour: str


class OptionView(View):
    """One way to run a workload that was asked about."""

    where: str
    resources: ResourcesView
    nodes: int
    """So many it would start with."""
    nodes_min: int = 0
    """Of an elastic job, as in WorkloadView."""
    nodes_max: int = 0
    sets: list[PodSetView] = Field(default_factory=list)
    """As in WorkloadView, with what each would get."""
    starts: Literal["now", "later", "never"]
    """`never`: it is more than the fleet has, busy or not; `reason` says how much more."""
    price_per_hour: str
    cost_max: str = ""
    """Cost if it ran for its whole max_duration; empty without one."""
    max_duration_seconds: int = 0
    """Its time limit; 0: none."""
    limited_by_queue: bool = False
    """The job says none: it is that of its queue."""
    reason: ReasonView


class AlternativeView(View):
    """One change of the request, everything else the same, with which it could start at once."""

    change: str
    """What is relaxed: `max_duration`, `infra`, `node_labels`, `spot`, `tolerations`, `topology`, `spread`, `volumes`,
    `gpu_model`, `gpus`, `nodes`, `cpus` or `memory`; of one of several pod sets with its name before it, as `worker.gpus`; of a
    choice other than the first with its number, as `choice2.gpus`. Or its turn: `queue`, `priority`.
    """
    before: str
    after: str


class ExpectedStartView(View):
    """When it is expected to start, if nobody yields for it: by playing how long what runs and what goes before it may take."""

    p50: datetime | None = None
    """By then it has started in half of the cases."""
    p90: datetime | None = None
    """In nine of ten cases."""
    not_before: datetime | None = None
    """Where more goes before it than can be played: half of the time it has not started by then."""
    sentence: str
    """All of it in words, also why an instant is not known; times from now on."""


class HolderView(View):
    """A queue that holds what is short, or several of them together. Amounts in the unit of the holding."""

    queue: str = ""
    """Empty: all those that are not named."""
    queues: int = 1
    amount: float
    borrowed: float = 0
    """Of a quota, what it uses above its own."""
    runs: int
    first_end: datetime | None = None
    """By then the first of its runs is expected to have ended, by its history or limit; of a start, when it is reserved for."""
    last_end: datetime | None = None
    """By then all of them; absent where nobody knows of some."""
    endless: int = 0
    """So many of them have neither a time limit nor a history."""


class HeldRunView(View):
    """One of your runs that holds some of it."""

    id: str
    queue: str
    amount: float
    ends_at: datetime | None = None
    """When it is expected to have ended; absent where nobody knows."""


class HoldingView(View):
    """Who holds what is short. Runs are named to their own tenant alone."""

    kind: Literal["quota", "capacity", "start"]
    """What the queue may not use, what nodes have not, or what is kept for starts that are reserved."""
    resource: str
    """`gpu`, `cpu`, `memory`, `pods`, the shape of slices, or another resource; of reserved starts `nodes`."""
    flavor: str = ""
    """Of a quota."""
    unit: str
    """`gpus`, `cores`, `bytes`, `pods`, `nodes`, or the resource itself."""
    nodes: int = 0
    """Of capacity: so many nodes would do, were they empty."""
    holders: list[HolderView]
    """Of a quota its own queue first; else those with the most. Three by name, the others together."""
    own: list[HeldRunView] = Field(default_factory=list)
    """Runs of your tenant among them, those with the most first; five at most."""
    own_more: int = 0
    sentence: str
    """Which queues, in words; times from now on."""
    own_sentence: str = ""
    """Which of your runs, in words."""


class PlanView(View):
    """What submitting would do: nothing is changed by asking."""

    name: str
    options: list[OptionView]
    position: int
    """Place in the order of what waits, from 1; 0 if it would start at once."""
    turn: str = ""
    """How its queue orders what is as urgent, where that is not by age alone."""
    would_start_if: list[AlternativeView] = Field(default_factory=list)
    preemption: str = ""
    """Whom it could displace, or why nobody would yield for it; empty where that is not the question."""
    expected: ExpectedStartView | None = None
    """Absent where waiting alone does not help."""
    holding: HoldingView | None = None
    """Who holds what it would wait for; absent where nobody does."""


class ExplanationView(View):
    """Why a workload is where it is and what would let it start."""

    id: str
    phase: str
    state: str = ""
    """As of the workload."""
    reason: ReasonView
    position: int = 0
    """Place in the order, from 1; 0 if it does not wait."""
    turn: str = ""
    """How its queue orders what is as urgent, where that is not by age alone."""
    would_start_if: list[AlternativeView] = Field(default_factory=list)
    preemption: str = ""
    """Whom it could displace, or why nobody yields for it; empty where that is not the question."""
    expected: ExpectedStartView | None = None
    """Absent where it does not wait, or waiting alone does not help."""
    placement: str = ""
    """The policy by which its nodes are chosen, where its queue has one of its own."""
    holding: HoldingView | None = None
    """Who holds what it waits for; absent where nobody does."""
    sentence: str


class CostLine(View):
    """The cost of one workload, project or day. `accruing` is what live pods have run up beyond the recorded charges."""

    group: str
    name: str = ""
    cpu_core_hours: float
    memory_gib_hours: float
    gpu_hours: float
    charged: str
    accruing: str
    total: str
    currency: str


class CostView(View):
    """A bill: its lines add up exactly to `total`."""

    since: datetime
    until: datetime
    group_by: str
    lines: list[CostLine]
    total: str
    currency: str


class KeyView(View):
    """A key that seals secrets and credentials, by its name: nothing follows from that."""

    id: str
    held: bool
    """This replica has it; what is sealed with another one cannot be opened here."""
    seals: bool
    """What is sealed from now on is sealed with it."""
    sealed: int
    """So many secrets and credentials are. An older key of none may be dropped."""


class AuditView(View):
    """Who changed what: one row for each change that anybody or a cluster made, in the order in which they were made."""

    seq: int
    at: datetime
    actor: str
    tenant: str = ""
    """Whose it was; empty: the platform's."""
    action: str
    object: str
    detail: str = ""


class ModelVersionView(View):
    """A registered version of a model."""

    model: str
    version: int
    project: str
    tree: str
    workload: str
    registered_at: datetime


class EndpointView(View):
    """A stable address for a model: predictions at `url` + /v2/models/NAME/infer (Open Inference Protocol v2)."""

    name: str
    project: str
    model: str
    state: Literal["starting", "ready", "switching", "unavailable"]
    serving_version: int
    serving: str = ""
    candidate_version: int = 0
    candidate: str = ""
    url: str
    updated_at: datetime


class TreeEntry(View):
    """A file of a tree: relative path, size in bytes, SHA-256 in hex."""

    path: str
    size: Annotated[int, Field(ge=0)]
    digest: str
    executable: bool = False


class TreeView(View):
    """A tree of files by content."""

    digest: str
    entries: list[TreeEntry]


class MissingView(View):
    """Blobs of a tree that still have to be sent before the tree can be stored."""

    tree: str
    """Digest of the tree; stored only when `missing` is empty."""
    missing: list[str]


class ServerView(View):
    """Who answers, and as whom you are known."""

    version: str
    system: str
    principal: str
    tenant: str
    role: str
    clusters: list[str]


class SignInView(View):
    """Where to send a browser. The code is behind the `#`, which browsers keep to themselves; it works once."""

    url: str


class BulkView(View):
    """The answers to a bulk submission. All jobs are accepted, or none."""

    items: list[WorkloadView]


Problem.model_rebuild()
