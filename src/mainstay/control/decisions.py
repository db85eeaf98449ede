"""The decision loops: each reads a snapshot, decides, commits. What they decide is in `decide/`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mainstay.control.tenure import Tenure
from mainstay.decide import delivery, growth, lifecycle, metering, nodes, preemption, schedule
from mainstay.domain.plan import Action, Advance, CommitResult, Epoch, Plan
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from mainstay.operations.pulse import NOTHING, OTHERS, News
from mainstay.ports import Clock, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One kind of decision. It runs after commits that may give it something to do, and at the latest after `period_seconds`."""

    name: str
    decide: Callable[[Snapshot], tuple[Action, ...]]
    period_seconds: float
    woken_by: frozenset[News] = OTHERS
    """A turn of each costs the cores of those who submit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What a turn has committed. `again`: there may be more to do at once."""

    result: CommitResult
    news: News
    again: bool


DECISIONS: tuple[Decision, ...] = (
    Decision(name="lifecycle", decide=lifecycle.lifecycle, period_seconds=1.0),
    Decision(name="nodes", decide=nodes.tend, period_seconds=1.0, woken_by=NOTHING),
    Decision(
        name="schedule",
        decide=schedule.schedule,
        period_seconds=1.0,
        woken_by=frozenset({News.SUBMITTED, News.OTHER}),
    ),
    Decision(
        name="preemption",
        decide=preemption.preempt,
        period_seconds=1.0,
        woken_by=frozenset({News.QUEUED, News.OTHER}),  # for whom the scheduler found a place, nobody is displaced
    ),
    Decision(name="growth", decide=growth.grow, period_seconds=10.0, woken_by=NOTHING),
    Decision(name="delivery", decide=delivery.deliver, period_seconds=1.0),
    Decision(name="metering", decide=metering.meter, period_seconds=10.0),
)
"""All of them. The order matters only for a reader: each works on what the others have committed."""

LEASE = "decisions"


def plan_of(decision: Decision, snapshot: Snapshot, *, epoch: Epoch) -> Plan | None:
    """What the decision wants changed, ready to commit; None if nothing."""
    actions = decision.decide(snapshot)
    if not actions:
        return None
    return Plan(actor=decision.name, now=snapshot.now, actions=actions, epoch=epoch)


def turn(store: Store, clock: Clock, tenure: Tenure, decision: Decision) -> Committed | None:
    """One turn: read, decide, commit. None if another replica leads or nothing was to be done. Raises Fenced."""
    epoch = tenure.epoch()
    if epoch is None:
        return None
    now = clock.now()
    # The seed only spreads retries; taking it from the version makes a turn repeatable from what it read.
    plan = plan_of(decision, store.snapshot(now=now, seed=store.version()), epoch=epoch)
    return _committed(store.commit(plan), plan) if plan else None


def _committed(result: CommitResult, plan: Plan) -> Committed:
    queued = all(isinstance(action, Advance) and action.phase is Phase.QUEUED for action in plan.actions)
    whole = not result.refused and len(plan.actions) < schedule.CHANGES_MAX
    news = News.QUEUED if queued else News.OTHER
    return Committed(result=result, news=news, again=result.applied > 0 and not (queued and whole))
