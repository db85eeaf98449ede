"""Starts that are reserved, as they bind whoever displaces others. Source of the rule: docs/decisions/0016.

A cycle binds whoever has their turn after a reserved start (reservation.py), and so does displacing. Who has their turn first is
asked of each pair, as if both were the next of their queues: within a queue as `admission.order` has it; between queues
the one whose side would hold less for its weight where both meet, as in `turns`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mainstay.decide import admission
from mainstay.decide.cycle import Cycle
from mainstay.decide.placement.fill import Policy
from mainstay.decide.placement.sets import Parts
from mainstay.decide.preemption.balance import Amounts, Balance
from mainstay.decide.preemption.rules import Wish
from mainstay.decide.reservation import ends_of, waited_long
from mainstay.decide.turns import asked_by
from mainstay.domain.arrays import Ints
from mainstay.domain.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservedStart:
    """What a cycle keeps for one workload."""

    wish: Wish
    amounts: Amounts
    """Of all pods that it asks for together, as they count at its turn."""
    before: Ints
    """Keys of those of its queue and priority that have their turn before it."""
    parts: Parts
    nodes: Ints
    """[ranks] Node row of each."""
    beside: Mapping[int, Ints]
    """Column of `Free` -> [nodes] how much is left of it at that instant, beside all that starts before."""
    outlasted: Ints
    """[allocations] 1 for those that still run then, as far as anybody knows; else 0."""


def reserved_starts(world: Snapshot, policy: Policy) -> tuple[ReservedStart, ...]:
    """In the order of their turns. `world` as `nomination.reserved` has it.

    Costs a cycle; nothing where nobody has waited long.
    """
    if not waited_long(world, np.flatnonzero(admission.waiting(world))).any():
        return ()
    cycle = Cycle(world, policy)
    for _ in cycle.placements():
        pass  # Only what it reserves is of interest.
    if not cycle.reserved:
        return ()
    table, ends_at, columns = world.workloads, ends_of(world), cycle.free.nodes.free
    return tuple(
        ReservedStart(
            wish=Wish(
                key=int(table.key[row]),
                queue=int(table.queue[row]),
                priority=int(table.priority[row]),
                submitted_at=int(table.submitted_at[row]),
            ),
            amounts=_three(asked_by(world, np.array([row]))[0]),
            before=_before(world, cycle.order, row),
            parts=start.parts,
            nodes=start.nodes,
            beside={column: columns[later] for column, later in kept.items()},
            outlasted=(ends_at > start.starts_at).astype(np.int64),
        )
        for (row, start), kept in zip(cycle.reserved.items(), cycle.free.kept, strict=True)
    )


def goes_first(balance: Balance, wish: Wish, amounts: Amounts, other: ReservedStart) -> bool:
    """Whether the wish for such amounts, of all its pods, has its turn before that start."""
    if wish.queue == other.wish.queue:
        return wish.priority > other.wish.priority or wish.key in other.before
    before = (-wish.priority, wish.submitted_at, wish.key) < (
        -other.wish.priority,
        other.wish.submitted_at,
        other.wish.key,
    )
    sides = balance.sides(wish.queue)
    ours, _ = balance.share(int(sides.ours[other.wish.queue]), amounts, below=wish.queue)
    theirs, _ = balance.share(int(sides.theirs[other.wish.queue]), other.amounts, below=other.wish.queue)
    return before if ours == theirs else ours < theirs


def _before(world: Snapshot, order: Ints, row: int) -> Ints:
    table, first = world.workloads, order[: int(np.argmax(order == row))]
    same = (table.queue[first] == table.queue[row]) & (table.priority[first] == table.priority[row])
    found: Ints = table.key[first[same]]
    return found


def _three(amounts: Ints) -> Amounts:
    cpu_milli, memory_bytes, gpus = amounts.tolist()
    return cpu_milli, memory_bytes, gpus
