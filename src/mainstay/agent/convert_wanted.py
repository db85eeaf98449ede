"""What is wanted of a cluster, as its agent hears of it: slices of allocations, workloads, specifications, nodes kept out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mainstay.agent.convert import amount, end_of, known_word, made_by, reason_of, resources, seen_of, why_said
from mainstay.domain.affinity import NodeNeed, Requirement, Spot, Toleration
from mainstay.domain.allocation import Allocation, Owner, Wanted
from mainstay.domain.capacity import Closure, Keeping
from mainstay.domain.errors import (
    Invalid,
)
from mainstay.domain.secret import SecretUse
from mainstay.domain.topology import Spread, TopologyNeed
from mainstay.domain.volume import VolumeRef
from mainstay.domain.workload import (
    Elastic,
    Kind,
    Mount,
    OnPartition,
    Phase,
    PodRef,
    PodSet,
    RetryPolicy,
    Volume,
    Workload,
    WorkloadSpec,
)
from mainstay.ports import WantedChanges
from mainstay.wire import agent as wire


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
            reason=why_said(one.reason),
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
            keeping=known_word(Keeping, one.keeping),
            reason=reason_of(one.reason),
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
        ranks=row.ranks,
        node=row.node,
        resources=amount(row.resources),
        version=row.version,
        created_at=row.created_at,
        stop=row.stop,
        stop_asked_at=row.stop_asked_at,
        moves=row.moves,
        surplus=row.surplus,
        seen=int(row.seen),
        ready=row.ready,
        address=row.address,
        started_at=row.started_at,
        ended_at=row.ended_at,
        metered_until=row.metered_until,
        witnessed_at=row.witnessed_at,
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
        ranks=said.ranks or spec.nodes,
        node=said.node,
        cluster=cluster,
        resources=resources(said.resources),
        stop=said.stop,
        stop_asked_at=said.stop_asked_at,
        moves=said.moves,
        surplus=said.surplus,
        seen=seen_of(said.seen),
        ready=said.ready,
        address=said.address,
        created_at=said.created_at,
        started_at=said.started_at,
        ended_at=said.ended_at,
        metered_until=said.metered_until,
        witnessed_at=said.witnessed_at,
        end=end_of(said.end),
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
        reason=why_said(workload.reason),
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
        phase=made_by(lambda: Phase(said.phase)),
        reason=reason_of(said.reason),
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
    need = spec.topology
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
        elastic=(spec.elastic.nodes_min, spec.elastic.nodes_max) if spec.elastic else None,
        choices=tuple(amount(choice) for choice in spec.choices),
        equals=spec.equals,
        sets=tuple(
            wire.Alike(
                name=one.name,
                nodes=one.nodes,
                resources=amount(one.resources),
                cpu_limit_milli=one.cpu_limit_milli,
                memory_limit_bytes=one.memory_limit_bytes,
                run=one.run,
            )
            for one in spec.sets
        ),
        cpu_limit_milli=spec.cpu_limit_milli,
        memory_limit_bytes=spec.memory_limit_bytes,
        infrastructure_max=spec.retry.infrastructure_max,
        user_max=spec.retry.user_max,
        backoff_seconds=spec.retry.backoff_seconds,
        backoff_seconds_max=spec.retry.backoff_seconds_max,
        always=spec.retry.always,
        attempts_max=spec.retry.attempts_max,
        max_duration_seconds=spec.max_duration_seconds,
        stop_grace_seconds=spec.stop_grace_seconds,
        checkpoint_seconds=spec.checkpoint_seconds,
        port=spec.port,
        ready_path=spec.ready_path,
        cluster=spec.cluster,
        guests=tuple((guest.namespace, guest.name, guest.uid) for guest in spec.guests),
        restriction=spec.restriction,
        need=_need_said(spec.need),
        topology=(need.level, need.required) if need else None,
        spread=(need.spread.level, need.spread.at_most) if need and need.spread else None,
        on_partition=spec.on_partition.value,
        partition_seconds=spec.partition_seconds,
    )


def specification(said: wire.Specified) -> WorkloadSpec:
    """Inverse of `specified`. Raises Invalid for a kind that this version does not know."""
    return WorkloadSpec(
        kind=known_word(Kind, said.kind),
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
        elastic=Elastic(nodes_min=said.elastic[0], nodes_max=said.elastic[1]) if said.elastic else None,
        choices=tuple(resources(choice) for choice in said.choices),
        equals=said.equals,
        sets=tuple(
            PodSet(
                name=one.name,
                nodes=one.nodes,
                resources=resources(one.resources),
                cpu_limit_milli=one.cpu_limit_milli,
                memory_limit_bytes=one.memory_limit_bytes,
                run=one.run,
            )
            for one in said.sets
        ),
        cpu_limit_milli=said.cpu_limit_milli,
        memory_limit_bytes=said.memory_limit_bytes,
        retry=RetryPolicy(
            infrastructure_max=said.infrastructure_max,
            user_max=said.user_max,
            backoff_seconds=said.backoff_seconds,
            backoff_seconds_max=said.backoff_seconds_max,
            always=said.always,
            attempts_max=said.attempts_max,
        ),
        max_duration_seconds=said.max_duration_seconds,
        stop_grace_seconds=said.stop_grace_seconds,
        checkpoint_seconds=said.checkpoint_seconds,
        port=said.port,
        ready_path=said.ready_path,
        cluster=said.cluster,
        guests=tuple(PodRef(namespace=namespace, name=name, uid=uid) for namespace, name, uid in said.guests),
        restriction=said.restriction,
        need=_need(said.need),
        topology=_topology(said),
        on_partition=known_word(OnPartition, said.on_partition),
        partition_seconds=said.partition_seconds,
    )


def _need_said(wanted: NodeNeed | None) -> wire.NeedSaid | None:
    """Without what is preferred: the place is chosen by the time an agent hears of it."""
    if wanted is None or (wanted := wanted.required) is None:
        return None
    return wire.NeedSaid(
        requirements=tuple(
            wire.RequirementSaid(key=one.key, operator=one.operator, values=one.values) for one in wanted.requirements
        ),
        tolerations=tuple((one.key, one.operator, one.value, one.effect) for one in wanted.tolerations),
        spot=wanted.spot.value,
    )


def _need(said: wire.NeedSaid | None) -> NodeNeed | None:
    """Raises Invalid for a word that is none."""
    if said is None:
        return None
    return NodeNeed(
        requirements=tuple(
            Requirement(key=one.key, operator=one.operator, values=one.values) for one in said.requirements
        ),
        tolerations=tuple(
            Toleration(key=key, operator=operator, value=value, effect=effect)
            for key, operator, value, effect in said.tolerations
        ),
        spot=known_word(Spot, said.spot),
    )


def _topology(said: wire.Specified) -> TopologyNeed | None:
    if said.topology is None:
        return None
    level, required = said.topology
    spread = Spread(level=said.spread[0], at_most=said.spread[1]) if said.spread else None
    return TopologyNeed(level=level, required=required, spread=spread)


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
