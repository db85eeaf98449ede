"""Places that are kept for a workload until those who were displaced for it have ended.

To everybody else they are taken: `reserved` shows a world in which the workload holds them already, so that no decision
needs to know of them. Who holds one is placed there as soon as there is room, and goes back to wait like all others when its
time is over or a node of it takes nothing any more.
"""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from mainstay.decide import admission
from mainstay.decide.allowance import Allowance
from mainstay.decide.places import capacity_guards, placed
from mainstay.decide.rows import with_allocations
from mainstay.domain.affinity import Restriction
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Ints
from mainstay.domain.plan import Action, Allocate, DropNomination, RowVersion
from mainstay.domain.preemption import Nomination
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND, Resources, is_shape
from mainstay.domain.queue import NO_LIMIT
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import PODS, AllocationTable, Snapshot

KEPT_SECONDS_MAX = 24 * 3_600
"""Longer than any grace. One that seems to be kept for longer was written before the clock was set back."""

Amounts = dict[str, Ints]
"""Column of `NodeTable`, shape of slices, or PODS -> how much of each node: [nodes]."""
Places = dict[tuple[str, int], int]
"""The same, of few nodes: (column, shape or PODS, row of the node) -> how much."""


def reserved(snapshot: Snapshot, settled: Container[int] = ()) -> Snapshot:
    """The same world, in which every workload holds what is kept for it. The same snapshot if nothing is.

    `settled`: those that have been given their places since, beside whoever still yields to them.
    """
    kept = _kept(snapshot)
    if not kept:
        return snapshot
    nodes, amounts = snapshot.nodes, still_to_come(snapshot, settled)

    def used(name: str, before: Ints, capacity: Ints) -> Ints:
        # No more than there is: a node may have shrunk, and others may leave than those who yield.
        return np.maximum(before, np.minimum(before + amounts[name], capacity)) if name in amounts else before

    return replace(
        snapshot,
        nodes=replace(
            nodes,
            used_cpu_milli=used("cpu_milli", nodes.used_cpu_milli, nodes.cpu_milli),
            used_memory_bytes=used("memory_bytes", nodes.used_memory_bytes, nodes.memory_bytes),
            used_gpus=used("gpus", nodes.used_gpus, nodes.gpus),
            used_shapes={shape: used(shape, count, nodes.shapes[shape]) for shape, count in nodes.used_shapes.items()},
            used_others={name: used(name, count, nodes.others[name]) for name, count in nodes.used_others.items()},
        ),
        allocations=_with_slots(snapshot, kept),
    )


def spoken_for(snapshot: Snapshot) -> Amounts:
    """What is kept on each node, of what there is any."""
    return _sum((_places(snapshot, nomination) for nomination in _kept(snapshot).values()), snapshot.nodes.key.size)


def still_to_come(snapshot: Snapshot, settled: Container[int] = ()) -> Amounts:
    """What is kept on each node and is not held there by those who yield to whom it is kept for: they will make room for that.

    For those that are `settled` nobody needs to make room any more.
    """
    kept = _kept(snapshot)
    unheld = _unheld(snapshot, {key: one for key, one in kept.items() if key not in settled})
    there = [_places(snapshot, one) for key, one in kept.items() if key in settled]
    return _sum([*unheld.values(), *there], snapshot.nodes.key.size)


def _unheld(snapshot: Snapshot, kept: Mapping[int, Nomination]) -> dict[int, Places]:
    """By key of the workload for which it is kept."""
    yielding = _yielding(snapshot, kept)
    return {
        key: {
            place: max(0, amount - yielding.get(key, {}).get(place, 0))
            for place, amount in _places(snapshot, nomination).items()
        }
        for key, nomination in kept.items()
    }


def _yielding(snapshot: Snapshot, kept: Mapping[int, Nomination]) -> dict[int, Places]:
    """What the pods hold that were displaced for each of these and have not ended."""
    found = dict[int, Places]()
    for _, by, row, holds in _pods_yielding(snapshot, kept):
        _add(found.setdefault(by, {}), row, holds)
    return found


def _pods_yielding(snapshot: Snapshot, kept: Mapping[int, Nomination]) -> Iterator[tuple[int, int, int, Resources]]:
    """Pods that were displaced for one of these and have not ended: row, for whom, row of its node, what it holds."""
    held = snapshot.allocations
    for pod in np.flatnonzero((held.preempted > 0) & held.stop & (held.seen != Seen.ENDED)).tolist():
        by = int(held.yields_to[pod])
        row = _row(snapshot.nodes.key, int(held.node_key[pod]))
        if by in kept and row >= 0:
            holds = Resources(
                cpu_milli=int(held.cpu_milli[pod]),
                memory_bytes=int(held.memory_bytes[pod]),
                gpus=int(held.gpus[pod]),
                gpu_model=snapshot.gpu_models[int(held.gpu_model[pod])],
            )
            yield pod, by, row, holds


def left_over(snapshot: Snapshot) -> dict[int, tuple[int, int, int, int]]:
    """What each pod that yields leaves for everybody when it ends: what is not kept there for the one it yields to.

    By row of the allocations: CPU, memory, GPUs or slices, pods. In the world of `reserved`, or that before it.
    """
    kept, found = _kept(snapshot), dict[int, tuple[int, int, int, int]]()
    wanted = {key: _places(snapshot, nomination) for key, nomination in kept.items()}
    for pod, by, row, holds in _pods_yielding(snapshot, kept):
        places: Places = {}
        _add(places, row, holds)
        for place, amount in places.items():
            taken = min(amount, wanted[by].get(place, 0))
            wanted[by][place] = wanted[by].get(place, 0) - taken
            places[place] -= taken
        devices = holds.gpu_model if is_shape(holds.gpu_model) else "gpus"
        cpu_milli, memory_bytes, gpus, pods = (
            places.get((name, row), 0) for name in ("cpu_milli", "memory_bytes", devices, PODS)
        )
        found[pod] = cpu_milli, memory_bytes, gpus, pods
    return found


def _places(snapshot: Snapshot, nomination: Nomination) -> Places:
    """What is kept for one; nothing on nodes that are gone."""
    found: Places = {}
    for slot in nomination.slots:
        row = _row(snapshot.nodes.key, slot.node_key)
        if row >= 0:
            _add(found, row, slot.resources)
    return found


def _add(places: Places, row: int, held: Resources) -> None:
    gpus = held.gpu_model if is_shape(held.gpu_model) else "gpus"
    amounts = ("cpu_milli", held.cpu_milli), ("memory_bytes", held.memory_bytes), (gpus, held.gpus), (PODS, 1)
    for name, amount in amounts:
        if amount:
            places[name, row] = places.get((name, row), 0) + amount


def settle(snapshot: Snapshot) -> Iterator[Action]:
    """Place those whose places are free now, the most urgent first; drop what is kept in vain.

    Free is the quota, too: what those hold who leave counts until they have.
    """
    kept = _kept(snapshot)
    if not kept:
        return
    table = snapshot.workloads
    rows = np.array([_row(table.key, key) for key in kept], dtype=np.int64)
    left = _Left(snapshot, kept)
    for row in rows[np.lexsort((table.key[rows], table.submitted_at[rows], -table.priority[rows]))].tolist():
        key = int(table.key[row])
        nomination = kept[key]
        if table.stop_requested[row] or table.held[row]:
            continue  # whoever has said so lets go of it
        guard = RowVersion(kind="workload", key=key, version=int(table.version[row]))
        restriction = snapshot.restrictions[int(table.restriction[row])]
        if words := left.why_in_vain(nomination, restriction):
            reason = Reason(code=Code.NOMINATION_DROPPED, numbers={"detail": words})
            left.forget(key)
            yield DropNomination(guards=(guard,), reason=reason, workload_key=key)
        elif left.takes(row, nomination):
            yield Allocate(
                guards=(guard, *capacity_guards(nomination.slots, restriction)),
                reason=placed(
                    snapshot,
                    node_rows(snapshot, nomination),
                    least=int(table.nodes_min[row]),
                    most=int(table.nodes_max[row]),
                ),
                workload_key=key,
                attempt=int(table.attempt[row]),
                slots=nomination.slots,
            )


def node_rows(snapshot: Snapshot, nomination: Nomination) -> list[int]:
    """Of each rank; -1: of a node that is gone."""
    return [_row(snapshot.nodes.key, slot.node_key) for slot in nomination.slots]


def _kept(snapshot: Snapshot) -> Mapping[int, Nomination]:
    """Of those that wait, by key."""
    if not snapshot.nominations:
        return {}
    keys, waits = snapshot.workloads.key, admission.waiting(snapshot)
    rows = {key: _row(keys, key) for key in sorted(snapshot.nominations)}
    return {key: snapshot.nominations[key] for key, row in rows.items() if row >= 0 and waits[row]}


class _Left:
    """What is free on the nodes beside what is kept for others, as places are taken one after the other."""

    def __init__(self, snapshot: Snapshot, kept: Mapping[int, Nomination]) -> None:
        nodes = snapshot.nodes
        self._snapshot = snapshot
        self._unheld = _unheld(snapshot, kept)
        self._free = {
            "cpu_milli": nodes.cpu_milli - nodes.used_cpu_milli,
            "memory_bytes": nodes.memory_bytes - nodes.used_memory_bytes,
            "gpus": nodes.gpus - nodes.used_gpus,
            **{shape: count - nodes.used_shapes[shape] for shape, count in nodes.shapes.items()},
            **{name: count - nodes.used_others[name] for name, count in nodes.others.items()},
        }
        self._free.setdefault(PODS, np.full_like(nodes.key, NO_LIMIT))

    def why_in_vain(self, nomination: Nomination, restriction: Restriction) -> str:
        """Why nothing need be kept any more, in words; empty if it need."""
        now, nodes = self._snapshot.now, self._snapshot.nodes
        if nomination.until <= now or nomination.until - now > KEPT_SECONDS_MAX * MICROSECONDS_PER_SECOND:
            return "who was displaced for it has not ended in time"
        admits = nodes.admits.get(restriction, np.zeros_like(nodes.ready)) if restriction else nodes.ready
        for slot in nomination.slots:
            row = _row(nodes.key, slot.node_key)
            if row < 0 or not (admits[row] and nodes.closed_at[row] == 0):
                return f"node {nodes.names[row] if row >= 0 else slot.node_key} takes nothing new now"
        return ""

    def takes(self, workload_row: int, nomination: Nomination) -> bool:
        """Whether all of it fits now, and its queue may use it; then it is taken, and kept no longer."""
        table = self._snapshot.workloads
        key, queue = int(table.key[workload_row]), int(table.queue[workload_row])
        wanted = _places(self._snapshot, nomination)
        others = [places for other, places in self._unheld.items() if other != key]
        for (name, row), amount in wanted.items():
            beside = sum(places.get((name, row), 0) for places in others)
            if name not in self._free or int(self._free[name][row]) < beside + amount:
                return False
        if self._allowance.limits and not self._allowance.use_slots(queue, nomination.slots):
            return False
        for (name, row), amount in wanted.items():
            self._free[name][row] -= amount
        self.forget(key)
        return True

    @functools.cached_property
    def _allowance(self) -> Allowance:
        return Allowance(self._snapshot)

    def forget(self, key: int) -> None:
        """Nothing is kept for it any more."""
        del self._unheld[key]


def _with_slots(snapshot: Snapshot, kept: Mapping[int, Nomination]) -> AllocationTable:
    """The allocations, and behind them those that are to come."""
    slots = [(key, slot) for key, nomination in kept.items() for slot in nomination.slots]
    models = {model: number for number, model in enumerate(snapshot.gpu_models)}
    columns: dict[str, list[int]] = {
        "workload_key": [key for key, _ in slots],
        "rank": [slot.rank for _, slot in slots],
        "node_key": [slot.node_key for _, slot in slots],
        "cpu_milli": [slot.resources.cpu_milli for _, slot in slots],
        "memory_bytes": [slot.resources.memory_bytes for _, slot in slots],
        "gpus": [slot.resources.gpus for _, slot in slots],
        "gpu_model": [models.get(slot.resources.gpu_model, 0) for _, slot in slots],
        "seen": [int(Seen.NOTHING)] * len(slots),
        "created_at": [snapshot.now] * len(slots),
    }
    arrays = {name: np.array(values, dtype=np.int64) for name, values in columns.items()}
    return with_allocations(snapshot.allocations, arrays, count=len(slots))


def _sum(all_places: Iterable[Places], nodes: int) -> Amounts:
    found: Amounts = {}
    for places in all_places:
        for (name, row), amount in places.items():
            found.setdefault(name, np.zeros(nodes, dtype=np.int64))[row] += amount
    return found


def _row(keys: Ints, key: int) -> int:
    row = int(np.searchsorted(keys, key))
    return row if row < keys.size and keys[row] == key else -1
