"""Row <-> domain, one function per direction and type. Text that no database can hold is made harmless here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import msgspec

from mainstay.domain.affinity import NodeNeed, Requirement, Restriction
from mainstay.domain.allocation import ENDS, Allocation, Seen
from mainstay.domain.billing import Charge, Price, UsageRecord
from mainstay.domain.errors import Invalid
from mainstay.domain.flavor import NodeFlavor, NodeFlavorRecord
from mainstay.domain.plan import AuditRow, Event, NewWorkload
from mainstay.domain.preemption import Nomination, PreemptionPolicy, Slot
from mainstay.domain.quantity import Money, Resources
from mainstay.domain.queue import LocalQueue, LocalQueueRecord, PriorityClass, QueueRecord, QueueSpec, Quota
from mainstay.domain.reason import Code, Reason
from mainstay.domain.registry import Endpoint, ModelVersion
from mainstay.domain.topology import Spread, TopologyNeed
from mainstay.domain.volume import named
from mainstay.domain.workload import Kind, Phase, PodSet, Workload, WorkloadSpec
from mainstay.store.rows import (
    AllocationRow,
    AuditTableRow,
    ChargeRow,
    EndpointRow,
    EventRow,
    LocalQueueRow,
    ModelRow,
    NodeFlavorRow,
    NodeRow,
    PriceRow,
    PriorityClassRow,
    QueueRow,
    SpecifiedWorkloadRow,
    UsageRow,
)

KINDS = tuple(Kind)
NEED = "{"
"""How a need begins, and no name of a restriction."""
NO_PHASE = -1
NO_EXIT_CODE = -1
NOT_ENDED = -1


def storable(text: str) -> str:
    """The text without what PostgreSQL (NUL) or UTF-8 (half of a surrogate pair) cannot hold."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def spec_text(spec: WorkloadSpec) -> str:
    """Raises Invalid if the specification holds text that is not Unicode."""
    try:
        return ENCODER.encode(spec).decode()
    except UnicodeEncodeError as error:
        msg = "the specification holds text that is not Unicode"
        raise Invalid(msg, object_=storable(spec.name)) from error


def spec_of(text: str) -> WorkloadSpec:
    """Inverse of `spec_text`."""
    return _SPEC.decode(text)


class SpecRequests(NamedTuple):
    """What a decision asks of a specification, as of `WorkloadSpec`."""

    choices: tuple[Resources, ...]
    sets: tuple[PodSet, ...]
    equals: int

    @property
    def columns_tell_too_little(self) -> bool:
        """Whether the columns of its row do not say all that one pod asks for; of sets they need not."""
        return len(self.choices) > 1 or not (self.sets or self.choices[0].is_plain)


def requests_of(text: str) -> SpecRequests:
    """The choices and the pod sets alone out of a specification."""
    found = _REQUESTS.decode(text)
    sets = (PodSet(name=one.name, nodes=one.nodes, resources=one.resources) for one in found.sets)
    return SpecRequests(choices=found.choices, sets=tuple(sets), equals=found.equals)


def typical_text(typical: Mapping[str, int]) -> str:
    """What runs take on kinds of GPUs, as of `WorkloadTable.typical_on`."""
    return ENCODER.encode(dict(sorted(typical.items()))).decode() if typical else ""


def typical_of(text: str) -> tuple[tuple[str, int], ...]:
    """Inverse of `typical_text`."""
    return tuple(_COUNTS.decode(text).items()) if text else ()


def reason_text(reason: Reason) -> str:
    """A reason as JSON; its figures may be hostile text and NumPy numbers."""
    row = (reason.code, reason.object, dict(reason.numbers))
    try:
        return ENCODER.encode(row).decode()
    except UnicodeEncodeError:
        numbers = {name: storable(value) if isinstance(value, str) else value for name, value in row[2].items()}
        return ENCODER.encode((reason.code, storable(reason.object), numbers)).decode()


def reason_of(text: str) -> Reason:
    """Inverse of `reason_text`."""
    code, object_, numbers = _REASON.decode(text)
    return Reason(code=code, object=object_, numbers=numbers)


def new_workload_row(new: NewWorkload, reason: Reason, *, key: int, now: int, version: int) -> SpecifiedWorkloadRow:
    """The row of a workload that has just been submitted."""
    spec, first = new.spec, new.spec.choices[0]
    return SpecifiedWorkloadRow(
        key=key,
        id=new.id,
        tenant=new.tenant,
        project=new.project,
        queue=new.queue,
        name=spec.name,
        submitted_by=storable(new.submitted_by),
        kind=KINDS.index(spec.kind),
        priority=new.priority,
        phase=int(Phase.PENDING),
        attempt=1,
        infrastructure_failures=0,
        user_failures=0,
        stop_requested=0,
        held=0,
        preemptible=int(new.preemptible),
        nominated="",
        nominated_until=0,
        displaced_by="",
        submitted_at=now,
        not_before=0,
        started_at=0,
        finished_at=0,
        output="",
        reason=reason_text(reason),
        version=version,
        nodes=spec.nodes,
        nodes_min=spec.nodes_min,
        nodes_max=spec.nodes_max,
        cpu_milli=first.cpu_milli,
        memory_bytes=first.memory_bytes,
        gpus=first.gpus,
        gpu_model=first.gpu_model,
        # With more than one, what it asks for is read out of the specification.
        choices_count=max(len(spec.choices), len(spec.sets), 1 if first.is_plain else 2),
        max_duration_seconds=spec.max_duration_seconds,
        usual_seconds=0,
        typical_seconds=0,
        spread_permille=0,
        typical_on="",
        stop_grace_seconds=spec.stop_grace_seconds,
        checkpoint_seconds=spec.checkpoint_seconds,
        infrastructure_max=spec.retry.infrastructure_max,
        user_max=spec.retry.user_max,
        backoff_seconds=spec.retry.backoff_seconds,
        backoff_seconds_max=spec.retry.backoff_seconds_max,
        retry_always=int(spec.retry.always),
        attempts_max=spec.retry.attempts_max,
        token=new.token,
        cluster=spec.cluster,
        restriction=restriction_text(spec.restricted_to),
        topology=need_text(spec.topology),
        volumes=" ".join(named(spec.volumes)),
        image=storable(spec.image),
        spec=spec_text(spec),
    )


def workload_of(row: SpecifiedWorkloadRow) -> Workload:
    """The workload of a row."""
    return Workload(
        key=row["key"],
        id=row["id"],
        tenant=row["tenant"],
        project=row["project"],
        queue=row["queue"],
        submitted_by=row["submitted_by"],
        priority=row["priority"],
        spec=spec_of(row["spec"]),
        phase=Phase(row["phase"]),
        reason=reason_of(row["reason"]),
        attempt=row["attempt"],
        infrastructure_failures=row["infrastructure_failures"],
        user_failures=row["user_failures"],
        stop_requested=bool(row["stop_requested"]),
        held=bool(row["held"]),
        preemptible=bool(row["preemptible"]),
        token=row["token"],
        submitted_at=row["submitted_at"],
        not_before=row["not_before"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        output=row["output"],
        version=row["version"],
    )


def allocation_of(row: AllocationRow) -> Allocation:
    """The allocation of a row."""
    ended = row["ending"] != NOT_ENDED
    return Allocation(
        key=row["key"],
        workload_key=row["workload_key"],
        workload=row["workload"],
        tenant=row["tenant"],
        project=row["project"],
        attempt=row["attempt"],
        rank=row["rank"],
        ranks=row["ranks"],
        node=row["node"],
        cluster=row["cluster"],
        resources=resources_of(row),
        stop=bool(row["stop"]),
        stop_asked_at=row["stop_asked_at"],
        moves=bool(row["moves"]),
        surplus=bool(row["surplus"]),
        seen=Seen(row["seen"]),
        ready=bool(row["ready"]),
        address=row["address"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        metered_until=row["metered_until"],
        witnessed_at=row["witnessed_at"],
        end=ENDS[row["ending"]] if ended else None,
        exit_code=None if row["exit_code"] == NO_EXIT_CODE else row["exit_code"],
        detail=row["detail"],
        closed=bool(row["closed"]),
        version=row["version"],
    )


def resources_of(row: AllocationRow | NodeRow | UsageRow) -> Resources:
    """What an allocation holds, a node has, or a usage record counts."""
    return Resources(
        cpu_milli=row["cpu_milli"],
        memory_bytes=row["memory_bytes"],
        gpus=row["gpus"],
        gpu_model=row["gpu_model"],
    )


def restriction_text(restriction: Restriction) -> str:
    """As a row has it: a name, or a need as JSON."""
    return restriction if isinstance(restriction, str) else ENCODER.encode(restriction).decode()


def restriction_of(text: str) -> Restriction:
    """Inverse of `restriction_text`. No name of a restriction begins with a brace."""
    return _NEED.decode(text) if text.startswith(NEED) else text


def need_text(need: TopologyNeed | None) -> str:
    """How pods are to lie to each other, as a row has it."""
    if need is None:
        return ""
    return f"{need.text}/{need.spread.level} {need.spread.at_most}" if need.spread else need.text


def need_of(text: str) -> TopologyNeed | None:
    """Inverse of `need_text`."""
    near, _, apart = text.partition("/")
    how, _, level = near.partition(" ")
    over, _, at_most = apart.partition(" ")
    spread = Spread(level=over, at_most=int(at_most)) if apart else None
    return TopologyNeed(level=level, required=how == "required", spread=spread) if text else None


def queue_row(queue: QueueSpec, *, actor: str, now: int, version: int) -> QueueRow:
    """The row of a queue or cohort as it is set now."""
    quotas = [
        (*cell, quota.nominal, quota.borrowing_limit, quota.lending_limit)
        for cell, quota in sorted(queue.quotas.items())
    ]
    return QueueRow(
        name=queue.name,
        parent=queue.parent,
        cohort=int(queue.cohort),
        weight=float(queue.weight),
        quotas=ENCODER.encode(quotas).decode(),
        preemption="" if queue.preemption == PreemptionPolicy() else ENCODER.encode(queue.preemption).decode(),
        reserved_after_seconds=queue.reserved_after_seconds,
        placement=storable(queue.placement),
        ordering=queue.order,
        default_max_duration_seconds=queue.default_max_duration_seconds,
        users=" ".join(queue.users),
        set_at=now,
        set_by=storable(actor),
        version=version,
    )


def queue_of(row: QueueRow) -> QueueRecord:
    """The queue of a row."""
    quotas = {
        (flavor, resource): Quota(nominal=nominal, borrowing_limit=borrowing, lending_limit=lending)
        for flavor, resource, nominal, borrowing, lending in _QUOTAS.decode(row["quotas"])
    }
    return QueueRecord(
        queue=QueueSpec(
            name=row["name"],
            parent=row["parent"],
            cohort=bool(row["cohort"]),
            weight=row["weight"],
            quotas=quotas,
            preemption=_POLICY.decode(row["preemption"]) if row["preemption"] else PreemptionPolicy(),
            reserved_after_seconds=row["reserved_after_seconds"],
            placement=row["placement"],
            order=row["ordering"],
            default_max_duration_seconds=row["default_max_duration_seconds"],
            users=tuple(row["users"].split()),
        ),
        set_at=row["set_at"],
        set_by=row["set_by"],
        version=row["version"],
    )


def local_queue_row(local: LocalQueue, *, actor: str, now: int) -> LocalQueueRow:
    """The row of a local queue as it is set now."""
    return LocalQueueRow(
        cluster=local.cluster,
        namespace=local.namespace,
        name=local.name,
        queue=local.queue,
        set_at=now,
        set_by=storable(actor),
    )


def local_queue_of(row: LocalQueueRow) -> LocalQueueRecord:
    """The local queue of a row."""
    local = LocalQueue(cluster=row["cluster"], namespace=row["namespace"], name=row["name"], queue=row["queue"])
    return LocalQueueRecord(local=local, set_at=row["set_at"], set_by=row["set_by"])


def node_flavor_row(flavor: NodeFlavor, *, place: int, actor: str, now: int) -> NodeFlavorRow:
    """The row of a flavor of nodes as it is set now."""
    return NodeFlavorRow(
        name=flavor.name,
        place=place,
        requirements=ENCODER.encode(flavor.requirements).decode(),
        set_at=now,
        set_by=storable(actor),
    )


def node_flavor_of(row: NodeFlavorRow) -> NodeFlavorRecord:
    """The flavor of a row."""
    flavor = NodeFlavor(name=row["name"], requirements=_REQUIREMENTS.decode(row["requirements"]))
    return NodeFlavorRecord(flavor=flavor, set_at=row["set_at"], set_by=row["set_by"])


def nomination_text(slots: Sequence[Slot]) -> str:
    """The places that are kept for a workload."""
    return ENCODER.encode(slots).decode()


def nomination_of(text: str, until: int) -> Nomination:
    """Inverse of `nomination_text`, with its end."""
    return Nomination(slots=_SLOTS.decode(text), until=until)


def keys_of(text: str) -> tuple[int, ...]:
    """Keys that are written one after the other."""
    return tuple(map(int, text.split()))


def priority_class_of(row: PriorityClassRow) -> PriorityClass:
    """The priority class of a row."""
    return PriorityClass(name=row["name"], priority=row["priority"], preemptible=bool(row["preemptible"]))


def counts_text(counts: Mapping[str, int]) -> str:
    """As JSON, in a fixed order; empty for none."""
    found = {storable(name): int(count) for name, count in sorted(counts.items()) if count}
    return ENCODER.encode(found).decode() if found else ""


def counts_of(text: str) -> dict[str, int]:
    """Inverse of `counts_text`."""
    return _COUNTS.decode(text) if text else {}


def endpoint_of(row: EndpointRow) -> Endpoint:
    """The endpoint of a row."""
    return Endpoint(
        name=row["name"],
        tenant=row["tenant"],
        project=row["project"],
        model=row["model"],
        serving_version=row["serving_version"],
        serving=row["serving"],
        serving_key=row["serving_key"],
        candidate_version=row["candidate_version"],
        candidate=row["candidate"],
        candidate_key=row["candidate_key"],
        address=row["address"],
        removed=bool(row["removed"]),
        updated_at=row["updated_at"],
        version=row["version"],
    )


def model_version_of(row: ModelRow) -> ModelVersion:
    """The model version of a row."""
    return ModelVersion(
        model=row["model"],
        version=row["number"],
        tenant=row["tenant"],
        project=row["project"],
        tree=row["tree"],
        workload=row["workload"],
        registered_at=row["registered_at"],
    )


def usage_row(usage: UsageRecord) -> UsageRow:
    """The row of a usage record."""
    return UsageRow(
        allocation_key=usage.allocation_key,
        start_at=usage.start,
        end_at=usage.end,
        tenant=usage.tenant,
        project=usage.project,
        workload=usage.workload,
        cpu_milli=usage.resources.cpu_milli,
        memory_bytes=usage.resources.memory_bytes,
        gpus=usage.resources.gpus,
        gpu_model=usage.resources.gpu_model,
    )


def usage_of(row: UsageRow) -> UsageRecord:
    """The usage record of a row."""
    return UsageRecord(
        allocation_key=row["allocation_key"],
        tenant=row["tenant"],
        project=row["project"],
        workload=row["workload"],
        resources=resources_of(row),
        start=row["start_at"],
        end=row["end_at"],
    )


def charge_row(charge: Charge, usage: UsageRecord) -> ChargeRow:
    """The row of a charge of this usage; price and cost are in one currency."""
    return ChargeRow(
        allocation_key=usage.allocation_key,
        usage_start_at=usage.start,
        sku=charge.sku,
        start_at=charge.start,
        end_at=charge.end,
        quantity=charge.quantity,
        unit_price_micros=charge.unit_price.micros,
        cost_micros=charge.cost.micros,
        currency=charge.cost.currency,
    )


def charge_of(row: ChargeRow) -> Charge:
    """The charge of a row."""
    return Charge(
        allocation_key=row["allocation_key"],
        start=row["start_at"],
        end=row["end_at"],
        sku=row["sku"],
        quantity=row["quantity"],
        unit_price=Money(micros=row["unit_price_micros"], currency=row["currency"]),
        cost=Money(micros=row["cost_micros"], currency=row["currency"]),
    )


def price_row(price: Price) -> PriceRow:
    """The row of a price."""
    return PriceRow(
        sku=price.sku,
        effective_from=price.effective_from,
        per_hour_micros=price.per_hour.micros,
        currency=price.per_hour.currency,
    )


def price_of(row: PriceRow) -> Price:
    """The price of a row."""
    return Price(
        sku=row["sku"],
        per_hour=Money(micros=row["per_hour_micros"], currency=row["currency"]),
        effective_from=row["effective_from"],
    )


def event_of(row: EventRow) -> Event:
    """The event of a row."""
    return Event(
        seq=row["seq"],
        at=row["at"],
        actor=row["actor"],
        kind=row["kind"],  # type: ignore[arg-type]  # only `World.log` writes it, from the same literals
        object=row["object"],
        tenant=row["tenant"],
        workload=row["workload"],
        reason=reason_of(row["reason"]),
        phase_before=_phase_of(row["phase_before"]),
        phase_after=_phase_of(row["phase_after"]),
    )


def audit_of(row: AuditTableRow) -> AuditRow:
    """The audit row of a row."""
    return AuditRow(**row)


def _phase_of(number: int) -> Phase | None:
    return None if number == NO_PHASE else Phase(number)


class _SpecRequests(msgspec.Struct):
    choices: tuple[Resources, ...]
    sets: tuple[PodSet, ...] = ()
    equals: int = 1


def _plain(value: object) -> object:
    """What msgspec does not know: a read-only mapping, and a NumPy number in a figure of a reason."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Enum):
        return value.value
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    msg = f"not storable: {type(value).__name__}"
    raise TypeError(msg)


ENCODER = msgspec.json.Encoder(enc_hook=_plain)
_POLICY = msgspec.json.Decoder(PreemptionPolicy)
_REQUIREMENTS = msgspec.json.Decoder(tuple[Requirement, ...])
_SLOTS = msgspec.json.Decoder(tuple[Slot, ...])
_NEED = msgspec.json.Decoder(NodeNeed)
_SPEC = msgspec.json.Decoder(WorkloadSpec)
_REQUESTS = msgspec.json.Decoder(_SpecRequests)
_QUOTAS = msgspec.json.Decoder(list[tuple[str, str, int, int | None, int | None]])
_COUNTS = msgspec.json.Decoder(dict[str, int])
_REASON = msgspec.json.Decoder(tuple[Code, str, dict[str, int | float | str]])
