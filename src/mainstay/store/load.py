"""Which rows a plan touches, and how they are read: a few statements, however many actions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import sqlalchemy as sa

from mainstay.domain.allocation import Seen
from mainstay.domain.identity import Identity
from mainstay.domain.plan import (
    Action,
    AddCluster,
    AddProject,
    AddTenant,
    AddToken,
    AddWebhook,
    AdmitMember,
    Advance,
    Allocate,
    CapacityLeft,
    ClosePod,
    CordonNode,
    Deploy,
    DrainCluster,
    DrainNode,
    DropCandidate,
    DropNomination,
    EnableWebhook,
    EnterPod,
    Grow,
    HandSecrets,
    HoldWorkload,
    IdentifyCluster,
    MoveEndpoint,
    ObserveCluster,
    ObserveNodes,
    ObservePod,
    ObserveVolumes,
    Preempt,
    QuarantineNode,
    QueueDeliveries,
    RecordAttempt,
    RecordDenial,
    RecordUsage,
    RedactAudit,
    RedeployEndpoint,
    RegisterModel,
    ReleaseNode,
    ReleaseWorkload,
    RemoveCluster,
    RemoveEndpoint,
    RemoveGroupRole,
    RemoveLocalQueue,
    RemoveMember,
    RemoveNodeFlavor,
    RemoveOwnRole,
    RemovePriorityClass,
    RemoveProject,
    RemoveQueue,
    RemoveSecret,
    RemoveTenant,
    RemoveVolume,
    RemoveWebhook,
    Reprioritize,
    RequestStop,
    Reseal,
    ResumeCluster,
    RevokeToken,
    RotateWebhook,
    SetGroupRole,
    SetLocalQueue,
    SetMember,
    SetNodeFlavor,
    SetOwnRole,
    SetPrice,
    SetPriorityClass,
    SetQueue,
    SetQueueHistory,
    SetSecret,
    Shrink,
    SpendToken,
    StopPod,
    Submit,
    SwitchEndpoint,
    UncordonNode,
    UseCredentials,
    UseToken,
)
from mainstay.domain.quantity import Resources
from mainstay.domain.queue import DEFAULT_QUEUE
from mainstay.domain.workload import Kind, Phase
from mainstay.store import belongings, caps, codec, history, queries, tables, webhooks
from mainstay.store.access import load_people
from mainstay.store.apply import AnyAction, known
from mainstay.store.rows import (
    AllocationRow,
    ClusterRow,
    EndpointRow,
    LocalQueueRow,
    NodeFlavorRow,
    NodeRow,
    PriceRow,
    PriorityClassRow,
    QueueHistoryRow,
    QueueRow,
    SecretRow,
    VolumeRow,
    WorkloadRow,
)
from mainstay.store.run_times import RunTimes, run_times_on
from mainstay.store.world import OfTenant, VolumeKey, World


def load(connection: sa.Connection, world: World, actions: Collection[Action]) -> None:
    """Read into the world every row that the actions, their guards and their consequences name."""
    needs = Needs()
    for action in actions:
        needs.guards_of(action)
        needs.of(known(action))
    _load_endpoints(connection, world, needs)
    _load_allocations(connection, world, needs)
    caps.load(connection, world, needs)
    _load_nodes(connection, world, needs)
    _load_clusters(connection, world, needs)
    _load_workloads(connection, world, needs)
    _load_run_times(connection, world, needs.run_times_of)
    for tenant, project, name in sorted(needs.run_times_on):
        found = run_times_on(connection, tenant=tenant, project=project, name=name)
        world.run_times_on[tenant, project, name] = found
    _load_model_versions(connection, world, needs)
    load_people(
        connection,
        world,
        tenants=needs.tenants,
        people_of=needs.people_of,
        tokens=needs.tokens,
        tokens_of=needs.tokens_of,
        identities=needs.identities,
    )
    _load_secrets(connection, world, needs)
    webhooks.load(connection, world, actions)
    belongings.load(connection, world, actions)
    _load_volumes(connection, world, needs)
    _load_queues(connection, world, needs)
    _load_history(connection, world, needs)
    _load_traits(connection, world, needs)
    if needs.kept:
        _load_kept(connection, world)
    if needs.prices:
        rows = cast("list[PriceRow]", queries.fetch(connection, sa.select(tables.prices)))
        world.prices = {(row["sku"], row["effective_from"]): row for row in rows}


@dataclass(slots=True)
class Needs:
    """Keys of what a plan touches."""

    workloads: set[int] = field(default_factory=set)
    workload_ids: set[str] = field(default_factory=set)
    open_work_of: set[str] = field(default_factory=set)
    """Tenants of which the open workloads are counted."""
    run_times_of: set[int] = field(default_factory=set)
    """Workloads of which it matters how long such runs take."""
    run_times_on: set[tuple[str, str, str]] = field(default_factory=set)
    """(tenant, project, name) of jobs of which it matters on what."""
    pods_of: set[int] = field(default_factory=set)
    allocations: set[int] = field(default_factory=set)
    conclusions: set[int] = field(default_factory=set)
    """Allocations whose workload and node are touched as well."""
    nodes: set[int] = field(default_factory=set)
    node_names: set[tuple[str, str]] = field(default_factory=set)
    """(cluster, node)"""
    nodes_of: set[str] = field(default_factory=set)
    """Clusters of which every node is touched."""
    open_pods_of: set[str] = field(default_factory=set)
    """Clusters whose allocations that are not closed are counted."""
    clusters: bool = False
    kept: bool = False
    """Whether it matters what is kept for whom."""
    endpoints: set[OfTenant] = field(default_factory=set)
    copied: set[OfTenant] = field(default_factory=set)
    """Endpoints of which what serves is copied: its specification is read too."""
    specifications: set[int] = field(default_factory=set)
    models: set[tuple[str, str]] = field(default_factory=set)
    prices: bool = False
    secrets: set[tuple[str, str]] = field(default_factory=set)
    tenants: bool = False
    people_of: set[str] = field(default_factory=set)
    """Tenants of which projects, roles and members are read, and who administers the platform."""
    tokens: set[str] = field(default_factory=set)
    tokens_of: set[OfTenant] = field(default_factory=set)
    """Members of which every token is read."""
    caps_of: set[str] = field(default_factory=set)
    """Tokens with caps with which something is submitted."""
    cap_uses_of: set[int] = field(default_factory=set)
    """Workloads that end."""
    costs: set[int] = field(default_factory=set)
    """Allocations whose usage is recorded, or that are closed."""
    identities: list[Identity] = field(default_factory=list)
    """Whoever is known by one of these, of whatever tenant."""
    volumes_of: set[str] = field(default_factory=set)
    """Clusters of which every volume is touched."""
    volumes: set[VolumeKey] = field(default_factory=set)
    """Those of which is asked who uses them."""
    queues: set[str] = field(default_factory=set)
    tree: bool = False
    """All queues, without what is in any."""
    """Queues of which the open workloads are counted. If there are any, the whole tree is read."""
    node_flavors: bool = False
    """All flavors of nodes, and the whole tree of queues."""
    local_queues_of: set[str] = field(default_factory=set)
    """Namespaces of which every local queue is known then."""
    history: bool = False
    """Whether what all queues used lately is changed."""
    ends: set[int] = field(default_factory=set)
    """Allocations that end, which adds to what their queues used lately."""
    priority_classes: bool = False

    def guards_of(self, action: Action) -> None:
        """What the guards compare."""
        for guard in action.guards:
            if isinstance(guard, CapacityLeft):
                self.nodes.add(int(guard.node_key))
                self.clusters = True
            elif guard.kind == "workload":
                self.workloads.add(int(guard.key))
            elif guard.kind == "allocation":
                self.allocations.add(int(guard.key))
            elif guard.kind == "node":
                self.nodes.add(int(guard.key))
            elif guard.kind == "queue":
                self.queues.add(str(guard.key))
            else:
                self.endpoints.add((guard.tenant, str(guard.key)))

    def of(self, action: AnyAction) -> None:  # noqa: C901, PLR0912, PLR0915 - one line per action
        """What the action reads and changes."""
        match action:
            case Submit(workload=new, open_max=most):
                self.workload_ids.add(new.id)
                self.caps_of.update([new.token] if new.at_most else [])
                if new.spec.compares_gpus and new.spec.kind is Kind.JOB:
                    self.run_times_on.add((new.tenant, new.project, new.spec.name))
                if most:
                    self.open_work_of.add(codec.storable(new.tenant))
                if "/" in new.queue:
                    self.local_queues_of.add(new.queue.partition("/")[0])
            case RequestStop(workload_key=key) | HoldWorkload(workload_key=key) | ReleaseWorkload(workload_key=key):
                self.workloads.add(int(key))
            case Reprioritize(workload_key=key):
                self.workloads.add(int(key))
            case Allocate(workload_key=key, slots=slots):
                self.run_times_of.add(int(key))
                self.workloads.add(int(key))
                self.pods_of.add(int(key))
                self.nodes.update(int(slot.node_key) for slot in slots)
                self.clusters = self.kept = True
            case Preempt(workload_key=key, victims=victims):
                self.workloads.add(int(key))
                for victim in victims:
                    self.workloads.add(int(victim.workload_key))
                    self.pods_of.add(int(victim.workload_key))
            case Grow(workload_key=key, slots=slots):
                self.workloads.add(int(key))
                self.pods_of.add(int(key))
                self.nodes.update(int(slot.node_key) for slot in slots)
                self.clusters = self.kept = True
            case Shrink(workload_key=key):
                self.workloads.add(int(key))
                self.pods_of.add(int(key))
            case DropNomination(workload_key=key):
                self.workloads.add(int(key))
            case Advance(workload_key=key, phase=phase):
                if phase is Phase.QUEUED:
                    self.run_times_of.add(int(key))
                elif phase.final:
                    self.cap_uses_of.add(int(key))
                self.workloads.add(int(key))
                self.pods_of.add(int(key))
            case StopPod(allocation_key=key) | EnterPod(allocation_key=key) | HandSecrets(allocation_key=key):
                self.allocations.add(int(key))
            case ObservePod(allocation_key=key) | ClosePod(allocation_key=key):
                self.conclusions.add(int(key))
                self.clusters = True
                if isinstance(action, ClosePod):
                    self.costs.add(int(key))
                elif action.state.seen is Seen.ENDED:
                    self.ends.add(int(key))
            case RecordUsage(usage=usage):
                self.allocations.add(int(usage.allocation_key))
                self.costs.add(int(usage.allocation_key))
            case ObserveNodes(cluster=cluster):
                self.nodes_of.add(cluster)
                self.clusters = True
            case CordonNode() | DrainNode() | QuarantineNode() | UncordonNode() | ReleaseNode():
                self.node_names.add((action.cluster, action.node))
                self.clusters = True
            case AddCluster(cluster=new):
                self.open_pods_of.add(new.name)
                self.clusters = self.tenants = True
            case RemoveCluster(cluster=cluster):
                self.nodes_of.add(cluster)
                self.open_pods_of.add(cluster)
                self.volumes_of.add(cluster)
                self.clusters = True
            case ObserveVolumes(cluster=cluster):
                self.volumes_of.add(cluster)
                self.clusters = True
            case RemoveVolume(cluster=cluster, volume=volume):
                owner = volume.owner
                self.volumes_of.add(cluster)
                self.volumes.add((cluster, owner.tenant, owner.project, volume.name))
            case DrainCluster() | ResumeCluster() | ObserveCluster() | UseCredentials():
                self.clusters = True
            case IdentifyCluster():
                self.clusters = self.tenants = True
            case RecordDenial() | RedactAudit():
                pass
            case Reseal(before=before) if before.tenant:
                self.secrets.add(before.place)
            case Reseal():
                self.clusters = True
            case SetPrice():
                self.prices = True
            case SetSecret(tenant=tenant, name=name) | RemoveSecret(tenant=tenant, name=name):
                self.secrets.add((tenant, name))
            case AddTenant():
                self.tenants = self.clusters = True
            case AddProject(tenant=tenant) | SetOwnRole(tenant=tenant) | RemoveOwnRole(tenant=tenant):
                self.people_of.add(tenant)
            case RemoveProject(tenant=tenant):
                self.people_of.add(codec.storable(tenant))
            case RemoveTenant(tenant=tenant):
                self.people_of.add(codec.storable(tenant))
                self.tenants = True
            case SetMember(tenant=tenant, identity=identity):
                self.people_of.add(tenant)
                self.identities.extend([identity] if identity else [])
            case AdmitMember(tenant=tenant, identity=identity):
                self.people_of.add(tenant)
                self.identities.append(identity)
            case SetGroupRole(tenant=tenant) | RemoveGroupRole(tenant=tenant):
                self.people_of.add(tenant)
            case RemoveMember(tenant=tenant, name=name):
                self.people_of.add(tenant)
                self.tokens_of.add((tenant, name))
            case AddToken(token=token):
                self.people_of.add(token.tenant)
                self.tokens.add(token.id)
                self.tokens_of.add((token.tenant, token.member))
            case RevokeToken(id=id_) | SpendToken(id=id_) | UseToken(id=id_):
                self.tokens.add(id_)
            case (
                AddWebhook() | RemoveWebhook() | RotateWebhook() | EnableWebhook() | QueueDeliveries() | RecordAttempt()
            ):
                pass  # webhooks.py
            case SetQueue(queue=queue):
                self.queues.add(queue.name)
            case RemoveQueue(queue=name):
                self.queues.add(name)
            case SetNodeFlavor() | RemoveNodeFlavor():
                self.node_flavors = True
            case SetLocalQueue(local=local):
                self.tree = True
                self.local_queues_of.add(local.namespace)
            case RemoveLocalQueue(namespace=namespace):
                self.local_queues_of.add(namespace)
            case SetQueueHistory():
                self.history = True
            case SetPriorityClass() | RemovePriorityClass():
                self.priority_classes = True
            case RegisterModel(tenant=tenant, model=model):
                self.models.add((tenant, model))
            case Deploy(tenant=tenant, endpoint=name, workload=new):
                self.endpoints.add((tenant, name))
                self.workload_ids.add(new.id)
                self.caps_of.update([new.token] if new.at_most else [])
            case RedeployEndpoint(tenant=tenant, endpoint=name, workload=copy):
                self.endpoints.add((tenant, name))
                self.copied.add((tenant, name))
                self.workload_ids.add(copy)
            case SwitchEndpoint() | DropCandidate() | MoveEndpoint() | RemoveEndpoint():
                self.endpoints.add((action.tenant, action.endpoint))


_ENDPOINTS = sa.select(tables.endpoints)
_ALLOCATIONS = sa.select(tables.allocations)
_OPEN_ALLOCATIONS = _ALLOCATIONS.where(tables.allocations.c.closed == 0)
_NODES = sa.select(tables.nodes).order_by(tables.nodes.c.key)
_CLUSTERS = sa.select(tables.clusters)
_WORKLOADS = sa.select(*(column for column in tables.workloads.c if column.name != "spec"))
_IDS = sa.select(tables.workloads.c.id)


def _load_endpoints(connection: sa.Connection, world: World, needs: Needs) -> None:
    table = tables.endpoints
    for row in _where_in(connection, _ENDPOINTS, sa.tuple_(table.c.tenant, table.c.name), needs.endpoints):
        endpoint = cast("EndpointRow", row)
        key = endpoint["tenant"], endpoint["name"]
        world.endpoints[key] = endpoint
        involved = {endpoint["serving_key"], endpoint["candidate_key"]} - {0}
        needs.workloads |= involved
        if key in needs.copied:
            needs.specifications |= {endpoint["serving_key"]} - {0}
        needs.pods_of |= involved


def _load_allocations(connection: sa.Connection, world: World, needs: Needs) -> None:
    table = tables.allocations
    keys = needs.allocations | needs.conclusions
    world.know_allocations(cast("Iterator[AllocationRow]", _where_in(connection, _ALLOCATIONS, table.c.key, keys)))
    world.know_allocations(
        cast("Iterator[AllocationRow]", _where_in(connection, _OPEN_ALLOCATIONS, table.c.workload_key, needs.pods_of))
    )
    for key in needs.conclusions & world.allocations.keys():
        needs.workloads.add(world.allocations[key]["workload_key"])
        needs.nodes.add(world.allocations[key]["node_key"])


def _load_nodes(connection: sa.Connection, world: World, needs: Needs) -> None:
    table = tables.nodes
    world.know_nodes(cast("Iterator[NodeRow]", _where_in(connection, _NODES, table.c.cluster, needs.nodes_of)))
    rest = needs.nodes - world.nodes.keys()
    world.know_nodes(cast("Iterator[NodeRow]", _where_in(connection, _NODES, table.c.key, rest)))
    for cluster, name in sorted(needs.node_names):
        query = _NODES.where(table.c.cluster == codec.storable(cluster), table.c.name == codec.storable(name))
        found = cast("list[NodeRow]", queries.fetch(connection, query))
        world.know_nodes(row for row in found if row["key"] not in world.nodes)


def _load_traits(connection: sa.Connection, world: World, needs: Needs) -> None:
    """Of the nodes that are given away, if anybody needs certain ones; of those that are reported only which are known."""
    if needs.nodes_of:
        world.known_traits = {"", *connection.scalars(sa.select(tables.node_traits.c.digest))}
    if any(row["restriction"].startswith(codec.NEED) for row in world.workloads.values()):
        digests = {world.nodes[key]["traits"] for key in needs.nodes & world.nodes.keys()}
        world.traits = queries.node_traits(connection, digests)


def _load_clusters(connection: sa.Connection, world: World, needs: Needs) -> None:
    """All of them, since each is compared with all others; they are few."""
    if needs.clusters:
        rows = cast("list[ClusterRow]", queries.fetch(connection, _CLUSTERS))
        world.clusters = {row["name"]: row for row in rows}
    table = tables.allocations
    for name in sorted(needs.open_pods_of):
        query = sa.select(sa.func.count()).where(table.c.closed == 0, table.c.cluster == name)
        world.open_pods_of[name] = connection.execute(query).scalar() or 0


def _load_workloads(connection: sa.Connection, world: World, needs: Needs) -> None:
    table = tables.workloads
    for row in _where_in(connection, _WORKLOADS, table.c.key, needs.workloads):
        workload = cast("WorkloadRow", row)
        world.workloads[workload["key"]] = workload
        if not Phase(workload["phase"]).final:
            world.was_open.add(workload["key"])
    for row in _where_in(connection, _IDS, table.c.id, needs.workload_ids):
        world.taken_ids.add(row["id"])
    table = tables.open_work
    world.open_work = dict.fromkeys(needs.open_work_of, 0)
    for row in _where_in(connection, sa.select(table), table.c.tenant, needs.open_work_of):
        world.open_work[row["tenant"]] = row["workloads"]
    world.specifications = dict(queries.specifications(connection, needs.specifications))


def _load_run_times(connection: sa.Connection, world: World, keys: Iterable[int]) -> None:
    rows = (world.workloads[key] for key in keys if key in world.workloads)
    world.run_times = RunTimes.of(connection, rows)


def _load_kept(connection: sa.Connection, world: World) -> None:
    """Of all workloads, since anybody may be placed where it is; they are few."""
    table = tables.workloads
    query = sa.select(table.c.key, table.c.nominated, table.c.nominated_until).where(sa.text("nominated <> ''"))
    for key, nominated, until in connection.execute(query.order_by(table.c.key)):
        for slot in codec.nomination_of(nominated, until).slots:
            world.kept.setdefault(slot.node_key, []).append((key, slot.resources))
    pods = tables.allocations
    columns = (pods.c.node_key, pods.c.cpu_milli, pods.c.memory_bytes, pods.c.gpus, pods.c.gpu_model)
    yielding = (
        sa.select(pods.c.yields_to, pods.c.key, *columns)
        .where(sa.text("preempted > 0 AND closed = 0"), pods.c.seen != int(Seen.ENDED))
        .order_by(pods.c.key)
    )
    for yields_to, key, node_key, cpu_milli, memory_bytes, gpus, gpu_model in (
        connection.execute(yielding) if world.kept else ()
    ):
        held = Resources(cpu_milli=cpu_milli, memory_bytes=memory_bytes, gpus=gpus, gpu_model=gpu_model)
        world.yielding.setdefault((node_key, yields_to), []).append((key, held))


def _load_model_versions(connection: sa.Connection, world: World, needs: Needs) -> None:
    table = tables.models
    for tenant, model in sorted(needs.models):
        query = sa.select(sa.func.max(table.c.number)).where(table.c.tenant == tenant, table.c.model == model)
        world.last_model_version[tenant, model] = connection.execute(query).scalar() or 0


def _load_secrets(connection: sa.Connection, world: World, needs: Needs) -> None:
    table = tables.secrets
    for tenant, name in sorted(needs.secrets):
        query = sa.select(table).where(table.c.tenant == tenant, table.c.name == name)
        for row in queries.fetch(connection, query):
            world.secrets[tenant, name] = cast("SecretRow", row)


def _load_volumes(connection: sa.Connection, world: World, needs: Needs) -> None:
    table = tables.volumes
    for cluster in sorted(needs.volumes_of):
        for row in queries.fetch(connection, sa.select(table).where(table.c.cluster == codec.storable(cluster))):
            key = (row["cluster"], row["tenant"], row["project"], row["name"])
            world.volumes[key] = cast("VolumeRow", row)
    for cluster, tenant, project, name in sorted(needs.volumes):
        users = queries.volume_users(connection, tenant=tenant)
        world.volume_users[cluster, tenant, project, name] = queries.users_of(
            users, cluster=cluster, project=project, name=name
        )


def _load_queues(connection: sa.Connection, world: World, needs: Needs) -> None:
    """All of them, since they are one tree."""
    if needs.queues or needs.node_flavors or needs.tree:
        rows = cast(
            "list[QueueRow]", queries.fetch(connection, sa.select(tables.queues).order_by(tables.queues.c.name))
        )
        world.queues = {row["name"]: row for row in rows}
    table = tables.workloads
    for name in sorted(needs.queues):
        open_ = sa.select(sa.func.count()).where(table.c.queue == codec.storable(name), sa.text("phase < 10"))
        world.open_workloads_of[name] = connection.execute(open_).scalar() or 0
    local = tables.local_queues
    for row in _where_in(connection, sa.select(local), local.c.queue, needs.queues):
        named = cast("LocalQueueRow", row)
        world.local_queues[named["cluster"], named["namespace"], named["name"]] = named
    for row in _where_in(connection, sa.select(local), local.c.namespace, needs.local_queues_of):
        known = cast("LocalQueueRow", row)
        world.local_queues[known["cluster"], known["namespace"], known["name"]] = known
    if needs.node_flavors:
        flavors = sa.select(tables.node_flavors).order_by(tables.node_flavors.c.place)
        found = cast("list[NodeFlavorRow]", queries.fetch(connection, flavors))
        world.node_flavors = {row["name"]: row for row in found}
    if needs.priority_classes:
        classes = cast("list[PriorityClassRow]", queries.fetch(connection, sa.select(tables.priority_classes)))
        world.priority_classes = {row["name"]: row for row in classes}


def _load_history(connection: sa.Connection, world: World, needs: Needs) -> None:
    """Of the queues in which pods end; of all if the policy changes. Without a policy nothing is read, and nothing added."""
    ends = [world.allocations[key]["workload_key"] for key in needs.ends & world.allocations.keys()]
    if not ends and not needs.history:
        return
    world.history_policy = history.history_policy(connection).policy
    if not world.history_policy.on:
        return
    names = {world.workloads[key]["queue"] for key in ends if key in world.workloads}
    leaves, rows = sa.select(tables.queues.c.name).where(tables.queues.c.cohort == 0), sa.select(tables.queue_history)
    found = _where_in(connection, leaves, tables.queues.c.name, names)
    world.history_queues = frozenset(row["name"] for row in found)
    if needs.history:
        world.history = history.queue_history(connection)
        return
    named = _where_in(connection, rows, tables.queue_history.c.name, world.history_queues | {DEFAULT_QUEUE})
    world.history = {row["name"]: cast("QueueHistoryRow", row) for row in named}


def _where_in(
    connection: sa.Connection,
    query: sa.Select[Any],
    column: sa.ColumnElement[Any],
    values: Collection[queries.T],
) -> Iterator[dict[str, Any]]:
    for batch in queries.batches(values):
        yield from queries.fetch(connection, query.where(column.in_(batch)))
