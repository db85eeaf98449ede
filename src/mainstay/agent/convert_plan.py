"""What an agent commits: its actions and what became of them, with the pods, nodes, volumes and guests that it saw."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Literal, TypeAlias, assert_never

from mainstay.agent.convert import (
    amount,
    cut,
    end_of,
    known_word,
    reason_of,
    resources,
    seen_of,
    whole_seconds,
    why_said,
)
from mainstay.decide.guests import new_workload, workload_id
from mainstay.domain.affinity import Taint, Traits, traits
from mainstay.domain.allocation import Owner, PodState
from mainstay.domain.capacity import NodeState
from mainstay.domain.errors import (
    Invalid,
)
from mainstay.domain.fleet import Contact
from mainstay.domain.guest import Guest
from mainstay.domain.image import IMAGES_MAX
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
from mainstay.domain.quantity import Counts
from mainstay.domain.reason import Code, Reason
from mainstay.domain.topology import need_of
from mainstay.domain.volume import VolumeState
from mainstay.domain.workload import (
    SETS_MAX,
    Kind,
    Phase,
    PodRef,
)
from mainstay.wire import agent as wire


def plan_said(epoch: int, actions: tuple[Action, ...]) -> wire.PlanSaid:
    """What an effect loop commits. Anything else is a mistake of ours."""
    return wire.PlanSaid(epoch=epoch, actions=tuple(_act(action) for action in actions))


def actions(said: wire.PlanSaid, *, cluster: str) -> tuple[Action, ...]:
    """Inverse of `plan_said`, about this very cluster. Raises Invalid."""
    return tuple(_action(act, cluster) for act in said.actions)


def _act(action: Action) -> wire.Act:
    reason = why_said(action.reason)
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
        sets=tuple((one.nodes, amount(one.resources)) for one in spec.sets),
        restriction=spec.restriction,
        grace_seconds=whole_seconds(spec.stop_grace_seconds),
        max_duration_seconds=whole_seconds(spec.max_duration_seconds),
        topology=(spec.topology.level, spec.topology.required) if spec.topology else None,
        spread=spec.topology.spread.level if spec.topology and spec.topology.spread else "",
    )


def _submission(said: wire.GuestsSubmitted, cluster: str) -> Submit:
    """The same workload as the loop of the agent had made: nothing but what guests are can be said. Raises Invalid."""
    sets = said.sets or ((len(said.pods), said.resources),)
    counts = [count for count, _ in sets]
    if not said.pods or len(counts) > SETS_MAX or min(counts) < 1 or sum(counts) != len(said.pods):
        msg = "a submission of no pods, or of others than its sets have"
        raise Invalid(msg, object_=said.name)
    level, required = said.topology or ("", False)
    each = itertools.chain.from_iterable(itertools.repeat(resources(one), count) for count, one in sets)
    unit = tuple(
        Guest(
            pod=PodRef(namespace=namespace, name=name, uid=uid),
            tenant=said.tenant,
            project=said.project,
            queue=said.queue,
            priority=said.priority,
            resources=asked,
            restriction=said.restriction,
            grace_seconds=whole_seconds(said.grace_seconds),
            max_duration_seconds=whole_seconds(said.max_duration_seconds),
            topology=need_of(level, required=required, apart=(said.spread,)),
        )
        for (namespace, name, uid), asked in zip(said.pods, each, strict=True)
    )
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
    reason = reason_of(act.reason)
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
            known: dict[_TraitsSaid, Traits] = {}
            nodes = tuple(_node_state(node, known) for node in act.nodes)
            return ObserveNodes(reason=reason, cluster=cluster, nodes=nodes, at=act.at)
        case wire.NodeSuspected():
            return QuarantineNode(
                reason=reason, cluster=cluster, node=act.node, until=act.until, refused_at=act.refused_at
            )
        case wire.ContactObserved():
            return ObserveCluster(reason=reason, cluster=cluster, seen=known_word(Contact, act.seen))
        case _:
            assert_never(act)


def _version(action: Action) -> int:
    return next((guard.version for guard in action.guards if isinstance(guard, RowVersion)), 0)


def _guards(kind: Literal["allocation", "workload"], key: int, version: int) -> tuple[RowVersion, ...]:
    return (RowVersion(kind=kind, key=key, version=version),) if version else ()


def commit_said(result: CommitResult) -> wire.CommitSaid:
    """Plans of loops have no idempotency key, hence no reply."""
    refused = tuple(wire.RefusedSaid(index=one.index, reason=why_said(one.reason)) for one in result.refused)
    return wire.CommitSaid(version=result.version, applied=result.applied, refused=refused)


def commit_result(said: wire.CommitSaid) -> CommitResult:
    """Inverse of `commit_said`."""
    refused = tuple(Refused(index=one.index, reason=reason_of(one.reason)) for one in said.refused)
    return CommitResult(version=said.version, applied=said.applied, refused=refused)


def _pod_said(state: PodState) -> wire.PodSaid:
    return wire.PodSaid(
        name=state.name,
        node=state.node,
        seen=int(state.seen),
        started_at=state.started_at,
        ended_at=state.ended_at,
        end=state.end or "",
        exit_code=state.exit_code,
        detail=cut(state.detail),
        address=state.address,
        ready=state.ready,
        forgotten=state.forgotten,
    )


def _pod_state(said: wire.PodSaid) -> PodState:
    return PodState(
        name=said.name,
        node=said.node,
        seen=seen_of(said.seen),
        started_at=said.started_at,
        ended_at=said.ended_at,
        end=end_of(said.end),
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
        labels=node.traits.labels,
        taints=tuple((one.key, one.value, one.effect) for one in node.traits.taints),
        spot=node.traits.spot,
        barred=node.barred,
        topology=node.topology,
        images=node.images,
        shapes=node.shapes,
        whole=None if node.whole is None else amount(node.whole),
        whole_shapes=node.whole_shapes,
        pods_max=node.pods_max,
        unhealthy=node.unhealthy,
        problem=cut(node.problem),
        complaints=tuple(map(cut, node.complaints)),
        cordoned=node.cordoned,
        marked=node.marked,
        mark_undone=node.mark_undone,
        strangers=node.strangers,
        refusal=cut(node.refusal),
        refused_at=node.refused_at,
    )


_TraitsSaid: TypeAlias = tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str, str], ...], bool]


def _node_state(said: wire.NodeSaid, known: dict[_TraitsSaid, Traits]) -> NodeState:
    """`known`: traits that other nodes have had, and shall share."""
    return NodeState(
        name=said.name,
        capacity=resources(said.capacity),
        ready=said.ready,
        admits=said.admits,
        traits=_traits((said.labels, said.taints, said.spot), known),
        barred=said.barred,
        topology=said.topology,
        images=_counts(said.images)[:IMAGES_MAX],
        shapes=_counts(said.shapes),
        whole=None if said.whole is None else resources(said.whole),
        whole_shapes=_counts(said.whole_shapes),
        pods_max=None if said.pods_max is None else max(0, said.pods_max),
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


def _traits(said: _TraitsSaid, known: dict[_TraitsSaid, Traits]) -> Traits:
    """No more than is kept of a node, whatever an agent says."""
    if said not in known:
        labels, told, spot = said
        found = traits(dict(labels), (Taint(key=key, value=value, effect=effect) for key, value, effect in told))
        known[said] = replace(found, spot=found.spot or spot)
    return known[said]


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
        place=cut(state.place),
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
