"""Queues, quotas, flavors of nodes and priority classes, in and out."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from functools import partial

from mainstay.api.convert import instant
from mainstay.api.convert_jobs import parsed, requirements
from mainstay.decide.placement import DEFAULT_POLICY
from mainstay.decide.standing import CellUse
from mainstay.domain.errors import Invalid
from mainstay.domain.history import HistoryPolicy, HistoryRecord
from mainstay.domain.preemption import Borrow, FairShare, PreemptionPolicy, Reclaim, WithinQueue
from mainstay.domain.quantity import is_shape
from mainstay.domain.queue import OTHER_FLAVOR, Cell, LocalQueueRecord, PriorityClass, Quota, Resource
from mainstay.operations.flavors import FlavorChange, FlavorState
from mainstay.operations.queues import QueueChange, QueueState
from mainstay.wire import quantities, requests, views


def queue_change(
    name: str, body: requests.QueueRequest, *, flavors: Collection[str], models: Collection[str]
) -> QueueChange:
    """What is to change of a queue. `flavors` of nodes are called as they are; what is none of them is a model of GPUs, one of
    `models` or one that no node has had yet.

    Raises Invalid for an amount that cannot be read, for a flavor that is none, and for a quota that is there twice.
    """
    quotas: dict[Cell, Quota] | None = None
    for number, one in enumerate(body.quotas or ()):
        where = f"quotas.{number}"
        cell = _flavor(f"{where}.flavor", one, flavors=flavors, models=models), one.resource
        if quotas and cell in quotas:
            msg = f"{where}: {cell[1]} of {cell[0]} is there twice"
            raise Invalid(msg, object_="quotas", hint="say each quota once")
        quotas = {**(quotas or {}), cell: _quota(where, one)}
    if body.quotas == []:
        quotas = {}
    return QueueChange(
        name=name,
        parent=body.parent,
        cohort=body.cohort,
        weight=body.weight,
        quotas=quotas,
        preemption=None if body.preemption is None else _preemption(body.preemption),
        reserved_after_seconds=(
            parsed("reserved_after", quantities.duration, body.reserved_after) if body.reserved_after else None
        ),
        placement=body.placement,
        order=body.order or None,
        default_max_duration_seconds=(
            parsed("default_max_duration", quantities.duration, body.default_max_duration)
            if body.default_max_duration
            else None
        ),
        users=None if body.users is None else tuple(dict.fromkeys(body.users)),
    )


def _flavor(where: str, given: requests.QuotaRequest, *, flavors: Collection[str], models: Collection[str]) -> str:
    """A name in small letters that nobody knows is more likely a slip than a model of GPUs to come, and a quota that counts
    nothing would leave the resource without one for good.
    """
    if given.flavor in flavors:
        return given.flavor
    found = parsed(where, quantities.flavor, given.flavor)
    model = given.resource == "gpu" and any(letter.isdigit() for letter in found)
    if found in {*models, OTHER_FLAVOR} or is_shape(found) or not given.flavor.islower() or model:
        return found
    known = {one.lower(): one for one in (*flavors, *models, OTHER_FLAVOR) if one}
    near = [known[one] for one in get_close_matches(given.flavor, known, n=3, cutoff=0.5)]
    meant = f"did you mean {' or '.join(near)}? " if near else "list flavors of nodes with: mainstay flavor list; "
    msg = f"{where}: there is no flavor {given.flavor!r}"
    raise Invalid(
        msg, object_="quotas", hint=f"{meant}a model of GPUs that no node has yet is written in capitals: {found}"
    )


def _preemption(given: requests.PreemptionRequest) -> PreemptionPolicy:
    least = given.min_runtime
    return PreemptionPolicy(
        within_queue=WithinQueue(given.within_queue),
        reclaim=Reclaim(given.reclaim),
        borrow=Borrow(given.borrow),
        borrow_priority_max=given.borrow_priority_max,
        fair_share=FairShare(given.fair_share),
        min_runtime_seconds=parsed("preemption.min_runtime", quantities.duration, least) if least else 0,
    )


def _preemption_view(policy: PreemptionPolicy) -> views.PreemptionView:
    return views.PreemptionView(
        within_queue=policy.within_queue.value,
        reclaim=policy.reclaim.value,
        borrow=policy.borrow.value,
        borrow_priority_max=policy.borrow_priority_max,
        fair_share=policy.fair_share.value,
        min_runtime_seconds=policy.min_runtime_seconds,
    )


def history_policy(body: requests.QueueHistoryRequest) -> HistoryPolicy:
    """How what queues used lately is to count. Raises Invalid for a time that cannot be read."""
    return HistoryPolicy(
        half_life_seconds=parsed("half_life", quantities.duration, body.half_life),
        weight=body.weight,
        entry_seconds=parsed("entry", quantities.duration, body.entry) if body.entry else 0,
    )


def history_view(found: HistoryRecord) -> views.QueueHistoryView:
    """The same as it is on record."""
    return views.QueueHistoryView(
        half_life_seconds=found.policy.half_life_seconds,
        weight=found.policy.weight,
        entry_seconds=found.policy.entry_seconds,
        set_at=instant(found.set_at) if found.set_at else None,
        set_by=found.set_by,
    )


def _quota(where: str, given: requests.QuotaRequest) -> Quota:
    def read(field: str, text: str | None) -> int | None:
        return None if text is None else parsed(f"{where}.{field}", partial(quantities.amount, given.resource), text)

    return Quota(
        nominal=read("nominal", given.nominal) or 0,
        borrowing_limit=read("borrowing_limit", given.borrowing_limit),
        lending_limit=read("lending_limit", given.lending_limit),
    )


def local_queue_view(record: LocalQueueRecord) -> views.LocalQueueView:
    """A local queue as it is on record."""
    return views.LocalQueueView(
        cluster=record.local.cluster,
        namespace=record.local.namespace,
        name=record.local.name,
        queue=record.local.queue,
        set_at=instant(record.set_at),
        set_by=record.set_by,
    )


def flavor_change(name: str, body: requests.FlavorRequest) -> FlavorChange:
    """What is to change of a flavor of nodes."""
    lines = None if body.node_labels is None else tuple(requirements(body.node_labels))
    return FlavorChange(name=name, requirements=lines, before=body.before)


def flavor_view(state: FlavorState) -> views.FlavorView:
    """A flavor of nodes as it stands."""
    flavor = state.record.flavor
    return views.FlavorView(
        name=flavor.name,
        node_labels=[one.words for one in flavor.requirements],
        nodes=state.nodes,
        cores=state.cpu_milli / 1_000,
        memory_bytes=state.memory_bytes,
        gpus=state.gpus,
        queues=list(state.queues),
        set_at=instant(state.record.set_at),
        set_by=state.record.set_by,
    )


def queue_view(state: QueueState) -> views.QueueView:
    """A queue as it stands, with no more of others than the caller may see."""
    queue, record, fairness = state.queue, state.record, state.standing.fairness

    def told(part: float) -> float | None:
        return round(part, 6) if state.everybody else None

    return views.QueueView(
        name=queue.name,
        parent=queue.parent,
        cohort=queue.cohort,
        weight=queue.weight,
        quotas=[_quota_view(state, cell, quota) for cell, quota in sorted(queue.quotas.items())],
        preemption=_preemption_view(queue.preemption),
        reserved_after_seconds=queue.reserved_after_seconds,
        placement=queue.placement or DEFAULT_POLICY,
        order=queue.order,
        default_max_duration_seconds=queue.default_max_duration_seconds,
        users=list(queue.users) if state.everybody else [],
        share=told(state.standing.share / 1_000),
        fair_share=told(fairness.fair),
        demand_capped_share=told(fairness.capped),
        held_share=told(fairness.held),
        lately=told(fairness.lately),
        waiting=state.waiting,
        running=state.running,
        set_at=instant(record.set_at) if record else None,
        set_by=record.set_by if record else "",
        warnings=list(state.warnings),
    )


_UNITS = {
    Resource.CPU: ("cores", 1_000),
    Resource.MEMORY: ("bytes", 1),
    Resource.GPU: ("gpus", 1),
    Resource.PODS: ("pods", 1),
}
"""Of each resource its unit outside, and how many of ours that is."""


def _quota_view(state: QueueState, cell: Cell, quota: Quota) -> views.QuotaView:
    unit, scale = _UNITS[Resource(cell[1])]
    # What was set in the same moment is not in the columns yet.
    use = state.standing.cells.get(cell, CellUse(used=0, borrowed=0, lent=0, available=0))

    def outside(amount: int | None) -> float | None:
        return None if amount is None else amount / scale

    return views.QuotaView(
        resource=cell[1],
        flavor=cell[0],
        unit=unit,
        nominal=quota.nominal / scale,
        borrowing_limit=outside(quota.borrowing_limit),
        lending_limit=outside(quota.lending_limit),
        used=use.used / scale,
        available=use.available / scale,
        borrowed=outside(use.borrowed) if state.everybody else None,
        lent=outside(use.lent) if state.everybody else None,
    )


def priority_class_view(found: PriorityClass) -> views.PriorityClassView:
    """A name for a priority."""
    return views.PriorityClassView(name=found.name, priority=found.priority, preemptible=found.preemptible)
