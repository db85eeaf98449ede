"""Whose turn it is: the order in which queues take what is free, by weighted dominant-resource fairness.

Every queue has an order of its own: higher priority first, then the older. Between queues, whoever holds the least for
its weight is next, counting what it would hold *with* its next workload (Ghodsi et al., Dominant Resource Fairness, NSDI
2011; hierarchical as in scheduling.md rows 11 and 14). What a queue has as its own does not count, only what it borrows.
Where a history is kept, what it has borrowed lately counts too (history.py): it is the same all through a cycle.

A turn changes the share of one queue and of the cohorts above it, so that is all that is worked out again.
"""

from __future__ import annotations

import numpy as np

from mainstay.decide import quota
from mainstay.decide.columns import Ledger, Waiting
from mainstay.decide.history import held_now, used_lately
from mainstay.decide.kernel import NONE
from mainstay.decide.rows import rows_of_sets
from mainstay.domain.arrays import Bools, Ints
from mainstay.domain.queue import QueueTree, Resource
from mainstay.domain.snapshot import Snapshot


def waiting_of(
    tree: QueueTree,
    rows: Ints,
    *,
    queue: Ints,
    asked: Ints,
    shape: Ints,
    long: Bools,
    priority: Ints,
    line: Ints,
    lines: Ints,
    strict: Bools,
) -> Waiting:
    """All `rows` of workloads, which are in the order of all; of each its queue, its line as `Lines.of`, what it asks for and its
    shape's number. `lines`: [lines] the queue of each, ascending. `strict`: [queues].

    Nobody has been looked up yet: `kernel.look_up_all` is next.
    """
    count = len(tree.names) + lines.size
    by_line = line.argsort(kind="stable")
    queue, line, shape = queue[by_line], line[by_line], shape[by_line]
    shapes, kind = int(shape.max(initial=-1)) + 1, shape
    if tree.cells:
        _, kind = np.unique(queue * shapes + shape, return_inverse=True)
    above = np.append(np.where(tree.parent < 0, count, tree.parent), lines)
    number = np.arange(lines.size)
    winner = len(tree.names) + np.repeat(np.searchsorted(lines, lines), 2)  # anybody, until all have been looked up
    winner[number + np.searchsorted(lines, lines, side="right")] = len(tree.names) + number
    return Waiting(
        row=rows[by_line],
        queue=queue,
        line=line,
        priority=priority[by_line],
        rank=by_line,
        asked=asked[by_line],
        shape=shape,
        kind=kind.astype(np.int64),
        long=long[by_line],
        begin=np.searchsorted(line, np.arange(count)),
        end=np.searchsorted(line, np.arange(count), side="right"),
        strict=np.append(strict, np.zeros(lines.size, dtype=np.bool_)),
        shape_failed=np.zeros(shapes, dtype=np.bool_),
        kind_failed=np.zeros(int(kind.max(initial=-1)) + 1, dtype=np.bool_),
        children=above.argsort(kind="stable"),
        first_child=np.searchsorted(np.sort(above), np.arange(count + 2)),
        head=np.full(count + 1, NONE, dtype=np.int64),
        share=np.zeros(count),
        winner=winner,
    )


def asked_by(snapshot: Snapshot, rows: Ints) -> Ints:
    """What each of these workloads asks for, all its pods together, in the resources of a ledger: [rows, resources]."""
    table = snapshot.workloads
    columns = table.cpu_milli, table.memory_bytes, table.gpus
    asked = np.stack([column[rows] * table.nodes[rows] for column in columns], axis=1)
    for at in rows_of_sets(table, rows).tolist():
        asked[at] = 0
        for one in table.sets[int(table.key[rows[at]])]:
            amounts = one.resources.cpu_milli, one.resources.memory_bytes, one.resources.gpus
            asked[at] += one.nodes * np.array(amounts, dtype=np.int64)
    return asked


def whole_fleet(snapshot: Snapshot) -> Ints:
    """All nodes together, in the resources of a ledger: CPU, memory, GPUs and slices of them. At least 1 of each."""
    nodes = snapshot.nodes
    columns = nodes.cpu_milli, nodes.memory_bytes, sum(nodes.shapes.values(), start=nodes.gpus)
    return np.maximum([column.sum() for column in columns], 1)


def ledger_of(snapshot: Snapshot) -> Ledger:
    """The queues with what is their own, what their workloads hold now, and what they have borrowed lately."""
    tree, whole = snapshot.queues, whole_fleet(snapshot)
    own, kept, lendable = _own_kept_and_lendable(tree, whole)
    ledger = Ledger(
        parent=tree.parent.copy(),
        weight=tree.weight.copy(),
        own=own,
        lendable=lendable,
        kept=kept,
        held=np.zeros_like(own),
        past=np.zeros(own.shape),
    )
    if tree.parent.size > 1:  # Alone, a queue is always next.
        ledger.held[:] = held_now(snapshot, kept=kept)
        if snapshot.history_policy.on:
            ledger.past[:] = snapshot.history_policy.weight * np.maximum(0, used_lately(snapshot, kept=kept) - own)
    return ledger


def _own_kept_and_lendable(tree: QueueTree, whole: Ints) -> tuple[Ints, Ints, Ints]:
    """Of each queue and resource of a ledger, all flavors together: its quota, what of that it keeps to itself, and the most
    that its cohort could have.

    Where there are no quotas of a resource, nothing is anybody's own, and all of the fleet could be had.
    """
    own = np.zeros((len(tree.names), whole.size), dtype=np.int64)
    kept, lendable = np.zeros_like(own), np.broadcast_to(whole, own.shape).copy()
    if tree.cells:
        quotas, inner = quota.quotas_of(tree), tree.parent >= 0
        for column, resource in enumerate((Resource.CPU, Resource.MEMORY, Resource.GPU)):
            cells = [cell for cell, (_, one) in enumerate(tree.cells) if one == resource]
            own[:, column] = quotas.subtree[:, cells].sum(axis=1)
            kept[:, column] = quotas.local[:, cells].sum(axis=1)
            cohort = np.where(inner, quotas.potential[:, cells].sum(axis=1)[tree.parent], 0)
            lendable[cohort > 0, column] = cohort[cohort > 0]
    return own, kept, lendable
