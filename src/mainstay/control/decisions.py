"""The decision loops: each reads a snapshot, decides, commits. What they decide is in `decide/`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mainstay.control.tenure import Tenure
from mainstay.decide import delivery, growth, lifecycle, metering, nodes, preemption, schedule
from mainstay.domain.plan import Action, CommitResult, Epoch, Plan
from mainstay.domain.snapshot import Snapshot
from mainstay.ports import Clock, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One kind of decision. It runs after every commit, if that wakes it, and at the latest after `period_seconds`."""

    name: str
    decide: Callable[[Snapshot], tuple[Action, ...]]
    period_seconds: float
    woken: bool = True
    """By every commit: a turn of each costs the cores of those who submit."""


DECISIONS: tuple[Decision, ...] = (
    Decision(name="lifecycle", decide=lifecycle.lifecycle, period_seconds=1.0),
    Decision(name="nodes", decide=nodes.tend, period_seconds=1.0, woken=False),
    Decision(name="schedule", decide=schedule.schedule, period_seconds=1.0),
    Decision(name="preemption", decide=preemption.preempt, period_seconds=1.0),
    Decision(name="growth", decide=growth.grow, period_seconds=10.0, woken=False),
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


def turn(store: Store, clock: Clock, tenure: Tenure, decision: Decision) -> CommitResult | None:
    """One turn: read, decide, commit. None if another replica leads or nothing was to be done. Raises Fenced."""
    epoch = tenure.epoch()
    if epoch is None:
        return None
    now = clock.now()
    # The seed only spreads retries; taking it from the version makes a turn repeatable from what it read.
    plan = plan_of(decision, store.snapshot(now=now, seed=store.version()), epoch=epoch)
    return store.commit(plan) if plan else None
