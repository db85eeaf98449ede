"""Bugs to plant: each takes away one guard. The simulation must find every one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mainstay.clusters.simulated.machines import Machines
from mainstay.decide import metering, reconcile, schedule
from mainstay.decide.placement.fit import Free
from mainstay.domain.allocation import CreatePod, End, ForgetPod, Seen
from mainstay.domain.snapshot import Snapshot
from mainstay.store import commit, guards, tables, write
from mainstay.store.apply import workloads

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
    patch.setattr(Free, "take", holds)
    free_of = schedule.free_of

    def all_free(snapshot: Snapshot) -> Free:
        unused = np.zeros_like(snapshot.nodes.used_cpu_milli)
        nodes = dataclasses.replace(snapshot.nodes, used_cpu_milli=unused, used_memory_bytes=unused, used_gpus=unused)
        return free_of(dataclasses.replace(snapshot, nodes=nodes))

    patch.setattr(schedule, "free_of", all_free)
    patch.setattr(schedule, "_capacity_guards", lambda _: [])
    patch.setattr(workloads, "_capacity_left", holds)
    patch.setattr(Machines, "_check_room", holds)


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

    def without_the_last(snapshot: Any, placed: Any) -> Any:
        action = known(snapshot, placed)
        return dataclasses.replace(action, slots=action.slots[:-1]) if len(action.slots) > 1 else action

    patch.setattr(schedule, "_allocation", without_the_last)
    patch.setattr(guards, "slot_is_new", holds)


def a_transition_is_not_logged(patch: pytest.MonkeyPatch) -> None:
    known = write._insert

    def lossy(connection: Any, table: Any, rows: Any) -> None:
        rows = list(rows)
        known(connection, table, rows[:-1] if table is tables.events and len(rows) > 3 else rows)

    patch.setattr(write, "_insert", lossy)


BUGS: tuple[tuple[Plant, int], ...] = (
    (an_old_leader_may_commit, 3),
    (an_old_leader_may_act, 1),
    (a_key_is_not_remembered, 1),
    (capacity_is_not_checked, 1),
    (what_is_not_reported_is_lost, 2),
    (an_end_is_forgotten_before_it_is_on_record, 1),
    (a_tombstone_refuses_nothing, 1),
    (running_time_is_charged_by_our_own_clock, 12),
    (a_gang_starts_with_a_rank_missing, 1),
    (a_transition_is_not_logged, 1),
)
"""With the first seed that is tried."""
