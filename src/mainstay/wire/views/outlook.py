"""What would become of a run: plans, explanations, and who holds what it waits for."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from mainstay.wire.views.base import ReasonView, ResourcesView, View
from mainstay.wire.views.workloads import PodSetView


class OptionView(View):
    """One way to run a workload that was asked about."""

    where: str
    resources: ResourcesView
    nodes: int
    """So many it would start with."""
    nodes_min: int = 0
    """Of an elastic job, as in WorkloadView."""
    nodes_max: int = 0
    sets: list[PodSetView] = Field(default_factory=list)
    """As in WorkloadView, with what each would get."""
    starts: Literal["now", "later", "never"]
    """`never`: it is more than the fleet has, busy or not; `reason` says how much more."""
    price_per_hour: str
    cost_max: str = ""
    """Cost if it ran for its whole max_duration; empty without one."""
    max_duration_seconds: int = 0
    """Its time limit; 0: none."""
    limited_by_queue: bool = False
    """The job says none: it is that of its queue."""
    reason: ReasonView


class AlternativeView(View):
    """One change of the request, everything else the same, with which it could start at once."""

    change: str
    """What is relaxed: `max_duration`, `infra`, `node_labels`, `spot`, `tolerations`, `topology`, `spread`, `volumes`,
    `gpu_model`, `gpus`, `nodes`, `cpus` or `memory`; of one of several pod sets with its name before it, as `worker.gpus`; of a
    choice other than the first with its number, as `choice2.gpus`. Or its turn: `queue`, `priority`.
    """
    before: str
    after: str


class ExpectedStartView(View):
    """When it is expected to start, if nobody yields for it: by playing how long what runs and what goes before it may take."""

    p50: datetime | None = None
    """By then it has started in half of the cases."""
    p90: datetime | None = None
    """In nine of ten cases."""
    not_before: datetime | None = None
    """Where more goes before it than can be played: half of the time it has not started by then."""
    sentence: str
    """All of it in words, also why an instant is not known; times from now on."""


class HolderView(View):
    """A queue that holds what is short, or several of them together. Amounts in the unit of the holding."""

    queue: str = ""
    """Empty: all those that are not named."""
    queues: int = 1
    amount: float
    borrowed: float = 0
    """Of a quota, what it uses above its own."""
    runs: int
    first_end: datetime | None = None
    """By then the first of its runs is expected to have ended, by its history or limit; of a start, when it is reserved for."""
    last_end: datetime | None = None
    """By then all of them; absent where nobody knows of some."""
    endless: int = 0
    """So many of them have neither a time limit nor a history."""


class HeldRunView(View):
    """One of your runs that holds some of it."""

    id: str
    queue: str
    amount: float
    ends_at: datetime | None = None
    """When it is expected to have ended; absent where nobody knows."""


class HoldingView(View):
    """Who holds what is short. Runs are named to their own tenant alone."""

    kind: Literal["quota", "capacity", "start", "headroom"]
    """What the queue may not use, what nodes have not, what is kept for starts that are reserved, or what is kept beside idle
    GPUs for GPU work that waits: its holders wait, too.
    """
    choice: str = ""
    """Of several choices, which it is about; empty: all there are."""
    resource: str
    """`gpu`, `cpu`, `memory`, `pods`, the shape of slices, or another resource; of reserved starts `nodes`."""
    flavor: str = ""
    """Of a quota."""
    unit: str
    """`gpus`, `cores`, `bytes`, `pods`, `nodes`, or the resource itself."""
    nodes: int = 0
    """Of capacity: so many nodes would do, were they empty."""
    holders: list[HolderView]
    """Of a quota its own queue first; else those with the most. Three by name, the others together."""
    own: list[HeldRunView] = Field(default_factory=list)
    """Runs of your tenant among them, those with the most first; five at most."""
    own_more: int = 0
    sentence: str
    """Which queues, in words; times from now on."""
    own_sentence: str = ""
    """Which of your runs, in words."""


class PlanView(View):
    """What submitting would do: nothing is changed by asking."""

    name: str
    options: list[OptionView]
    position: int
    """Place in the order of what waits, from 1; 0 if it would start at once."""
    turn: str = ""
    """How its queue orders what is as urgent, where that is not by age alone."""
    would_start_if: list[AlternativeView] = Field(default_factory=list)
    preemption: str = ""
    """Whom it could displace, or why nobody would yield for it; empty where that is not the question."""
    expected: ExpectedStartView | None = None
    """Absent where waiting alone does not help."""
    holding: HoldingView | None = None
    """Who holds what it would wait for; absent where nobody does."""
    more_holdings: list[HoldingView] = Field(default_factory=list)
    """The same for each of its other choices."""


class ExplanationView(View):
    """Why a workload is where it is and what would let it start."""

    id: str
    phase: str
    state: str = ""
    """As of the workload."""
    reason: ReasonView
    position: int = 0
    """Place in the order, from 1; 0 if it does not wait."""
    turn: str = ""
    """How its queue orders what is as urgent, where that is not by age alone."""
    would_start_if: list[AlternativeView] = Field(default_factory=list)
    preemption: str = ""
    """Whom it could displace, or why nobody yields for it; empty where that is not the question."""
    expected: ExpectedStartView | None = None
    """Absent where it does not wait, or waiting alone does not help."""
    placement: str = ""
    """The policy by which its nodes are chosen, where its queue has one of its own."""
    holding: HoldingView | None = None
    """Who holds what it waits for; absent where nobody does."""
    more_holdings: list[HoldingView] = Field(default_factory=list)
    """The same for each of its other choices."""
    sentence: str
