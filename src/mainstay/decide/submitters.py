"""Turns within a queue: who submits to it takes them, by what it gives to each (docs/decisions/0026).

Below a queue that is `fair` and in which work of several waits, each of those who submitted it has a line of their own.
Priority goes first; of equal priority the line that holds the least, by dominant shares of what the queue could have at
most; of equal shares the older workload. All lines weigh the same, and none has anything of its own. Unlike between queues
(turns.py), what the next one asks for does not count: a gang would else wait for as long as anybody asks for little. What has
been used lately is counted by queue alone.

As long as everything finds a place, a line only ever holds more. So who goes when needs no turns to be taken: it is the
order of what each line holds once all before it in that line have their places. That is what `explain` and `plan` count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mainstay.decide import quota
from mainstay.decide.columns import Ledger
from mainstay.decide.history import PARTS, held_rows
from mainstay.decide.ordering import FAIR, FIFO, ORDERS, STRICT
from mainstay.decide.ordering.contenders import Contenders
from mainstay.decide.turns import asked_by, whole_fleet
from mainstay.domain.arrays import Bools, Floats, Ints
from mainstay.domain.quantity import MICROSECONDS_PER_SECOND
from mainstay.domain.queue import Resource
from mainstay.domain.snapshot import Snapshot, WorkloadTable
from mainstay.domain.workload import Phase

MEMORY_UNIT = 1 << 20
"""Bytes: sums of what a million workloads ask for stay whole numbers."""
DENSE = 8
"""Numbers are counted in a table while that has no more rows than so many times what is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Where those who wait stand: in their queue, or in a line of their submitter below it."""

    of: Ints
    """[waiting] Row of the ledger: of the queue, or that of the line, which are numbered behind all queues."""
    queue: Ints
    """[lines] Row of the queue that it is below; ascending."""
    submitter: Ints
    """[lines]"""


def lines_of(snapshot: Snapshot, rows: Ints) -> Lines:
    """Of these workloads. O(rows), or O(n log n) where there are more submitters than rows."""
    table, tree = snapshot.workloads, snapshot.queues
    queue, many = table.queue[rows], len(snapshot.submitters)
    nobody = np.zeros(0, dtype=np.int64)
    fair = np.array([name == FAIR for name in tree.orders], dtype=np.bool_)
    if many < 3 or rows.size < 2 or not fair.any():  # One is nobody.
        return Lines(of=queue, queue=nobody, submitter=nobody)
    pairs, number = _numbered(queue * many + table.submitter[rows], most=len(tree.names) * many)
    queue_of = pairs // many
    several = fair[queue_of] & (np.bincount(queue_of, minlength=len(tree.names))[queue_of] > 1)
    line = np.where(several, len(tree.names) - 1 + np.cumsum(several), queue_of)
    return Lines(of=line[number], queue=queue_of[several], submitter=pairs[several] % many)


def with_lines(ledger: Ledger, snapshot: Snapshot, lines: Lines) -> Ledger:
    """The ledger with a row for each line behind those of the queues."""
    if not lines.queue.size:
        return ledger
    nothing = np.zeros((lines.queue.size, PARTS.size), dtype=np.int64)
    return Ledger(
        parent=np.append(ledger.parent, lines.queue),
        weight=np.append(ledger.weight, np.ones(lines.queue.size)),
        own=np.concatenate((ledger.own, nothing)),
        lendable=np.concatenate((ledger.lendable, _lendable(snapshot)[lines.queue])),
        kept=np.concatenate((ledger.kept, nothing)),
        held=np.concatenate((ledger.held, held_in(snapshot, lines))),
        past=np.concatenate((ledger.past, nothing.astype(np.float64))),
    )


def held_in(snapshot: Snapshot, lines: Lines) -> Ints:
    """[lines, resources] What the pods that have not ended hold, in the units of a ledger."""
    table, held, many = snapshot.workloads, snapshot.allocations, len(snapshot.submitters)
    found = np.zeros((lines.queue.size, PARTS.size), dtype=np.int64)
    if not held.key.size:
        return found
    rows, queue = held_rows(snapshot)
    of_line = lines.queue * many + lines.submitter
    of_pod = queue * many + table.submitter[np.searchsorted(table.key, held.workload_key[rows])]
    line = np.minimum(np.searchsorted(of_line, of_pod), of_line.size - 1)
    mine = of_line[line] == of_pod
    for number, column in enumerate((held.cpu_milli, held.memory_bytes, held.gpus)):
        np.add.at(found[:, number], line[mine], column[rows[mine]])
    return found


def in_turn(snapshot: Snapshot, rows: Ints) -> Ints:
    """These workloads, which are in the order of priority and age, in that of their turns: those of one queue and priority change
    places with each other, as the order of their queue says.
    """
    found, lines = in_order(snapshot, rows), lines_of(snapshot, rows)
    if lines.queue.size:
        at = np.flatnonzero(lines.of >= len(snapshot.queues.names))
        share = _shares_in_turn(snapshot, rows[at], lines, lines.of[at])
        found[at] = _ranked(snapshot, rows[at], FAIR, share)
    return found


def in_order(snapshot: Snapshot, rows: Ints) -> Ints:
    """The same but for those of `fair` queues, which stay where they are: as if turns were still to be taken."""
    table, orders = snapshot.workloads, np.array(snapshot.queues.orders)
    found = rows.copy()
    for name in {name for name in snapshot.queues.orders if name != FAIR}:
        at = np.flatnonzero((orders == name)[table.queue[rows]])
        found[at] = _ranked(snapshot, rows[at], name, np.zeros(at.size))
    return found


def _ranked(snapshot: Snapshot, rows: Ints, order: str, share: Floats) -> Ints:
    """By this order, but the places of a queue and priority stay theirs."""
    ranked = ORDERS[order](_contenders(snapshot, rows, share))
    members = ranked[_group(snapshot.workloads, rows[ranked]).argsort(kind="stable")]
    found = np.empty_like(rows)
    found[_group(snapshot.workloads, rows).argsort(kind="stable")] = rows[members]
    return found


def turn_words(snapshot: Snapshot, before: Ints, row: int) -> str:
    """How its queue orders what is as urgent as the workload in this row, where that is not by age alone; without a full stop.

    `before`: the rows of those that go before it. Names nobody.
    """
    table, tree = snapshot.workloads, snapshot.queues
    queue = int(table.queue[row])
    name, order = tree.names[queue], tree.orders[queue]
    if order != FAIR:
        by_age = order in {FIFO, STRICT}
        return "" if by_age else f"of what is as urgent, queue {name} chooses by its order {order}"
    here = before[(table.queue[before] == queue) & (table.priority[before] == table.priority[row])]
    mine = int(np.count_nonzero(table.submitter[here] == table.submitter[row]))
    if mine == here.size:
        return ""
    return (
        f"queue {name} takes turns between those who submit to it, by what each holds there: of the {here.size} as urgent that go"
        f" before it, {mine} are of the same submitter"
    )


def _group(table: WorkloadTable, rows: Ints) -> Ints:
    """A number for each queue and priority."""
    priority = table.priority[rows]
    least = priority.min(initial=0)
    numbers: Ints = table.queue[rows] * (priority.max(initial=0) - least + 1) + priority - least
    return numbers


def _contenders(snapshot: Snapshot, rows: Ints, share: Floats) -> Contenders:
    table = snapshot.workloads
    limit, typical = (column[rows].astype(np.float64) for column in (table.max_duration_seconds, table.typical_seconds))
    limit[limit == 0] = np.inf
    running = (table.phase[rows] == Phase.RUNNING) & (table.started_at[rows] > 0)
    run = np.where(running, snapshot.now - table.started_at[rows], 0) / MICROSECONDS_PER_SECOND
    return Contenders(
        key=table.key[rows],
        arrived_at=table.submitted_at[rows] / MICROSECONDS_PER_SECOND,
        remaining_seconds=np.maximum(np.where(typical > 0, np.minimum(typical, limit), limit) - run, 0),
        gpus=np.maximum(asked_by(snapshot, rows)[:, 2], 1),
        share=share,
    )


def _shares_in_turn(snapshot: Snapshot, rows: Ints, lines: Lines, line: Ints) -> Floats:
    """[rows] What the line of each would have if all before it in that line had their places."""
    number = line - len(snapshot.queues.names)
    by_line = number.argsort(kind="stable")
    scale = np.array([1, MEMORY_UNIT, 1], dtype=np.int64)
    asked = (asked_by(snapshot, rows) // scale)[by_line]
    number = number[by_line]
    before = asked.cumsum(axis=0) - asked
    begin = np.searchsorted(number, np.arange(lines.queue.size))
    held = held_in(snapshot, lines) // scale - before[begin]
    most = (_lendable(snapshot) / scale)[lines.queue]
    share = np.empty(rows.size)
    share[by_line] = ((before + held[number]) / most[number]).max(axis=1)
    return share


def _lendable(snapshot: Snapshot) -> Ints:
    """[queues, resources] What the queue itself could have at most; where it has no quota of a resource, all of the fleet."""
    tree, whole = snapshot.queues, whole_fleet(snapshot)
    found = np.tile(whole, (len(tree.names), 1))
    if tree.cells:
        potential = np.where(tree.defined, quota.quotas_of(tree).potential, 0)
        for column, resource in enumerate((Resource.CPU, Resource.MEMORY, Resource.GPU)):
            most = potential[:, [cell for cell, (_, one) in enumerate(tree.cells) if one == resource]].sum(axis=1)
            found[most > 0, column] = np.minimum(most[most > 0], whole[column])
    return found


def _numbered(values: Ints, *, most: int) -> tuple[Ints, Ints]:
    """The different ones of them, ascending, and the number of each; all below `most`."""
    if most > DENSE * values.size:
        found, number = np.unique(values, return_inverse=True)
        return found, number
    there: Bools = np.bincount(values, minlength=most) > 0
    return np.flatnonzero(there), (np.cumsum(there) - 1)[values]
