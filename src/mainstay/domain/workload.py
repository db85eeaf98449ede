"""What a user wants to run: the specification of a workload, its phases and its retry policy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from mainstay.domain.affinity import NodeNeed, Restriction
from mainstay.domain.quantity import Resources
from mainstay.domain.reason import Reason
from mainstay.domain.secret import SecretUse
from mainstay.domain.topology import TopologyNeed


class Kind(StrEnum):
    """What sort of workload it is; each has a file in `decide/kinds`."""

    JOB = "job"
    SERVICE = "service"
    POD = "pod"
    """A guest: pods that others made in a Kubernetes cluster, and that we only give a place."""


class Phase(IntEnum):
    """Where a workload is on its way. The order is the order of life; the last four are final.

    Source of the words: interface.md 2.6 (8). Numbers are stored: never renumber.
    """

    PENDING = 0
    QUEUED = 1
    PROVISIONING = 2
    PULLING = 3
    STARTING = 4
    RUNNING = 5
    UNKNOWN = 6
    SUCCEEDED = 10
    FAILED = 11
    STOPPED = 12
    PREEMPTED = 13

    @property
    def word(self) -> str:
        """The phase as users see it."""
        return self.name.lower()

    @property
    def final(self) -> bool:
        """No further attempt will be made; absorbing."""
        return self >= Phase.SUCCEEDED


WAITING = (Phase.PENDING, Phase.QUEUED)
STARTING = (Phase.PROVISIONING, Phase.PULLING, Phase.STARTING)
ACTIVE = (*STARTING, Phase.RUNNING, Phase.UNKNOWN)

LEGAL_TRANSITIONS: frozenset[tuple[Phase, Phase]] = frozenset(
    [(before, after) for before in WAITING for after in (*WAITING, *ACTIVE, Phase.STOPPED, Phase.FAILED)]
    + [(before, after) for before in ACTIVE for after in Phase if after is not before]
)
"""Every change of phase that may ever be written (invariant I6); staying in a phase is no transition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How many failures of each class a workload survives. Classes: reliability.md R12."""

    infrastructure_max: int = 3
    user_max: int = 0
    backoff_seconds: int = 10
    backoff_seconds_max: int = 360
    always: bool = False
    """A service: starts again whatever the end, until it is stopped."""
    attempts_max: int = 0
    """It makes no more attempts, those included in which it yielded or was moved; 0: only failures count."""


RUNS_MIN, RUNS_MAX = 3, 20
"""Fewer runs are no history; of more, the last ones count."""


RUNS_OF_SHAPE_MIN = 10
"""Of runs of any name that ask for the same in the same queue of a tenant: they are less alike than those of a name."""


def usual_seconds(run_times: Sequence[int]) -> int:
    """As long as such a run takes at most, by the last ones: their mean and three standard deviations, and no less than any.

    0 of too few to say. By Cantelli's inequality at most one in ten takes longer, however they are distributed; of normally
    distributed ones, one in a thousand.
    """
    if len(run_times) < RUNS_MIN:
        return 0
    return math.ceil(max(*run_times, statistics.fmean(run_times) + 3 * statistics.stdev(run_times), 1))


SPREAD_PERMILLE_MIN = 50
"""No run takes as long as the last to the second, however alike the last ones were."""


def typical(run_times: Sequence[int]) -> tuple[int, int]:
    """What the next of such runs takes, by the last ones: (seconds, thousandths), the middle and the spread of a log-normal.

    Half of the runs take longer than the middle; the logarithm of what they take has the spread as its standard deviation. It is
    wider than that of the last runs, since few runs tell little: so wide that nine of ten take less than the middle times
    exp(1.28 spread), as Student's distribution for the next one has it. (0, 0) of too few to say.
    """
    if len(run_times) < RUNS_MIN:
        return 0, 0
    logs = [math.log(max(each, 1)) for each in run_times]
    runs = len(logs)
    # The ninth decile of Student's distribution over that of the normal one, to three digits from two degrees of freedom on.
    student = 1 + 0.66 / (runs - 1.6)
    spread = statistics.stdev(logs) * math.sqrt(1 + 1 / runs) * student
    return round(math.exp(statistics.fmean(logs))), max(SPREAD_PERMILLE_MIN, round(1_000 * spread))


def typical_on(run_times: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """What half of such runs take longer than, in seconds, on each kind of GPUs of which there are runs enough."""
    return {kind: typical(each)[0] for kind, each in run_times.items() if len(each) >= RUNS_MIN}


def kind_of_gpus(held: Resources) -> str:
    """On what kind of node a run was, as far as it matters to how long it took: `H100:8`; empty without GPUs."""
    return f"{held.gpu_model}:{held.gpus}" if held.gpus else ""


class OnPartition(StrEnum):
    """What is done for a workload whose pod is not heard of any more, and may run on (reliability.md R6)."""

    WAIT = "wait"
    """Until it is proven to have ended, however long that takes."""
    REQUEUE_AFTER = "requeue_after"
    """Each pod ends itself once it has not been renewed for so long; then another attempt may start."""
    ALLOW_DUPLICATES = "allow_duplicates"
    """Another attempt starts after so long, although the last one may run on beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A content-addressed tree of files put under `path` (relative to the run) before the pod starts."""

    path: str
    tree: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A place for files beside the code. With a name it is a claim: it is there before the run, or made, and stays after it.
    Without one it is scratch that ends with the pod.
    """

    path: str
    """Where it is mounted: absolute, or relative to the directory in which the command starts."""
    name: str = ""
    size_bytes: int = 0
    """A claim that is not there is made with this size; 0: it must be there. Of scratch: its most; 0: what the node has."""
    storage_class: str = ""
    """Empty: for a claim what its cluster takes by default, for scratch the disk of the node."""
    access: str = ""
    """The access mode of a claim that is made, as Kubernetes names it; empty: ReadWriteOnce."""
    read_only: bool = False
    source: str = ""
    """Of scratch: an address in an object store; what is there is copied here before the pod starts."""
    target: str = ""
    """Of scratch: where in an object store what rank 0 leaves here is copied to once it has ended well."""
    secret: str = ""
    """What opens those stores; empty: they are open to anybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRef:
    """A pod that others made, as its cluster calls it. `uid` means it and no other that ever has its name."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Elastic:
    """Its program goes on with more or fewer ranks than it was started with (PyTorch: `torchrun --nnodes=MIN:MAX`)."""

    nodes_min: int
    """Without so many it does not start, and with fewer its attempt is over."""
    nodes_max: int
    """It is never given more, however much lies idle."""


OPEN_MAX = 100_000
"""So many workloads of one tenant may be open, that is not final, unless the platform was started with another number: what is
open is held in memory, and looked at by every cycle.
"""
OPEN_MAX_HINT = (
    "wait until some have ended, stop some (`mainstay stop`), or put many small tasks into one job;"
    " an administrator sets the most with --open-max"
)
SETS_MAX = 16
"""Pod sets of one workload: what is told about each of them must stay readable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSet:
    """Ranks of one shape within a gang of several shapes. All of all sets find a place together, or none does."""

    name: str
    nodes: int
    """So many ranks; those of the first set come first."""
    resources: Resources
    """Of each of its pods."""
    cpu_limit_milli: int = 0
    memory_limit_bytes: int = 0
    """As in WorkloadSpec."""
    run: tuple[str, ...] = ()
    """What its pods run; empty: what the workload does."""


STOP_GRACE_SECONDS = 30
"""What a job has for its last words if it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """The specification as submitted, with every default filled in. Resources are per pod; `choices` in order."""

    kind: Kind
    name: str
    run: tuple[str, ...]
    """The argument vector. A shell line arrives as ("/bin/sh", "-c", line)."""
    setup: str = ""
    image: str = ""
    """The container image that its pods run; empty: what their cluster runs by default."""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[SecretUse, ...] = ()
    volumes: tuple[Volume, ...] = ()
    devices: tuple[str, ...] = ()
    """ResourceClaimTemplates of its namespace, or CLASS:COUNT, on clusters that hand out devices by claims (DRA). Not counted by
    our own accounts: the scheduler of the cluster finds out whether its node has them.
    """
    nodes: int = 1
    """So many ranks it starts with; of an elastic one so many at most: its desired count."""
    elastic: Elastic | None = None
    """None: it has exactly `nodes` ranks from its start to its end."""
    sets: tuple[PodSet, ...] = ()
    """Of a gang of several shapes. Then `nodes` is how many ranks all sets have, and `choices` what the first one asks for."""
    choices: tuple[Resources, ...]
    equals: int = 1
    """So many of the first choices are equals: of those that can be had, the one of the least expected cost is taken. The others
    come after them, in order.
    """
    cpu_limit_milli: int = 0
    """A pod may use so much even where it reserved less; 0: no limit."""
    memory_limit_bytes: int = 0
    """A pod that uses more is killed as out of memory; 0: no limit."""
    retry: RetryPolicy = RetryPolicy()
    max_duration_seconds: int = 0
    """0: no limit."""
    stop_grace_seconds: int = STOP_GRACE_SECONDS
    checkpoint_seconds: int = 0
    """It saves its state so often while it runs, and goes on from there in its next attempt; 0: it does not say."""
    port: bool = False
    """The pod listens on a port that the cluster assigns (`$PORT`)."""
    ready_path: str = ""
    """HTTP path that answers 200 once the pod can serve; empty: ready as soon as it runs."""
    on_partition: OnPartition = OnPartition.WAIT
    partition_seconds: int = 0
    """Of the policy; 0 where it waits."""
    cluster: str = ""
    """The only cluster where it may run; empty: any."""
    guests: tuple[PodRef, ...] = ()
    """Of the kind `pod`: the pods that are there already, by rank."""
    restriction: str = ""
    """Which nodes will do, as the nodes themselves say in `NodeState.admits`; empty: every one that is ready."""
    need: NodeNeed | None = None
    """Of what is ours: which nodes it may use and prefers, all its pods the same; None: every one that is ready."""
    topology: TopologyNeed | None = None
    """How near to each other its pods are to lie; None: anywhere in one cluster."""

    @property
    def compares_gpus(self) -> bool:
        """Whether which GPUs it is given depends on what they cost, and so on how long such runs take on each kind."""
        return self.equals > 1 or any(one.gpu_memory_bytes and not one.gpu_model for one in self.choices)

    @property
    def restricted_to(self) -> Restriction:
        """Which nodes will do, of guests and of what is ours."""
        return self.need or self.restriction

    @property
    def nodes_min(self) -> int:
        """Without so many ranks it does not start."""
        return self.elastic.nodes_min if self.elastic else self.nodes

    @property
    def nodes_max(self) -> int:
        """It never has more ranks at a time."""
        return self.elastic.nodes_max if self.elastic else self.nodes

    def place_in_set(self, rank: int) -> tuple[PodSet, int] | None:
        """The pod set of a rank and its number in it, from 0; None where there are no sets."""
        first = 0
        for one in self.sets:
            if rank < first + one.nodes:
                return one, rank - first
            first += one.nodes
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A workload as it stands. `key` is its stable integer, `id` its name to the outside; times in UTC microseconds."""

    key: int
    id: str
    tenant: str
    project: str
    queue: str
    submitted_by: str
    priority: int
    spec: WorkloadSpec
    phase: Phase
    reason: Reason
    attempt: int
    infrastructure_failures: int
    user_failures: int
    stop_requested: bool
    held: bool = False
    """It waits until somebody releases it, whatever is free."""
    preemptible: bool = True
    """More urgent work may take its place."""
    token: str = ""
    """Id of the token with which it was submitted, though that be revoked since; empty: without one."""
    submitted_at: int
    not_before: int
    started_at: int
    """First pod of the first attempt ran; 0 while it never did."""
    finished_at: int
    output: str
    """Digest of the tree of output files of the attempt that succeeded; empty until then."""
    version: int


def submitter_of(*, tenant: str, project: str, submitted_by: str, kind: Kind) -> str:
    """Whoever takes turns with others of one queue: the finest that is on record of who submitted a workload.

    Of pods that others made in a cluster that is their project, since all of them are submitted by their cluster.
    """
    return "/".join((tenant, submitted_by, *([project] if kind is Kind.POD else [])))
