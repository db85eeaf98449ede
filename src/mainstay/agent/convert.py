"""Between what agent and control plane say and the domain. One place for both ends; tested by round trip.

Whoever reads raises Invalid for what is none: the other end may be of another version, or an impostor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, TypeVar, assert_never

import msgspec

from mainstay.decide.guests import new_workload, workload_id
from mainstay.domain.allocation import Allocation, End, Owner, PodState, Seen, Wanted
from mainstay.domain.capacity import Closure, Keeping, NodeState
from mainstay.domain.errors import (
    Conflict,
    Denied,
    Fenced,
    Forbidden,
    Gone,
    Invalid,
    MainstayError,
    NoCapacity,
    NotFound,
    NotYet,
    StorageFull,
    Unauthenticated,
    Unavailable,
)
from mainstay.domain.fleet import ClusterKind, ClusterRecord, ClusterSettings, Contact, Stay
from mainstay.domain.guest import Guest
from mainstay.domain.plan import (
    Action,
    Advance,
    ClosePod,
    CommitResult,
    NewWorkload,
    ObserveCluster,
    ObserveNodes,
    ObservePod,
    ObserveVolumes,
    QuarantineNode,
    Refused,
    RowVersion,
    Submit,
)
from mainstay.domain.quantity import Counts, Resources
from mainstay.domain.reason import Code, Reason
from mainstay.domain.secret import Handed, SecretUse
from mainstay.domain.volume import VolumeRef, VolumeState
from mainstay.domain.workload import (
    Kind,
    Mount,
    OnPartition,
    Phase,
    PodRef,
    RetryPolicy,
    Volume,
    Workload,
    WorkloadSpec,
)
from mainstay.ports import WantedChanges
from mainstay.wire import agent as wire

ERRORS: Mapping[str, type[MainstayError]] = MappingProxyType(
    {
        error.code: error
        for error in (
            *(Invalid, NotFound, Conflict, NoCapacity, NotYet, Gone, Fenced),
            *(Unauthenticated, Forbidden, Denied, Unavailable, StorageFull),
        )
    }
)
"""What the other end may raise, by its stable code."""

M = TypeVar("M")
A = TypeVar("A")
B = TypeVar("B")


def encoded(message: wire.Message) -> bytes:
    """As it travels. Text that is not Unicode is made harmless."""
    try:
        return _ENCODER.encode(message)
    except UnicodeEncodeError:
        return _ENCODER.encode(_harmless(msgspec.to_builtins(message)))


def decoded(content: bytes, kind: type[M]) -> M:
    """Raises Invalid if it is no such message."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"not a message that this version knows: {error}"
        raise Invalid(msg, hint="are control plane and agent of neighbouring versions?") from error


def cluster_said(record: ClusterRecord, *, system: str, now: int) -> wire.ClusterSaid:
    """How an agent is to use its cluster."""
    settings = record.settings
    return wire.ClusterSaid(
        name=record.name,
        system=system,
        identity=record.identity,
        namespaces_per_project=settings.namespaces_per_project,
        helper_image=settings.helper_image,
        image=settings.image,
        scheduler_name=settings.scheduler_name,
        now=now,
    )


def cluster_record(said: wire.ClusterSaid, *, settings: ClusterSettings) -> ClusterRecord:
    """The cluster as its connector opens it. What was seen and wanted of it is the control plane's business."""
    reason = Reason(code=Code.CLUSTER_READY, object=said.name)
    return ClusterRecord(
        name=said.name,
        kind=ClusterKind.AGENT,
        settings=settings,
        sealed="",
        identity=said.identity,
        wanted=Stay.KEPT,
        wanted_reason=reason,
        seen=Contact.READY,
        seen_reason=reason,
        observed_at=0,
        added_at=0,
        added_by="",
        version=0,
    )


def wanted_said(changes: WantedChanges) -> wire.WantedSaid:
    """The specification of each workload goes once, however many ranks it has."""
    specs = {row.allocation.workload_key: row.spec for row in changes.rows}
    specs |= {workload.key: workload.spec for workload in changes.guests}
    return wire.WantedSaid(
        version=changes.version,
        whole=changes.whole,
        rows=tuple(slice_of(row) for row in changes.rows),
        closed=changes.closed,
        guests=tuple(adopted(workload) for workload in changes.guests),
        finished=changes.finished,
        closed_nodes=_kept_out(changes.closed_nodes),
        removals=_removals_said(changes.removals),
        specifications={key: specified(spec) for key, spec in specs.items()},
    )


def wanted_changes(said: wire.WantedSaid, *, cluster: str) -> WantedChanges:
    """Raises Invalid."""
    specs = {key: specification(spec) for key, spec in said.specifications.items()}
    return WantedChanges(
        version=said.version,
        whole=said.whole,
        rows=tuple(_wanted(row, specs, cluster) for row in said.rows),
        closed=said.closed,
        guests=tuple(_workload(row, specs) for row in said.guests),
        finished=said.finished,
        closed_nodes=_closures(said.closed_nodes),
        removals=_removals(said.removals),
    )


def _removals_said(removals: tuple[VolumeRef, ...] | None) -> tuple[wire.Removal, ...] | None:
    if removals is None:
        return None
    return tuple(wire.Removal(tenant=one.owner.tenant, project=one.owner.project, name=one.name) for one in removals)


def _removals(said: tuple[wire.Removal, ...] | None) -> tuple[VolumeRef, ...] | None:
    if said is None:
        return None
    return tuple(VolumeRef(owner=Owner(tenant=one.tenant, project=one.project), name=one.name) for one in said)


def _kept_out(closed: Mapping[str, Closure] | None) -> tuple[wire.KeptOut, ...] | None:
    if closed is None:
        return None
    return tuple(
        wire.KeptOut(
            node=name,
            keeping=one.keeping.value,
            reason=_why(one.reason),
            since=one.since,
            until=one.until,
            drains=one.drains,
            wait_seconds=one.wait_seconds,
        )
        for name, one in closed.items()
    )


def _closures(said: tuple[wire.KeptOut, ...] | None) -> Mapping[str, Closure] | None:
    if said is None:
        return None
    return {
        one.node: Closure(
            keeping=_known(Keeping, one.keeping),
            reason=_reason(one.reason),
            since=one.since,
            until=one.until,
            drains=one.drains,
            wait_seconds=one.wait_seconds,
        )
        for one in said
    }


def closed_rows(said: wire.WantedSaid, *, cluster: str) -> tuple[Wanted, ...]:
    """Of an answer about pods that are over. Raises Invalid."""
    rows = wanted_changes(said, cluster=cluster).rows
    return tuple(replace(row, allocation=replace(row.allocation, closed=True)) for row in rows)


def slice_of(wanted: Wanted) -> wire.Slice:
    """Without its specification. The cluster is the agent's own, and whether it is closed follows from the question."""
    row = wanted.allocation
    return wire.Slice(
        key=row.key,
        workload_key=row.workload_key,
        workload=row.workload,
        tenant=row.tenant,
        project=row.project,
        attempt=row.attempt,
        rank=row.rank,
        node=row.node,
        resources=amount(row.resources),
        version=row.version,
        created_at=row.created_at,
        stop=row.stop,
        moves=row.moves,
        seen=int(row.seen),
        ready=row.ready,
        address=row.address,
        started_at=row.started_at,
        ended_at=row.ended_at,
        metered_until=row.metered_until,
        end=row.end or "",
        exit_code=row.exit_code,
        detail=row.detail,
        settled=wanted.settled,
    )


def _wanted(said: wire.Slice, specs: Mapping[int, WorkloadSpec], cluster: str) -> Wanted:
    spec = _spec_of(said.workload_key, specs)
    allocation = Allocation(
        key=said.key,
        workload_key=said.workload_key,
        workload=said.workload,
        tenant=said.tenant,
        project=said.project,
        attempt=said.attempt,
        rank=said.rank,
        node=said.node,
        cluster=cluster,
        resources=resources(said.resources),
        stop=said.stop,
        moves=said.moves,
        seen=_seen(said.seen),
        ready=said.ready,
        address=said.address,
        created_at=said.created_at,
        started_at=said.started_at,
        ended_at=said.ended_at,
        metered_until=said.metered_until,
        end=_end(said.end),
        exit_code=said.exit_code,
        detail=said.detail,
        closed=False,
        version=said.version,
    )
    return Wanted(allocation=allocation, spec=spec, settled=said.settled)


def adopted(workload: Workload) -> wire.Adopted:
    """Without its specification."""
    return wire.Adopted(
        key=workload.key,
        id=workload.id,
        tenant=workload.tenant,
        project=workload.project,
        queue=workload.queue,
        submitted_by=workload.submitted_by,
        priority=workload.priority,
        phase=int(workload.phase),
        reason=_why(workload.reason),
        attempt=workload.attempt,
        infrastructure_failures=workload.infrastructure_failures,
        user_failures=workload.user_failures,
        stop_requested=workload.stop_requested,
        submitted_at=workload.submitted_at,
        not_before=workload.not_before,
        started_at=workload.started_at,
        finished_at=workload.finished_at,
        output=workload.output,
        held=workload.held,
        preemptible=workload.preemptible,
        version=workload.version,
    )


def _workload(said: wire.Adopted, specs: Mapping[int, WorkloadSpec]) -> Workload:
    return Workload(
        key=said.key,
        id=said.id,
        tenant=said.tenant,
        project=said.project,
        queue=said.queue,
        submitted_by=said.submitted_by,
        priority=said.priority,
        spec=_spec_of(said.key, specs),
        phase=_made(lambda: Phase(said.phase)),
        reason=_reason(said.reason),
        attempt=said.attempt,
        infrastructure_failures=said.infrastructure_failures,
        user_failures=said.user_failures,
        stop_requested=said.stop_requested,
        submitted_at=said.submitted_at,
        not_before=said.not_before,
        started_at=said.started_at,
        finished_at=said.finished_at,
        output=said.output,
        held=said.held,
        preemptible=said.preemptible,
        version=said.version,
    )


def _spec_of(workload_key: int, specs: Mapping[int, WorkloadSpec]) -> WorkloadSpec:
    if workload_key not in specs:
        msg = f"a workload without its specification: {workload_key}"
        raise Invalid(msg)
    return specs[workload_key]


def specified(spec: WorkloadSpec) -> wire.Specified:
    """All of it."""
    return wire.Specified(
        kind=spec.kind.value,
        name=spec.name,
        run=spec.run,
        setup=spec.setup,
        image=spec.image,
        env=spec.env,
        mounts=tuple((mount.path, mount.tree) for mount in spec.mounts),
        secrets=tuple((use.name, use.env, use.file) for use in spec.secrets),
        volumes=tuple(_storage(volume) for volume in spec.volumes),
        devices=spec.devices,
        nodes=spec.nodes,
        choices=tuple(amount(choice) for choice in spec.choices),
        cpu_limit_milli=spec.cpu_limit_milli,
        memory_limit_bytes=spec.memory_limit_bytes,
        infrastructure_max=spec.retry.infrastructure_max,
        user_max=spec.retry.user_max,
        backoff_seconds=spec.retry.backoff_seconds,
        backoff_seconds_max=spec.retry.backoff_seconds_max,
        always=spec.retry.always,
        max_duration_seconds=spec.max_duration_seconds,
        stop_grace_seconds=spec.stop_grace_seconds,
        port=spec.port,
        ready_path=spec.ready_path,
        cluster=spec.cluster,
        guests=tuple((guest.namespace, guest.name, guest.uid) for guest in spec.guests),
        restriction=spec.restriction,
        on_partition=spec.on_partition.value,
        partition_seconds=spec.partition_seconds,
    )


def specification(said: wire.Specified) -> WorkloadSpec:
    """Inverse of `specified`. Raises Invalid for a kind that this version does not know."""
    return WorkloadSpec(
        kind=_known(Kind, said.kind),
        name=said.name,
        run=said.run,
        setup=said.setup,
        image=said.image,
        env=said.env,
        mounts=tuple(Mount(path=path, tree=tree) for path, tree in said.mounts),
        secrets=tuple(SecretUse(name=name, env=env, file=file) for name, env, file in said.secrets),
        volumes=tuple(_volume(storage) for storage in said.volumes),
        devices=said.devices,
        nodes=said.nodes,
        choices=tuple(resources(choice) for choice in said.choices),
        cpu_limit_milli=said.cpu_limit_milli,
        memory_limit_bytes=said.memory_limit_bytes,
        retry=RetryPolicy(
            infrastructure_max=said.infrastructure_max,
            user_max=said.user_max,
            backoff_seconds=said.backoff_seconds,
            backoff_seconds_max=said.backoff_seconds_max,
            always=said.always,
        ),
        max_duration_seconds=said.max_duration_seconds,
        stop_grace_seconds=said.stop_grace_seconds,
        port=said.port,
        ready_path=said.ready_path,
        cluster=said.cluster,
        guests=tuple(PodRef(namespace=namespace, name=name, uid=uid) for namespace, name, uid in said.guests),
        restriction=said.restriction,
        on_partition=_known(OnPartition, said.on_partition),
        partition_seconds=said.partition_seconds,
    )


def _storage(volume: Volume) -> wire.Storage:
    return wire.Storage(
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


def _volume(said: wire.Storage) -> Volume:
    return Volume(
        path=said.path,
        name=said.name,
        size_bytes=said.size_bytes,
        storage_class=said.storage_class,
        access=said.access,
        read_only=said.read_only,
        source=said.source,
        target=said.target,
        secret=said.secret,
    )


def plan_said(epoch: int, actions: tuple[Action, ...]) -> wire.PlanSaid:
    """What an effect loop commits. Anything else is a mistake of ours."""
    return wire.PlanSaid(epoch=epoch, actions=tuple(_act(action) for action in actions))


def actions(said: wire.PlanSaid, *, cluster: str) -> tuple[Action, ...]:
    """Inverse of `plan_said`, about this very cluster. Raises Invalid."""
    return tuple(_action(act, cluster) for act in said.actions)


def _act(action: Action) -> wire.Act:
    reason = _why(action.reason)
    match action:
        case ObservePod(allocation_key=key, state=state, output=output):
            return wire.Observed(
                allocation_key=key, state=_pod_said(state), reason=reason, output=output, version=_version(action)
            )
        case ClosePod(allocation_key=key):
            return wire.Closed(allocation_key=key, reason=reason, version=_version(action))
        case ObserveNodes(nodes=nodes, at=at):
            return wire.NodesObserved(nodes=tuple(_node_said(node) for node in nodes), reason=reason, at=at)
        case ObserveVolumes(volumes=volumes):
            return wire.VolumesObserved(volumes=tuple(_volume_said(state) for state in volumes), reason=reason)
        case QuarantineNode(node=node, until=until, refused_at=refused_at):
            return wire.NodeSuspected(node=node, reason=reason, until=until, refused_at=refused_at)
        case ObserveCluster(seen=seen):
            return wire.ContactObserved(seen=seen.value, reason=reason)
        case Submit(workload=new) if new.spec.kind is Kind.POD:
            return _guests_submitted(new)
        case Advance(phase=Phase.STOPPED):
            return wire.GuestsWithdrawn(
                workload_key=action.workload_key,
                workload=action.reason.object,
                attempt=action.attempt,
                infrastructure_failures=action.infrastructure_failures,
                user_failures=action.user_failures,
                version=_version(action),
            )
    msg = f"no effect loop commits it: {type(action).__name__}"
    raise TypeError(msg)


def _guests_submitted(new: NewWorkload) -> wire.GuestsSubmitted:
    spec = new.spec
    return wire.GuestsSubmitted(
        name=spec.name,
        pods=tuple((pod.namespace, pod.name, pod.uid) for pod in spec.guests),
        tenant=new.tenant,
        project=new.project,
        queue=new.queue,
        priority=new.priority,
        resources=amount(spec.choices[0]),
        restriction=spec.restriction,
        grace_seconds=_seconds(spec.stop_grace_seconds),
        max_duration_seconds=_seconds(spec.max_duration_seconds),
    )


def _submission(said: wire.GuestsSubmitted, cluster: str) -> Submit:
    """The same workload as the loop of the agent had made: nothing but what guests are can be said."""
    unit = tuple(
        Guest(
            pod=PodRef(namespace=namespace, name=name, uid=uid),
            tenant=said.tenant,
            project=said.project,
            queue=said.queue,
            priority=said.priority,
            resources=resources(said.resources),
            restriction=said.restriction,
            grace_seconds=_seconds(said.grace_seconds),
            max_duration_seconds=_seconds(said.max_duration_seconds),
        )
        for namespace, name, uid in said.pods
    )
    if not unit:
        msg = "a submission of no pods"
        raise Invalid(msg, object_=said.name)
    name = workload_id(said.name, (guest.pod.uid for guest in unit))
    return Submit(reason=Reason(code=Code.SUBMITTED), workload=new_workload(cluster, name, unit))


def _action(act: wire.Act, cluster: str) -> Action:
    match act:
        case wire.GuestsSubmitted():
            return _submission(act, cluster)
        case wire.GuestsWithdrawn():
            return Advance(
                guards=_guards("workload", act.workload_key, act.version),
                reason=Reason(code=Code.WITHDRAWN, object=act.workload),
                workload_key=act.workload_key,
                phase=Phase.STOPPED,
                attempt=act.attempt,
                infrastructure_failures=act.infrastructure_failures,
                user_failures=act.user_failures,
            )
    reason = _reason(act.reason)
    match act:
        case wire.VolumesObserved():
            volumes = tuple(_volume_state(one) for one in act.volumes)
            return ObserveVolumes(cluster=cluster, volumes=volumes, reason=reason)
        case wire.Observed():
            return ObservePod(
                guards=_guards("allocation", act.allocation_key, act.version),
                reason=reason,
                allocation_key=act.allocation_key,
                state=_pod_state(act.state),
                output=act.output,
            )
        case wire.Closed():
            guards = _guards("allocation", act.allocation_key, act.version)
            return ClosePod(guards=guards, reason=reason, allocation_key=act.allocation_key)
        case wire.NodesObserved():
            nodes = tuple(_node_state(node) for node in act.nodes)
            return ObserveNodes(reason=reason, cluster=cluster, nodes=nodes, at=act.at)
        case wire.NodeSuspected():
            return QuarantineNode(
                reason=reason, cluster=cluster, node=act.node, until=act.until, refused_at=act.refused_at
            )
        case wire.ContactObserved():
            return ObserveCluster(reason=reason, cluster=cluster, seen=_known(Contact, act.seen))
        case _:
            assert_never(act)


def _version(action: Action) -> int:
    return next((guard.version for guard in action.guards if isinstance(guard, RowVersion)), 0)


def _guards(kind: Literal["allocation", "workload"], key: int, version: int) -> tuple[RowVersion, ...]:
    return (RowVersion(kind=kind, key=key, version=version),) if version else ()


def commit_said(result: CommitResult) -> wire.CommitSaid:
    """Plans of loops have no idempotency key, hence no reply."""
    refused = tuple(wire.RefusedSaid(index=one.index, reason=_why(one.reason)) for one in result.refused)
    return wire.CommitSaid(version=result.version, applied=result.applied, refused=refused)


def commit_result(said: wire.CommitSaid) -> CommitResult:
    """Inverse of `commit_said`."""
    refused = tuple(Refused(index=one.index, reason=_reason(one.reason)) for one in said.refused)
    return CommitResult(version=said.version, applied=said.applied, refused=refused)


def amount(held: Resources) -> wire.Amount:
    """The same figures, cut where one is absurd: a single pod that asks for it would else refuse the whole plan."""
    return wire.Amount(
        cpu_milli=min(held.cpu_milli, wire.COUNT_MAX),
        memory_bytes=min(held.memory_bytes, wire.COUNT_MAX),
        gpus=min(held.gpus, wire.COUNT_MAX),
        gpu_model=_cut(held.gpu_model),
    )


def resources(said: wire.Amount) -> Resources:
    """Raises Invalid for a negative one."""
    return _made(
        lambda: Resources(
            cpu_milli=said.cpu_milli, memory_bytes=said.memory_bytes, gpus=said.gpus, gpu_model=said.gpu_model
        )
    )


def raised(
    code: str, message: str, *, object_: str, hint: str, numbers: Mapping[str, int | float | str]
) -> MainstayError:
    """The error that was raised at the other end; one that this version does not know counts as Unavailable."""
    return ERRORS.get(code, Unavailable)(message, object_=object_, hint=hint, numbers=numbers)


def raised_by_cluster(said: wire.Failed) -> MainstayError:
    """What an agent was refused by its cluster. Nothing that it says tells anybody who he is or what he may do."""
    error = raised(said.code, said.message, object_=said.object, hint=said.hint, numbers=said.numbers)
    if isinstance(error, Unauthenticated | Forbidden):
        return Unavailable(said.message, object_=said.object)
    return error


def failed(error: MainstayError) -> wire.Failed:
    """An error, to be raised at the other end."""
    return wire.Failed(
        code=error.code, message=error.message, object=error.object, hint=error.hint, numbers=error.numbers
    )


def secrets_said(handed: tuple[Handed, ...]) -> wire.SecretsSaid:
    """In the clear: for the agent that starts the pod, and for nobody else."""
    return wire.SecretsSaid(
        secrets=tuple(
            wire.SecretSaid(name=one.use.name, env=one.use.env, file=one.use.file, value=one.value) for one in handed
        )
    )


def _pod_said(state: PodState) -> wire.PodSaid:
    return wire.PodSaid(
        name=state.name,
        node=state.node,
        seen=int(state.seen),
        started_at=state.started_at,
        ended_at=state.ended_at,
        end=state.end or "",
        exit_code=state.exit_code,
        detail=_cut(state.detail),
        address=state.address,
        ready=state.ready,
        forgotten=state.forgotten,
    )


def _pod_state(said: wire.PodSaid) -> PodState:
    return PodState(
        name=said.name,
        node=said.node,
        seen=_seen(said.seen),
        started_at=said.started_at,
        ended_at=said.ended_at,
        end=_end(said.end),
        exit_code=said.exit_code,
        detail=said.detail,
        address=said.address,
        ready=said.ready,
        forgotten=said.forgotten,
    )


def _node_said(node: NodeState) -> wire.NodeSaid:
    return wire.NodeSaid(
        name=node.name,
        capacity=amount(node.capacity),
        ready=node.ready,
        admits=node.admits,
        shapes=node.shapes,
        unhealthy=node.unhealthy,
        problem=_cut(node.problem),
        complaints=tuple(map(_cut, node.complaints)),
        cordoned=node.cordoned,
        marked=node.marked,
        mark_undone=node.mark_undone,
        strangers=node.strangers,
        refusal=_cut(node.refusal),
        refused_at=node.refused_at,
    )


def _node_state(said: wire.NodeSaid) -> NodeState:
    return NodeState(
        name=said.name,
        capacity=resources(said.capacity),
        ready=said.ready,
        admits=said.admits,
        shapes=_counts(said.shapes),
        unhealthy=_counts(said.unhealthy),
        problem=said.problem,
        complaints=said.complaints,
        cordoned=said.cordoned,
        marked=said.marked,
        mark_undone=said.mark_undone,
        strangers=said.strangers,
        refusal=said.refusal,
        refused_at=said.refused_at,
    )


def _volume_said(state: VolumeState) -> wire.VolumeSaid:
    return wire.VolumeSaid(
        tenant=state.owner.tenant,
        project=state.owner.project,
        name=state.name,
        size_bytes=min(state.size_bytes, wire.COUNT_MAX),
        access=state.access,
        storage_class=state.storage_class,
        bound=state.bound,
        leaving=state.leaving,
        reach=state.reach,
        place=_cut(state.place),
    )


def _volume_state(said: wire.VolumeSaid) -> VolumeState:
    return VolumeState(
        owner=Owner(tenant=said.tenant, project=said.project),
        name=said.name,
        size_bytes=said.size_bytes,
        access=said.access,
        storage_class=said.storage_class,
        bound=said.bound,
        leaving=said.leaving,
        reach=said.reach,
        place=said.place,
    )


def _counts(said: Counts) -> Counts:
    """Raises Invalid for less than nothing."""
    if any(count < 0 for _, count in said):
        msg = "fewer than no devices"
        raise Invalid(msg)
    return said


def _why(reason: Reason) -> wire.Why:
    numbers = {name: _cut(value) if isinstance(value, str) else value for name, value in reason.numbers.items()}
    return wire.Why(code=reason.code.value, object=_cut(reason.object), numbers=numbers)


def _reason(said: wire.Why) -> Reason:
    return Reason(code=_known(Code, said.code), object=said.object, numbers=said.numbers)


def _cut(text: str) -> str:
    return text if len(text) <= wire.TEXT_MAX else text[: wire.TEXT_MAX - 1] + "…"


def _seconds(number: int) -> int:
    return min(max(number, 0), wire.SECONDS_MAX)


def _seen(number: int) -> Seen:
    return _made(lambda: Seen(number))


def _end(word: str) -> End | None:
    return _known(End, word) if word else None


def _known(kind: Callable[[str], A], word: str) -> A:
    return _made(lambda: kind(word))


def _made(make: Callable[[], B]) -> B:
    try:
        return make()
    except ValueError as error:
        msg = f"not known to this version: {error}"
        raise Invalid(msg, hint="are control plane and agent of neighbouring versions?") from error


def _harmless(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_harmless(name): _harmless(part) for name, part in value.items()}
        case list() | tuple():
            return [_harmless(part) for part in value]
    return value


def _plain(value: object) -> object:
    """A NumPy number in a figure of a reason."""
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    msg = f"not sendable: {type(value).__name__}"
    raise TypeError(msg)


_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
