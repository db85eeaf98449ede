"""Queues, flavors of nodes, and what orders work."""

from __future__ import annotations

from dataclasses import dataclass

from mainstay.domain.flavor import NodeFlavor
from mainstay.domain.history import HistoryPolicy
from mainstay.domain.plan.action import Action
from mainstay.domain.queue import LocalQueue, PriorityClass, QueueSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SetQueue(Action):
    """Put a queue or cohort on record, or say anew all that it is. Refused where the tree would not be one."""

    queue: QueueSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveQueue(Action):
    """Forget a queue or cohort. Refused while open workloads are in it or others are below it."""

    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetNodeFlavor(Action):
    """Put a flavor of nodes on record, or say anew which nodes are of it. What runs on them counts as they are from then on."""

    flavor: NodeFlavor
    before: str = ""
    """The flavor that it is to come just before; empty: it stays where it is, and a new one comes last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNodeFlavor(Action):
    """Forget a flavor of nodes. Refused while a queue or cohort has a quota of it."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLocalQueue(Action):
    """Say for which queue a name of a namespace stands, from the next pods on. Refused where that is no queue."""

    local: LocalQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveLocalQueue(Action):
    """Forget what a name stands for. What waits keeps its queue."""

    cluster: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetQueueHistory(Action):
    """Say anew whether what queues used lately counts, and how.

    What is on record fades on by the new half-life; off forgets it.
    """

    policy: HistoryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPriorityClass(Action):
    """Give a priority a name. Workloads keep the number that they were submitted with."""

    priority_class: PriorityClass


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePriorityClass(Action):
    """Forget a name. Refused if it is not there."""

    name: str
