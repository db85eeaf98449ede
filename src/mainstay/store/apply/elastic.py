"""Shrink and grow: what happens to the ranks of an elastic workload while its attempt goes on."""

from __future__ import annotations

from mainstay.domain.allocation import Seen
from mainstay.domain.plan import Grow, Shrink
from mainstay.domain.reason import Reason
from mainstay.store import guards
from mainstay.store.apply.workloads import capacity_left, take
from mainstay.store.world import World


def shrink(world: World, action: Shrink) -> Reason | None:
    """All of them or none. Its own reason stays: it runs on."""
    row = world.workloads.get(action.workload_key)
    if row is None:
        return guards.missing("workload", action.workload_key)
    if row["attempt"] != action.attempt:
        return guards.changed(row["id"], read=action.attempt, now=row["attempt"])
    refusal = guards.may_go_on_without(world, row, action.allocation_keys)
    if refusal is not None:
        return refusal
    for key in action.allocation_keys:
        pod = world.allocations[key]
        pod["surplus"] = 1
        if pod["seen"] != Seen.ENDED and not pod["stop"]:
            pod["stop"], pod["stop_asked_at"] = 1, world.now
        world.touch_allocation(pod)
    world.touch_workload(row)
    world.log_workload(row, action.reason)
    return None


def grow(world: World, action: Grow) -> Reason | None:
    """All slots or none. Its own reason stays: it runs on."""
    row = world.workloads.get(action.workload_key)
    if row is None:
        return guards.missing("workload", action.workload_key)
    refusal = guards.may_grow(world, row, action) or capacity_left(world, row, action.slots)
    if refusal is not None:
        return refusal
    living = [pod for pod in world.open_pods(row["key"]) if pod["seen"] != Seen.ENDED and not pod["stop"]]
    for slot in action.slots:
        take(world, row, slot, ranks=len(living) + len(action.slots))
    world.touch_workload(row)
    world.log_workload(row, action.reason)
    return None
