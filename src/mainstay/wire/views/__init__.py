"""What the API answers: one model per object, instants as RFC 3339 strings in UTC, money as decimal strings."""

from __future__ import annotations

from mainstay.wire.views.base import FieldProblem, Item, Number, Page, Problem, ReasonView, ResourcesView, View
from mainstay.wire.views.files import KeyView, MissingView, NamedVolumeView, SecretView, TreeEntry, TreeView
from mainstay.wire.views.fleet import AgentTokenView, ClusterView, DeviceView, GpuView, NodeView, ResidentView
from mainstay.wire.views.outlook import (
    AlternativeView,
    ExpectedStartView,
    ExplanationView,
    HeldRunView,
    HolderView,
    HoldingView,
    OptionView,
    PlanView,
)
from mainstay.wire.views.queues import (
    FlavorView,
    LocalQueueView,
    PreemptionView,
    PriorityClassView,
    QueueHistoryView,
    QueueView,
    QuotaView,
)
from mainstay.wire.views.records import AuditView, CostLine, CostView, EventView, LogEnd, LogView
from mainstay.wire.views.server import ServerView, SignInView
from mainstay.wire.views.serving import EndpointView, ModelVersionView
from mainstay.wire.views.webhooks import DeliveryView, WebhookTestView, WebhookView
from mainstay.wire.views.workloads import BulkView, PodSetView, PodView, SecretUseView, VolumeView, WorkloadView

__all__ = [
    "AgentTokenView",
    "AlternativeView",
    "AuditView",
    "BulkView",
    "ClusterView",
    "CostLine",
    "CostView",
    "DeliveryView",
    "DeviceView",
    "EndpointView",
    "EventView",
    "ExpectedStartView",
    "ExplanationView",
    "FieldProblem",
    "FlavorView",
    "GpuView",
    "HeldRunView",
    "HolderView",
    "HoldingView",
    "Item",
    "KeyView",
    "LocalQueueView",
    "LogEnd",
    "LogView",
    "MissingView",
    "ModelVersionView",
    "NamedVolumeView",
    "NodeView",
    "Number",
    "OptionView",
    "Page",
    "PlanView",
    "PodSetView",
    "PodView",
    "PreemptionView",
    "PriorityClassView",
    "Problem",
    "QueueHistoryView",
    "QueueView",
    "QuotaView",
    "ReasonView",
    "ResidentView",
    "ResourcesView",
    "SecretUseView",
    "SecretView",
    "ServerView",
    "SignInView",
    "TreeEntry",
    "TreeView",
    "View",
    "VolumeView",
    "WebhookTestView",
    "WebhookView",
    "WorkloadView",
]
