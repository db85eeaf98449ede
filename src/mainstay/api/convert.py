"""Between the public JSON and the domain: what comes in becomes specifications, what goes out becomes views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from mainstay.decide.alternatives import Alternative
from mainstay.decide.expected import ExpectedStart
from mainstay.decide.explain import Explanation
from mainstay.decide.holding import Holding
from mainstay.domain.affinity import NodeNeed
from mainstay.domain.allocation import NO_PROGRESS, STOPPING, Allocation, Progress, Seen, state_word
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.plan import AuditRow, Event
from mainstay.domain.quantity import (
    BYTES_PER_GIB,
    MICROS_PER_UNIT,
    MICROSECONDS_PER_HOUR,
    MICROSECONDS_PER_SECOND,
    Resources,
)
from mainstay.domain.reason import Code, Reason
from mainstay.domain.registry import Endpoint, ModelVersion
from mainstay.domain.secret import SecretRecord
from mainstay.domain.volume import VolumeRecord
from mainstay.domain.workload import WAITING, PodSet, Volume, Workload
from mainstay.operations.costs import Bill, BillLine
from mainstay.operations.preview import Previewed
from mainstay.operations.sealing import Sealing
from mainstay.wire import views

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def named_volume_view(volume: VolumeRecord) -> views.NamedVolumeView:
    """Where it lies, and what uses it."""
    state = volume.state
    return views.NamedVolumeView(
        name=state.name,
        project=state.owner.project,
        cluster=volume.cluster,
        place=state.place,
        size_bytes=state.size_bytes,
        storage_class=state.storage_class,
        access=list(state.access),
        state=volume.word,
        used_by=list(volume.used_by),
    )


def secret_view(secret: SecretRecord) -> views.SecretView:
    """Its name, and who set it when: never its value."""
    return views.SecretView(name=secret.name, set_at=instant(secret.set_at), set_by=secret.set_by)


def tree(entries: Iterable[views.TreeEntry]) -> Tree:
    """Sorted by path. Raises Invalid for a path that leaves the tree or occurs twice."""
    return Tree(
        entries=tuple(
            Entry(path=entry.path, size=entry.size, digest=entry.digest, executable=entry.executable)
            for entry in sorted(entries, key=lambda entry: entry.path)
        )
    )


def tree_view(content: Tree) -> views.TreeView:
    """A tree with all its files."""
    return views.TreeView(
        digest=content.digest,
        entries=[
            views.TreeEntry(path=entry.path, size=entry.size, digest=entry.digest, executable=entry.executable)
            for entry in content.entries
        ],
    )


def instant(at: int) -> datetime:
    """Exact: a float of seconds would lose the last microseconds."""
    return EPOCH + timedelta(microseconds=at)


def instant_or_none(at: int) -> datetime | None:
    """None for 0: not yet."""
    return instant(at) if at else None


def microseconds(at: datetime) -> int:
    """Inverse of `instant`; an instant without a zone is in UTC."""
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


def decimal(micros: int) -> str:
    """Millionths as an exact decimal string."""
    units, rest = divmod(abs(micros), MICROS_PER_UNIT)
    return f"{'-' if micros < 0 else ''}{units}.{rest:06d}"


def reason_view(reason: Reason) -> views.ReasonView:
    """Code, figures and sentence."""
    return views.ReasonView(
        code=reason.code,
        object=reason.object,
        numbers=dict(reason.numbers),
        sentence=reason.sentence,
        brief=reason.brief,
    )


def resources_view(amount: Resources) -> views.ResourcesView:
    """Cores as a number, memory in bytes."""
    return views.ResourcesView(
        cpu=amount.cpu_milli / 1_000,
        memory_bytes=amount.memory_bytes,
        gpus=amount.gpus,
        gpu_model=amount.gpu_model,
        gpu_memory_bytes=amount.gpu_memory_bytes,
        gpu_part=amount.gpu_part_permille / 1_000,
    )


def workload_view(
    workload: Workload, allocations: Iterable[Allocation] = (), *, progress: Progress = NO_PROGRESS
) -> views.WorkloadView:
    """With its pods and how far it has come, if they are given."""
    spec, state = workload.spec, state_word(workload, progress)
    return views.WorkloadView(
        id=workload.id,
        name=spec.name,
        kind=spec.kind,
        project=workload.project,
        queue=workload.queue,
        submitted_by=workload.submitted_by,
        priority=workload.priority,
        preemptible=workload.preemptible,
        held=workload.held,
        token=workload.token,
        phase=workload.phase.word,
        state=state,
        reason=reason_view(_why(workload.reason, state)),
        attempt=workload.attempt,
        nodes=spec.nodes,
        nodes_min=spec.elastic.nodes_min if spec.elastic else 0,
        nodes_max=spec.elastic.nodes_max if spec.elastic else 0,
        ranks=progress.ranks,
        resources=resources_view(_has(workload, progress) or spec.choices[0]),
        choices=[resources_view(one) for one in spec.choices] if _may_choose(workload) else [],
        sets=[_set_view(one, one.resources) for one in spec.sets],
        infra=spec.cluster,
        topology=spec.topology.text if spec.topology else "",
        spread=spec.topology.spread.words if spec.topology and spec.topology.spread else "",
        max_duration_seconds=spec.max_duration_seconds,
        **_node_words(spec.need or NodeNeed()),
        run=list(spec.run),
        guests=[f"{pod.namespace}/{pod.name}" for pod in spec.guests],
        env=dict(spec.env),
        secrets=[views.SecretUseView(name=use.name, env=use.env) for use in spec.secrets if use.file],
        volumes=[volume_view(volume) for volume in spec.volumes],
        devices=list(spec.devices),
        submitted_at=instant(workload.submitted_at),
        started_at=instant_or_none(workload.started_at),
        finished_at=instant_or_none(workload.finished_at),
        ran_seconds=progress.ran_us / MICROSECONDS_PER_SECOND,
        running_since=instant_or_none(progress.running_since),
        stop_requested=workload.stop_requested,
        stopping_since=instant_or_none(progress.stopping_since),
        output=workload.output,
        pods=[pod_view(allocation) for allocation in allocations],
    )


def _may_choose(workload: Workload) -> bool:
    """Whether which of several it is given is still open."""
    return workload.phase in WAITING and len(workload.spec.choices) > 1


def _has(workload: Workload, progress: Progress) -> Resources | None:
    """What each of its pods was given, where the specification does not say that."""
    spec = workload.spec
    open_ = not spec.sets and (len(spec.choices) > 1 or not spec.choices[0].is_plain)
    return progress.has if open_ and workload.phase not in WAITING else None


def _node_words(wanted: NodeNeed) -> dict[str, Any]:  # of a view, which checks what they are
    """What is asked of the nodes, by the names of the fields of a view."""
    return {
        "node_labels": [one.words for one in wanted.requirements],
        "node_preferences": [
            f"{' and '.join(line.words for line in one.requirements)} ({one.weight})" for one in wanted.preferences
        ],
        "tolerations": [one.words for one in wanted.tolerations],
        "spot": wanted.spot.value,
    }


def _set_view(one: PodSet, held: Resources) -> views.PodSetView:
    return views.PodSetView(name=one.name, nodes=one.nodes, resources=resources_view(held), run=list(one.run))


def _why(reason: Reason, state: str) -> Reason:
    """Nobody is told of what stops that it runs."""
    stops = state == STOPPING and reason.code is Code.POD_RUNNING
    return replace(reason, code=Code.STOPPING) if stops else reason


def volume_view(volume: Volume) -> views.VolumeView:
    """A volume as it was asked for."""
    return views.VolumeView(
        path=volume.path,
        name=volume.name,
        size_bytes=volume.size_bytes,
        storage_class=volume.storage_class,
        access=volume.access,
        read_only=volume.read_only,
        source=volume.source,
        target=volume.target,
        secret=volume.secret,
    )


def pod_view(allocation: Allocation) -> views.PodView:
    """One pod of an attempt."""
    return views.PodView(
        pod=allocation.pod,
        attempt=allocation.attempt,
        rank=allocation.rank,
        node=allocation.node,
        cluster=allocation.cluster,
        state=allocation.state,
        ready=allocation.ready,
        address=allocation.address,
        resources=resources_view(allocation.resources),
        created_at=instant(allocation.created_at),
        started_at=instant_or_none(allocation.started_at),
        ended_at=instant_or_none(allocation.ended_at),
        surplus=allocation.surplus,
        stopping_since=instant_or_none(0 if allocation.seen is Seen.ENDED else allocation.stop_asked_at),
        end=allocation.end or "",
        exit_code=allocation.exit_code,
        detail=allocation.detail,
    )


def event_view(event: Event) -> views.EventView:
    """One line of the event log."""
    return views.EventView(
        seq=event.seq,
        at=instant(event.at),
        actor=event.actor,
        kind=event.kind,
        object=event.object,
        workload=event.workload,
        reason=reason_view(event.reason),
        phase_before=event.phase_before.word if event.phase_before is not None else "",
        phase_after=event.phase_after.word if event.phase_after is not None else "",
    )


def key_views(sealing: Sealing, counts: Mapping[str, int]) -> list[views.KeyView]:
    """The one that seals first, then the older ones, then those that are not here."""
    held = (sealing.key_id, *sealing.older_ids)
    return [
        views.KeyView(id=key, held=key in held, seals=key == sealing.key_id, sealed=counts.get(key, 0))
        for key in dict.fromkeys((*held, *sorted(counts)))
    ]


def audit_view(row: AuditRow) -> views.AuditView:
    """One line of the audit."""
    return views.AuditView(
        seq=row.seq,
        at=instant(row.at),
        actor=row.actor,
        tenant=row.tenant,
        action=row.action,
        object=row.object,
        detail=row.detail,
    )


def model_version_view(version: ModelVersion) -> views.ModelVersionView:
    """A registered version of a model."""
    return views.ModelVersionView(
        model=version.model,
        version=version.version,
        project=version.project,
        tree=version.tree,
        workload=version.workload,
        registered_at=instant(version.registered_at),
    )


def endpoint_view(endpoint: Endpoint, *, url: str) -> views.EndpointView:
    """`url` is that of the platform."""
    return views.EndpointView(
        name=endpoint.name,
        project=endpoint.project,
        model=endpoint.model,
        state=endpoint_state(endpoint),
        serving_version=endpoint.serving_version,
        serving=endpoint.serving,
        candidate_version=endpoint.candidate_version,
        candidate=endpoint.candidate,
        url=f"{url}/endpoints/{endpoint.name}",
        updated_at=instant(endpoint.updated_at),
    )


def endpoint_state(endpoint: Endpoint) -> Literal["starting", "ready", "switching", "unavailable"]:
    """Whether it answers, and whether a new version is on its way."""
    if endpoint.serving and endpoint.address:
        return "switching" if endpoint.candidate else "ready"
    return "starting" if endpoint.candidate else "unavailable"


def plan_view(asked: Previewed) -> views.PlanView:
    """The one way in which the job would run now, or why it would wait."""
    job, answer = asked.job, asked.answer
    option = views.OptionView(
        where=", ".join(dict.fromkeys(answer.nodes)),
        resources=resources_view(answer.resources),
        nodes=len(answer.nodes) or job.spec.nodes,
        nodes_min=job.spec.elastic.nodes_min if job.spec.elastic else 0,
        nodes_max=job.spec.elastic.nodes_max if job.spec.elastic else 0,
        sets=[_set_view(one, held) for one, held in zip(job.spec.sets, answer.sets, strict=True)],
        starts="now" if answer.starts_now else "never" if answer.starts_never else "later",
        price_per_hour=decimal(answer.price_per_hour.micros),
        cost_max=decimal(answer.cost_max.micros) if answer.cost_max else "",
        max_duration_seconds=job.spec.max_duration_seconds,
        limited_by_queue=asked.limited_by_queue,
        reason=reason_view(answer.reason),
    )
    return views.PlanView(
        name=job.spec.name,
        options=[option],
        position=0 if answer.starts_now or answer.starts_never else answer.position,
        turn=answer.turn,
        would_start_if=[_alternative_view(alternative) for alternative in answer.alternatives],
        preemption=answer.preemption,
        expected=_expected_view(answer.expected),
        **_holding_views(answer.holdings),
    )


def explanation_view(workload: Workload, answer: Explanation | None, *, progress: Progress) -> views.ExplanationView:
    """Of a final workload (`answer` None): how it came to its end."""
    if answer is None:
        reason = workload.reason
        return views.ExplanationView(
            id=workload.id,
            phase=workload.phase.word,
            state=workload.phase.word,
            reason=reason_view(reason),
            sentence=f"{workload.phase.word}: {reason.sentence}",
        )
    changes = [_alternative_view(alternative) for alternative in answer.alternatives]
    state = state_word(replace(workload, phase=answer.phase), progress)
    reason = _why(answer.reason, state)
    sentence = f"{state}: {reason.sentence}"
    if changes:
        words = (f"{change.change} {change.after} instead of {change.before}" for change in changes)
        sentence += f"; it would start now with {', or '.join(words)}"
    return views.ExplanationView(
        id=workload.id,
        phase=answer.phase.word,
        state=state,
        reason=reason_view(reason),
        position=answer.position,
        turn=answer.turn,
        would_start_if=changes,
        preemption=answer.preemption,
        expected=_expected_view(answer.expected),
        placement=answer.placement,
        **_holding_views(answer.holdings),
        sentence=sentence,
    )


def _expected_view(found: ExpectedStart | None) -> views.ExpectedStartView | None:
    if found is None:
        return None
    return views.ExpectedStartView(
        p50=instant(found.p50) if found.p50 else None,
        p90=instant(found.p90) if found.p90 else None,
        not_before=instant(found.not_before) if found.not_before else None,
        sentence=found.sentence,
    )


def _holding_views(found: Sequence[Holding]) -> dict[str, Any]:  # of a view, which checks what they are
    """That of the first choice, and of the others."""
    return {
        "holding": holding_view(found[0]) if found else None,
        "more_holdings": [holding_view(one) for one in found[1:]],
    }


def holding_view(found: Holding) -> views.HoldingView:
    """Who holds what is short, in the units of quotas."""
    unit, scale = _UNITS.get(found.resource, (found.resource, 1))
    return views.HoldingView(
        kind=found.kind,
        choice=found.choice,
        resource=found.resource,
        flavor=found.flavor,
        unit=unit,
        nodes=found.nodes,
        holders=[
            views.HolderView(
                queue=one.queue,
                queues=one.queues,
                amount=one.amount / scale,
                borrowed=one.borrowed / scale,
                runs=one.runs,
                first_end=instant_or_none(one.first_end),
                last_end=instant_or_none(one.last_end),
                endless=one.endless,
            )
            for one in found.holders
        ],
        own=[
            views.HeldRunView(
                id=one.run, queue=one.queue, amount=one.amount / scale, ends_at=instant_or_none(one.ends_at)
            )
            for one in found.own
        ],
        own_more=found.own_more,
        sentence=found.sentence,
        own_sentence=found.own_sentence,
    )


_UNITS = {"cpu": ("cores", 1_000), "memory": ("bytes", 1), "gpu": ("gpus", 1)}
"""Of each resource its unit outside, and how many of ours that is."""


def _alternative_view(alternative: Alternative) -> views.AlternativeView:
    return views.AlternativeView(change=alternative.change, before=alternative.before, after=alternative.after)


def cost_view(bill: Bill) -> views.CostView:
    """Amounts exact; quantities in hours for people."""
    return views.CostView(
        since=instant(bill.since),
        until=instant(bill.until),
        group_by=bill.group_by,
        lines=[_cost_line(line, bill) for line in bill.lines],
        total=decimal(bill.total_micros),
        currency=bill.currency,
    )


def _cost_line(line: BillLine, bill: Bill) -> views.CostLine:
    # The id of a workload is its name and eight letters: no look-up is needed to show it.
    name = line.group.rsplit("-", 1)[0] if bill.group_by == "workload" else line.group
    return views.CostLine(
        group=line.group,
        name=name,
        cpu_core_hours=line.cpu_milli_us / (1_000 * MICROSECONDS_PER_HOUR),
        memory_gib_hours=line.memory_byte_us / (BYTES_PER_GIB * MICROSECONDS_PER_HOUR),
        gpu_hours=line.gpu_us / MICROSECONDS_PER_HOUR,
        charged=decimal(line.charged_micros),
        accruing=decimal(line.accruing_micros),
        total=decimal(line.charged_micros + line.accruing_micros),
        currency=bill.currency,
    )
