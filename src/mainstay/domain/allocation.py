"""The hinge: a slice of a node given to one pod of a workload; scheduled, run, metered and billed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Self

from mainstay.domain.affinity import NodeNeed
from mainstay.domain.quantity import Resources
from mainstay.domain.secret import SecretUse
from mainstay.domain.workload import Mount, PodRef, Volume, Workload, WorkloadSpec


class Seen(IntEnum):
    """What its cluster last reported of an allocation's pod. Numbers are stored: never renumber."""

    NOTHING = 0
    PULLING = 1
    STARTING = 2
    RUNNING = 3
    UNKNOWN = 4
    ENDED = 10


class End(StrEnum):
    """How a pod ended. The first three and the last two are the user's doing, the next two ours, the rest that of the
    infrastructure.
    """

    EXITED = "exited"
    OUT_OF_MEMORY = "oom"
    START_FAILED = "start_failed"
    STOPPED = "stopped"
    DEADLINE = "deadline"
    NEVER_STARTED = "never_started"
    LOST = "lost"
    MACHINE_RESTARTED = "machine_restarted"
    OUTPUT_NOT_STORED = "output_not_stored"
    COPY_REFUSED = "copy_refused"
    """It ended well and its output is kept, but an object store did not take what it left for it."""


USER_ENDS = frozenset({End.EXITED, End.OUT_OF_MEMORY, End.START_FAILED, End.OUTPUT_NOT_STORED, End.COPY_REFUSED})
"""Ends that are the user's doing."""
ENDS = tuple(End)
"""The order that `AllocationTable.end` indexes. Its numbers are stored: append, never reorder."""


def pod_name(*, workload: str, attempt: int, rank: int) -> str:
    """The outside name of a pod: a function of our ids alone (law 2), so that creating twice is creating once."""
    return f"{workload}-{attempt}-{rank}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """One pod's slice of a node. Holds its capacity until `seen` is ENDED. Times in UTC microseconds, 0 = not yet."""

    key: int
    workload_key: int
    workload: str
    tenant: str
    project: str
    attempt: int
    rank: int
    ranks: int
    """So many its attempt had when this one was placed, itself among them."""
    node: str
    cluster: str
    resources: Resources
    stop: bool
    """The pod is no longer wanted."""
    stop_asked_at: int = 0
    """When it was told to end; 0 if it was not, or nobody knows when."""
    moves: bool = False
    """It was stopped so that its workload goes on elsewhere."""
    surplus: bool = False
    """Its attempt goes on without it, so its end is no failure."""
    seen: Seen
    ready: bool
    address: str
    """host:port where the pod serves; empty if it has no port or does not run."""
    created_at: int
    started_at: int
    ended_at: int
    metered_until: int
    witnessed_at: int = 0
    """Up to when it was witnessed to run before it went out of sight, by the time of its cluster; 0 if it never did."""
    end: End | None
    exit_code: int | None
    detail: str
    closed: bool
    """Ended, metered and forgotten by its cluster: nothing is left to do."""
    version: int

    @property
    def owner(self) -> Owner:
        """Whose its pod and its files are."""
        return Owner(tenant=self.tenant, project=self.project)

    @property
    def pod(self) -> str:
        """The name of its pod."""
        return pod_name(workload=self.workload, attempt=self.attempt, rank=self.rank)

    @property
    def state(self) -> str:
        """Its state in one word, for people: what was seen of its pod, or that it is to end and has not. Of one that is not
        reported any more nobody knows whether it stops.
        """
        told = self.stop_asked_at > 0 and self.seen not in {Seen.UNKNOWN, Seen.ENDED}
        return STOPPING if told else self.seen.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An allocation that is not closed, with the specification of its workload: the wanted side of reconcile."""

    allocation: Allocation
    spec: WorkloadSpec
    settled: bool = False
    """Its workload is final or on a later attempt: no decision reads this end any more, so the row may be closed.

    Without it the end of one rank could leave the columns before its gang has been judged.
    """
    pod: str = field(init=False, compare=False)
    """The name of its pod, made once: whoever looks for it looks at all."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pod", self.allocation.pod)

    @property
    def guest(self) -> PodRef | None:
        """The pod that others made for this rank; None where it is ours to make."""
        return self.spec.guests[self.allocation.rank] if self.spec.guests else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of one cluster, by the names of their pods."""

    all: Mapping[str, Wanted]
    ours: Mapping[str, Wanted]
    """Without those of guests."""
    guests: tuple[Wanted, ...]

    @classmethod
    def of(cls, wanted: Iterable[Wanted]) -> Self:
        """In their order."""
        rows = {row.pod: row for row in wanted}
        guests = tuple([row for row in rows.values() if row.spec.guests])
        ours = {name: row for name, row in rows.items() if not row.spec.guests} if guests else rows
        return cls(all=rows, ours=ours, guests=guests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a workload has come, by the pods of all its attempts. Times in UTC microseconds, 0 = none."""

    ran_us: int = 0
    """How long the attempts that do not run any more ran, together: without what it waited between them."""
    running_since: int = 0
    """When the attempt that runs has begun to."""
    stopping_since: int = 0
    """When the first of the pods that have not ended was told to end."""
    ranks: int = 0
    """So many its last attempt has, or had: those that ended as its attempt went on without them do not count."""
    has: Resources | None = None
    """What the first pod of that attempt was given."""


NO_PROGRESS = Progress()
STOPPING = "stopping"


def state_word(workload: Workload, progress: Progress = NO_PROGRESS) -> str:
    """Its state in one word, for people: its phase, or that it is to end, from the request until its last pod has ended."""
    told = workload.stop_requested or progress.stopping_since > 0
    return STOPPING if told and not workload.phase.final else workload.phase.word


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose a pod and its files are: what belongs to one owner is kept apart from what belongs to any other."""

    tenant: str
    project: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """All that a cluster needs to run one pod. A cluster adds the rendezvous addresses, the port and the GPUs."""

    owner: Owner
    image: str
    """A container image; empty: what the cluster runs by default."""
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    resources: Resources
    cpu_limit_milli: int
    memory_limit_bytes: int
    """Limits as in WorkloadSpec; 0: none."""
    stop_grace_seconds: int
    deadline_seconds: int
    """The pod is stopped after so long, also while the control plane is away; 0: never."""
    gang: str
    """The same for all ranks of one attempt; members find each other by it."""
    rank: int
    size: int
    """So many ranks there are when it is made."""
    port: bool
    ready_path: str
    dead_man_seconds: int = 0
    """It ends itself once nobody has renewed it for so long; 0: never."""
    secrets: tuple[SecretUse, ...] = ()
    """Which it is to be handed: only names; the values come through `ports.Secrets` when it starts."""
    volumes: tuple[Volume, ...] = ()
    devices: tuple[str, ...] = ()
    """As in WorkloadSpec."""
    elastic: bool = False
    """Ranks may join later and others leave, so it can be found by name even where it is alone."""
    need: NodeNeed | None = None
    """What its node was chosen by; a cluster that looks at that too, as a kubelet does, must be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodState:
    """What a cluster reports of one pod. Times in UTC microseconds, 0 = not yet."""

    name: str
    node: str
    seen: Seen
    started_at: int = 0
    ended_at: int = 0
    end: End | None = None
    exit_code: int | None = None
    detail: str = ""
    address: str = ""
    ready: bool = False
    forgotten: bool = False
    """Only its tombstone is left."""
    revoked: bool = False
    """Nobody renews it any more: when it is told, it ends at once; and it has not been told of a renewal since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePod:
    """Run this pod on that node. Once per name, for ever."""

    name: str
    node: str
    spec: PodSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePod:
    """End this pod with its grace; if there is none, leave a tombstone so that a late creation is refused."""

    name: str
    grace_seconds: int
    owner: Owner | None = None
    """None: of a pod that no row names, all that is known is that its cluster reported it."""
    node: str = ""
    """Where it was last seen, if it was: without the pod itself, only that node can tell that it has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetPod:
    """The end of this pod is on record: drop all but its log and its tombstone."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokePod:
    """Never renew this pod again: wherever it runs, it ends by itself before long."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BindPod:
    """Give a guest its place. At most once for each UID, for ever: the API server compares and swaps."""

    name: str
    """The name of its allocation's pod, for who reads it."""
    node: str
    pod: PodRef
    attempt: int
    """A pod that has been let go of by a later attempt is not bound by an earlier one any more."""
    holds: Resources
    restriction: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePod:
    """See to it that no binding of this attempt, or of one before it, can still reach a guest."""

    name: str
    pod: PodRef
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictPod:
    """Ask for the end of a guest, where its disruption budget allows it. If it is gone already: as `SeekPod`."""

    name: str
    node: str
    pod: PodRef
    grace_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeekPod:
    """A guest on record is not reported: look for it, and if it is gone, report its end in the next looks."""

    name: str
    node: str
    """Where it was placed; empty if it was not. That node may still have to end what vanished from the cluster."""
    pod: PodRef


@dataclass(frozen=True, slots=True, kw_only=True)
class TellPod:
    """Write on a guest why it waits, where its owner looks for that."""

    name: str
    pod: PodRef
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkNode:
    """Let other schedulers of the cluster know that a node is kept out, or is so no longer. Takes back only what we have set."""

    name: str
    """Of the node."""
    closed: bool
    words: str
    """Why, for who looks at the node in its cluster."""
    at: int
    """UTC microseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropVolume:
    """Delete a volume, with all that is in it, once nothing uses it. Twice is once."""

    name: str
    owner: Owner


PodAction = CreatePod | DeletePod | ForgetPod | RevokePod | BindPod | ReleasePod | EvictPod | SeekPod | TellPod
ClusterAction = PodAction | MarkNode | DropVolume
