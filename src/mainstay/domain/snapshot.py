"""One consistent world as columns: what a decision reads. A row is an index; `key` is the stable integer of its object.

All columns of a table have the same length and order (ascending key) and are read-only. Instants are UTC
microseconds, 0 = never; durations say their unit. No Python object per row: 100,000 queued workloads are a few
megabytes, and a copy is a memcpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mainstay.domain.affinity import NodeTraits, Restriction
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.billing import Price
from mainstay.domain.history import NO_HISTORY, NOTHING_USED, HistoryPolicy, HistoryTable
from mainstay.domain.image import NodeImages
from mainstay.domain.preemption import Nomination
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import DEFAULT_QUEUE, QueueSpec, QueueTree
from mainstay.domain.reason import Reason
from mainstay.domain.registry import Endpoint
from mainstay.domain.topology import Level, TopologyNeed
from mainstay.domain.volume import VolumeNeed, VolumeRecord, VolumeRef
from mainstay.domain.workload import PodSet

PODS = "pods"
"""Of `NodeTable.others`."""
NO_LIMIT = 1 << 40
"""So many pods takes a node of which no limit is known, where others have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTable:
    """Every node of every cluster. Free = capacity - used, never negative unless a node shrank under its work."""

    key: Ints
    version: Ints
    ready: Bools
    """It is ready, nobody keeps it out, and its cluster takes work."""
    cpu_milli: Ints
    memory_bytes: Ints
    gpus: Ints
    gpu_model: Ints
    """Index into `Snapshot.gpu_models`; 0 is "none"."""
    used_cpu_milli: Ints
    used_memory_bytes: Ints
    used_gpus: Ints
    names: tuple[str, ...]
    clusters: tuple[str, ...]
    closed_at: Ints
    """Since when it is kept out by the word of somebody; 0: it is not."""
    closed_until: Ints
    """0: until somebody says so."""
    whole_cpu_milli: Ints
    whole_memory_bytes: Ints
    whole_gpus: Ints
    """What it could give if nobody else used it and all of it worked; no less than what it gives."""
    drains: Bools
    wait_seconds: Ints
    """Of a drain: what reaches its own max_duration so long after its begin is left to its end."""
    admits: Mapping[Restriction, Bools] = field(default_factory=dict)
    """Restriction -> whether the node meets it and takes work; counts instead of `ready` for what has one."""
    meets: Mapping[Restriction, Bools] = field(default_factory=dict)
    """The same, whether it takes work or not; of a restriction that is not there: as `admits`."""
    traits: NodeTraits | None = None
    """Labels and taints of each; None: nothing is known of any. Needs that are not in `admits` are worked out of it."""
    flavor: Ints | None = None
    """Index into `Snapshot.flavors`, 0 for nodes of none; None: nobody has named any."""
    shapes: Mapping[str, Ints] = field(default_factory=dict)
    """Shape of slices of GPUs -> how many the node has. A node may have several shapes, beside whole GPUs."""
    reaches: Mapping[str, Bools] = field(default_factory=dict)
    """`VolumeState.reach` -> whether the node reaches such volumes, ready or not."""
    used_shapes: Mapping[str, Ints] = field(default_factory=dict)
    whole_shapes: Mapping[str, Ints] = field(default_factory=dict)
    others: Mapping[str, Ints] = field(default_factory=dict)
    """Name of what else nodes have so much of -> how much; PODS: how many pods a node takes."""
    used_others: Mapping[str, Ints] = field(default_factory=dict)
    images: NodeImages | None = None
    """None: of no node any is known."""
    levels: Mapping[str, Level] = field(default_factory=dict)
    """Level of the topology -> the domain of each node, the widest first; hosts are not among them."""

    @property
    def sound(self) -> Bools:
        """It takes work of whoever tolerates its taints."""
        return self.ready if self.traits is None else self.ready | self.traits.barred


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadTable:
    """Every workload that is not final."""

    key: Ints
    version: Ints
    kind: Ints
    """Index into the order of `Kind`: 0 job, 1 service, 2 pod."""
    phase: Ints
    priority: Ints
    queue: Ints
    """Row of its queue in `Snapshot.queues`."""
    submitter: Ints
    """Index into `Snapshot.submitters`; 0 is "nobody"."""
    attempt: Ints
    """Number of the attempt that runs or is to run next; counts from 1."""
    submitted_at: Ints
    not_before: Ints
    started_at: Ints
    stop_requested: Bools
    held: Bools
    preemptible: Bools
    nodes: Ints
    """Ranks that it starts with; of an elastic one its desired count: so many at most."""
    nodes_min: Ints
    """Without so many it does not start; the same as `nodes` unless it is elastic."""
    nodes_max: Ints
    """It never has more at a time; likewise."""
    cpu_milli: Ints
    memory_bytes: Ints
    gpus: Ints
    gpu_model: Ints
    """The request of one pod (the first choice, of the first pod set), 0 in `gpu_model` = any."""
    cluster: Ints
    """Index into `Snapshot.cluster_names`: the cluster it must run in; 0 is "any"."""
    restriction: Ints
    """Index into `Snapshot.restrictions`; 0 is "none"."""
    volumes: Ints
    """Index into `Snapshot.volume_needs`; 0 is "none"."""
    topology: Ints
    """Index into `Snapshot.topologies`; 0 is "none"."""
    image: Ints | None = None
    """Index into `Snapshot.images`; 0 is "none", and None that nobody names any."""
    choices: Mapping[int, tuple[Resources, ...]]
    """All choices in order, by key, only for workloads that have more than one, or one of which the columns do not say all."""
    max_duration_seconds: Ints
    usual_seconds: Ints
    """Of what has a place and no limit: as long as it takes at most, by the history of such runs; 0: nobody knows."""
    typical_seconds: Ints
    """Of a job that has been queued: what half of such runs take longer than, by the history of its name; 0: nobody knows."""
    spread_permille: Ints
    """The standard deviation of the logarithm of that, in thousandths."""
    stop_grace_seconds: Ints
    checkpoint_seconds: Ints
    """It saves its state so often while it runs; 0: it does not say."""
    infrastructure_failures: Ints
    user_failures: Ints
    infrastructure_max: Ints
    user_max: Ints
    attempts_max: Ints
    """It makes no more, whatever ended them; 0: only failures count."""
    backoff_seconds: Ints
    backoff_seconds_max: Ints
    retry_always: Bools
    others: Mapping[str, Ints] = field(default_factory=dict)
    """What else one pod asks for, by name, as `Resources.others`. One of PODS is asked for by every pod, and stands nowhere."""
    sets: Mapping[int, tuple[PodSet, ...]] = field(default_factory=dict)
    """The pod sets by key, without what they run: only of workloads that have several."""
    equals: Mapping[int, int] = field(default_factory=dict)
    """So many of the first choices are equals, by key, only where that is more than one."""
    typical_on: Mapping[int, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """Of those: what half of the runs of its name take longer than on a kind of GPUs, in seconds, by `kind_of_gpus`, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationTable:
    """Every allocation that is not closed."""

    key: Ints
    version: Ints
    workload_key: Ints
    attempt: Ints
    rank: Ints
    node_key: Ints
    cpu_milli: Ints
    memory_bytes: Ints
    gpus: Ints
    gpu_model: Ints
    stop: Bools
    stop_asked_at: Ints
    """When it was told to stop; 0: before that was on record, or never."""
    moves: Bools
    """Stopped so that its workload goes on elsewhere."""
    preempted: Ints
    """The rule by which it was stopped for other work; 0: it was not."""
    yields_to: Ints
    """Key of the workload for which that was; 0: none."""
    surplus: Bools
    """Its attempt goes on without it: its end is no failure."""
    seen: Ints
    ready: Bools
    created_at: Ints
    started_at: Ints
    ended_at: Ints
    metered_until: Ints
    end: Ints
    """Index into `ENDS`; -1 while it has not ended."""
    exit_code: Ints
    """-1 if there is none (killed by a signal, never started)."""


NOBODY = ""
"""Submits what nobody knows who submitted."""
ONE_QUEUE = QueueTree.of([QueueSpec(name=DEFAULT_QUEUE)])
"""What there is before anybody has made a queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The world at `version`. `now` in UTC microseconds; `seed` is all the randomness a decision may use."""

    now: int
    seed: int
    version: int
    gpu_models: tuple[str, ...]
    """Vocabulary of the `gpu_model` columns; entry 0 is the empty string."""
    nodes: NodeTable
    workloads: WorkloadTable
    allocations: AllocationTable
    endpoints: tuple[Endpoint, ...]
    """Those with a candidate, or not removed."""
    prices: tuple[Price, ...]
    """The whole price book, by SKU and then by date."""
    owners: Mapping[int, tuple[str, str, str]]
    """Workload key -> (tenant, project, workload id), for the workloads of `allocations`; what metering writes down."""
    addresses: Mapping[int, str]
    """Allocation key -> host:port, for the allocations whose pod serves at one."""
    observed: Mapping[str, int] = field(default_factory=dict)
    """Cluster -> up to which instant of its own time it has been witnessed: what is RUNNING ran until then."""
    flavors: tuple[str, ...] = ("",)
    """Flavors of nodes in their order, behind the empty string; vocabulary of `NodeTable.flavor`."""
    left_out: Mapping[int, int] = field(default_factory=dict)
    """Where the nodes are only a part of a fleet: the key that stands for others in `allocations` -> their flavor."""
    queues: QueueTree = field(default_factory=lambda: ONE_QUEUE)
    """All queues and cohorts."""
    history_policy: HistoryPolicy = NO_HISTORY
    """Whether what queues have used lately counts, and how."""
    history: HistoryTable = NOTHING_USED
    """What they have used lately by what has ended."""
    cluster_names: tuple[str, ...] = ("",)
    """Vocabulary of `WorkloadTable.cluster`; entry 0 is the empty string."""
    restrictions: tuple[Restriction, ...] = ("",)
    """Vocabulary of `WorkloadTable.restriction`; entry 0 is the empty string."""
    submitters: tuple[str, ...] = (NOBODY,)
    """Vocabulary of `WorkloadTable.submitter`, as `workload.submitter_of`; entry 0 is the empty string."""
    volume_needs: tuple[VolumeNeed | None, ...] = (None,)
    """Vocabulary of `WorkloadTable.volumes`."""
    topologies: tuple[TopologyNeed | None, ...] = (None,)
    """Vocabulary of `WorkloadTable.topology`."""
    images: tuple[str, ...] = ("",)
    """Vocabulary of `WorkloadTable.image`; entry 0 is the empty string."""
    volumes: Mapping[VolumeRef, tuple[VolumeRecord, ...]] = field(default_factory=dict)
    """Where each volume lies: one of a name in several clusters is as many volumes. Users of them are not listed here."""
    nominations: Mapping[int, Nomination] = field(default_factory=dict)
    """Workload key -> the places that are kept for it until those who were displaced for it have ended."""
    displaced_by: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """Workload key -> keys of those for whom it was displaced, the first one first; only of those that ever were."""
    closed_clusters: Mapping[str, Reason] = field(default_factory=dict)
    """Cluster -> why nothing new is placed there, for those of which that is so."""
    closed_nodes: Mapping[int, Reason] = field(default_factory=dict)
    """Key of a node -> why it takes nothing new by itself, for those of which that is so."""
