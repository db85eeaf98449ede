"""What a decision wants changed: actions, each with the guards that must still hold when it is committed.

Law 1: an action states what it read. `Store.commit` applies an action only if every guard of it still holds, in
one transaction with its events and its audit row, and answers for each action whether it was applied or why not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mainstay.domain.access import MemberKind, NewToken, Permission
from mainstay.domain.affinity import Restriction
from mainstay.domain.allocation import PodState
from mainstay.domain.billing import Charge, Price, UsageRecord
from mainstay.domain.capacity import NodeState
from mainstay.domain.flavor import NodeFlavor
from mainstay.domain.fleet import Contact, NewCluster
from mainstay.domain.history import HistoryPolicy
from mainstay.domain.identity import Identity
from mainstay.domain.preemption import Slot, Victim
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import LocalQueue, PriorityClass, QueueSpec
from mainstay.domain.reason import Reason
from mainstay.domain.volume import VolumeRef, VolumeState
from mainstay.domain.workload import Phase, WorkloadSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class RowVersion:
    """The row must still be at the version that was read."""

    kind: Literal["workload", "allocation", "node", "endpoint", "queue"]
    key: int | str
    version: int
    tenant: str = ""
    """Of an endpoint, whose key is its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityLeft:
    """The node must be ready (or admit the restriction, if there is one) and have at least so much free."""

    node_key: int
    resources: Resources
    """Of all `pods` together."""
    restriction: Restriction = ""
    pods: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OfCluster:
    """The allocation, or the workload of guests, must be of this cluster: its agent speaks for no other."""

    kind: Literal["allocation", "workload"]
    key: int
    cluster: str


Guard: TypeAlias = RowVersion | CapacityLeft | OfCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The tenure of a leader: `name` of the lease and its number. Checked in the transaction of every decision."""

    name: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWorkload:
    """A workload to be stored. `id` is minted by the caller; a taken id is a conflict."""

    id: str
    tenant: str
    project: str
    queue: str
    submitted_by: str
    priority: int
    spec: WorkloadSpec
    preemptible: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One change of what is wanted or known."""

    guards: tuple[Guard, ...] = ()
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit(Action):
    """Store a new workload in phase PENDING."""

    workload: NewWorkload
    open_max: int = 0
    """With it the tenant has at most so many that are not final, or it is refused; 0: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStop(Action):
    """Mark a workload as no longer wanted. Does nothing if it is final."""

    workload_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldWorkload(Action):
    """Let a workload wait, whatever is free, until it is released. Refused for one that does not wait."""

    workload_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseWorkload(Action):
    """Let a workload that was held have its turn. Does nothing for one that was not."""

    workload_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reprioritize(Action):
    """Give a workload another priority; it keeps its age. Refused for one that is final."""

    workload_key: int
    priority: int
    preemptible: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetQueue(Action):
    """Put a queue or cohort on record, or say anew all that it is. Refused where the tree would not be one."""

    queue: QueueSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveQueue(Action):
    """Forget a queue or cohort. Refused while open workloads are in it or others are below it."""

    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetNodeFlavor(Action):
    """Put a flavor of nodes on record, or say anew which nodes are of it. What runs on them counts as they are from then on."""

    flavor: NodeFlavor
    before: str = ""
    """The flavor that it is to come just before; empty: it stays where it is, and a new one comes last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNodeFlavor(Action):
    """Forget a flavor of nodes. Refused while a queue or cohort has a quota of it."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLocalQueue(Action):
    """Say for which queue a name of a namespace stands, from the next pods on. Refused where that is no queue."""

    local: LocalQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveLocalQueue(Action):
    """Forget what a name stands for. What waits keeps its queue."""

    cluster: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetQueueHistory(Action):
    """Say anew whether what queues used lately counts, and how.

    What is on record fades on by the new half-life; off forgets it.
    """

    policy: HistoryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPriorityClass(Action):
    """Give a priority a name. Workloads keep the number that they were submitted with."""

    priority_class: PriorityClass


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePriorityClass(Action):
    """Forget a name. Refused if it is not there."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocate(Action):
    """Give a workload its slots, all or none, and move it to STARTING. Key of a slot: (workload, attempt, rank)."""

    workload_key: int
    attempt: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempt(Action):
    """Stop all victims and keep these places for the workload until they have ended: all of it or nothing.

    What is stopped goes back to its queue with its age. The reason is what the workload waits for.
    """

    workload_key: int
    attempt: int
    slots: tuple[Slot, ...]
    until: int
    """UTC microseconds: for so long at most."""
    victims: tuple[Victim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropNomination(Action):
    """Keep nothing for this workload any more: it waits like all others. Does nothing where nothing is kept."""

    workload_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance(Action):
    """Move a workload to `phase`. To PENDING: a new attempt with the given number, not before the given time."""

    workload_key: int
    phase: Phase
    attempt: int
    not_before: int = 0
    infrastructure_failures: int
    user_failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopPod(Action):
    """The pod of this allocation is no longer wanted."""

    allocation_key: int
    moves: bool = False
    """Its workload is to go on elsewhere: this end is no failure of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrink(Action):
    """Let the attempt of an elastic workload go on without these ranks: those that live are stopped, and their end is no failure.

    Refused where rank 0 is among them or fewer than its min count would be left.
    """

    workload_key: int
    attempt: int
    allocation_keys: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grow(Action):
    """Give the attempt of an elastic workload that runs more ranks, numbered on from the last that it ever had.

    Refused where it would have more than its max count.
    """

    workload_key: int
    attempt: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterPod(Action):
    """Somebody is about to run a command in the pod of this allocation: only that is put on record. Refused once it has ended."""

    allocation_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandSecrets(Action):
    """The secrets of its workload are about to be handed to the pod of this allocation: only that is put on record. Refused
    once it has ended.
    """

    allocation_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSecret(Action):
    """Store a secret, or a new value of one that is there."""

    tenant: str
    name: str
    sealed: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSecret(Action):
    """Forget a secret. Refused if it is not there."""

    tenant: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddTenant(Action):
    """Put a tenant on record. Refused if it is there, or if a cluster of the fleet runs all jobs as one user."""

    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddProject(Action):
    """Put a project of a tenant on record. Refused if it is there."""

    tenant: str
    project: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOwnRole(Action):
    """Put a role of a tenant's own on record, or say anew what it may: for its members, with their next request."""

    tenant: str
    name: str
    permissions: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveOwnRole(Action):
    """Forget a role. Refused while a member has it."""

    tenant: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMember(Action):
    """Give somebody a role in a tenant or in one of its projects, in the place of the one there; a new name is a new member.

    Refused if the role or project is not there, if the member may more than `within`, before or afterwards, and if nobody
    would be left to administer the platform.
    """

    tenant: str
    name: str
    kind: MemberKind | None = None
    """None: as it is, and a person if new."""
    project: str = ""
    """Empty: in all of the tenant."""
    role: str
    identity: Identity | None = None
    """Who it is to an identity provider; None: as it is."""
    within: frozenset[Permission]
    """What whoever says so may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmitMember(Action):
    """Somebody has signed in at an identity provider: what it says of their groups is on record from now on.

    Who is on record already is that member, whatever `name` says; else `name` is a new member of the tenant, or refused if there
    is one.
    """

    tenant: str
    name: str
    identity: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class SetGroupRole(Action):
    """Give the members of a group of the identity provider a role, in the place of the one there. Refused as `SetMember`."""

    tenant: str
    group: str
    project: str = ""
    """Empty: in all of the tenant."""
    role: str
    within: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveGroupRole(Action):
    """Take it back. Refused if it is not there, or if it may more than `within`."""

    tenant: str
    group: str
    project: str = ""
    within: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveMember(Action):
    """Take somebody out of a tenant, with all tokens, or take back the role in one project. Refused as `SetMember`."""

    tenant: str
    name: str
    project: str = ""
    within: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddToken(Action):
    """Put a token on record. Refused if its member is not there, or may more than `within`."""

    token: NewToken
    within: frozenset[Permission]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeToken(Action):
    """End a token now, and what was made with it. Nothing happens to one that was revoked; refused if it is not there."""

    tenant: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendToken(Action):
    """End a token that is good for once. Refused if it has ended, of two who come with it to the second."""

    tenant: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UseToken(Action):
    """A token was used: that is put on record, and nothing else."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservePod(Action):
    """What its cluster reports of an allocation. An end frees its capacity; once ENDED, nothing changes it."""

    allocation_key: int
    state: PodState
    output: str = ""
    """Digest of the tree of its output files, already stored; empty if none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosePod(Action):
    """The cluster has forgotten the pod and its usage is recorded: the allocation leaves the columns."""

    allocation_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveNodes(Action):
    """All nodes that a cluster reports now; those it no longer reports become not ready."""

    cluster: str
    nodes: tuple[NodeState, ...]
    at: int = 0
    """Up to this instant of the cluster's own time the end of every pod that has ended is on record. It never goes
    back; 0: it does not say.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveVolumes(Action):
    """All volumes that a cluster reports now; those that it no longer reports are gone."""

    cluster: str
    volumes: tuple[VolumeState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveVolume(Action):
    """Have a cluster delete a volume, and place nothing more that names it. Refused while a workload uses it."""

    cluster: str
    volume: VolumeRef


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAction(Action):
    """Whether new pods are placed on a node. What runs there runs on, unless it is drained."""

    cluster: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CordonNode(NodeAction):
    """Place nothing new there. Nothing happens to one that is kept out already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainNode(NodeAction):
    """Place nothing new there and move away what runs."""

    wait_seconds: int = 0
    """What reaches its own `max_duration` within so long is left to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineNode(NodeAction):
    """Place nothing new there until it is released. Goes before a cordon; a drain goes on."""

    until: int = 0
    """It is over then (UTC microseconds); 0: when a person says so."""
    refused_at: int = 0
    """On the ground of pods that it refused, last of all then: only if nobody has kept it out or let it in since.

    0: by the word of a person.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class UncordonNode(NodeAction):
    """Take the word back that cordoned or drained it. What has been stopped to be moved has moved. Refused in quarantine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseNode(NodeAction):
    """End its quarantine. Refused for one that is only cordoned."""

    since: int = 0
    """Only if it is the quarantine that began then; 0: whichever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCluster(Action):
    """Put a cluster on record. A known name takes new settings and credentials if it is the same cluster by identity.

    Refused if the fleet has that cluster under another name, or this name for another cluster.
    """

    cluster: NewCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainCluster(Action):
    """Place nothing new on this cluster; what runs there runs on."""

    cluster: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeCluster(Action):
    """Let a cluster that was drained take work again."""

    cluster: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveCluster(Action):
    """Take a cluster out of the fleet. Refused while an allocation on it is not closed."""

    cluster: str
    lost: bool = False
    """Somebody answers for it that a drained cluster runs nothing any more: what is open there counts as lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserveCluster(Action):
    """Whether a cluster answers and lets us in. Written only if that, or its reason, has changed."""

    cluster: str
    seen: Contact


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifyCluster(Action):
    """The agent of a cluster has tried it: it is this one, and it lets the agent in.

    Refused if it was another one before, or if the fleet has that cluster under another name.
    """

    cluster: str
    identity: str
    server: str = ""
    one_user: bool = False
    """All of its jobs run as one user: refused where there are several tenants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordDenial(Action):
    """The actor was refused what it may not do. Nothing changes but the audit."""

    object: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordUsage(Action):
    """Write one usage record with its charges and move `metered_until` to its end. Twice is once: its key is unique."""

    usage: UsageRecord
    charges: tuple[Charge, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPrice(Action):
    """Add an entry to the price book. Past periods keep their price, and a book has one currency.

    Only the entries of a new book may lie before the `now` of their plan.
    """

    price: Price


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterModel(Action):
    """Store a new model version. `version` must be the next number, else it is refused as a conflict."""

    model: str
    version: int
    tenant: str
    project: str
    tree: str
    workload: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy(Action):
    """Make `workload` (a service) the candidate of an endpoint, new or not; an older candidate is stopped."""

    endpoint: str
    tenant: str
    project: str
    model: str
    version: int
    workload: NewWorkload


@dataclass(frozen=True, slots=True, kw_only=True)
class RedeployEndpoint(Action):
    """Make a copy of what serves an endpoint its candidate, so that it comes up elsewhere before the old one goes."""

    tenant: str
    endpoint: str
    workload: str
    """The id of the copy; a taken one is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchEndpoint(Action):
    """The candidate is healthy: it serves from now on; what served before is stopped."""

    tenant: str
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DropCandidate(Action):
    """The candidate failed: it is stopped, the endpoint stays as it is."""

    tenant: str
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveEndpoint(Action):
    """What serves the endpoint answers at another address now (it was restarted), or at none (empty)."""

    tenant: str
    endpoint: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveEndpoint(Action):
    """Take the endpoint of a tenant away and stop its workloads."""

    endpoint: str
    tenant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """The key under which a request is done at most once (R10), with the reply that a repetition gets.

    Keys are kept for a week.
    """

    tenant: str
    member: str
    route: str
    key: str
    body_hash: str
    reply: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Actions to commit in one transaction.

    `atomic`: all or none (a user's request); otherwise one by one (a decision). `epoch` is None only for requests
    of users, which need no leader. `now` in UTC microseconds stamps rows and events.
    """

    actor: str
    now: int
    actions: tuple[Action, ...]
    epoch: Epoch | None = None
    atomic: bool = False
    idempotency: Idempotency | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An action that was not applied: its index in the plan and why."""

    index: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitResult:
    """What became of a plan. `reply` is the stored reply if the idempotency key had been used before."""

    version: int
    applied: int
    refused: tuple[Refused, ...] = ()
    reply: str | None = None


EventKind: TypeAlias = Literal[
    "workload",
    "allocation",
    "node",
    "cluster",
    "endpoint",
    "model",
    "price",
    "secret",
    "queue",
    "flavor",
    "priority_class",
    "volume",
    "preemption",
    "tenant",
    "project",
    "role",
    "member",
    "group",
    "token",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the append-only log; `seq` is gapless. The phases of a workload are the fold of its events (I6)."""

    seq: int
    at: int
    actor: str
    kind: EventKind
    object: str
    """Workload id, pod name, id of a token, or the name of a node, cluster, endpoint, model, secret, queue (ALL_QUEUES for what
    is of them all), flavor, priority class, volume, tenant, project, role, group or member. Of a preemption: the id of who
    yields, or of who waits for that."""
    tenant: str
    workload: str
    """The workload it belongs to; empty if none."""
    reason: Reason
    phase_before: Phase | None = None
    phase_after: Phase | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """Who changed what: one row per mutation, in the transaction of the change."""

    seq: int
    at: int
    actor: str
    tenant: str
    action: str
    object: str
    detail: str
