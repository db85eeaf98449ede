"""Bugs to plant: each takes away one guard. The simulation must find every one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from mainstay.clusters.simulated import Lodgers, lodgers, machines
from mainstay.clusters.simulated.machines import Machines
from mainstay.control import effects
from mainstay.decide import cycle, delivery, guests, metering, nomination, reconcile, schedule
from mainstay.decide.placement.fit import Free
from mainstay.domain.allocation import CreatePod, End, ForgetPod, PodState, Seen
from mainstay.domain.plan import Epoch, RecordUsage, SwitchEndpoint
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase
from mainstay.operations import deploy
from mainstay.operations.principal import Principal
from mainstay.simulation.users import REQUEUED_GRACE_SECONDS, TENANTS
from mainstay.store import commit, guards, store, tables, write
from mainstay.store.apply import endpoints, ledger, pods, workloads
from mainstay.store.world import World

Plant = Callable[[pytest.MonkeyPatch], None]


def holds(*_: Any, **__: Any) -> None:
    """A guard that lets everything pass."""


def an_old_leader_may_commit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commit, "_check_epoch", holds)


def an_old_leader_may_act(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Machines, "fence", lambda machines, epoch: setattr(machines, "epoch", max(epoch, machines.epoch)))


def a_key_is_not_remembered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commit, "stored_reply", holds)
    patch.setattr(commit, "_store_reply", holds)


def capacity_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Neither when deciding, nor in the commit, nor on the machine."""
    free_of = cycle.free_of

    def all_free(snapshot: Snapshot, **options: int) -> Free:
        nodes = snapshot.nodes
        endless = dataclasses.replace(
            nodes, cpu_milli=nodes.cpu_milli << 20, memory_bytes=nodes.memory_bytes << 20, gpus=nodes.gpus << 20
        )
        return free_of(dataclasses.replace(snapshot, nodes=endless), **options)

    patch.setattr(cycle, "free_of", all_free)
    patch.setattr(schedule, "capacity_guards", lambda *_: [])
    patch.setattr(workloads, "capacity_left", holds)
    patch.setattr(Machines, "require_room", holds)


def what_is_not_reported_is_lost(patch: pytest.MonkeyPatch) -> None:
    """One look without a pod is taken for its death."""
    known = reconcile._lost_sight_of

    def lost(allocation: Any) -> Any:
        state = known(allocation)
        return dataclasses.replace(state, seen=Seen.ENDED, end=End.LOST, ended_at=allocation.started_at or 1)

    patch.setattr(reconcile, "_lost_sight_of", lost)


def an_end_is_forgotten_before_it_is_on_record(patch: pytest.MonkeyPatch) -> None:
    known = reconcile._effects

    def forgetful(row: Any, pod: Any, *, missing_us: int) -> Iterator[Any]:
        if pod is not None and pod.seen is Seen.ENDED and not pod.forgotten:
            yield ForgetPod(name=pod.name)
        else:
            yield from known(row, pod, missing_us=missing_us)

    patch.setattr(reconcile, "_effects", forgetful)

    def forget(machines: Machines, name: str) -> None:
        machines.processes.pop(name, None)

    patch.setattr(Machines, "forget", forget)


def a_tombstone_refuses_nothing(patch: pytest.MonkeyPatch) -> None:
    create = Machines.create

    def revived(machines: Machines, action: CreatePod) -> None:
        known = machines.processes.get(action.name)
        if known is not None and not known.alive:
            del machines.processes[action.name]
        create(machines, action)

    patch.setattr(Machines, "create", revived)
    patch.setattr(reconcile, "_effects", _late(reconcile._effects))


def _late(known: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """A creation that was on its way arrives once more after the end."""

    def effects_again(row: Any, pod: Any, *, missing_us: int) -> Iterator[Any]:
        yield from known(row, pod, missing_us=missing_us)
        if pod is not None and pod.seen is Seen.ENDED and row.allocation.seen is Seen.ENDED and not pod.forgotten:
            yield CreatePod(name=pod.name, node=row.allocation.node, spec=reconcile.pod_spec(row.allocation, row.spec))

    return effects_again


def running_time_is_charged_by_our_own_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        metering, "_witnessed", lambda snapshot: np.full(len(snapshot.allocations.key), snapshot.now, dtype=np.int64)
    )


def a_gang_starts_with_a_rank_missing(patch: pytest.MonkeyPatch) -> None:
    known = schedule._allocation

    def without_the_last(*placed: Any, **why: Any) -> Any:
        action = known(*placed, **why)
        return dataclasses.replace(action, slots=action.slots[:-1]) if len(action.slots) > 1 else action

    patch.setattr(schedule, "_allocation", without_the_last)
    patch.setattr(guards, "slot_is_new", holds)


def a_transition_is_not_logged(patch: pytest.MonkeyPatch) -> None:
    known = write._insert

    def lossy(connection: Any, table: Any, rows: Any) -> None:
        rows = list(rows)
        known(connection, table, rows[:-1] if table is tables.events and len(rows) > 3 else rows)

    patch.setattr(write, "_insert", lossy)


def an_event_is_lost(patch: pytest.MonkeyPatch) -> None:
    """Without a gap in the numbers."""
    known = World.log_workload

    def lossy(world: World, row: Any, reason: Any, **phases: Any) -> None:
        if phases.get("after") is not Phase.RUNNING:
            known(world, row, reason, **phases)

    patch.setattr(World, "log_workload", lossy)


def two_hold_one_lease(patch: pytest.MonkeyPatch) -> None:
    known = store.acquire_in

    def shared(connection: sa.Connection, lease: str, *, holder: str, now: int, until: int) -> Epoch:
        query = sa.select(tables.leases.c.epoch).where(tables.leases.c.name == lease)
        return known(connection, lease, holder=holder, now=now, until=until) or Epoch(
            name=lease, number=connection.execute(query).scalar_one()
        )

    patch.setattr(store, "acquire_in", shared)


def a_usage_record_is_written_twice(patch: pytest.MonkeyPatch) -> None:
    known = ledger.record_usage

    def twice(world: World, action: RecordUsage) -> Any:
        refusal = known(world, action)
        if refusal is None:
            row = world.changes.usage[-1]
            world.changes.usage.append({**row, "start_at": row["start_at"] + 1})
        return refusal

    patch.setattr(ledger, "record_usage", twice)


def _as_its_owner(store: Any, principal: Principal, endpoint: str) -> Principal:
    """As somebody of the tenant that has an endpoint of this name, whoever asks."""
    theirs = (tenant for tenant in TENANTS for row in store.endpoints(tenant=tenant) if row.name == endpoint)
    return dataclasses.replace(principal, tenant=next(theirs, principal.tenant))


def an_endpoint_of_another_tenant_is_taken_over(patch: pytest.MonkeyPatch) -> None:
    known = deploy._commit

    def grabbing(store: Any, principal: Principal, wish: Any, **options: Any) -> Any:
        return known(store, _as_its_owner(store, principal, wish.endpoint), wish, **options)

    patch.setattr(deploy, "_commit", grabbing)


def an_endpoint_of_another_tenant_is_removed(patch: pytest.MonkeyPatch) -> None:
    """By whoever knows its name: the operation does not ask whose it is."""
    known = deploy.remove

    def careless(store: Any, principal: Principal, name: str, **options: Any) -> Any:
        return known(store, _as_its_owner(store, principal, name), name, **options)

    patch.setattr(deploy, "remove", careless)


def what_an_endpoint_lets_go_of_runs_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(endpoints, "_stop", holds)


def a_stopped_candidate_takes_over(patch: pytest.MonkeyPatch) -> None:
    """Neither the decision nor the commit minds that a user has stopped it."""
    known, switch = delivery._candidate_step, endpoints.switch_endpoint

    def blind(snapshot: Snapshot, endpoint: Any) -> Any:
        wanted = np.zeros_like(snapshot.workloads.stop_requested)
        workloads_ = dataclasses.replace(snapshot.workloads, stop_requested=wanted)
        return known(dataclasses.replace(snapshot, workloads=workloads_), endpoint)

    def careless(world: World, action: SwitchEndpoint) -> Any:
        row = world.endpoints.get((action.tenant, action.endpoint))
        candidate = world.workloads.get(row["candidate_key"]) if row else None
        if row is None or candidate is None or not candidate["stop_requested"]:
            return switch(world, action)
        candidate["stop_requested"] = 0
        refusal = switch(world, action)
        candidate["stop_requested"] = 1
        return refusal

    patch.setattr(delivery, "_candidate_step", blind)
    patch.setattr(endpoints, "switch_endpoint", careless)


def the_output_of_any_rank_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(effects, "has_output", lambda action, rows: action.state.seen is Seen.ENDED)

    def keep(world: World, row: Any, action: Any) -> None:
        if action.output:
            workload = world.workloads[row["workload_key"]]
            workload["output"] = action.output
            world.touch_workload(workload)

    patch.setattr(pods, "_keep_output", keep)


def a_guest_that_was_let_go_of_may_still_be_bound(patch: pytest.MonkeyPatch) -> None:
    """A binding that was taken for lost arrives after its attempt was given up."""
    patch.setattr(Lodgers, "release", holds)


def restrictions_are_not_respected(patch: pytest.MonkeyPatch) -> None:
    """Neither when deciding, nor in the commit, nor in the cluster."""
    patch.setattr(Free, "usable", lambda free, _: free.open_)
    patch.setattr(guards, "_open", lambda world, node, _: bool(node["ready"]) and world.takes_work(node["cluster"]))
    patch.setattr(lodgers, "admits", lambda node, _: node.ready)


def a_guest_that_is_not_reported_is_lost(patch: pytest.MonkeyPatch) -> None:
    known = guests._state

    def lost(row: Any, guest: Any) -> Any:
        if guest is None and row.allocation.seen is Seen.RUNNING:
            started = row.allocation.started_at
            return PodState(name=row.allocation.pod, node="", seen=Seen.ENDED, end=End.LOST, ended_at=started)
        return known(row, guest)

    patch.setattr(guests, "_state", lost)


def a_node_that_is_kept_out_takes_pods(patch: pytest.MonkeyPatch) -> None:
    """Neither the decision nor the commit looks who keeps it out."""
    patch.setattr(Free, "usable", lambda free, _: np.ones(free.key.size, dtype=np.bool_))
    patch.setattr(guards, "_open", lambda world, node, _: world.takes_work(node["cluster"]))


def a_pod_is_given_up_before_it_can_have_ended(patch: pytest.MonkeyPatch) -> None:
    """As soon as it is revoked, while its node takes its time."""
    patch.setattr(reconcile, "DEAD_MAN_SLACK_SECONDS", -REQUEUED_GRACE_SECONDS)
    patch.setattr(machines, "PROBE_SECONDS", 60.0)


def a_mark_is_not_taken_back(patch: pytest.MonkeyPatch) -> None:
    known = effects.marks
    patch.setattr(effects, "marks", lambda *given, **named: (one for one in known(*given, **named) if one.closed))


def what_is_kept_is_given_away(patch: pytest.MonkeyPatch) -> None:
    """Neither the scheduler nor the commit knows of places that are kept."""
    patch.setattr(nomination, "reserved", lambda snapshot, **_: snapshot)
    patch.setattr(guards, "place_is_not_kept", holds)


def a_kept_place_outlives_its_use(patch: pytest.MonkeyPatch) -> None:
    """Who was placed has another place kept for it."""
    patch.setattr(workloads, "nothing_kept_for", holds)


BUGS: tuple[tuple[Plant, int, int], ...] = (
    (an_old_leader_may_commit, 3, 800),
    (an_old_leader_may_act, 5, 800),
    (a_key_is_not_remembered, 1, 800),
    (capacity_is_not_checked, 1, 800),
    (what_is_not_reported_is_lost, 1, 800),
    (an_end_is_forgotten_before_it_is_on_record, 1, 800),
    (a_tombstone_refuses_nothing, 1, 800),
    (running_time_is_charged_by_our_own_clock, 3, 800),
    (a_gang_starts_with_a_rank_missing, 1, 800),
    (a_transition_is_not_logged, 1, 800),
    (an_event_is_lost, 1, 800),
    (two_hold_one_lease, 1, 800),
    (a_usage_record_is_written_twice, 1, 800),
    (an_endpoint_of_another_tenant_is_taken_over, 13, 800),
    (an_endpoint_of_another_tenant_is_removed, 7, 800),
    (what_an_endpoint_lets_go_of_runs_on, 2, 800),
    (a_stopped_candidate_takes_over, 2, 2_500),
    (the_output_of_any_rank_counts, 1, 800),
    (a_node_that_is_kept_out_takes_pods, 1, 800),
    (a_mark_is_not_taken_back, 1, 800),
)
"""Each with a seed that finds it, and the events that this takes."""

PARTITION_BUGS: tuple[tuple[Plant, int, int], ...] = ((a_pod_is_given_up_before_it_can_have_ended, 3, 3_000),)
"""Likewise, in worlds where nodes are cut off."""

PREEMPTION_BUGS: tuple[tuple[Plant, int, int], ...] = (
    (what_is_kept_is_given_away, 1, 800),
    (a_kept_place_outlives_its_use, 1, 800),
)
"""Likewise, in worlds where urgent and older work displaces other."""

GUEST_BUGS: tuple[tuple[Plant, int, int], ...] = (
    (a_guest_that_was_let_go_of_may_still_be_bound, 135, 800),
    (restrictions_are_not_respected, 1, 800),
    (a_guest_that_is_not_reported_is_lost, 1, 800),
)
"""Likewise, in worlds where others make pods too."""
