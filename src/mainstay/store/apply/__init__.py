"""Actions on rows: one function per action. Each checks everything first and changes rows only then, so it is whole.

A function returns why the action is refused, or None once it is applied. An action that finds nothing to change (a
stop asked for twice) is applied and writes nothing.
"""

from __future__ import annotations

import re
from typing import assert_never

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
    Guard,
    HandSecrets,
    HoldWorkload,
    IdentifyCluster,
    MoveEndpoint,
    ObserveCluster,
    ObserveNodes,
    ObservePod,
    ObserveVolumes,
    OfCluster,
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
    RowVersion,
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
from mainstay.domain.reason import Reason
from mainstay.store import guards, guards_access
from mainstay.store.apply import (
    access,
    clusters,
    elastic,
    endpoints,
    history,
    ledger,
    nodes,
    pods,
    preemption,
    queues,
    removal,
    secrets,
    volumes,
    webhooks,
    workloads,
)
from mainstay.store.belongings import home
from mainstay.store.world import World

AnyAction = (
    Submit
    | RequestStop
    | Allocate
    | Preempt
    | DropNomination
    | Advance
    | StopPod
    | Shrink
    | Grow
    | EnterPod
    | HandSecrets
    | SetSecret
    | RemoveSecret
    | AddTenant
    | AddProject
    | RemoveTenant
    | RemoveProject
    | SetOwnRole
    | RemoveOwnRole
    | SetMember
    | RemoveMember
    | AdmitMember
    | SetGroupRole
    | RemoveGroupRole
    | AddToken
    | RevokeToken
    | SpendToken
    | UseToken
    | Reseal
    | ObservePod
    | ClosePod
    | ObserveNodes
    | CordonNode
    | DrainNode
    | QuarantineNode
    | UncordonNode
    | ReleaseNode
    | AddCluster
    | DrainCluster
    | ResumeCluster
    | RemoveCluster
    | ObserveCluster
    | IdentifyCluster
    | ObserveVolumes
    | RemoveVolume
    | RecordDenial
    | UseCredentials
    | RecordUsage
    | RedactAudit
    | SetPrice
    | RegisterModel
    | Deploy
    | RedeployEndpoint
    | SwitchEndpoint
    | DropCandidate
    | MoveEndpoint
    | RemoveEndpoint
    | HoldWorkload
    | ReleaseWorkload
    | Reprioritize
    | SetQueue
    | RemoveQueue
    | SetLocalQueue
    | RemoveLocalQueue
    | SetNodeFlavor
    | RemoveNodeFlavor
    | SetQueueHistory
    | SetPriorityClass
    | RemovePriorityClass
    | AddWebhook
    | RemoveWebhook
    | RotateWebhook
    | EnableWebhook
    | QueueDeliveries
    | RecordAttempt
)


def apply(world: World, action: Action) -> Reason | None:
    """Apply one action if its guards hold and it is legal; else the reason, and nothing has changed."""
    for guard in action.guards:
        refusal = _refusal(world, guard)
        if refusal:
            return refusal
    return guards_access.home_is_there(world, home(action)) or _change(world, known(action))


def known(action: Action) -> AnyAction:
    """The action as one of those that exist; `match` over it is checked to be complete."""
    if isinstance(action, AnyAction):
        return action
    msg = f"no such action: {type(action).__name__}"
    raise TypeError(msg)


def word(action: Action) -> str:
    """The name of an action in the audit: request_stop."""
    return _CAPITAL.sub("_", type(action).__name__).lower()


_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def _refusal(world: World, guard: Guard) -> Reason | None:
    match guard:
        case RowVersion():
            return guards.row_version_holds(world, guard)
        case CapacityLeft():
            return guards.capacity_left(world, guard)
        case OfCluster():
            return guards.of_cluster(world, guard)


def _change(world: World, action: AnyAction) -> Reason | None:  # noqa: C901, PLR0912, PLR0915 - one line per action
    match action:
        case Submit():
            return workloads.submit(world, action)
        case RequestStop():
            return workloads.request_stop(world, action)
        case Allocate():
            return workloads.allocate(world, action)
        case Preempt():
            return preemption.preempt(world, action)
        case DropNomination():
            return preemption.drop_nomination(world, action)
        case Advance():
            return workloads.advance(world, action)
        case StopPod():
            return pods.stop_pod(world, action)
        case Shrink():
            return elastic.shrink(world, action)
        case Grow():
            return elastic.grow(world, action)
        case EnterPod() | HandSecrets():
            return pods.on_record(world, action)
        case SetSecret():
            return secrets.set_secret(world, action)
        case RemoveSecret():
            return secrets.remove_secret(world, action)
        case AddTenant():
            return access.add_tenant(world, action)
        case AddProject():
            return access.add_project(world, action)
        case RemoveTenant():
            return removal.remove_tenant(world, action)
        case RemoveProject():
            return removal.remove_project(world, action)
        case SetOwnRole():
            return access.set_own_role(world, action)
        case RemoveOwnRole():
            return access.remove_own_role(world, action)
        case SetMember():
            return access.set_member(world, action)
        case RemoveMember():
            return access.remove_member(world, action)
        case AddToken():
            return access.add_token(world, action)
        case AdmitMember():
            return access.admit_member(world, action)
        case SetGroupRole():
            return access.set_group_role(world, action)
        case RemoveGroupRole():
            return access.remove_group_role(world, action)
        case RevokeToken():
            return access.revoke_token(world, action)
        case SpendToken():
            return access.spend_token(world, action)
        case UseToken():
            return access.use_token(world, action)
        case Reseal():
            return secrets.reseal(world, action)
        case ObservePod():
            return pods.observe_pod(world, action)
        case ClosePod():
            return pods.close_pod(world, action)
        case ObserveNodes():
            return nodes.observe_nodes(world, action)
        case ObserveVolumes():
            return volumes.observe_volumes(world, action)
        case RemoveVolume():
            return volumes.remove_volume(world, action)
        case CordonNode():
            return nodes.cordon_node(world, action)
        case DrainNode():
            return nodes.drain_node(world, action)
        case QuarantineNode():
            return nodes.quarantine_node(world, action)
        case UncordonNode():
            return nodes.uncordon_node(world, action)
        case ReleaseNode():
            return nodes.release_node(world, action)
        case AddCluster():
            return clusters.add_cluster(world, action)
        case DrainCluster():
            return clusters.drain_cluster(world, action)
        case ResumeCluster():
            return clusters.resume_cluster(world, action)
        case RemoveCluster():
            return clusters.remove_cluster(world, action)
        case ObserveCluster():
            return clusters.observe_cluster(world, action)
        case IdentifyCluster():
            return clusters.identify_cluster(world, action)
        case RecordDenial():
            return ledger.record_denial(world, action)
        case UseCredentials():
            return clusters.use_credentials(world, action)
        case RedactAudit():
            return ledger.redact_audit(world, action)
        case RecordUsage():
            return ledger.record_usage(world, action)
        case SetPrice():
            return ledger.set_price(world, action)
        case RegisterModel():
            return endpoints.register_model(world, action)
        case Deploy():
            return endpoints.deploy(world, action)
        case RedeployEndpoint():
            return endpoints.redeploy_endpoint(world, action)
        case SwitchEndpoint():
            return endpoints.switch_endpoint(world, action)
        case DropCandidate():
            return endpoints.drop_candidate(world, action)
        case MoveEndpoint():
            return endpoints.move_endpoint(world, action)
        case RemoveEndpoint():
            return endpoints.remove_endpoint(world, action)
        case HoldWorkload():
            return workloads.hold_workload(world, action)
        case ReleaseWorkload():
            return workloads.release_workload(world, action)
        case Reprioritize():
            return workloads.reprioritize(world, action)
        case SetQueue():
            return queues.set_queue(world, action)
        case RemoveQueue():
            return queues.remove_queue(world, action)
        case SetLocalQueue():
            return queues.set_local_queue(world, action)
        case RemoveLocalQueue():
            return queues.remove_local_queue(world, action)
        case SetNodeFlavor():
            return queues.set_node_flavor(world, action)
        case RemoveNodeFlavor():
            return queues.remove_node_flavor(world, action)
        case SetQueueHistory():
            return history.set_queue_history(world, action)
        case SetPriorityClass():
            return queues.set_priority_class(world, action)
        case RemovePriorityClass():
            return queues.remove_priority_class(world, action)
        case AddWebhook():
            return webhooks.add_webhook(world, action)
        case RemoveWebhook():
            return webhooks.remove_webhook(world, action)
        case RotateWebhook():
            return webhooks.rotate_webhook(world, action)
        case EnableWebhook():
            return webhooks.enable_webhook(world, action)
        case QueueDeliveries():
            return webhooks.queue_deliveries(world, action)
        case RecordAttempt():
            return webhooks.record_attempt(world, action)
        case _:
            assert_never(action)
