"""Elastic runs get more ranks of what lies idle, once everybody else has had their turn.

1. Who grows: what runs with all the ranks that it has, has fewer than its max count, and has not changed for a while.
2. Where: on nodes that nobody who waits could use, however much of them is free now.
3. In the order of shares, rank by rank, as in a cycle (`turns`): a queue that holds less for its weight comes first, and within a
   queue the more urgent run, then that which its order names. A rank lies in the cluster, and in the domain, where its gang does.

Why growing and shrinking come to rest (docs/decisions/0020): a run grows only where nobody waits, and is shrunk for other work
only by one that starts then, which waits no more. Where nothing arrives, ends or fails, there are finitely many starts, since
who displaced whom does not go in a circle, and between two of them ranks are only added, up to what all may have at most. Where
things do arrive, the pause bounds how often a program must find new partners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mainstay.decide import admission, kernel, nomination
from mainstay.decide.allowance import Allowance
from mainstay.decide.kernel import NONE
from mainstay.decide.placement import DEFAULT_POLICY, POLICIES, policies_of
from mainstay.decide.placement.apart import Apart
from mainstay.decide.placement.domains import numbers
from mainstay.decide.placement.fill import Policy
from mainstay.decide.placement.fit import ANY_CLUSTER, Free, Request, feasible, free_of, whole_of
from mainstay.decide.placement.gang import place
from mainstay.decide.placement.reach import users_of
from mainstay.decide.places import capacity_guards, node_names
from mainstay.decide.schedule import slot_resources
from mainstay.decide.shapes import Shape, shape_numbers, shape_of
from mainstay.decide.submitters import in_order, lines_of, with_lines
from mainstay.decide.turns import ledger_of, waiting_of
from mainstay.domain.allocation import Seen
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.plan import Grow, RowVersion
from mainstay.domain.preemption import Slot
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.reason import Code, Reason
from mainstay.domain.snapshot import Snapshot
from mainstay.domain.topology import TopologyNeed
from mainstay.domain.workload import Phase

PAUSE_SECONDS = 300
"""So long a run is left as it is after a change: with each, its program stops, meets anew and reads its last checkpoint."""
RANKS_MAX = 64
"""So many are given at most in one turn, so that a commit stays short; the next turn goes on."""
SHAPES_MAX = 256
"""Where more different things wait, nothing lies idle."""


def grow(snapshot: Snapshot) -> tuple[Grow, ...]:
    """At most `RANKS_MAX` ranks in one turn. Costs nothing where no elastic run could have more."""
    rows = _growing(snapshot)
    if not rows.size:
        return ()
    world = nomination.reserved(snapshot)
    free, allowance = free_of(world), Allowance(world)
    idle = _idle(world, allowance)
    if not idle.any():
        return ()
    pods_of = _pods_by_workload(world)
    growers = [one for row in rows.tolist() if (one := _grower(world, row, pods_of, free, idle)) is not None]
    if not growers:
        return ()
    return tuple(_action(snapshot, one) for one in _given(world, growers, free, allowance) if one.nodes)


@dataclass(slots=True, kw_only=True)
class _Grower:
    """A run that may have more, and what it has been given."""

    row: int
    """Of the workload table."""
    pods: Ints
    """Rows of the allocations of its attempt that live, by rank."""
    next_rank: int
    requests: tuple[Request, ...]
    """What one more rank asks for, where it may lie."""
    nodes: list[int]
    """The node row of each rank that it has been given."""
    asked: list[Request]
    apart: Apart | None


def _growing(snapshot: Snapshot) -> Ints:
    """Rows of the workload table: the more urgent first, then as their queues order them."""
    table, held = snapshot.workloads, snapshot.allocations
    may = (table.nodes_min < table.nodes_max) & (table.phase == Phase.RUNNING) & ~table.stop_requested
    if not may.any():
        return np.empty(0, dtype=np.int64)
    at = np.minimum(np.searchsorted(table.key, held.workload_key), table.key.size - 1)
    mine = np.flatnonzero((table.key[at] == held.workload_key) & may[at] & (held.attempt == table.attempt[at]))
    at, out = at[mine], held.surplus[mine]
    runs = ~out & (held.seen[mine] == Seen.RUNNING) & ~held.stop[mine]
    left = out & (held.seen[mine] == Seen.ENDED)
    count = np.bincount(at[runs], minlength=table.key.size)
    sound = np.bincount(at[~(runs | left)], minlength=table.key.size) == 0
    first = np.bincount(at[runs & (held.rank[mine] == 0)], minlength=table.key.size) > 0
    changed = np.zeros(table.key.size, dtype=np.int64)
    last = np.maximum(
        held.created_at[mine], np.where(out, np.maximum(held.stop_asked_at[mine], held.ended_at[mine]), 0)
    )
    np.maximum.at(changed, at, last)
    # A clock that was set back makes nothing wait until it has caught up.
    calm = np.abs(snapshot.now - changed) >= PAUSE_SECONDS * MICROSECONDS_PER_SECOND
    rows = np.flatnonzero(may & sound & first & calm & (count < table.nodes_max))
    return in_order(snapshot, rows[np.lexsort((table.key[rows], table.submitted_at[rows], -table.priority[rows]))])


def _idle(snapshot: Snapshot, allowance: Allowance) -> Bools:
    """[nodes] Those that nobody who waits could use, be they full now. Who waits for quota alone could not; who waits for the end
    of a back-off could.
    """
    table = snapshot.workloads
    waits = admission.waiting(snapshot) & ~table.stop_requested & ~table.held
    rows = np.flatnonzero(waits)
    idle = np.ones(snapshot.nodes.key.size, dtype=np.bool_)
    if not rows.size:
        return idle
    kinds = np.stack((table.queue[rows], shape_numbers(snapshot, rows)), axis=1)
    _, first = np.unique(kinds, axis=0, return_index=True)
    if first.size > SHAPES_MAX:
        return np.zeros_like(idle)
    whole, users = whole_of(snapshot), users_of(snapshot)
    for row in rows[first].tolist():
        shape, queue = shape_of(snapshot, row, users=users), int(table.queue[row])
        for way in shape.ways:
            for parts in allowance.flavors_of(queue, way):
                if allowance.may_use_parts(queue, parts):
                    for part in parts:
                        idle &= ~feasible(whole, replace(part.request, topology=None))
    return idle


def _pods_by_workload(snapshot: Snapshot) -> Callable[[int], Ints]:
    """From the key of a workload to the rows of its allocations, by attempt and rank."""
    held = snapshot.allocations
    order = np.lexsort((held.rank, held.attempt, held.workload_key))
    keys = held.workload_key[order]

    def pods_of(key: int) -> Ints:
        begin, end = np.searchsorted(keys, (key, key + 1))
        return order[begin:end]

    return pods_of


def _grower(snapshot: Snapshot, row: int, pods_of: Callable[[int], Ints], free: Free, idle: Bools) -> _Grower | None:
    """None where there is no place for what its ranks hold beside them."""
    table, held = snapshot.workloads, snapshot.allocations
    mine = pods_of(int(table.key[row]))
    mine = mine[held.attempt[mine] == table.attempt[row]]
    living = mine[held.seen[mine] != Seen.ENDED]
    first = np.flatnonzero(free.key == held.node_key[living[0]])
    if not first.size:
        return None  # Its node is no longer reported.
    need = snapshot.topologies[int(table.topology[row])]
    apart = Apart.of(free, need.spread, held.node_key[living]) if need and need.spread else None
    shape = shape_of(snapshot, row, users=users_of(snapshot) if table.volumes[row] else None)
    here = idle & _together(need, shape, free, int(first[0]))
    requests = tuple(
        replace(
            request,
            cluster=ANY_CLUSTER,
            topology=None,
            one_node=False,
            reach=here if request.reach is None else here & request.reach,
        )
        for request in shape.requests
        if _is_held(snapshot, int(living[0]), request)
    )
    if not requests or not here.any():
        return None
    return _Grower(
        row=row,
        pods=living,
        next_rank=int(held.rank[mine[-1]]) + 1,
        requests=requests,
        nodes=[],
        asked=[],
        apart=apart,
    )


def _together(need: TopologyNeed | None, shape: Shape, free: Free, first: int) -> Bools:
    """[nodes] Where a rank of a gang may lie of which this is the node of rank 0."""
    if shape.one_node:
        alone: Bools = np.arange(free.key.size) == first
        return alone
    same: Bools = free.cluster == free.cluster[first]
    if need is not None and need.required:
        domain = numbers(free, need.level)
        same &= domain == domain[first]
    return same


def _is_held(snapshot: Snapshot, pod: int, request: Request) -> bool:
    """Whether this is the choice that the pod was placed with."""
    held = snapshot.allocations
    model = int(held.gpu_model[pod])
    amounts = int(held.cpu_milli[pod]), int(held.memory_bytes[pod]), int(held.gpus[pod])
    if amounts != (request.cpu_milli, request.memory_bytes, request.gpus):
        return False
    return request.shape == snapshot.gpu_models[model] if request.shape else request.gpu_model in {0, model}


def _given(snapshot: Snapshot, growers: list[_Grower], free: Free, allowance: Allowance) -> list[_Grower]:
    """Rank by rank, in turns; who finds no place has no other turn."""
    table = snapshot.workloads
    rows = np.array([one.row for one in growers], dtype=np.int64)
    missing = np.minimum(table.nodes_max[rows] - [one.pods.size for one in growers], RANKS_MAX)
    number = np.repeat(np.arange(rows.size), missing)
    one_pod = np.stack((table.cpu_milli[rows], table.memory_bytes[rows], table.gpus[rows]), axis=1)
    for at, one in enumerate(growers):
        one_pod[at] = one.requests[0].cpu_milli, one.requests[0].memory_bytes, one.requests[0].gpus
    lines = lines_of(snapshot, rows[number])
    ledger = with_lines(ledger_of(snapshot), snapshot, lines)
    waiting = waiting_of(
        snapshot.queues,
        rows[number],
        queue=table.queue[rows[number]],
        asked=one_pod[number],
        shape=number,
        long=np.zeros(number.size, dtype=np.bool_),
        priority=table.priority[rows[number]],
        line=lines.of,
        lines=lines.queue,
        strict=np.zeros(len(snapshot.queues.names), dtype=np.bool_),  # What runs holds up nobody.
    )
    kernel.look_up_all(ledger, waiting)
    left, policies = RANKS_MAX, policies_of(snapshot.queues, POLICIES[DEFAULT_POLICY])
    while left and (at := int(waiting.head[-1])) != NONE:
        one, queue = growers[int(waiting.shape[at])], int(waiting.queue[at])
        if _has_place(one, free, allowance, queue=queue, policy=policies[queue]):
            kernel.leave(ledger, waiting, at, 1, 1)
            left -= 1
        else:
            kernel.give_up(ledger, waiting, at, True)
    return growers


def _has_place(one: _Grower, free: Free, allowance: Allowance, *, queue: int, policy: Policy) -> bool:
    """One more rank; then it holds it."""
    for choice in one.requests:
        for request in allowance.flavors(queue, choice):
            if not allowance.may_use(queue, request, 1):
                continue
            apart = one.apart.narrowed(free, request) if one.apart else request
            found = place(free, apart, count=1, policy=policy)
            if found is not None:
                free.take(found, 1, request)
                if one.apart:
                    one.apart.take(int(found[0]))
                allowance.use(queue, request, 1)
                one.nodes.append(int(found[0]))
                one.asked.append(request)
                return True
    return False


def _action(snapshot: Snapshot, one: _Grower) -> Grow:
    """Guarded by the workload and by what is free; a change of any of its pods that matters is one of the workload."""
    table, held = snapshot.workloads, snapshot.allocations
    key = int(table.key[one.row])
    slots = tuple(
        Slot(
            rank=one.next_rank + number,
            node_key=int(snapshot.nodes.key[node]),
            resources=slot_resources(snapshot, node, request),
        )
        for number, (node, request) in enumerate(zip(one.nodes, one.asked, strict=True))
    )
    numbers_: dict[str, int | float | str] = {
        "ranks": one.pods.size + len(slots),
        "range": f"{int(table.nodes_min[one.row])} to {int(table.nodes_max[one.row])}",
        "count": len(slots),
        "nodes": node_names(snapshot, one.nodes),
    }
    return Grow(
        guards=(
            RowVersion(kind="workload", key=key, version=int(table.version[one.row])),
            *(
                RowVersion(kind="allocation", key=int(held.key[pod]), version=int(held.version[pod]))
                for pod in one.pods
            ),
            *capacity_guards(slots, snapshot.restrictions[int(table.restriction[one.row])]),
        ),
        reason=Reason(code=Code.GROWN, numbers=numbers_),
        workload_key=key,
        attempt=int(table.attempt[one.row]),
        slots=slots,
    )
