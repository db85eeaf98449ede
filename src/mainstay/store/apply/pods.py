"""Stop, enter, observe, close: what happens to an allocation."""

from __future__ import annotations

from mainstay.domain.allocation import ENDS, PodState, Seen
from mainstay.domain.plan import ClosePod, EnterPod, HandSecrets, ObservePod, StopPod
from mainstay.domain.reason import Reason
from mainstay.store import codec, guards
from mainstay.store.apply import caps
from mainstay.store.apply.history import remember
from mainstay.store.apply.workloads import hold
from mainstay.store.rows import AllocationRow
from mainstay.store.world import World


def stop_pod(world: World, action: StopPod) -> Reason | None:
    """Nothing happens to a pod that has ended or is already to be stopped."""
    row = world.allocations.get(action.allocation_key)
    if row is None:
        return guards.missing("allocation", action.allocation_key)
    if not row["stop"] and row["seen"] != Seen.ENDED:
        row["stop"], row["stop_asked_at"], row["moves"] = 1, world.now, int(action.moves)
        world.touch_allocation(row)
        world.log_allocation(row, action.reason)
    return None


def on_record(world: World, action: EnterPod | HandSecrets) -> Reason | None:
    """An event, and with it an audit row; the allocation stays as it is."""
    row = world.allocations.get(action.allocation_key)
    if row is None:
        return guards.missing("allocation", action.allocation_key)
    refusal = guards.pod_has_not_ended(row)
    if refusal is None:
        world.log_allocation(row, action.reason)
    return refusal


def observe_pod(world: World, action: ObservePod) -> Reason | None:
    """An observation that says nothing new writes nothing; an event is written when `seen` changes, and while the pod starts or
    runs, when its cluster says something else of it.
    """
    row = world.allocations.get(action.allocation_key)
    if row is None:
        return guards.missing("allocation", action.allocation_key)
    refusal = guards.pod_has_not_ended(row)
    if refusal:
        return refusal
    before, words = row["seen"], row["detail"]
    ended = action.state.seen is Seen.ENDED
    if before == Seen.RUNNING and action.state.seen is Seen.UNKNOWN:
        row["witnessed_at"] = world.witnessed_at(row["cluster"])
    if not _observe(row, action.state, now=world.now):
        return None
    world.touch_allocation(row)
    if ended and before != Seen.ENDED:
        _release(world, row)
        remember(world, row)
        _keep_output(world, row, action)
    lives = row["seen"] in {Seen.PULLING, Seen.STARTING, Seen.RUNNING}
    if before != row["seen"] or (lives and words != row["detail"]):
        world.log_allocation(row, action.reason)
    return None


def close_pod(world: World, action: ClosePod) -> Reason | None:
    """The allocation leaves the columns."""
    row = world.allocations.get(action.allocation_key)
    if row is None:
        return guards.missing("allocation", action.allocation_key)
    refusal = guards.pod_may_close(world, row)
    if refusal is None:
        row["closed"] = 1
        world.touch_allocation(row)
        if (workload := world.workloads.get(row["workload_key"])) is not None:
            caps.settle(world, workload)
    return refusal


def _observe(row: AllocationRow, state: PodState, *, now: int) -> bool:
    """Take over what was seen; whether that changed anything.

    `started_at` is written once: usage is metered from it. An end lies neither before the start nor, after a jump of
    the cluster's clock, before what has been metered already.
    """
    before = row.copy()
    ended = state.seen is Seen.ENDED
    row["seen"] = int(state.seen)
    row["ready"] = int(state.ready and not ended)
    row["address"] = "" if ended else codec.storable(state.address)
    row["started_at"] = row["started_at"] or state.started_at
    row["detail"] = codec.storable(state.detail)
    if ended:
        row["ended_at"] = max(state.ended_at or now, row["started_at"], row["metered_until"])
        row["ending"] = codec.NOT_ENDED if state.end is None else ENDS.index(state.end)
        row["exit_code"] = codec.NO_EXIT_CODE if state.exit_code is None else state.exit_code
    return row != before


def _release(world: World, row: AllocationRow) -> None:
    hold(world, world.nodes[row["node_key"]], codec.resources_of(row), sign=-1)


def _keep_output(world: World, row: AllocationRow, action: ObservePod) -> None:
    """Rank 0 speaks for its gang, and only for the attempt that counts: the fence of reliability.md R6."""
    workload = world.workloads[row["workload_key"]]
    if action.output and row["exit_code"] == 0 and row["rank"] == 0 and row["attempt"] == workload["attempt"]:
        workload["output"] = action.output
        world.touch_workload(workload)
