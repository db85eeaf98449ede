"""The rows that one plan touches: read under the write lock, changed in memory, written at the end by the batch.

Simple meaning: each action reads its rows, checks, and writes. The shortcut: all rows of a plan are read at once and
written at once, so 500 actions cost a dozen statements. It is safe because writers are serialised by the lock on
`head`: nobody else changes a row between our read and our write, and what an action leaves in memory is exactly what
the next one of the same plan would read.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from mainstay import chain
from mainstay.domain.access import Caps
from mainstay.domain.affinity import Traits
from mainstay.domain.caps import AtMost, CapUse
from mainstay.domain.fleet import Stay
from mainstay.domain.history import NO_HISTORY
from mainstay.domain.plan import EventKind, Plan
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import DEFAULT_QUEUE
from mainstay.domain.reason import Reason
from mainstay.domain.workload import Phase
from mainstay.store import codec, codec_fleet
from mainstay.store.rows import (
    AllocationRow,
    AuditTableRow,
    CapUseRow,
    ChargeRow,
    ClusterRow,
    DeliveryRow,
    EndpointRow,
    EventRow,
    GroupRoleRow,
    HeadRow,
    HistoryPolicyRow,
    LocalQueueRow,
    MemberRow,
    ModelRow,
    NodeFlavorRow,
    NodeRow,
    NodeTraitsRow,
    PriceRow,
    PriorityClassRow,
    ProjectRow,
    QueueHistoryRow,
    QueueRow,
    RoleRow,
    SecretRow,
    SpecifiedWorkloadRow,
    TenantRow,
    TokenRow,
    UsageRow,
    VolumeRow,
    WebhookRow,
    WorkloadRow,
)
from mainstay.store.run_times import RunTimes

SALT_BYTES = 16
"""128 bits: nobody guesses a short detail from its digest."""
VolumeKey: TypeAlias = tuple[str, str, str, str]
"""(cluster, tenant, project, name)"""


OfTenant: TypeAlias = tuple[str, str]
"""Tenant, name."""
LocalQueueKey: TypeAlias = tuple[str, str, str]
"""Cluster, namespace, name."""


NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Living:
    """What of one kind lives in a tenant or project: how many there are, and the first few by name."""

    kind: str
    count: int
    names: tuple[str, ...]


class World:
    """What a plan may read and change. A row that is not here does not exist, as far as the plan is concerned."""

    def __init__(self, head: HeadRow, plan: Plan) -> None:  # noqa: PLR0915 a field for each table
        self.head = head
        self.version = head["version"] + 1
        self.now = plan.now
        self.actor = codec.storable(plan.actor)
        self.workloads: dict[int, WorkloadRow] = {}
        self.taken_ids: set[str] = set()
        self.specifications: dict[int, str] = {}
        self.allocations: dict[int, AllocationRow] = {}
        self.nodes: dict[int, NodeRow] = {}
        self.clusters: dict[str, ClusterRow] = {}
        self.open_pods_of: dict[str, int] = {}
        self.endpoints: dict[OfTenant, EndpointRow] = {}
        self.last_model_version: dict[tuple[str, str], int] = {}
        self.prices: dict[tuple[str, int], PriceRow] = {}
        self.secrets: dict[tuple[str, str], SecretRow] = {}
        self.tenants: dict[str, TenantRow] = {}
        """Known only if one is added or removed, or a cluster added; those that were removed are among them."""
        self.projects: dict[OfTenant, ProjectRow] = {}
        """Known only of tenants of which the plan changes who may what; the same of roles and members. Those that were removed
        are among them."""
        self.gone: dict[OfTenant, int] = {}
        """(tenant, project), (tenant, "") -> when it was removed; known only of those into which the plan puts something."""
        self.living: dict[OfTenant, tuple[Living, ...]] = {}
        """The same keys -> runs, endpoints and volumes that lived there before the plan; known only of those that are to be
        removed."""
        self.roles: dict[OfTenant, RoleRow] = {}
        self.members: dict[OfTenant, MemberRow] = {}
        """And those of all tenants who administer the platform."""
        self.group_roles: dict[tuple[str, str, str], GroupRoleRow] = {}
        """Tenant, group, project."""
        self.tokens: dict[str, TokenRow] = {}
        self.caps: Mapping[str, tuple[Caps, CapUse]] = {}
        """Of tokens with caps with which the plan submits something: these, and what was used of them before it."""
        self.asked: defaultdict[str, AtMost] = defaultdict(AtMost)
        """Token -> what the plan has taken of its caps so far."""
        self.cap_uses: dict[int, CapUseRow] = {}
        """By key of the run; known of those of which the plan records usage, or which may end."""
        self.webhooks: dict[tuple[str, str], WebhookRow] = {}
        self.deliveries: dict[tuple[str, str, int], DeliveryRow] = {}
        self.volumes: dict[VolumeKey, VolumeRow] = {}
        self.volume_users: dict[VolumeKey, tuple[str, ...]] = {}
        """Of the volumes that are to be removed: the ids of the workloads that use them."""
        self.queues: dict[str, QueueRow] = {}
        self.open_workloads_of: dict[str, int] = {}
        """Queue -> how many workloads that are not final name it; known only for those that the plan names."""
        self.open_work: dict[str, int] = {}
        """Tenant -> how many workloads of it are open, those that the plan adds included; known only where there is a limit."""
        self.was_open: set[int] = set()
        """Keys of the workloads that were open when they were read."""
        self.local_queues: dict[LocalQueueKey, LocalQueueRow] = {}
        """Known only of namespaces of which the plan changes or looks up any."""
        self.node_flavors: dict[str, NodeFlavorRow] = {}
        """In their order; known only if the plan changes any."""
        self.priority_classes: dict[str, PriorityClassRow] = {}
        self.history_policy = NO_HISTORY
        """Known only where a pod may end, or the policy changes; the same of what follows."""
        self.history: dict[str, QueueHistoryRow] = {}
        self.history_queues: frozenset[str] = frozenset()
        """The queues that are on record, of those in which pods end: what ends in others is of the default queue."""
        self.kept: dict[int, list[tuple[int, Resources]]] = {}
        """Key of a node -> what is kept on it, and the key of the workload for which it is; known only if the plan places any."""
        self.yielding: dict[tuple[int, int], list[tuple[int, Resources]]] = {}
        """Key of a node and of a workload for which places are kept -> key of each pod there that has not ended and was displaced
        for it, and what that holds."""
        self.run_times = RunTimes()
        """Of what is queued or given places."""
        self.run_times_on: dict[tuple[str, str, str], dict[str, list[int]]] = {}
        """The same of what is submitted with choices that are equals, by `kind_of_gpus`."""
        self.traits: dict[str, Traits] = {}
        """By digest: those of nodes that are given to somebody who needs certain ones."""
        self.known_traits: set[str] = set()
        """Digests of all that are on record; known only if nodes are reported."""
        self.changes = Changes()
        self._pods: dict[int, list[AllocationRow]] = defaultdict(list)
        self._node_keys: dict[tuple[str, str], int] = {}

    def know_allocations(self, rows: Iterable[AllocationRow]) -> None:
        """Rows as they were read."""
        for row in rows:
            if row["key"] not in self.allocations:
                self.allocations[row["key"]] = row
                self._pods[row["workload_key"]].append(row)

    def know_nodes(self, rows: Iterable[NodeRow]) -> None:
        """Rows as they were read."""
        for row in rows:
            self.nodes[row["key"]] = row
            self._node_keys[row["cluster"], row["name"]] = row["key"]

    def know_traits(self, row: NodeTraitsRow) -> None:
        """On record, or else new."""
        if row["digest"] not in self.known_traits:
            self.known_traits.add(row["digest"])
            self.changes.new_traits[row["digest"]] = row

    def open_pods(self, workload_key: int) -> list[AllocationRow]:
        """The allocations of a workload that are not closed; known only for the workloads that the plan asked for."""
        return [row for row in self._pods.get(workload_key, ()) if not row["closed"]]

    def node(self, cluster: str, name: str) -> NodeRow | None:
        """A node by its name."""
        key = self._node_keys.get((cluster, name))
        return None if key is None else self.nodes[key]

    def cluster_nodes(self, cluster: str) -> list[NodeRow]:
        """The nodes of a cluster, by key."""
        return [row for row in self.nodes.values() if row["cluster"] == cluster]

    def new_key(self) -> int:
        """The next key; it is lost if the commit is."""
        key = self.head["next_key"]
        self.head["next_key"] = key + 1
        return key

    def add_workload(self, row: SpecifiedWorkloadRow) -> None:
        """A new row."""
        self.workloads[row["key"]] = row
        if row["tenant"] in self.open_work:
            self.open_work[row["tenant"]] += 1
        self.taken_ids.add(row["id"])
        self.changes.new_workloads.append(row)

    def add_allocation(self, row: AllocationRow) -> None:
        """A new row."""
        self.know_allocations((row,))
        self.changes.new_allocations[row["key"]] = row

    def add_node(self, row: NodeRow) -> None:
        """A new row."""
        self.know_nodes((row,))
        self.changes.new_nodes[row["key"]] = row

    def add_endpoint(self, row: EndpointRow) -> None:
        """A new row."""
        key = row["tenant"], row["name"]
        self.endpoints[key] = self.changes.new_endpoints[key] = row

    def touch_workload(self, row: WorkloadRow) -> None:
        """The row was changed."""
        row["version"] = self.version
        self.changes.workloads[row["key"]] = row

    def touch_allocation(self, row: AllocationRow) -> None:
        """The row was changed."""
        row["version"] = self.version
        if row["key"] not in self.changes.new_allocations:
            self.changes.allocations[row["key"]] = row

    def touch_node(self, row: NodeRow) -> None:
        """The row was changed."""
        row["version"] = self.version
        if row["key"] not in self.changes.new_nodes:
            self.changes.nodes[row["key"]] = row

    def witness(self, cluster: str, at: int) -> None:
        """The cluster has been seen up to this instant of its own time. Nothing happens to what was seen later."""
        row = self.clusters.get(cluster)
        if row is None:
            if at > 0:
                self.add_cluster({**codec_fleet.unregistered(cluster, version=self.version), "observed_at": at})
        elif at > row["observed_at"]:
            row["observed_at"] = at
            self._change_cluster(row)

    def witnessed_at(self, cluster: str) -> int:
        """Up to which instant of its own time the cluster has been seen; 0 if it never was."""
        row = self.clusters.get(cluster)
        return row["observed_at"] if row is not None else 0

    def takes_work(self, cluster: str) -> bool:
        """Whether anything new may be placed there. A cluster that nobody has put on record is one that does."""
        row = self.clusters.get(cluster)
        return row is None or codec_fleet.takes_work(row)

    def has_left(self, cluster: str) -> bool:
        """Whether it was removed from the fleet."""
        row = self.clusters.get(cluster)
        return row is not None and row["wanted"] == Stay.REMOVED

    def add_cluster(self, row: ClusterRow) -> None:
        """A new row."""
        self.clusters[row["name"]] = self.changes.new_clusters[row["name"]] = row

    def touch_cluster(self, row: ClusterRow) -> None:
        """The row was changed."""
        row["version"] = self.version
        self._change_cluster(row)

    def _change_cluster(self, row: ClusterRow) -> None:
        if row["name"] not in self.changes.new_clusters:
            self.changes.clusters[row["name"]] = row

    def put_secret(self, key: tuple[str, str], row: SecretRow) -> None:
        """A new row, or another one in its place."""
        self.secrets[key] = self.changes.secrets[key] = row

    def drop_secret(self, key: tuple[str, str]) -> None:
        """The row goes."""
        del self.secrets[key]
        self.changes.secrets[key] = None

    def put_tenant(self, row: TenantRow) -> None:
        """A new row, or another one in its place."""
        self.tenants[row["name"]] = self.changes.tenants[row["name"]] = row

    def put_project(self, row: ProjectRow) -> None:
        """A new row, or another one in its place."""
        key = row["tenant"], row["name"]
        self.projects[key] = self.changes.projects[key] = row

    def let_go(self, tenant: str) -> None:
        """Members with their tokens, roles, secrets, webhooks, and replies that are kept for repetitions: all rows go, those
        that nobody has read among them.
        """
        self.changes.let_go.append(tenant)
        self.members = {key: row for key, row in self.members.items() if key[0] != tenant}
        self.tokens = {id_: row for id_, row in self.tokens.items() if row["tenant"] != tenant}
        self.roles = {key: row for key, row in self.roles.items() if key[0] != tenant}
        self.group_roles = {key: row for key, row in self.group_roles.items() if key[0] != tenant}
        self.secrets = {key: row for key, row in self.secrets.items() if key[0] != tenant}
        self.webhooks = {key: row for key, row in self.webhooks.items() if key[0] != tenant}
        self.deliveries = {key: row for key, row in self.deliveries.items() if key[0] != tenant}

    def put_role(self, row: RoleRow) -> None:
        """A new row, or another one in its place."""
        key = row["tenant"], row["name"]
        self.roles[key] = self.changes.roles[key] = row

    def drop_role(self, key: OfTenant) -> None:
        """The row goes."""
        del self.roles[key]
        self.changes.roles[key] = None

    def put_member(self, row: MemberRow) -> None:
        """A new row, or another one in its place."""
        key = row["tenant"], row["name"]
        self.members[key] = self.changes.members[key] = row

    def drop_member(self, key: OfTenant) -> None:
        """The row goes, and with it all tokens."""
        del self.members[key]
        self.changes.members[key] = None
        for row in [row for row in self.tokens.values() if (row["tenant"], row["member"]) == key]:
            self.drop_token(row["id"])

    def put_group_role(self, row: GroupRoleRow) -> None:
        """A new row, or another one in its place."""
        key = row["tenant"], row["group_name"], row["project"]
        self.group_roles[key] = self.changes.group_roles[key] = row

    def drop_group_role(self, key: tuple[str, str, str]) -> None:
        """The row goes."""
        del self.group_roles[key]
        self.changes.group_roles[key] = None

    def drop_token(self, token: str) -> None:
        """The row goes."""
        del self.tokens[token]
        self.changes.tokens[token] = None

    def put_token(self, row: TokenRow) -> None:
        """A new row, or another one in its place."""
        self.tokens[row["id"]] = self.changes.tokens[row["id"]] = row

    def add_cap_use(self, row: CapUseRow) -> None:
        """A new row."""
        self.cap_uses[row["workload_key"]] = row
        self.changes.new_cap_uses.append(row)

    def put_cap_use(self, row: CapUseRow) -> None:
        """Another one in its place."""
        self.cap_uses[row["workload_key"]] = self.changes.cap_uses[row["workload_key"]] = row

    def drop_cap_use(self, workload_key: int) -> None:
        """The row goes."""
        del self.cap_uses[workload_key]
        self.changes.cap_uses[workload_key] = None

    def put_webhook(self, row: WebhookRow) -> None:
        """A new row, or another one in its place."""
        key = row["tenant"], row["name"]
        self.webhooks[key] = self.changes.webhooks[key] = row

    def drop_webhook(self, key: tuple[str, str]) -> None:
        """The row goes, and its deliveries with it."""
        del self.webhooks[key]
        self.changes.webhooks[key] = None

    def add_delivery(self, row: DeliveryRow) -> None:
        """A new row."""
        self.deliveries[row["tenant"], row["webhook"], row["seq"]] = row
        self.changes.new_deliveries.append(row)

    def touch_delivery(self, row: DeliveryRow) -> None:
        """Another one in its place."""
        key = row["tenant"], row["webhook"], row["seq"]
        self.deliveries[key] = self.changes.deliveries[key] = row

    def put_volume(self, key: VolumeKey, row: VolumeRow) -> None:
        """A new row, or another one in its place."""
        self.volumes[key] = self.changes.volumes[key] = row

    def drop_volume(self, key: VolumeKey) -> None:
        """The row goes."""
        del self.volumes[key]
        self.changes.volumes[key] = None

    def put_queue(self, row: QueueRow) -> None:
        """A new row, or another one in its place."""
        self.queues[row["name"]] = self.changes.queues[row["name"]] = row

    def drop_queue(self, name: str) -> None:
        """The row goes."""
        del self.queues[name]
        self.changes.queues[name] = None

    def put_local_queue(self, row: LocalQueueRow) -> None:
        """A new row, or another one in its place."""
        key = row["cluster"], row["namespace"], row["name"]
        self.local_queues[key] = self.changes.local_queues[key] = row

    def drop_local_queue(self, key: LocalQueueKey) -> None:
        """The row goes."""
        del self.local_queues[key]
        self.changes.local_queues[key] = None

    def queue_behind(self, cluster: str, local_name: str) -> str:
        """The queue that a name of a namespace stands for, there before anywhere; the default queue where it stands for none."""
        namespace, _, name = local_name.partition("/")
        keys = (cluster, namespace, name), ("", namespace, name)
        return next((self.local_queues[key]["queue"] for key in keys if key in self.local_queues), DEFAULT_QUEUE)

    def put_node_flavor(self, row: NodeFlavorRow) -> None:
        """A new row, or another one in its place."""
        rows = {**self.node_flavors, row["name"]: row}
        self.node_flavors = dict(sorted(rows.items(), key=lambda one: one[1]["place"]))
        self.changes.node_flavors[row["name"]] = row

    def drop_node_flavor(self, name: str) -> None:
        """The row goes."""
        del self.node_flavors[name]
        self.changes.node_flavors[name] = None

    def put_history(self, row: QueueHistoryRow) -> None:
        """A new row, or another one in its place."""
        self.history[row["name"]] = self.changes.history[row["name"]] = row

    def drop_history(self, name: str) -> None:
        """The row goes, if there is one."""
        self.history.pop(name, None)
        self.changes.history[name] = None

    def put_priority_class(self, row: PriorityClassRow) -> None:
        """A new row, or another one in its place."""
        self.priority_classes[row["name"]] = self.changes.priority_classes[row["name"]] = row

    def drop_priority_class(self, name: str) -> None:
        """The row goes."""
        del self.priority_classes[name]
        self.changes.priority_classes[name] = None

    def touch_endpoint(self, row: EndpointRow) -> None:
        """The row was changed."""
        row["version"] = self.version
        row["updated_at"] = self.now
        key = row["tenant"], row["name"]
        if key not in self.changes.new_endpoints:
            self.changes.endpoints[key] = row

    def log_workload(
        self, row: WorkloadRow, reason: Reason, *, before: Phase | None = None, after: Phase | None = None
    ) -> None:
        """An event about a workload; with phases if its phase changed."""
        self._log("workload", row["id"], reason, row["tenant"], row["id"], before=before, after=after)

    def log_preemption(self, row: WorkloadRow, reason: Reason) -> None:
        """An event about who yields, or about who waits for that."""
        self._log("preemption", row["id"], reason, row["tenant"], row["id"])

    def log_allocation(self, row: AllocationRow, reason: Reason) -> None:
        """An event about the pod of an allocation."""
        self._log("allocation", pod_of(row), reason, row["tenant"], row["workload"])

    def log(self, kind: EventKind, object_: str, reason: Reason, *, tenant: str = "") -> None:
        """An event about something that belongs to no workload."""
        self._log(kind, object_, reason, tenant, "")

    def record(self, action: str, object_: str, reason: Reason, *, tenant: str) -> None:
        """An audit row, chained to the one before: the caller has the lock of `head`."""
        head, seq, object_ = self.head, self.head["audit_seq"] + 1, codec.storable(object_)
        detail, salt = codec.storable(reason.sentence), secrets.token_hex(SALT_BYTES)
        payload = chain.payload_of(salt, detail)
        head["audit_hash"] = chain.link(
            head["audit_hash"],
            seq=seq,
            at=self.now,
            actor=self.actor,
            tenant=tenant,
            action=action,
            object_=object_,
            payload=payload,
        )
        head["audit_seq"] = seq
        self.changes.audit.append(
            AuditTableRow(
                seq=seq,
                at=self.now,
                actor=self.actor,
                tenant=tenant,
                action=action,
                object=object_,
                detail=detail,
                salt=salt,
                payload=payload,
                hash=head["audit_hash"],
            )
        )

    def _log(
        self,
        kind: EventKind,
        object_: str,
        reason: Reason,
        tenant: str,
        workload: str,
        *,
        before: Phase | None = None,
        after: Phase | None = None,
    ) -> None:
        seq = self.head["event_seq"] + 1
        self.head["event_seq"] = seq
        self.changes.events.append(
            EventRow(
                seq=seq,
                at=self.now,
                actor=self.actor,
                kind=kind,
                object=codec.storable(object_),
                tenant=tenant,
                workload=workload,
                reason=codec.reason_text(reason),
                phase_before=codec.NO_PHASE if before is None else int(before),
                phase_after=codec.NO_PHASE if after is None else int(after),
            )
        )


class Changes:
    """What is to be written."""

    def __init__(self) -> None:
        self.new_workloads: list[SpecifiedWorkloadRow] = []
        self.workloads: dict[int, WorkloadRow] = {}
        self.new_allocations: dict[int, AllocationRow] = {}
        self.allocations: dict[int, AllocationRow] = {}
        self.new_nodes: dict[int, NodeRow] = {}
        self.new_traits: dict[str, NodeTraitsRow] = {}
        self.nodes: dict[int, NodeRow] = {}
        self.new_clusters: dict[str, ClusterRow] = {}
        self.clusters: dict[str, ClusterRow] = {}
        self.new_endpoints: dict[OfTenant, EndpointRow] = {}
        self.endpoints: dict[OfTenant, EndpointRow] = {}
        self.models: list[ModelRow] = []
        self.usage: list[UsageRow] = []
        self.charges: list[ChargeRow] = []
        self.prices: list[PriceRow] = []
        self.secrets: dict[tuple[str, str], SecretRow | None] = {}
        self.tenants: dict[str, TenantRow | None] = {}
        self.projects: dict[OfTenant, ProjectRow | None] = {}
        self.roles: dict[OfTenant, RoleRow | None] = {}
        self.members: dict[OfTenant, MemberRow | None] = {}
        self.group_roles: dict[tuple[str, str, str], GroupRoleRow | None] = {}
        self.tokens: dict[str, TokenRow | None] = {}
        self.new_cap_uses: list[CapUseRow] = []
        self.cap_uses: dict[int, CapUseRow | None] = {}
        self.webhooks: dict[tuple[str, str], WebhookRow | None] = {}
        self.new_deliveries: list[DeliveryRow] = []
        self.deliveries: dict[tuple[str, str, int], DeliveryRow] = {}
        self.volumes: dict[VolumeKey, VolumeRow | None] = {}
        self.queues: dict[str, QueueRow | None] = {}
        self.local_queues: dict[LocalQueueKey, LocalQueueRow | None] = {}
        self.node_flavors: dict[str, NodeFlavorRow | None] = {}
        self.history_policy: list[HistoryPolicyRow] = []
        self.history: dict[str, QueueHistoryRow | None] = {}
        self.priority_classes: dict[str, PriorityClassRow | None] = {}
        self.let_go: list[str] = []
        """Tenants of which all rows go that say who may what, of whatever table."""
        self.events: list[EventRow] = []
        self.audit: list[AuditTableRow] = []
        self.redacted: list[int] = []
        """Numbers of rows of the audit."""

    def any(self) -> bool:
        """Whether a row would be written."""
        parts: tuple[Collection[object], ...] = tuple(vars(self).values())
        return any(parts)


def pod_of(row: AllocationRow) -> str:
    """The name of the allocation's pod."""
    return f"{row['workload']}-{row['attempt']}-{row['rank']}"
