"""Displace, and keep the places: what happens to those who yield and to the one for whom they do.

All of it is one action, so that nobody yields for a place that is not kept, and none is kept that nobody makes free.
What is told of it names nobody of another tenant.
"""

from __future__ import annotations

from mainstay.domain.plan import DropNomination, Preempt
from mainstay.domain.preemption import Rule, Victim
from mainstay.domain.reason import Code, Reason
from mainstay.store import codec, guards
from mainstay.store.apply.workloads import nothing_kept_for
from mainstay.store.rows import WorkloadRow
from mainstay.store.world import World


def preempt(world: World, action: Preempt) -> Reason | None:
    """Everything is checked before anything is written."""
    row = world.workloads.get(action.workload_key)
    if row is None:
        return guards.missing("workload", action.workload_key)
    refusal = guards.may_preempt(world, row, action)
    if refusal is not None:
        return refusal
    for victim in action.victims:
        _displace(world, row, victim)
    row["nominated"], row["nominated_until"] = codec.nomination_text(action.slots), int(action.until)
    row["reason"] = codec.reason_text(action.reason)
    world.touch_workload(row)
    world.log_preemption(row, action.reason)
    return None


def drop_nomination(world: World, action: DropNomination) -> Reason | None:
    """Twice is once."""
    row = world.workloads.get(action.workload_key)
    if row is None:
        return guards.missing("workload", action.workload_key)
    if row["nominated"]:
        nothing_kept_for(row)
        row["reason"] = codec.reason_text(action.reason)
        world.touch_workload(row)
        world.log_preemption(row, action.reason)
    return None


def _displace(world: World, preemptor: WorkloadRow, victim: Victim) -> None:
    row = world.workloads[victim.workload_key]
    reason = _told(row, preemptor, victim.rule)
    for key in victim.allocation_keys:
        pod = world.allocations[key]
        pod["stop"], pod["stop_asked_at"], pod["preempted"] = 1, world.now, int(victim.rule)
        pod["moves"], pod["surplus"], pod["yields_to"] = int(not victim.surplus), int(victim.surplus), preemptor["key"]
        world.touch_allocation(pod)
    if victim.surplus:  # it runs on, so it is not displaced, and its own reason stays
        numbers: dict[str, int | float | str] = {"count": len(victim.allocation_keys), "why": reason.sentence}
        reason = Reason(code=Code.SHRUNK, object=reason.object, numbers=numbers)
    else:
        row["displaced_by"] = " ".join([*row["displaced_by"].split(), str(preemptor["key"])])
        row["reason"] = codec.reason_text(reason)
    world.touch_workload(row)
    world.log_preemption(row, reason)


def _told(row: WorkloadRow, preemptor: WorkloadRow, rule: Rule) -> Reason:
    """Of whom it yields for, its owner learns the name only if that is of the same tenant."""
    ours = row["tenant"] == preemptor["tenant"]
    by = preemptor["id"] if ours else "other work"
    return Reason(code=Code.PREEMPTED, object=by, numbers={"why": rule.words})
