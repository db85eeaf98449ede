"""Submit, stop, allocate, advance: what changes a workload."""

from __future__ import annotations

from dataclasses import replace

from mainstay.domain.allocation import ENDS, End, Seen
from mainstay.domain.plan import (
    Advance,
    Allocate,
    CapacityLeft,
    HoldWorkload,
    NewWorkload,
    ReleaseWorkload,
    Reprioritize,
    RequestStop,
    Submit,
)
from mainstay.domain.preemption import Slot
from mainstay.domain.quantity import Resources, is_shape, total
from mainstay.domain.reason import Code, Reason
from mainstay.domain.workload import (
    WAITING,
    Kind,
    Phase,
    typical,
    typical_on,
    usual_seconds,
)
from mainstay.store import codec, guards, guards_access
from mainstay.store.apply import caps
from mainstay.store.rows import AllocationRow, NodeRow, WorkloadRow
from mainstay.store.world import World


def submit(world: World, action: Submit) -> Reason | None:
    """A taken id is refused: the caller mints another."""
    new = action.workload
    refusal = (
        guards.tenant_may_submit(world, action) or guards_access.token_may_take(world, new) or id_is_free(new, world)
    )
    if refusal is None:
        store_workload(world, _in_its_queue(world, new), action.reason)
    return refusal


def _in_its_queue(world: World, new: NewWorkload) -> NewWorkload:
    """A guest that names its queue as its namespace does, in the queue that this stands for."""
    if new.spec.kind is not Kind.POD or "/" not in new.queue:
        return new
    return replace(new, queue=world.queue_behind(new.spec.cluster, new.queue))


def id_is_free(new: NewWorkload, world: World) -> Reason | None:
    """Whether no workload of any tenant has the id: pod names derive from it."""
    return Reason(code=Code.DUPLICATE, object=new.id) if new.id in world.taken_ids else None


def store_workload(world: World, new: NewWorkload, reason: Reason) -> WorkloadRow:
    """Write the row of a new workload and its first event."""
    row = codec.new_workload_row(new, reason, key=world.new_key(), now=world.now, version=world.version)
    row["typical_on"] = codec.typical_text(
        typical_on(world.run_times_on.get((new.tenant, new.project, row["name"]), {}))
    )
    world.add_workload(row)
    caps.take(world, new, key=row["key"])
    world.log_workload(row, reason, after=Phase.PENDING)
    return row


def request_stop(world: World, action: RequestStop) -> Reason | None:
    """Nothing happens to a workload that is final or already to be stopped."""
    row = world.workloads.get(action.workload_key)
    if row is None:
        return guards.missing("workload", action.workload_key)
    stop_workload(world, row, action.reason)
    return None


def stop_workload(world: World, row: WorkloadRow, reason: Reason) -> None:
    """Mark it as no longer wanted. Its own reason stays: it says why it is where it is."""
    if not row["stop_requested"] and not Phase(row["phase"]).final:
        row["stop_requested"] = 1
        world.touch_workload(row)
        world.log_workload(row, reason)


def hold_workload(world: World, action: HoldWorkload) -> Reason | None:
    """Twice is once."""
    row = world.workloads.get(action.workload_key)
    if row is None:
        return guards.missing("workload", action.workload_key)
    if refusal := guards.may_be_held(row):
        return refusal
    if not row["held"]:
        row["held"], row["reason"] = 1, codec.reason_text(action.reason)
        nothing_kept_for(row)
        world.touch_workload(row)
        world.log_workload(row, action.reason)
    return None


def release_workload(world: World, action: ReleaseWorkload) -> Reason | None:
    """It is PENDING again, so that the next cycle says anew why it waits."""
    row = world.workloads.get(action.workload_key)
    if row is None:
        return guards.missing("workload", action.workload_key)
    if row["held"]:
        before = Phase(row["phase"])
        row["held"] = 0
        if before in WAITING:
            row["phase"], row["reason"] = int(Phase.PENDING), codec.reason_text(action.reason)
        world.touch_workload(row)
        after = Phase(row["phase"])
        if before is after:
            world.log_workload(row, action.reason)
        else:
            world.log_workload(row, action.reason, before=before, after=after)
    return None


def reprioritize(world: World, action: Reprioritize) -> Reason | None:
    """The same once more writes nothing. Its own reason stays: it says why it is where it is."""
    row = world.workloads.get(action.workload_key)
    if row is None:
        return guards.missing("workload", action.workload_key)
    if refusal := guards.may_be_reprioritized(row):
        return refusal
    wanted = (int(action.priority), int(action.preemptible))
    if (row["priority"], row["preemptible"]) != wanted:
        row["priority"], row["preemptible"] = wanted
        row["displaced_by"] = ""  # somebody has said anew whom it may displace
        world.touch_workload(row)
        world.log_workload(row, action.reason)
    return None


def allocate(world: World, action: Allocate) -> Reason | None:
    """All slots or none. Capacity is checked against the node rows whatever guards the action carries."""
    row = world.workloads.get(action.workload_key)
    if row is None:
        return guards.missing("workload", action.workload_key)
    refusal = (
        guards.attempt_may_start(row, action)
        or guards.no_attempt_lives(world, row)
        or guards.slot_is_new(world, row, action)
        or capacity_left(world, row, action.slots)
    )
    if refusal:
        return refusal
    for slot in action.slots:
        take(world, row, slot, ranks=len(action.slots))
    nothing_kept_for(row)
    before = Phase(row["phase"])
    _write_history(world, row)
    if not row["max_duration_seconds"]:
        row["usual_seconds"] = usual_seconds(world.run_times.like(row))
    row["phase"] = int(Phase.STARTING)
    row["reason"] = codec.reason_text(action.reason)
    world.touch_workload(row)
    world.log_workload(row, action.reason, before=before, after=Phase.STARTING)
    return None


def advance(world: World, action: Advance) -> Reason | None:
    """Legal transitions only; staying in a phase may change the counters and the reason."""
    row = world.workloads.get(action.workload_key)
    if row is None:
        return guards.missing("workload", action.workload_key)
    refusal = guards.phase_may_follow(row, action) or guards.attempt_may_follow(row, action)
    if refusal:
        return refusal
    before = Phase(row["phase"])
    if action.phase is Phase.QUEUED:
        _write_history(world, row)
    counts = action.phase is Phase.SUCCEEDED or _was_not_copied(world, row)
    if action.attempt > row["attempt"] or (action.phase.final and not counts):
        row["output"] = ""  # it was what an attempt left that does not count
    if action.phase not in WAITING:
        nothing_kept_for(row)
    row["phase"] = int(action.phase)
    row["attempt"] = int(action.attempt)
    row["not_before"] = int(action.not_before)
    row["infrastructure_failures"] = int(action.infrastructure_failures)
    row["user_failures"] = int(action.user_failures)
    row["reason"] = codec.reason_text(action.reason)
    row["started_at"] = row["started_at"] or _started_at(world, row)
    row["finished_at"] = _finished_at(world, row) if action.phase.final else 0
    world.touch_workload(row)
    caps.settle(world, row)
    world.log_workload(row, action.reason, before=before, after=action.phase)
    return None


def _write_history(world: World, row: WorkloadRow) -> None:
    """What it takes, as far as the last runs like it say."""
    row["typical_seconds"], row["spread_permille"] = typical(world.run_times.like(row))


def nothing_kept_for(row: WorkloadRow) -> None:
    """It has its place, or wants none now."""
    row["nominated"], row["nominated_until"] = "", 0


def _was_not_copied(world: World, row: WorkloadRow) -> bool:
    """Whether its attempt has ended well, but for a copy that an object store did not take."""
    refused = ENDS.index(End.COPY_REFUSED)
    return any(
        pod["attempt"] == row["attempt"] and pod["rank"] == 0 and pod["ending"] == refused
        for pod in world.open_pods(row["key"])
    )


def capacity_left(world: World, row: WorkloadRow, slots: tuple[Slot, ...]) -> Reason | None:
    """Whether all these places are free, and kept for nobody else."""
    wishes: dict[int, list[Resources]] = {}
    for slot in slots:
        wishes.setdefault(slot.node_key, []).append(slot.resources)
    for node_key, wish in wishes.items():
        for amount in total(wish):
            guard = CapacityLeft(
                node_key=node_key,
                resources=amount,
                restriction=codec.restriction_of(row["restriction"]),
                pods=len(wish),
            )
            refusal = guards.capacity_left(world, guard) or guards.place_is_not_kept(world, row["key"], guard)
            if refusal:
                return refusal
    return None


def hold(world: World, node: NodeRow, amount: Resources, *, sign: int = 1) -> None:
    """One pod more is on a node and uses so much of it, or with `sign` -1 one less."""
    node["used_cpu_milli"] += sign * amount.cpu_milli
    node["used_memory_bytes"] += sign * amount.memory_bytes
    node["used_pods"] += sign
    if is_shape(amount.gpu_model):
        used = codec.counts_of(node["used_shapes"])
        used[amount.gpu_model] = used.get(amount.gpu_model, 0) + sign * amount.gpus
        node["used_shapes"] = codec.counts_text(used)
    else:
        node["used_gpus"] += sign * amount.gpus
    world.touch_node(node)


def take(world: World, workload: WorkloadRow, slot: Slot, *, ranks: int) -> None:
    """Give it the place. `ranks`: so many its attempt has with all that it is given now."""
    node = world.nodes[slot.node_key]
    hold(world, node, slot.resources)
    world.add_allocation(_allocation_row(world, workload, node, slot, ranks=ranks))


def _allocation_row(world: World, workload: WorkloadRow, node: NodeRow, slot: Slot, *, ranks: int) -> AllocationRow:
    return AllocationRow(
        key=world.new_key(),
        workload_key=workload["key"],
        workload=workload["id"],
        tenant=workload["tenant"],
        project=workload["project"],
        attempt=workload["attempt"],
        rank=slot.rank,
        ranks=ranks,
        node_key=node["key"],
        node=node["name"],
        cluster=node["cluster"],
        cpu_milli=slot.resources.cpu_milli,
        memory_bytes=slot.resources.memory_bytes,
        gpus=slot.resources.gpus,
        gpu_model=slot.resources.gpu_model,
        stop=0,
        stop_asked_at=0,
        moves=0,
        preempted=0,
        yields_to=0,
        surplus=0,
        seen=int(Seen.NOTHING),
        ready=0,
        address="",
        created_at=world.now,
        started_at=0,
        ended_at=0,
        metered_until=0,
        witnessed_at=0,
        ending=codec.NOT_ENDED,
        exit_code=codec.NO_EXIT_CODE,
        detail="",
        closed=0,
        version=world.version,
    )


def _finished_at(world: World, row: WorkloadRow) -> int:
    """When its last pod ended, which may be long before we hear of it; now if it had none, or their clock is ahead."""
    ended = [pod["ended_at"] for pod in world.open_pods(row["key"]) if pod["ended_at"]]
    return max(row["started_at"], min(world.now, max(ended, default=world.now)))


def _started_at(world: World, row: WorkloadRow) -> int:
    """When its first pod ran, also where it ended before anybody saw it running; 0 if none did."""
    seen = [pod["started_at"] for pod in world.open_pods(row["key"]) if pod["started_at"]]
    return min(seen, default=world.now if row["phase"] == Phase.RUNNING else 0)
