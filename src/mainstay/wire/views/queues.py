"""Queues, their quotas, and what orders the work in them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from mainstay.wire.views.base import View


class QuotaView(View):
    """A quota of a queue or cohort, and what is used of it. Amounts are in `unit`."""

    resource: str
    flavor: str
    unit: str
    """cores, bytes, gpus or pods"""
    nominal: float
    borrowing_limit: float | None = None
    """None: as much as is left."""
    lending_limit: float | None = None
    """None: all of it."""
    used: float
    """By the workloads that you may see: all of them, for an administrator, or those of your own tenant."""
    available: float
    """What it may still use now, borrowing included."""
    borrowed: float | None = None
    """Above what is its own. Only for administrators, as `lent`."""
    lent: float | None = None
    """Of its own, what it could not have now because others use it."""


class FlavorView(View):
    """A flavor of nodes, and what its nodes that take work have. In their order: a node is of the first that it meets."""

    name: str
    node_labels: list[str]
    """All of them hold on its nodes."""
    nodes: int
    cores: float
    memory_bytes: int
    gpus: int
    queues: list[str] = Field(default_factory=list)
    """Queues and cohorts that have a quota of it."""
    set_at: datetime
    set_by: str


class PreemptionView(View):
    """Whose place the work of a queue may take, in the words of `PreemptionRequest`."""

    within_queue: str = "never"
    reclaim: str = "never"
    borrow: str = "never"
    borrow_priority_max: int | None = None
    fair_share: str = "never"
    min_runtime_seconds: int = 0


class QueueView(View):
    """A queue or cohort. Rows of the tree: a parent comes before its children."""

    name: str
    parent: str = ""
    cohort: bool = False
    weight: float = 1
    quotas: list[QuotaView] = Field(default_factory=list)
    preemption: PreemptionView = PreemptionView()
    reserved_after_seconds: int = 600
    """So long its work waits, finding no room, before a start is reserved for it."""
    placement: str = "least-waste"
    """The policy by which nodes are chosen for its work."""
    order: str = "fair"
    """Which of its work goes first of what is as urgent."""
    default_max_duration_seconds: int = 0
    """The limit of a job that is submitted to it and says none; 0: none."""
    users: list[str] = Field(default_factory=list)
    """Whose jobs it takes, `TENANT` or `TENANT/PROJECT`; empty: everybody's. Only for administrators."""
    share: float | None = None
    """Weighted dominant share: the largest part of what it could borrow that it does, 0 to 1 at weight 1. Only for
    administrators, as the four that follow.
    """
    fair_share: float | None = None
    """Part of the fleet, 0 to 1: its own, and of the rest its part by weight; what it had if everybody wanted all."""
    demand_capped_share: float | None = None
    """The same if nobody has more than they hold and ask for, and others share what that leaves."""
    held_share: float | None = None
    """What it holds now, of the resource of which that is most."""
    lately: float | None = None
    """What it has used lately, likewise; 0 where no history is kept."""
    waiting: int
    """Workloads that you may see, as `used`; a cohort counts all below it."""
    running: int
    """Those that have a place."""
    set_at: datetime | None = None
    """None: nobody has set it; it is the default queue, or a cohort that others name."""
    set_by: str = ""
    warnings: list[str] = Field(default_factory=list)


class LocalQueueView(View):
    """The name that a namespace has for a queue."""

    cluster: str = ""
    """Empty: every cluster that says nothing else of that name."""
    namespace: str
    name: str
    queue: str
    set_at: datetime
    set_by: str


class QueueHistoryView(View):
    """Whether what queues have used lately counts towards their turns, and how."""

    half_life_seconds: int
    """What was used so long ago counts half; 0: it is off."""
    weight: float
    """How many times as much as what is held now."""
    entry_seconds: int
    """Every pod counts as if it had run for so long at least."""
    set_at: datetime | None = None
    """None: nobody has set it."""
    set_by: str = ""


class PriorityClassView(View):
    """A name for a priority."""

    name: str
    priority: int
    preemptible: bool = True
