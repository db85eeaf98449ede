"""Rows as the database gives and takes them: the third type beside wire and domain. Names are those of `tables`."""

from __future__ import annotations

from typing import TypedDict


class HeadRow(TypedDict):
    """The one row of `head`."""

    one: int
    system: str
    version: int
    event_seq: int
    audit_seq: int
    next_key: int
    nodes_at: int
    workloads_at: int
    allocations_at: int
    endpoints_at: int
    prices_at: int
    volumes_at: int
    queues_at: int
    audit_hash: str


class WorkloadRow(TypedDict):
    """A row of `workloads` without its specification, which never changes and may be long."""

    key: int
    id: str
    tenant: str
    project: str
    queue: str
    name: str
    submitted_by: str
    kind: int
    priority: int
    phase: int
    attempt: int
    infrastructure_failures: int
    user_failures: int
    stop_requested: int
    held: int
    preemptible: int
    nominated: str
    nominated_until: int
    displaced_by: str
    submitted_at: int
    not_before: int
    started_at: int
    finished_at: int
    output: str
    reason: str
    version: int
    nodes: int
    nodes_min: int
    nodes_max: int
    cpu_milli: int
    memory_bytes: int
    gpus: int
    gpu_model: str
    choices_count: int
    max_duration_seconds: int
    usual_seconds: int
    typical_seconds: int
    spread_permille: int
    typical_on: str
    stop_grace_seconds: int
    checkpoint_seconds: int
    infrastructure_max: int
    user_max: int
    backoff_seconds: int
    backoff_seconds_max: int
    retry_always: int
    attempts_max: int
    token: str
    cluster: str
    restriction: str
    topology: str
    volumes: str
    image: str


class SpecifiedWorkloadRow(WorkloadRow):
    """A whole row of `workloads`."""

    spec: str


class AllocationRow(TypedDict):
    """A row of `allocations`."""

    key: int
    workload_key: int
    workload: str
    tenant: str
    project: str
    attempt: int
    rank: int
    ranks: int
    node_key: int
    node: str
    cluster: str
    cpu_milli: int
    memory_bytes: int
    gpus: int
    gpu_model: str
    stop: int
    stop_asked_at: int
    moves: int
    preempted: int
    yields_to: int
    surplus: int
    seen: int
    ready: int
    address: str
    created_at: int
    started_at: int
    ended_at: int
    metered_until: int
    witnessed_at: int
    ending: int
    exit_code: int
    detail: str
    closed: int
    version: int


class QueueRow(TypedDict):
    """A row of `queues`."""

    name: str
    parent: str
    cohort: int
    weight: float
    quotas: str
    preemption: str
    reserved_after_seconds: int
    placement: str
    ordering: str
    default_max_duration_seconds: int
    users: str
    set_at: int
    set_by: str
    version: int


class LocalQueueRow(TypedDict):
    """A row of `local_queues`."""

    cluster: str
    namespace: str
    name: str
    queue: str
    set_at: int
    set_by: str


class NodeFlavorRow(TypedDict):
    """A row of `node_flavors`."""

    name: str
    place: int
    requirements: str
    set_at: int
    set_by: str


class HistoryPolicyRow(TypedDict):
    """The row of `history_policy`, if there is one."""

    one: int
    half_life_seconds: int
    weight: float
    entry_seconds: int
    set_at: int
    set_by: str


class QueueHistoryRow(TypedDict):
    """A row of `queue_history`."""

    name: str
    cpu_milli: float
    memory_bytes: float
    gpus: float
    at: int


class PriorityClassRow(TypedDict):
    """A row of `priority_classes`."""

    name: str
    priority: int
    preemptible: int
    set_at: int
    set_by: str


class NodeTraitsRow(TypedDict):
    """Of `node_traits`."""

    digest: str
    labels: str
    taints: str
    spot: int


class NodeRow(TypedDict):
    """A row of `nodes`."""

    key: int
    cluster: str
    name: str
    ready: int
    cpu_milli: int
    memory_bytes: int
    gpus: int
    gpu_model: str
    used_cpu_milli: int
    used_memory_bytes: int
    used_gpus: int
    admits: str
    traits: str
    images: str
    barred: int
    topology: str
    problem: str
    complaints: str
    cordoned: int
    strangers: str
    shapes: str
    used_shapes: str
    pods_max: int
    used_pods: int
    unhealthy: str
    whole_cpu_milli: int
    whole_memory_bytes: int
    whole_gpus: int
    whole_shapes: str
    closure: str
    closure_reason: str
    closed_at: int
    closed_until: int
    drains: int
    wait_seconds: int
    version: int


class ClusterRow(TypedDict):
    """A row of `clusters`."""

    name: str
    observed_at: int
    kind: str
    settings: str
    sealed: str
    identity: str
    wanted: str
    wanted_reason: str
    seen: str
    seen_reason: str
    added_at: int
    added_by: str
    version: int


class EndpointRow(TypedDict):
    """A row of `endpoints`."""

    name: str
    tenant: str
    project: str
    model: str
    serving_version: int
    serving: str
    serving_key: int
    candidate_version: int
    candidate: str
    candidate_key: int
    address: str
    removed: int
    updated_at: int
    version: int


class ModelRow(TypedDict):
    """A row of `models`."""

    tenant: str
    model: str
    number: int
    project: str
    tree: str
    workload: str
    registered_at: int


class UsageRow(TypedDict):
    """A row of `usage`."""

    allocation_key: int
    start_at: int
    end_at: int
    tenant: str
    project: str
    workload: str
    cpu_milli: int
    memory_bytes: int
    gpus: int
    gpu_model: str


class VolumeRow(TypedDict):
    """A row of `volumes`."""

    cluster: str
    tenant: str
    project: str
    name: str
    size_bytes: int
    access: str
    storage_class: str
    bound: int
    leaving: int
    reach: str
    place: str
    removed: int


class TenantRow(TypedDict):
    """A row of `tenants`."""

    name: str
    created_at: int
    created_by: str
    removed_at: int


class ProjectRow(TypedDict):
    """A row of `projects`."""

    tenant: str
    name: str
    created_at: int
    created_by: str
    removed_at: int


class RoleRow(TypedDict):
    """A row of `roles`."""

    tenant: str
    name: str
    permissions: str
    set_at: int
    set_by: str


class MemberRow(TypedDict):
    """A row of `members`."""

    tenant: str
    name: str
    kind: str
    role: str
    grants: str
    issuer: str
    subject: str
    groups: str
    added_at: int
    added_by: str


class GroupRoleRow(TypedDict):
    """A row of `group_roles`."""

    tenant: str
    group_name: str
    project: str
    role: str
    set_at: int
    set_by: str


class TokenRow(TypedDict):
    """A row of `tokens`."""

    id: str
    tenant: str
    member: str
    name: str
    kind: str
    parent: str
    root: str
    issuer: str
    provider_session: str
    digest: str
    caps: str
    spent_micros: int
    created_at: int
    created_by: str
    expires_at: int
    revoked_at: int
    used_at: int


class CapUseRow(TypedDict):
    """A row of `cap_uses`."""

    workload_key: int
    token: str
    gpus: int
    cost_micros: int


class SecretRow(TypedDict):
    """A row of `secrets`."""

    tenant: str
    name: str
    sealed: str
    set_at: int
    set_by: str


class WebhookRow(TypedDict):
    """A row of `webhooks`."""

    tenant: str
    name: str
    project: str
    url: str
    types: str
    sealed: str
    sealed_before: str
    before_until: int
    cursor: int
    disabled: str
    failing_since: int
    failures: int
    made_at: int
    made_by: str


class DeliveryRow(TypedDict):
    """A row of `deliveries`."""

    tenant: str
    webhook: str
    seq: int
    type: str
    made_at: int
    attempts: int
    next_at: int
    outcome: str
    status: int
    detail: str
    attempted_at: int


class ChargeRow(TypedDict):
    """A row of `charges`."""

    allocation_key: int
    usage_start_at: int
    sku: str
    start_at: int
    end_at: int
    quantity: int
    unit_price_micros: int
    cost_micros: int
    currency: str


class PriceRow(TypedDict):
    """A row of `prices`."""

    sku: str
    effective_from: int
    per_hour_micros: int
    currency: str


class EventRow(TypedDict):
    """A row of `events`."""

    seq: int
    at: int
    actor: str
    kind: str
    object: str
    tenant: str
    workload: str
    reason: str
    phase_before: int
    phase_after: int


class AuditTableRow(TypedDict):
    """A row of `audit`."""

    seq: int
    at: int
    actor: str
    tenant: str
    action: str
    object: str
    detail: str
    salt: str
    payload: str
    hash: str


class IdempotencyRow(TypedDict):
    """A row of `idempotency`."""

    tenant: str
    member: str
    route: str
    key: str
    body_hash: str
    reply: str
    at: int
