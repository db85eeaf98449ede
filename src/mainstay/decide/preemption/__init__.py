"""Who must yield for whom: reclaim of what was lent, priority within a queue, fair shares between queues.

1. Those that found no place, in the order of admission; of those that ask for the same out of the same queue, the first.
2. For each the search (`search`): the fewest yield whose lost work is worth the least, wherever in the fleet, gangs whole. It
   takes nothing of what is kept for a start that is reserved before its turn (`starts`).
3. One action says who yields and which places are kept for whom, so that either both happen or neither does. None needs another
   of the same turn (`leftovers`).

Why this ends (docs/decisions/0014): whoever has displaced a workload is never displaced by it, nor by any that it has displaced
in turn. So who displaced whom never goes in a circle, whatever the rules and whatever else is placed in between.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mainstay.decide import admission, nomination
from mainstay.decide.placement.reach import users_of
from mainstay.decide.placement.sets import requests_of
from mainstay.decide.places import node_names
from mainstay.decide.preemption.holders import PATIENCE_SECONDS, Holders
from mainstay.decide.preemption.leftovers import Leftovers
from mainstay.decide.preemption.rules import wish_of
from mainstay.decide.preemption.search import Search
from mainstay.decide.preemption.trial import Displacement
from mainstay.decide.schedule import slot_resources
from mainstay.decide.shapes import shape_numbers, shape_of
from mainstay.decide.strict import heads, not_held_up
from mainstay.domain.arrays import Ints
from mainstay.domain.plan import Preempt, RowVersion
from mainstay.domain.preemption import Rule, Slot, Victim
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.workload import Phase

SEARCHES_MAX = 16
"""So many kinds of workloads are looked after in one turn; those that found nobody take turns."""
TURNS_SECONDS = 10


def preempt(snapshot: Snapshot, *, changes_max: int = 500) -> tuple[Preempt, ...]:
    """At most `changes_max` pods are told to stop in one turn, but one workload always finds all that it needs."""
    rows = _waiting(snapshot)
    if not rows.size:
        return ()
    search = Search(snapshot)
    leftovers = Leftovers(search.staying)
    reserved = nomination.reserved(snapshot)
    users = users_of(reserved)
    found: list[Preempt] = []
    stopped = 0
    for group in _groups(snapshot, rows):
        for row in group:
            shape = shape_of(reserved, row, users=users)
            wish = wish_of(snapshot, row)
            if search.places_now(wish, shape):
                break  # the scheduler has a place for it, or has once those have ended that have been told to
            displaced = search.displace(wish, shape)
            if displaced is None:
                break
            if displaced.units:
                stands_alone = not leftovers.needed(wish, displaced)
                leftovers.add(wish, displaced)
                if not stands_alone:
                    continue
                found.append(_action(snapshot, search.staying.holders, row, displaced))
                stopped += sum(len(victim.allocation_keys) for victim in found[-1].victims)
                if shape.one_node and shape.volumes is not None:
                    users.add(shape.volumes, int(displaced.nodes[0]))
            if stopped >= changes_max:
                return tuple(found)
    return tuple(found)


def _waiting(snapshot: Snapshot) -> Ints:
    """Rows of those for whom the scheduler found no place, and whose queue displaces others, in the order of admission."""
    displaces = np.array([policy.displaces for policy in snapshot.queues.policies], dtype=np.bool_)
    if not displaces.any():
        return np.empty(0, dtype=np.int64)
    table = snapshot.workloads
    reserved = nomination.reserved(snapshot)
    rows = heads(snapshot, not_held_up(snapshot, admission.order(reserved)))
    found: Ints = rows[(table.phase[rows] == Phase.QUEUED) & displaces[table.queue[rows]]]
    return found


def _groups(snapshot: Snapshot, rows: Ints) -> Iterator[list[int]]:
    """Rows that ask for the same, from one queue and as urgently: where the first finds nobody, no other does.

    Half of the turn is for the first of them in the order of admission, the other half goes round.
    """
    table = snapshot.workloads
    kinds = np.stack((table.queue[rows], table.priority[rows], shape_numbers(snapshot, rows)), axis=1)
    _, first, number = np.unique(kinds, axis=0, return_index=True, return_inverse=True)
    number = number.reshape(-1)
    order = np.argsort(first, kind="stable").tolist()
    half = SEARCHES_MAX // 2
    rest = order[half:]
    at = (snapshot.now // (TURNS_SECONDS * MICROSECONDS_PER_SECOND) * half) % len(rest) if rest else 0
    chosen = order[:half] + (rest[at:] + rest[:at])[: SEARCHES_MAX - half]
    for kind in chosen:
        yield rows[number == kind].tolist()


def _by_workload(holders: Holders, displaced: Displacement) -> dict[int, list[tuple[int, Rule]]]:
    """By row of the workload table, what of it yields."""
    found: dict[int, list[tuple[int, Rule]]] = {}
    for unit, rule in displaced.units:
        found.setdefault(int(holders.row[unit]), []).append((unit, rule))
    return found


def _action(snapshot: Snapshot, holders: Holders, row: int, displaced: Displacement) -> Preempt:
    """Guarded by all that was read: who waits, and who yields with every pod."""
    table, held = snapshot.workloads, snapshot.allocations
    victims, guards, grace = (
        [],
        [RowVersion(kind="workload", key=int(table.key[row]), version=int(table.version[row]))],
        0,
    )
    for yields, units in _by_workload(holders, displaced).items():
        pods = sorted(pod for unit, _ in units for pod in holders.pod[holders.pods_of(unit)].tolist())
        surplus = all(int(holders.whole[unit]) != unit for unit, _ in units)
        guards.append(RowVersion(kind="workload", key=int(table.key[yields]), version=int(table.version[yields])))
        guards += [
            RowVersion(kind="allocation", key=int(held.key[pod]), version=int(held.version[pod])) for pod in pods
        ]
        keys = tuple(int(held.key[pod]) for pod in pods)
        rule = units[0][1]
        victims.append(Victim(workload_key=int(table.key[yields]), allocation_keys=keys, rule=rule, surplus=surplus))
        grace = max(grace, int(table.stop_grace_seconds[yields]))
    nodes = snapshot.nodes
    for node in dict.fromkeys(displaced.nodes.tolist()):  # nobody else has been placed there since
        guards.append(RowVersion(kind="node", key=int(nodes.key[node]), version=int(nodes.version[node])))
    slots = tuple(
        Slot(
            rank=rank,
            node_key=int(nodes.key[node]),
            resources=slot_resources(snapshot, node, request),
        )
        for rank, (node, request) in enumerate(zip(displaced.nodes.tolist(), requests_of(displaced.parts), strict=True))
    )
    numbers: dict[str, int | float | str] = {
        "pods": sum(len(victim.allocation_keys) for victim in victims),
        "runs": len(victims),
        "nodes": node_names(snapshot, displaced.nodes.tolist()),
    }
    return Preempt(
        guards=tuple(guards),
        reason=Reason(code=Code.PREEMPTS, numbers=numbers),
        workload_key=int(table.key[row]),
        attempt=int(table.attempt[row]),
        slots=slots,
        until=snapshot.now + (grace + PATIENCE_SECONDS) * MICROSECONDS_PER_SECOND,
        victims=tuple(victims),
    )
