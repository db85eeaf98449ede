"""Between the public JSON and the domain: what comes in becomes specifications, what goes out becomes views."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal, TypeVar

from mainstay.decide.explain import Alternative, Explanation, Preview
from mainstay.decide.standing import CellUse
from mainstay.domain.allocation import Allocation
from mainstay.domain.artifact import Entry, Tree
from mainstay.domain.capacity import Node
from mainstay.domain.errors import Invalid
from mainstay.domain.fleet import ClusterKind, ClusterRecord, ClusterSettings, Credentials, NodeGroup
from mainstay.domain.plan import Event
from mainstay.domain.preemption import Borrow, FairShare, PreemptionPolicy, Reclaim, WithinQueue
from mainstay.domain.quantity import BYTES_PER_GIB, MICROS_PER_UNIT, MICROSECONDS_PER_HOUR, Resources
from mainstay.domain.queue import Cell, PriorityClass, Quota, Resource
from mainstay.domain.reason import Reason
from mainstay.domain.registry import Endpoint, ModelVersion
from mainstay.domain.secret import SecretRecord, SecretUse
from mainstay.domain.volume import VolumeRecord
from mainstay.domain.workload import Kind, Mount, OnPartition, RetryPolicy, Volume, Workload, WorkloadSpec
from mainstay.operations.clusters import ClusterWish
from mainstay.operations.costs import Bill, BillLine
from mainstay.operations.nodes import Resident
from mainstay.operations.queues import QueueChange, QueueState
from mainstay.operations.submit import JobRequest
from mainstay.wire import job as wire
from mainstay.wire import quantities, requests, views

WORKDIR = "."
"""Where the code of a job is put: into the directory that its command starts in."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Parsed = TypeVar("Parsed")


def job_request(job: wire.Job, *, code: str = "", files: str = "") -> JobRequest:
    """What to submit; `code` and `files` are trees that are stored. Raises Invalid, naming the field, for a quantity that cannot
    be read.
    """
    cpu = _parse("resources.cpu", quantities.cpu, job.resources.cpu)
    memory = _parse("resources.memory", quantities.memory, job.resources.memory)
    policy, after = _on_partition(job.on_partition)
    spec = WorkloadSpec(
        kind=Kind(job.type),
        name=job.name or job.type,
        run=job.arguments,
        setup=job.setup,
        image=job.image,
        env=tuple(sorted(job.env.items())),
        mounts=tuple(Mount(path=WORKDIR, tree=tree) for tree in (code, files) if tree),
        secrets=tuple(_secrets(job)),
        volumes=tuple(_volume(volume, f"volumes.{number}") for number, volume in enumerate(job.volumes)),
        devices=tuple(job.devices),
        nodes=job.nodes,
        choices=tuple(_choices(job.resources)),
        cpu_limit_milli=cpu.high or 0,
        memory_limit_bytes=memory.high or 0,
        retry=_retry(job),
        max_duration_seconds=_parse("max_duration", quantities.duration, job.max_duration) if job.max_duration else 0,
        stop_grace_seconds=_parse("stop_grace", quantities.duration, job.stop_grace),
        checkpoint_seconds=_parse("checkpoint_every", quantities.duration, job.checkpoint_every)
        if job.checkpoint_every
        else 0,
        port=Kind(job.type) is Kind.SERVICE,
        on_partition=policy,
        partition_seconds=after,
        cluster=job.infra,
    )
    return JobRequest(spec=spec, project=job.project, queue=job.queue, priority=job.priority)


def resources(*, cpu: str, memory: str, gpu: str = "0", where: str = "resources") -> Resources:
    """The low ends: what is reserved. Raises Invalid."""
    gpus = _parse(f"{where}.gpu", quantities.gpu, gpu)
    return Resources(
        cpu_milli=_parse(f"{where}.cpu", quantities.cpu, cpu).low,
        memory_bytes=_parse(f"{where}.memory", quantities.memory, memory).low,
        gpus=gpus.count,
        gpu_model=gpus.model if gpus.count else "",
    )


def _volume(volume: wire.Volume, where: str) -> Volume:
    return Volume(
        path=volume.path,
        name=volume.name,
        size_bytes=_parse(f"{where}.size", quantities.size, volume.size) if volume.size else 0,
        storage_class=volume.storage_class,
        access=volume.access,
        read_only=volume.read_only,
        source=volume.source,
        target=volume.target,
        secret=volume.secret,
    )


def _secrets(job: wire.Job) -> Iterable[SecretUse]:
    """Those that the job itself sees, then those that open stores for it."""
    yield from (SecretUse(name=use.name, env=use.env) for use in job.secrets)
    openers = dict.fromkeys(volume.secret for volume in job.volumes if volume.secret)
    yield from (SecretUse(name=name, file=False) for name in openers)


def files_tree(job: wire.Job) -> tuple[Tree, dict[str, bytes]]:
    """The files that stand in the job itself: their tree, and the content of each digest."""
    blobs = {path: text.encode() for path, text in job.files.items()}
    digests = {path: hashlib.sha256(blob).hexdigest() for path, blob in blobs.items()}
    entries = tuple(Entry(path=path, size=len(blobs[path]), digest=digests[path]) for path in sorted(blobs))
    return Tree(entries=entries), {digests[path]: blob for path, blob in blobs.items()}


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


def _choices(wanted: wire.Resources) -> Iterable[Resources]:
    """The request itself, then its alternatives, each with what it leaves out taken from the request."""
    yield resources(cpu=wanted.cpu, memory=wanted.memory, gpu=wanted.gpu)
    for field, alternatives in (("any_of", wanted.any_of), ("ordered", wanted.ordered)):
        for number, choice in enumerate(alternatives):
            yield resources(
                cpu=choice.cpu or wanted.cpu,
                memory=choice.memory or wanted.memory,
                gpu=choice.gpu or wanted.gpu,
                where=f"resources.{field}.{number}",
            )


def _on_partition(given: wire.Partition) -> tuple[OnPartition, int]:
    if given.requeue_after:
        after = _parse("on_partition.requeue_after", quantities.duration, given.requeue_after)
        return OnPartition.REQUEUE_AFTER, after
    if given.allow_duplicates:
        after = _parse("on_partition.allow_duplicates", quantities.duration, given.allow_duplicates)
        return OnPartition.ALLOW_DUPLICATES, after
    return OnPartition.WAIT, 0


def _retry(job: wire.Job) -> RetryPolicy:
    backoff = _parse("retry.backoff", quantities.duration, job.retry.backoff)
    return RetryPolicy(
        infrastructure_max=job.retry.infra,
        user_max=job.retry.user,
        backoff_seconds=backoff,
        backoff_seconds_max=max(backoff, RetryPolicy().backoff_seconds_max),
        always=Kind(job.type) is Kind.SERVICE,
    )


def _parse(field: str, parse: Callable[[str], Parsed], text: str) -> Parsed:
    try:
        return parse(text)
    except ValueError as error:
        msg = f"{field}: {error}"
        raise Invalid(msg, object_=field) from error


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
        code=reason.code, object=reason.object, numbers=dict(reason.numbers), sentence=reason.sentence
    )


def resources_view(amount: Resources) -> views.ResourcesView:
    """Cores as a number, memory in bytes."""
    return views.ResourcesView(
        cpu=amount.cpu_milli / 1_000,
        memory_bytes=amount.memory_bytes,
        gpus=amount.gpus,
        gpu_model=amount.gpu_model,
    )


def workload_view(workload: Workload, allocations: Iterable[Allocation] = ()) -> views.WorkloadView:
    """With its pods, if they are given."""
    spec = workload.spec
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
        phase=workload.phase.word,
        reason=reason_view(workload.reason),
        attempt=workload.attempt,
        nodes=spec.nodes,
        resources=resources_view(spec.choices[0]),
        infra=spec.cluster,
        run=list(spec.run),
        guests=[f"{pod.namespace}/{pod.name}" for pod in spec.guests],
        env=dict(spec.env),
        secrets=[views.SecretUseView(name=use.name, env=use.env) for use in spec.secrets if use.file],
        volumes=[volume_view(volume) for volume in spec.volumes],
        devices=list(spec.devices),
        submitted_at=instant(workload.submitted_at),
        started_at=instant_or_none(workload.started_at),
        finished_at=instant_or_none(workload.finished_at),
        stop_requested=workload.stop_requested,
        output=workload.output,
        pods=[pod_view(allocation) for allocation in allocations],
    )


def queue_change(name: str, body: requests.QueueRequest) -> QueueChange:
    """What is to change of a queue. Raises Invalid for an amount that cannot be read, and for a quota that is there twice."""
    quotas: dict[Cell, Quota] | None = None
    for number, one in enumerate(body.quotas or ()):
        where = f"quotas.{number}"
        cell = _parse(f"{where}.flavor", quantities.flavor, one.flavor), one.resource
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
    )


def _preemption(given: requests.PreemptionRequest) -> PreemptionPolicy:
    least = given.min_runtime
    return PreemptionPolicy(
        within_queue=WithinQueue(given.within_queue),
        reclaim=Reclaim(given.reclaim),
        borrow=Borrow(given.borrow),
        borrow_priority_max=given.borrow_priority_max,
        fair_share=FairShare(given.fair_share),
        min_runtime_seconds=_parse("preemption.min_runtime", quantities.duration, least) if least else 0,
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


def _quota(where: str, given: requests.QuotaRequest) -> Quota:
    def read(field: str, text: str | None) -> int | None:
        return None if text is None else _parse(f"{where}.{field}", partial(quantities.amount, given.resource), text)

    return Quota(
        nominal=read("nominal", given.nominal) or 0,
        borrowing_limit=read("borrowing_limit", given.borrowing_limit),
        lending_limit=read("lending_limit", given.lending_limit),
    )


def queue_view(state: QueueState) -> views.QueueView:
    """A queue as it stands, with no more of others than the caller may see."""
    queue, record = state.queue, state.record
    return views.QueueView(
        name=queue.name,
        parent=queue.parent,
        cohort=queue.cohort,
        weight=queue.weight,
        quotas=[_quota_view(state, cell, quota) for cell, quota in sorted(queue.quotas.items())],
        preemption=_preemption_view(queue.preemption),
        share=round(state.standing.share / 1_000, 6) if state.everybody else None,
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
        state=allocation.seen.name.lower(),
        ready=allocation.ready,
        address=allocation.address,
        resources=resources_view(allocation.resources),
        created_at=instant(allocation.created_at),
        started_at=instant_or_none(allocation.started_at),
        ended_at=instant_or_none(allocation.ended_at),
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


def node_view(
    node: Node, *, cluster_state: str = "ready", residents: Iterable[Resident] = (), pods_left: int = 0
) -> views.NodeView:
    """A node and what of it is used; with its pods, if they are given."""
    closure = node.closure
    return views.NodeView(
        name=node.name,
        cluster=node.cluster,
        cluster_state=cluster_state,
        ready=node.ready,
        state=node.state,
        reason=reason_view(node.reason) if node.reason else None,
        since=instant(closure.since) if closure else None,
        until=instant_or_none(closure.until) if closure else None,
        complaints=list(node.complaints),
        capacity=resources_view(node.capacity),
        used=resources_view(node.used),
        devices=list(device_views(node)),
        pods=[_resident_view(resident) for resident in residents],
        pods_left=pods_left,
    )


def device_views(node: Node) -> Iterable[views.DeviceView]:
    """Whole GPUs first, then slices by shape."""
    whole = node.capacity.gpu_model
    amounts = {whole: (node.capacity.gpus, node.used.gpus)} if node.capacity.gpus or node.used.gpus else {}
    amounts |= {shape: (count, node.used_shapes.get(shape, 0)) for shape, count in sorted(node.shapes.items())}
    for model in (*amounts, *(name for name in sorted(node.unhealthy) if name not in amounts)):
        total, used = amounts.get(model, (0, 0))
        unhealthy = node.unhealthy.get(model or "GPU", 0)
        yield views.DeviceView(model=model, total=total, used=used, unhealthy=unhealthy)


def _resident_view(resident: Resident) -> views.ResidentView:
    pod = resident.allocation
    return views.ResidentView(
        pod=pod.pod, workload=pod.workload, tenant=pod.tenant, state=pod.seen.name.lower(), detail=resident.words
    )


def cluster_wish(request: requests.ClusterRequest, *, agent_token: str = "") -> ClusterWish:
    """`agent_token`: what is kept of one. Raises Invalid for a quantity that cannot be read."""
    settings = ClusterSettings(
        context=request.context,
        in_cluster=request.in_cluster,
        namespaces_per_project=request.namespaces_per_project,
        helper_image=request.helper_image,
        image=request.image,
        nodes=tuple(
            NodeGroup(count=group.count, capacity=resources(cpu=group.cpu, memory=group.memory, gpu=group.gpu))
            for group in request.simulated
        ),
        agent_token=agent_token,
    )
    return ClusterWish(
        name=request.name,
        kind=_cluster_kind(request),
        settings=settings,
        credentials=Credentials(kubeconfig=request.kubeconfig),
    )


def _cluster_kind(request: requests.ClusterRequest) -> ClusterKind:
    if request.agent:
        return ClusterKind.AGENT
    return ClusterKind.SIMULATED if request.simulated else ClusterKind.KUBERNETES


def cluster_view(
    cluster: ClusterRecord,
    nodes: Iterable[Node] = (),
    *,
    warnings: Iterable[str] = (),
    agent_heard: bool | None = None,
) -> views.ClusterView:
    """With the sum of its nodes."""
    nodes = tuple(nodes)
    settings = cluster.settings
    return views.ClusterView(
        name=cluster.name,
        kind=cluster.kind.value,
        state=cluster.state,
        reason=reason_view(cluster.reason),
        server=settings.server,
        context=settings.context,
        in_cluster=settings.in_cluster,
        namespaces_per_project=settings.namespaces_per_project,
        helper_image=settings.helper_image,
        image=settings.image,
        identity=cluster.identity,
        nodes=len(nodes),
        nodes_ready=sum(node.ready for node in nodes),
        capacity=resources_view(_sum(node.capacity for node in nodes)),
        used=resources_view(_sum(node.used for node in nodes)),
        added_at=instant_or_none(cluster.added_at),
        added_by=cluster.added_by,
        warnings=list(warnings),
        agent_heard=agent_heard,
    )


def _sum(parts: Iterable[Resources]) -> Resources:
    parts = tuple(parts)
    models = {part.gpu_model for part in parts if part.gpus}
    return Resources(
        cpu_milli=sum(part.cpu_milli for part in parts),
        memory_bytes=sum(part.memory_bytes for part in parts),
        gpus=sum(part.gpus for part in parts),
        gpu_model=models.pop() if len(models) == 1 else "",
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


def plan_view(job: JobRequest, answer: Preview) -> views.PlanView:
    """The one way in which the job would run now, or why it would wait."""
    option = views.OptionView(
        where=", ".join(dict.fromkeys(answer.nodes)),
        resources=resources_view(answer.resources),
        nodes=job.spec.nodes,
        starts="now" if answer.starts_now else "later",
        price_per_hour=decimal(answer.price_per_hour.micros),
        cost_max=decimal(answer.cost_max.micros) if answer.cost_max else "",
        reason=reason_view(answer.reason),
    )
    return views.PlanView(
        name=job.spec.name,
        options=[option],
        position=0 if answer.starts_now else answer.position,
        would_start_if=[_alternative_view(alternative) for alternative in answer.alternatives],
        preemption=answer.preemption,
    )


def explanation_view(workload: Workload, answer: Explanation | None) -> views.ExplanationView:
    """Of a final workload (`answer` None): how it came to its end."""
    if answer is None:
        reason = workload.reason
        return views.ExplanationView(
            id=workload.id,
            phase=workload.phase.word,
            reason=reason_view(reason),
            sentence=f"{workload.phase.word}: {reason.sentence}",
        )
    changes = [_alternative_view(alternative) for alternative in answer.alternatives]
    sentence = f"{answer.phase.word}: {answer.reason.sentence}"
    if changes:
        words = (f"{change.change} {change.after} instead of {change.before}" for change in changes)
        sentence += f"; it would start now with {', or '.join(words)}"
    return views.ExplanationView(
        id=workload.id,
        phase=answer.phase.word,
        reason=reason_view(answer.reason),
        position=answer.position,
        would_start_if=changes,
        preemption=answer.preemption,
        sentence=sentence,
    )


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
