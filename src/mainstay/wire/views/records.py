"""What happened, what was said, and what it costs."""

from __future__ import annotations

from datetime import datetime

from mainstay.wire.views.base import ReasonView, View


class EventView(View):
    """One line of the event log. `seq` grows without gaps; resume after it."""

    seq: int
    at: datetime
    actor: str
    kind: str
    object: str
    workload: str = ""
    reason: ReasonView
    phase_before: str = ""
    phase_after: str = ""


class LogView(View):
    """Printable text of a pod's log. Ask again from `next_offset`; `ended`: nothing will follow."""

    pod: str
    rank: int
    attempt: int
    text: str
    next_offset: int
    dropped: int = 0
    ended: bool = False


class LogEnd(View):
    """The end of the log of one attempt. `next_attempt` is the one that follows, 0 if there is none."""

    workload: str
    rank: int
    attempt: int
    next_attempt: int
    phase: str


class CostLine(View):
    """The cost of one workload, project or day. `accruing` is what live pods have run up beyond the recorded charges."""

    group: str
    name: str = ""
    cpu_core_hours: float
    memory_gib_hours: float
    gpu_hours: float
    charged: str
    accruing: str
    total: str
    currency: str


class CostView(View):
    """A bill: its lines add up exactly to `total`."""

    since: datetime
    until: datetime
    group_by: str
    lines: list[CostLine]
    total: str
    currency: str


class AuditView(View):
    """Who changed what: one row for each change that anybody or a cluster made, in the order in which they were made."""

    seq: int
    at: datetime
    actor: str
    tenant: str = ""
    """Whose it was; empty: the platform's."""
    action: str
    object: str
    detail: str = ""
